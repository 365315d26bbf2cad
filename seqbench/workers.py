"""Threads that each wait for a child process, and an interrupt (Ctrl-C) that ends them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from seqbench.process import POLL

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_in_threads(
    work: Callable[[Item, threading.Event], Result],
    items: Iterable[Item],
    count: int,
    tell: Callable[[Result], object] = lambda _: None,
) -> None:
    """``work(item, stop)`` for each item, ``count`` at a time; ``tell`` gets the results in the order of the items.

    An interrupt, or what ``work`` or ``tell`` raises, is heard in the caller's thread: those not begun by then never
    are, ``stop`` is set, at which those at work must end soon, and it is raised when they have.
    """
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, count), thread_name_prefix="seqbench-worker") as pool:
        try:
            for future in [pool.submit(work, item, stop) for item in items]:
                while not wait([future], POLL).done:
                    continue  # an interrupt that came just before a wait, or to another thread, does not end the wait
                tell(future.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop.set()
            raise
