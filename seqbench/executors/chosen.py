"""The executor that a run asks for; what a stranger's raises is said to be its own."""

from __future__ import annotations

from collections.abc import Sequence

from seqbench import registry
from seqbench.api import Executor, Observer
from seqbench.errors import PluginError, SeqbenchError, one_line
from seqbench.process import Limits
from seqbench.registry import Registry
from seqbench.spec import Trial
from seqbench.store import RunFolder


def chosen(name: str, cards: Registry) -> Executor:
    """The executor of that name, imported.

    Raises:
        UnknownName: no plugin registers it.
        PluginError: it cannot be imported, or, when it is called, it raises what is not an error of ours.
    """
    card = cards.executor(name)
    whose = f"executor {name!r} of {cards.origin['executor', name]}"
    try:
        execute: Executor = registry.resolve(card.factory)
    except PluginError as error:
        raise PluginError(f"{whose}: {error}") from error

    def guarded(trials: Sequence[Trial], folder: RunFolder, jobs: int, limits: Limits, observer: Observer) -> None:
        try:
            execute(trials, folder, jobs, limits, observer)
        except (SeqbenchError, OSError):  # the command line knows what to say
            raise
        except Exception as error:
            safe = f"finished trials are safe, go on with: seqbench run --resume {folder.path}"
            raise PluginError(f"{whose} failed: {one_line(error)}; {safe}") from error

    return guarded
