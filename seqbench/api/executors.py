"""Executors: what runs the trials of a run, what it tells, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from seqbench.api.checks import check_card

if TYPE_CHECKING:
    from seqbench.process import Limits
    from seqbench.spec import Trial
    from seqbench.store import RunFolder


class Observer(Protocol):
    """Is told what happens; from several threads, one at a time. A context manager around the whole run."""

    def __enter__(self) -> Observer:
        """The run begins."""

    def __exit__(self, *error: Any) -> None:
        """The run has ended, well or not."""

    def started(self, trial: Trial) -> None:
        """The trial's process is about to start."""

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        """The trial's record is written."""


class Executor(Protocol):
    """Runs trials: calls ``seqbench.executors.run_trial_supervised`` for each, wherever and in whatever order."""

    def __call__(
        self, trials: Sequence[Trial], folder: RunFolder, jobs: int, limits: Limits, observer: Observer
    ) -> None:
        """Run all trials that have no record yet.

        An interrupt (Ctrl-C) must end what is running and go on as KeyboardInterrupt; finished trials are safe.

        Args:
            trials: in the order in which they should start.
            folder: of the run; records, logs and arrays go there. It can be pickled.
            jobs: trials that should run at a time.
            limits: of time and memory, for ``run_trial_supervised``.
            observer: to be told of each trial, when it starts and when it has ended; it is entered already.
        """


@dataclass(frozen=True)
class ExecutorCard:
    """The card of an executor.

    Attributes:
        name: lower case, words joined by ``-``; what ``--executor`` takes.
        summary: one sentence.
        factory: ``"package.module:function"``, called as ``function(trials, folder, jobs, limits, observer) -> None``
            (``Executor``); imported before the first trial. It should need no torch.
        api: the ``API_VERSION`` that the card was written for; empty: not stated.
    """

    name: str
    summary: str
    factory: str
    api: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        check_card("executor", self)
