"""Memory that is used again: what one forward pass keeps, the next step's can have once the backward pass is through.

Given back to the system and taken anew, each 4 KiB of it would cost a page fault: 1.8 µs here, and with some 1,000 of
them in a step of 4 ms, a third of its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqbench.backends.kernels.gemm import CACHE_LINE

Array = Any


class Rooms:
    """Flat arrays that nobody uses at the moment; never more of them than were in use at one time."""

    def __init__(self) -> None:
        self._free: list[Array] = []

    def take(self, count: int, dtype: Any) -> Array:
        """At least ``count`` elements, from a cache line on: the smallest that will do, else a new one.

        A new one takes the place of the largest free one, which was too small.
        """
        fitting = [n for n, room in enumerate(self._free) if room.dtype == dtype and room.size >= count]
        if fitting:
            return self._free.pop(min(fitting, key=lambda n: self._free[n].size))
        if self._free:
            self._free.pop(max(range(len(self._free)), key=lambda n: self._free[n].nbytes))
        return aligned(count, dtype)

    def give(self, room: Array) -> None:
        """Nobody uses it any more."""
        self._free.append(room)


def aligned(count: int, dtype: Any) -> Array:
    """``count`` elements that begin at a cache line, so that no vector lies across two."""
    itemsize = np.dtype(dtype).itemsize
    whole = np.empty(count + CACHE_LINE // itemsize, dtype)
    start = -whole.ctypes.data % CACHE_LINE // itemsize
    return whole[start : start + count]
