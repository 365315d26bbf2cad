"""Training events into TensorBoard's event files, while they happen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqbench.api import Listener, TrialStart
from seqbench_tensorboard.event_file import EventFile


class TensorBoard(Listener):
    """``train/loss``, ``train/lr``, ..., each validation metric under ``valid/`` and, at the end, ``test/``."""

    def __init__(self, start: TrialStart) -> None:
        self._file = EventFile(start.folder)
        self._file.trial(start.trial)

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """A point in each curve of training."""
        self._file.scalars("train", values, step)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """A point in the curve of each metric."""
        self._file.scalars("valid", metrics, step)
        self._file.flush()

    def finished(self, record: Mapping[str, Any]) -> None:
        """The test, if it came to that."""
        self._file.scalars("test", record.get("metrics", {}).get("test", {}), record.get("steps", 0))
        self._file.close()
