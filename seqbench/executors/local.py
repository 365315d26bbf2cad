"""Trials on this machine, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from seqbench.api import Observer
from seqbench.executors.supervise import run_trial_supervised
from seqbench.process import Limits
from seqbench.spec import Trial
from seqbench.store import RunFolder
from seqbench.workers import run_in_threads


class Silent:
    """An observer that does nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: Any) -> None:
        """Nothing to put away."""

    def started(self, trial: Trial) -> None:
        """Nothing."""

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        """Nothing."""


def run_local(trials: Sequence[Trial], folder: RunFolder, jobs: int, limits: Limits, observer: Observer) -> None:
    """Run all trials that have no record yet, ``jobs`` at a time, in their order.

    An interrupt (Ctrl-C) kills the running ones and goes on as KeyboardInterrupt; finished ones are safe.
    """
    lock = threading.Lock()

    def one(trial: Trial, stop: threading.Event) -> None:
        with lock:
            observer.started(trial)
        record = run_trial_supervised(trial, folder, limits, stop)
        if record is not None:
            with lock:
                observer.finished(trial, record)

    run_in_threads(one, [trial for trial in trials if folder.record(trial.id) is None], jobs)
