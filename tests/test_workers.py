"""Work in threads: results in order, so many at a time, and an interrupt that ends all of it wherever it arrives."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from seqbench import check
from seqbench.process import Limits, Outcome
from seqbench.registry import Registry
from seqbench.workers import run_in_threads

LONG = 30.0
"""Seconds that nothing here takes unless what it tests is broken."""


def test_results_come_in_the_order_of_the_items() -> None:
    second = threading.Event()

    def work(item: int, stop: threading.Event) -> int:
        assert item != 0 or second.wait(LONG)
        second.set()
        return item

    told: list[int] = []
    run_in_threads(work, range(5), 2, told.append)
    assert told == [0, 1, 2, 3, 4]


def test_no_more_at_a_time_than_asked_for() -> None:
    lock, at_work, most = threading.Lock(), 0, 0

    def work(item: int, stop: threading.Event) -> None:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.01)
        with lock:
            at_work -= 1

    run_in_threads(work, range(12), 3)
    assert most <= 3


def test_an_error_stops_those_at_work_and_the_rest_is_not_begun() -> None:
    stopped = []

    def work(item: int, stop: threading.Event) -> None:
        if item == 0:
            raise ValueError("a planted fault")
        stopped.append(stop.wait(LONG))

    with pytest.raises(ValueError, match="a planted fault"):
        run_in_threads(work, range(20), 2)
    assert all(stopped)
    assert len(stopped) <= 2


@pytest.mark.skipif(os.name != "posix", reason="signals to a thread")
@pytest.mark.parametrize("items", [1, 3])
def test_an_interrupt_that_does_not_wake_the_main_thread_is_seen(items: int) -> None:
    """One that comes just before the wait begins does not; sent to another thread, it never does."""
    stopped = []

    def work(item: int, stop: threading.Event) -> None:
        if item == 0:
            time.sleep(0.3)  # until the main thread waits
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        stopped.append(stop.wait(LONG))

    with pytest.raises(KeyboardInterrupt):
        run_in_threads(work, range(items), 2)
    assert stopped == [True] * min(items, 2)


@pytest.mark.skipif(os.name != "posix", reason="signals to a thread")
def test_an_interrupt_of_a_check_does_not_wait_for_its_proofs(cards: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = []

    def child(_function: str, _arguments: Any, _log: Path, _limits: Limits, stop: threading.Event) -> Outcome:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        stopped.append(stop.wait(LONG))
        return Outcome("stopped")

    monkeypatch.setattr(check, "run_in_child", child)
    with pytest.raises(KeyboardInterrupt):
        check.check(check.Request(["gru"], ["torch"]), cards, lambda _: None)
    assert stopped == [True]
