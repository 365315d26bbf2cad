"""Sizes from children: ours from one, strangers' from others, and who kills his child is alone with that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seqbench import apart
from seqbench.apart import sizes_of
from seqbench.errors import SeqbenchError, UsageError
from seqbench.plan import Answer, Row, Sized, rows_of
from seqbench.process import Limits, Outcome
from seqbench.registry import Registry
from seqbench.spec import RunSpec

SPEC = RunSpec(task=("copy",), model=("rnn", "gru", "lstm", "janet"), timeout=30, memory=700)
Asked = list[list[str]]


@pytest.fixture
def rows(cards: Registry) -> list[Row]:
    """One of ours, two of a stranger, one of another on a task of a third."""
    ours, *strangers = rows_of(SPEC, cards)
    sources = [{"model": "acme:plug"}, {"model": "acme:plug"}, {"model": "zeta:plug", "task": "eta:plug"}]
    first, *others = [replace(row, sources=of) for row, of in zip(strangers, sources, strict=True)]
    return [first, ours, *others]


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """``children(gru=Outcome("timeout"))``: a child that is asked for this model ends so; gives what each was asked"""

    def plan(**ends: Outcome) -> Asked:
        asked: Asked = []

        def fake(function: str, arguments: tuple[Any, ...], log: Path, limits: Limits) -> Outcome:
            part: Sequence[Row] = arguments[0]
            assert (function, arguments[1:]) == ("m:f", ((), None, "auto", 64))
            assert limits == Limits(30, 700)
            asked.append([row.model for row in part])
            log.write_text(f"log of {asked[-1]}", encoding="utf-8")
            died = next((ends[row.model] for row in part if row.model in ends), None)
            sizes = tuple(Sized(width=len(row.model)) for row in part)
            return died or Outcome("returned", Answer("", "cpu", sizes, {"torch": "2"}), 0)

        monkeypatch.setattr(apart, "run_in_child", fake)
        return asked

    return plan


def test_each_stranger_has_a_child_of_his_own_and_sizes_come_in_the_order_of_rows(
    rows: list[Row], children: Callable[..., Asked]
) -> None:
    asked = children()
    sizes, answers = sizes_of("m:f", rows, SPEC, 64)
    assert asked == [["rnn"], ["gru", "lstm"], ["janet"]]
    assert [size.width for size in sizes] == [3, 3, 4, 5]
    assert len(answers) == 3
    assert answers[0].device == "cpu"


@pytest.mark.parametrize(
    ("end", "status", "cause"),
    [
        (Outcome("died", None, 7), "error", "the process left with exit code 7 before its end; see the log"),
        (Outcome("timeout"), "timeout", "its size was not found within 30 s: the constructor of its core, or its task"),
        (Outcome("memory", cause="too much"), "out_of_memory", "killed: too much"),
    ],
)
def test_who_kills_a_child_is_found_among_his_own(
    rows: list[Row], children: Callable[..., Asked], end: Outcome, status: str, cause: str
) -> None:
    asked = children(lstm=end)
    sizes, _ = sizes_of("m:f", rows, SPEC, 64)
    assert asked == [["rnn"], ["gru", "lstm"], ["gru"], ["lstm"], ["janet"]]
    assert [size.width for size in sizes] == [3, 3, 0, 5]
    blocked = sizes[2].blocked
    assert blocked is not None
    assert (blocked["status"], blocked["cause"][: len(cause)]) == (status, cause)
    assert blocked["log_tail"] == "log of ['lstm']"
    assert all(size.blocked is None for place, size in enumerate(sizes) if place != 2)


def test_a_death_of_our_own_child_ends_the_plan(rows: list[Row], children: Callable[..., Asked]) -> None:
    children(rnn=Outcome("died", None, -9))
    with pytest.raises(SeqbenchError, match=r"Sizing the models failed \(died, exit code -9\):\nlog of \['rnn'\]"):
        sizes_of("m:f", rows, SPEC, 64)
    children(rnn=Outcome("memory", cause="too much"))
    with pytest.raises(SeqbenchError, match=r"Sizing the models failed \(too much\)"):
        sizes_of("m:f", rows, SPEC, 64)


def test_what_the_user_can_mend_ends_the_plan(rows: list[Row], children: Callable[..., Asked]) -> None:
    children(janet=Outcome("returned", Answer(error="no data"), 0))
    with pytest.raises(UsageError, match="no data"):
        sizes_of("m:f", rows, SPEC, 64)
