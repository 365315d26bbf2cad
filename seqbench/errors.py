"""The errors of seqbench.

Every error says what was wrong, what was expected and what to do next, in one line.

::

    SeqbenchError
    ├── UsageError            the user asked for something that cannot be done: exit code 2
    │   ├── UnknownName       no such model, task, dataset, option ("did you mean ...?")
    │   └── SpecError         a spec file or an option string cannot be read
    ├── PluginError           a plugin is broken: reported, never fatal (exit code 2 under --strict-plugins)
    ├── DataError             a data file is missing, damaged or cannot be fetched: exit code 2
    ├── Refused               a model does not declare what a task needs: a row with this reason
    └── Diverged              a loss or score of a trial is not finite: a row with the step
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SeqbenchError(Exception):
    """Anything that seqbench raises on purpose."""


class UsageError(SeqbenchError):
    """The user asked for something that cannot be done."""


class UnknownName(UsageError):
    """A name that nothing answers to; the message lists what exists and the nearest match."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        listed = f" Known: {', '.join(self.known)}." if self.known else " There is none."
        super().__init__(f"There is no {kind} {name!r}.{guess}{listed}{' ' + hint if hint else ''}")


class SpecError(UsageError):
    """A spec file or an option string cannot be read."""


class PluginError(SeqbenchError):
    """A plugin does not keep to the interface."""


class DataError(SeqbenchError):
    """A data file is missing, damaged or cannot be fetched."""


class Refused(SeqbenchError):
    """A model does not declare what a task needs of it."""


class Diverged(SeqbenchError):
    """A loss or a score is no longer a finite number; ``step`` is that of the loss, None for a score."""

    def __init__(self, step: int | None, message: str) -> None:
        self.step = step
        super().__init__(message)


def one_line(error: BaseException) -> str:
    """``ValueError: no such thing``: kind and message of an error that is not ours, without line ends."""
    return " ".join(f"{type(error).__name__}: {error}".split())
