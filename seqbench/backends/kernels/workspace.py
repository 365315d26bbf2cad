"""Memory for the buffers of a call, used again by later calls.

An array of some MB comes fresh from the operating system, which clears it page by page while it is first written: that
is a tenth of the time of a small convolution. So what was used is kept for the next call.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = Any

LINE = 64
"""Bytes of a cache line: where every array begins."""


def aligned(shape: tuple[int, ...], dtype: Any, zero: bool = False) -> Array:
    """An array of its own, from a cache line on, so that no vector lies across two; zeros, or whatever is in it."""
    dtype = np.dtype(dtype)
    found = np.ndarray(shape, dtype, _from_a_line(math.prod(shape) * dtype.itemsize))
    if zero:
        found[...] = 0
    return found


def _from_a_line(count: int) -> Array:
    """``count`` bytes."""
    block = np.empty(count + LINE, np.uint8)
    start = -block.ctypes.data % LINE
    return block[start : start + count]


class Pool:
    """Blocks of memory for any thread; never more than were once in use at the same time."""

    def __init__(self) -> None:
        self._spare: list[Array] = []
        self._lock = threading.Lock()
        self._in_use = self._most = 0

    def take(self, count: int) -> Array:
        """``count`` bytes or up to twice as many, whatever is in them; if there is a choice, those used last."""
        with self._lock:
            block = self._found(count)
            self._in_use += block.size
            self._most = max(self._most, self._in_use)
        return block

    def _found(self, count: int) -> Array:
        for n in range(len(self._spare) - 1, -1, -1):
            if count <= self._spare[n].size <= 2 * count:
                return self._spare.pop(n)
        return _from_a_line(count)

    def give(self, block: Array) -> None:
        """Back; the oldest go for good where there are too many."""
        with self._lock:
            self._in_use -= block.size
            self._spare.append(block)
            spare = sum(block.size for block in self._spare)
            while spare + self._in_use > self._most:
                spare -= self._spare.pop(0).size


POOL = Pool()


class Workspace:
    """Arrays of one dtype in one block of memory, which goes back when the workspace does.

    Args:
        dtype: of all arrays.
        shapes: of each.

    Attributes:
        arrays: one for each shape, whatever is in them.
    """

    def __init__(self, dtype: Any, shapes: Sequence[tuple[int, ...]]) -> None:
        itemsize, end = dtype.itemsize, 0
        places = []
        for shape in shapes:
            places.append(end)
            end += -(-math.prod(shape) * itemsize // LINE) * LINE
        self._pool, self._block = POOL, POOL.take(max(end, LINE))
        self.arrays = [
            np.ndarray(shape, dtype, self._block, place) for shape, place in zip(shapes, places, strict=True)
        ]

    def __del__(self) -> None:
        self._pool.give(self._block)
