"""Parts of a report made in several processes: the same parts, in order, whatever happens to the processes."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
from made_up_runs import ADDING, CHARS, COPY, full_run

from seqbench.registry import Registry
from seqbench.report import page, parallel
from seqbench.results import Results

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone")


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a command: the test runner's own threads are not there."""
    monkeypatch.setattr(threading, "active_count", lambda: 1)


@linux
def test_in_order_from_other_processes(single: None) -> None:
    known = {n: str(n) for n in range(20)}
    found = parallel.each(lambda n: (known[n], os.getpid()), 20, 2)
    assert [text for text, _ in found] == list(known.values())
    assert os.getpid() not in {process for _, process in found}


@pytest.mark.parametrize(("threads", "workers"), [(1, 1), (2, 2)])
def test_here_where_it_need_not_or_must_not_fork(threads: int, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: threads)
    assert parallel.each(lambda n: (n, os.getpid()), 2, workers) == [(0, os.getpid()), (1, os.getpid())]


@linux
def test_a_process_that_is_ended_loses_nothing(single: None) -> None:
    here = os.getpid()

    def make(n: int) -> int:
        if n == 1 and os.getpid() != here:
            os._exit(3)
        return n

    assert parallel.each(make, 3, 2) == [0, 1, 2]


@linux
def test_an_error_comes_through(single: None) -> None:
    with pytest.raises(ZeroDivisionError):
        parallel.each(lambda n: 1 // n, 2, 2)


@linux
def test_a_report_has_the_same_bytes(tmp_path: Path, single: None, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = full_run(tmp_path, (COPY, ADDING, CHARS), ("lstm", "gru"), 2)
    alone = Results(folder, Registry()).write_report().read_bytes()
    asked: list[int] = []
    each = parallel.each
    monkeypatch.setattr(page, "each", lambda make, count, workers: asked.append(workers) or each(make, count, workers))
    monkeypatch.setattr(page, "usable_cores", lambda: 2)
    monkeypatch.setattr(page, "LARGE", 6)
    assert Results(folder, Registry()).write_report().read_bytes() == alone
    monkeypatch.setattr(page, "LARGE", 7)
    Results(folder, Registry()).write_report()
    assert asked == [2, 1]
