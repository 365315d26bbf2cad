"""The memory of children: who takes too much is found, and one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import SimpleNamespace

import psutil
import pytest

from seqbench import memory
from seqbench.memory import Gauge


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[int, int]]:
    """``sizes[pid] = bytes`` of made-up processes."""
    found: dict[int, int] = {}
    monkeypatch.setattr(memory, "_resident", lambda pid: found.get(pid, 0))
    monkeypatch.setattr(memory, "_resident_with_descendants", lambda pid: found.get(pid, 0))
    yield found
    assert not Gauge._alive
    assert not Gauge._dying


def test_a_process_has_a_size_and_one_that_is_gone_has_none() -> None:
    own = memory._resident(os.getpid())
    assert own == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)
    assert memory._resident_with_descendants(os.getpid()) >= own * 0.9
    assert memory._resident(2**22 + 1) == memory._resident_with_descendants(2**22 + 1) == 0


def test_a_limit_of_its_own(sizes: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "short_of_memory", lambda: False)
    limited, free = Gauge(1, 100), Gauge(2)
    sizes.update({1: 100 * 2**20, 2: 10**12})
    assert limited.too_much() == free.too_much() == ""
    sizes[1] += 1
    assert limited.too_much() == "its process took more than the 100 MiB of --memory; raise it, or lower --batch"
    limited.close()
    free.close()


def test_where_memory_is_short_the_largest_dies_and_no_other_until_it_is_gone(
    sizes: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = [False]
    monkeypatch.setattr(memory, "short_of_memory", lambda: short[0])
    small, large, middle = Gauge(1), Gauge(2), Gauge(3)
    sizes.update({1: 10, 2: 30, 3: 20})
    assert [gauge.too_much() for gauge in (small, large, middle)] == ["", "", ""]
    short[0] = True
    assert (small.too_much(), middle.too_much()) == ("", "")
    assert "less than 5% of the machine's memory was left, and this was the largest" in large.too_much()
    sizes[2] = 0  # it is dying, its memory is not free yet
    assert (small.too_much(), middle.too_much()) == ("", "")
    large.close()
    assert small.too_much() == ""
    assert "the largest" in middle.too_much()
    middle.close()
    small.close()


@pytest.mark.parametrize(("available", "short"), [(4, True), (6, False)])
def test_when_memory_is_short(monkeypatch: pytest.MonkeyPatch, available: int, short: bool) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=available, total=100))
    assert memory.short_of_memory() is short
