"""The speed phases that lie in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqbench.frame import look_up
from seqbench.report.speeds.columns import seconds, with_figures

FOLDER = "speed"
"""In the run's folder; each phase has a folder of its own in it, whose name begins with the time."""


def stored_speeds(run: Path) -> dict[str, Mapping[str, Any]]:
    """Of each task, by its label, the newest phase that was measured to its end, else the newest of all.

    Each as ``speed.json`` holds it, with figures made anew of its samples.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted((run / FOLDER).glob("*/speed.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        before = found.get(str(data["task"]))
        if before is None or data["complete"] or not before["complete"]:
            found[str(data["task"])] = data
    return {task: {**data, "rows": with_figures(data["rows"])} for task, data in found.items()}


def longest_of(form: Mapping[str, Any]) -> int:
    """The longest sequence of training, on either side, of a form as a record holds it."""
    return int(max(form["length"], look_up(form, "decoder", "length") or 0))


def latencies(phase: Mapping[str, Any], label: str, backend: str, trained: int | None) -> dict[str, float]:
    """Seconds of a call at batch 1, of one step for ``step``, by operation; of what was measured well.

    All models are told at the same length: the one of training, or, where the phase does not have it, its longest.

    Args:
        phase: as ``speed.json`` holds it.
        label: of the model.
        backend: its backend.
        trained: the longest sequence of training.
    """
    single = [row for row in phase["rows"] if row["batch"] == 1]
    told_at: dict[str, int] = {}
    for operation in dict.fromkeys(row["operation"] for row in single):
        lengths = {row["length"] for row in single if row["operation"] == operation}
        told_at[operation] = max(lengths) if trained is None or trained not in lengths else trained
    own = [row for row in single if (row["label"], row["backend"], row["status"]) == (label, backend, "ok")]
    return {row["operation"]: seconds(row) for row in own if row["length"] == told_at[row["operation"]]}
