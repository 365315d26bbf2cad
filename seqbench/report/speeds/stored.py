"""The speed phases that lie in a run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqbench.report.speeds.columns import seconds

FOLDER = "speed"
"""In the run's folder; each phase has a folder of its own in it, whose name begins with the time."""


def stored_speeds(run: Path) -> dict[str, Mapping[str, Any]]:
    """The newest phase of each task, as ``speed.json`` holds it, by the task's label."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted((run / FOLDER).glob("*/speed.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        found[str(data["task"])] = data
    return found


def latencies(phase: Mapping[str, Any], label: str, backend: str) -> dict[str, float]:
    """Seconds of a call at batch 1, of one step for ``step``, by operation; on the longest sequences measured.

    Args:
        phase: as ``speed.json`` holds it.
        label: of the model.
        backend: its backend.
    """
    rows = [row for row in phase["rows"] if (row["label"], row["backend"], row["batch"]) == (label, backend, 1)]
    rows = [row for row in rows if row["status"] == "ok"]
    return {row["operation"]: seconds(row) for row in sorted(rows, key=lambda row: row["length"])}
