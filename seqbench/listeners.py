"""The listeners of one trial: made, told, and put away where they fail, so that no number depends on them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seqbench import registry
from seqbench.api import Listener, PluginError, TrialStart
from seqbench.errors import UsageError, one_line
from seqbench.registry import Registry
from seqbench.spec import Trial, trial_to_dict
from seqbench.store import RunFolder, strict


def check(names: Sequence[str], plugins: Sequence[str]) -> str:
    """Import what makes these listeners; why that cannot be done, or "". In a child process: it may load torch."""
    try:
        cards = registry.load(plugins)
        for name in names:
            card = cards.listener(name)
            with _blamed(f"listener {name!r} of {cards.origin['listener', name]}"):
                registry.resolve(card.factory)
    except UsageError as error:
        return str(error)
    return ""


@contextmanager
def _blamed(whose: str) -> Iterator[None]:
    """What a stranger's code raises as a UsageError that says whose it is; one of its own says enough."""
    try:
        yield
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        said = str(error) if isinstance(error, PluginError) else one_line(error)
        raise UsageError(f"{whose} cannot be had: {said}; leave it out of --events") from error


class Listeners:
    """Those of a trial. The first fault of one is its last: it is told nothing more, and ``faults`` says why."""

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        self._there: dict[str, Listener] = {}
        self._origin: dict[str, str] = {}
        self.faults: list[str] = []

    def start(self, cards: Registry, trial: Trial, steps: int, folder: RunFolder) -> None:
        """Make those that the trial names: its training is about to begin."""
        for name in trial.events:
            self._origin[name] = str(cards.origin.get(("listener", name), "no plugin that is installed"))
            with self._contained(name, "start"):
                self._there[name] = _made(cards, name, _start_of(trial, steps, folder.listener_folder(name, trial.id)))

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """Tell all."""
        for name, listener in list(self._there.items()):
            with self._contained(name, f"step {step}"):
                listener.trained(step, dict(values))

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tell all."""
        for name, listener in list(self._there.items()):
            with self._contained(name, f"the validation after step {step}"):
                listener.validated(step, dict(metrics))

    def finished(self, record: Mapping[str, Any]) -> None:
        """Tell all."""
        for name, listener in list(self._there.items()):
            with self._contained(name, "the end"):
                listener.finished(strict(record))

    @contextmanager
    def _contained(self, name: str, when: str) -> Iterator[None]:
        """What goes wrong is noted; torch's random numbers go on as if nothing had been."""
        try:
            with torch.random.fork_rng([torch.cuda.current_device()] if self._cuda else []):
                yield
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
            traceback.print_exception(error)  # into the trial's log
            self._there.pop(name, None)
            whose = f"listener {name!r} of {self._origin[name]}"
            self.faults.append(f"warning: {whose} was dropped at {when}: {one_line(error)}")


def _start_of(trial: Trial, steps: int, folder: Path) -> TrialStart:
    return TrialStart(
        id=trial.id,
        task_label=trial.task_label,
        label=trial.label,
        backend=trial.backend,
        seed=trial.seed,
        steps=steps,
        trial=trial_to_dict(trial),
        folder=folder,
    )


def _made(cards: Registry, name: str, start: TrialStart) -> Listener:
    listener = registry.resolve(cards.listener(name).factory)(start)
    if not isinstance(listener, Listener):
        raise PluginError(f"expected a seqbench.api.Listener, got {type(listener).__name__}")
    return listener
