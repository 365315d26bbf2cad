"""The memory that children may take: a limit for each, and for all together what the machine needs to live."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import ClassVar

import psutil

RESERVE = 0.05
"""The share of the machine's memory that is left alone: where less is left, the largest child is killed."""

_MIB = 2**20


class Gauge:
    """Watches the memory of one child, from its start until it is closed.

    What counts is resident memory: address space, which the system could limit by itself, says nothing where CUDA or
    large files are mapped, and macOS does not limit it.

    Args:
        pid: of the child.
        mib: what its process may have resident, torch's own libraries included; 0: no limit of its own.
    """

    _alive: ClassVar[set[int]] = set()
    _dying: ClassVar[set[int]] = set()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, pid: int, mib: int = 0) -> None:
        self._pid, self._mib = pid, mib
        with self._lock:
            self._alive.add(pid)

    def close(self) -> None:
        """The child has ended: its memory is the machine's again."""
        with self._lock:
            self._alive.discard(self._pid)
            self._dying.discard(self._pid)

    def too_much(self) -> str:
        """Why the child must be killed; empty while all is well."""
        if self._mib and _resident(self._pid) > self._mib * _MIB:
            return f"its process took more than the {self._mib:,} MiB of --memory; raise it, or lower --batch"
        if short_of_memory() and self._is_to_die():
            return (
                f"less than {RESERVE:.0%} of the machine's memory was left, and this was the largest process of the "
                f"run; lower --batch or --jobs"
            )
        return ""

    def _is_to_die(self) -> bool:
        """Whether it is the largest; none is while another one dies, for its memory is about to be free."""
        with self._lock:
            largest = max(self._alive, key=_resident_with_descendants, default=None)
            if self._dying or largest != self._pid:
                return False
            self._dying.add(self._pid)
            return True


def short_of_memory() -> bool:
    """Whether the machine has less than the reserve to give."""
    memory = psutil.virtual_memory()
    return bool(memory.available < RESERVE * memory.total)


def _resident(pid: int) -> int:
    """Bytes; 0 of a process that has ended."""
    with suppress(psutil.Error):
        return int(psutil.Process(pid).memory_info().rss)
    return 0


def _resident_with_descendants(pid: int) -> int:
    with suppress(psutil.Error):
        return _resident(pid) + sum(_resident(child.pid) for child in psutil.Process(pid).children(recursive=True))
    return 0
