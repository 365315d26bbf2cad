"""Event files from stored records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from seqbench.store import RunFolder
from seqbench_tensorboard.event_file import EventFile


def write_run(run: RunFolder) -> tuple[Path, int]:
    """The event files of all trials that have a learning curve and no event file yet.

    Returns:
        The folder that holds one folder a trial, and how many trials were written.
    """
    target = run.path / "events" / "tensorboard"
    began = datetime.fromisoformat(run.run()["created"]).timestamp()
    written = 0
    for trial in run.trials():
        record = run.record(trial.id)
        if record and record.get("curve") and not (target / trial.id).exists():
            half = target / f".{trial.id}.tmp"
            shutil.rmtree(half, ignore_errors=True)
            write_record(half, record, began)
            half.rename(target / trial.id)  # whole, or not there
            written += 1
    return target, written


def write_record(folder: Path, record: Mapping[str, Any], began: float) -> None:
    """One trial; the clock of its points is ``began`` and the seconds of training."""
    file = EventFile(folder)
    file.trial(record["trial"])
    for group, columns in record["curve"].items():
        for point in _rows(columns):
            step, seconds = point.pop("step"), point["seconds"]
            if group != "train":
                del point["seconds"]
            file.scalars(group, point, int(step), began + seconds)
    file.scalars("test", record.get("metrics", {}).get("test", {}), record.get("steps", 0))
    file.close()


def _rows(columns: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Columns of equal length as rows."""
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))
