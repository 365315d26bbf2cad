"""Independent parts of a report in several processes: drawing takes most of the time of a large one."""

from __future__ import annotations

import multiprocessing
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

Part = TypeVar("Part")
_make: Callable[[int], Any] | None = None
"""What the forked processes call: they find it here, since it, and the run that it knows, cannot be pickled."""


def each(make: Callable[[int], Part], count: int, workers: int) -> list[Part]:
    """``[make(0), make(1), ...]``, from copies of this process, or here where it cannot be copied safely.

    Args:
        make: its answers can be pickled; what it changes is lost.
        count: how often.
        workers: processes; 1: none but this one.
    """
    global _make
    workers = min(workers, count)
    if workers < 2 or not _may_fork():
        return [make(place) for place in range(count)]
    _make = make
    try:
        with warnings.catch_warnings():  # Python 3.12 counts numpy's threads too, which may be forked
            warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
            with ProcessPoolExecutor(workers, multiprocessing.get_context("fork")) as pool:
                return list(pool.map(_call, range(count)))
    except BrokenProcessPool:  # the system, or a plugin's section, has ended one
        return [make(place) for place in range(count)]
    finally:
        _make = None


def _may_fork() -> bool:
    """Other threads of Python (of a notebook, say) might hold a lock that a copy would wait for forever."""
    return sys.platform == "linux" and threading.active_count() == 1


def _call(place: int) -> Any:
    assert _make is not None
    return _make(place)
