"""Trials on this machine, several at a time."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from seqbench.api import Observer
from seqbench.executors.supervise import run_trial_supervised
from seqbench.process import Limits
from seqbench.spec import Trial
from seqbench.store import RunFolder


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
    stop, lock = threading.Event(), threading.Lock()

    def one(trial: Trial) -> None:
        if stop.is_set():
            return
        with lock:
            observer.started(trial)
        record = run_trial_supervised(trial, folder, limits, stop)
        if record is not None:
            with lock:
                observer.finished(trial, record)

    waiting = [trial for trial in trials if folder.record(trial.id) is None]
    with ThreadPoolExecutor(max(1, jobs), thread_name_prefix="seqbench-trial") as pool:
        try:
            for future in [pool.submit(one, trial) for trial in waiting]:
                future.result()
        except BaseException:
            stop.set()
            raise
