"""Sizes of rows from child processes that import torch: ours from one, those of each stranger from another."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seqbench.errors import SeqbenchError, UsageError
from seqbench.executors.supervise import death, tail
from seqbench.plan import Answer, Row, Sized
from seqbench.process import Limits, Outcome, run_in_child
from seqbench.spec import RunSpec

LONGEST = 600.0
"""Seconds that sizing may take; less where a trial may not take so long."""

Ask = Callable[[Sequence[Row]], "_Said"]


@dataclass(frozen=True)
class _Said:
    """How a child ended that was asked for some sizes, and the end of what it printed."""

    rows: Sequence[Row]
    outcome: Outcome
    log: str

    @property
    def answer(self) -> Answer | None:
        """What it answered, if it did.

        Raises:
            UsageError: it says that the run cannot start.
        """
        if self.outcome.kind != "returned":
            return None
        answer: Answer = self.outcome.answer
        if answer.error:
            raise UsageError(answer.error)
        return answer


def sizes_of(function: str, rows: Sequence[Row], spec: RunSpec, *more: Any) -> tuple[tuple[Sized, ...], list[Answer]]:
    """The sizes of rows. What a stranger's code does to torch, or to the process, reaches its own rows alone.

    Args:
        function: ``"module:name"``; called in each child with some rows, the plugin files, the folder of data, the
            device and ``more``. It gives an ``Answer`` with a size for each of these rows.
        rows: of the whole plan.
        spec: of the run.
        more: see ``function``.

    Returns:
        A size for each row, and the answers of the children that gave one; the first is about our own rows.

    Raises:
        UsageError: the device is not there, a task's data are not, or a budget is not enough.
        SeqbenchError: the child of our own rows died.
    """
    limits = Limits(min(LONGEST, spec.timeout), spec.memory)

    def ask(part: Sequence[Row]) -> _Said:
        return _ask(function, (part, spec.plugin, spec.data_dir, spec.device, *more), limits)

    ours = ask([row for row in rows if not row.sources])
    answer = ours.answer
    if answer is None:
        how = ours.outcome.cause or f"{ours.outcome.kind}, exit code {ours.outcome.exitcode}"
        raise SeqbenchError(f"Sizing the models failed ({how}):\n{ours.log[-2000:]}")
    answers, found = [answer], dict(zip(map(id, ours.rows), answer.sizes, strict=True))
    for group in _groups(rows):
        for said in _asked_until_it_is_clear(group, ask):
            if (answer := said.answer) is None:
                blocked = {**_end(said.outcome, limits), "log_tail": said.log}
                found |= {id(row): Sized(blocked=blocked) for row in said.rows}
            else:
                answers.append(answer)
                found |= dict(zip(map(id, said.rows), answer.sizes, strict=True))
    return tuple(found[id(row)] for row in rows), answers


def _groups(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows with strangers' cards, those of the same strangers together."""
    groups: dict[tuple[tuple[str, str], ...], list[Row]] = {}
    for row in rows:
        if row.sources:
            groups.setdefault(tuple(sorted(row.sources.items())), []).append(row)
    return list(groups.values())


def _asked_until_it_is_clear(group: Sequence[Row], ask: Ask) -> list[_Said]:
    """What is said of a group; where its child died, of each row by itself, so that only the one at fault suffers."""
    said = ask(group)
    return [said] if said.answer is not None or len(group) == 1 else [ask([row]) for row in group]


def _ask(function: str, arguments: tuple[Any, ...], limits: Limits) -> _Said:
    with tempfile.TemporaryDirectory(prefix="seqbench-") as scratch:
        log = Path(scratch) / "sizing.log"
        outcome = run_in_child(function, arguments, log, limits)
        return _Said(arguments[0], outcome, tail(log))


def _end(outcome: Outcome, limits: Limits) -> dict[str, Any]:
    """Status and cause of rows whose child died."""
    if outcome.kind == "timeout":
        cause = f"its size was not found within {limits.seconds:g} s: the constructor of its core, or its task, hangs"
        return {"status": "timeout", "cause": cause}
    return death(outcome, limits.seconds)
