"""Listeners to training events: what they are told, and their card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqbench.api.checks import check_card

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class TrialStart:
    """A trial whose training is about to begin, as a listener sees it.

    Attributes:
        id: unique in the run; a file name.
        task_label: the task with its options and dataset, ``"copy[T=100]/embedded"``.
        label: the model as the table names it, ``"lstm[forget_bias=1]"``.
        backend: its name.
        seed: the trial's seed.
        steps: of training, as planned.
        trial: all that its record says of it, options, sizes, schedule and device among them: plain data.
        folder: of its own for this listener, empty, below the run's folder.
    """

    id: str
    task_label: str
    label: str
    backend: str
    seed: int
    steps: int
    trial: Mapping[str, Any]
    folder: Path


class Listener:
    """Is told what happens in a trial, in the trial's own process; what a subclass leaves out does nothing.

    Nothing that a listener does may change a number: it gets copies, torch's random state is restored after each call,
    and the time that a call takes is not counted as training. One that raises is told nothing more, the record says
    so, and the training goes on. When a trial is killed (a limit, an interrupt), ``finished`` is not called.
    """

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """Training has come to ``step``; told where the losses are read off the device, some 200 times in a trial.

        Args:
            step: how many training steps have been made.
            values: ``loss`` (the mean since the last call), ``lr`` and ``gradient_norm`` (of this step, before the
                gradient was clipped), ``seconds`` (of training alone, so far).
        """

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """The network was validated after ``step``; ``metrics`` are all those of the task, some of them nan."""

    def finished(self, record: Mapping[str, Any]) -> None:
        """The trial has ended, well (``record["status"] == "ok"``) or not; the record is about to be stored.

        Args:
            record: plain data, as it will stand in the file; what is not a number is None.
        """


@dataclass(frozen=True)
class ListenerCard:
    """The card of a listener to training events.

    Attributes:
        name: lower case, words joined by ``-``; what ``--events`` takes.
        summary: one sentence.
        factory: ``"package.module:Class"``, called as ``Class(start: TrialStart) -> Listener`` when the training of a
            trial is about to begin. It is imported before the first trial; where something that it needs is not
            installed, let the import raise ``UsageError`` with what to do.
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
        check_card("listener", self)
