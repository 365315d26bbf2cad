"""Memory for the buffers of a call, used again by later calls.

An array of some MB comes fresh from the operating system, which clears it page by page while it is first written: that
is a tenth of the time of a small convolution. So what was used is kept for the next call.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np

Array = Any

LINE = 64
"""Bytes of a cache line: where every array begins."""


LARGE = 1 << 20
"""Bytes from which on an array is lent by a pool: smaller ones are not worth what that costs."""
STAYS = 1 << 26
"""Bytes that wait for later arrays, at most: those that were lent last."""


def aligned(shape: tuple[int, ...], dtype: Any, zero: bool = False) -> Array:
    """An array that begins at a cache line, so that no vector lies across two; zeros, or whatever is in it.

    It may leave the kernels: its memory is used again when nothing refers to it any more.
    """
    dtype = np.dtype(dtype)
    count = math.prod(shape) * dtype.itemsize
    found = np.ndarray(shape, dtype, np.asarray(_Loan(count)) if count >= LARGE else _from_a_line(count).array)
    if zero:
        found[...] = 0
    return found


def _from_a_line(count: int) -> Block:
    """``count`` bytes."""
    array = np.empty(count + LINE, np.uint8)
    address = array.ctypes.data
    start = -address % LINE
    return Block(array[start : start + count], address + start, count)


class Block(NamedTuple):
    """Bytes, and where they lie, which takes a microsecond to ask numpy for."""

    array: Array
    address: int
    size: int


class Pool:
    """Blocks of memory for any thread; never more than were once in use at the same time.

    Args:
        limit: bytes that are kept for later, at most.
    """

    def __init__(self, limit: float = math.inf) -> None:
        self._limit = limit
        self._spare: list[Block] = []
        self._lock = threading.Lock()
        self._returned: deque[Block] = deque()
        self._in_use = self._most = self._waiting = 0

    def take(self, count: int) -> Block:
        """``count`` bytes or up to twice as many, whatever is in them; if there is a choice, those used last."""
        with self._lock:
            if self._returned:
                self._sort_in()
            block = self._found(count)
            self._in_use += block.size
            self._most = max(self._most, self._in_use)
        return block

    def _found(self, count: int) -> Block:
        for n in range(len(self._spare) - 1, -1, -1):
            if count <= self._spare[n].size <= 2 * count:
                block = self._spare.pop(n)
                self._waiting -= block.size
                return block
        return _from_a_line(count)

    def give(self, block: Block) -> None:
        """Back. Python may call this anywhere, even in the middle of ``take``, so it waits for nobody."""
        self._returned.append(block)

    def _sort_in(self) -> None:
        """What came back; the oldest go for good where there are too many."""
        while self._returned:
            block = self._returned.popleft()
            self._in_use -= block.size
            self._waiting += block.size
            self._spare.append(block)
        while self._waiting > min(self._limit, self._most - self._in_use):
            self._waiting -= self._spare.pop(0).size


POOL, LOANS = Pool(), Pool(STAYS)


class _Loan:
    """Memory that goes back to its pool with the last array that refers to it."""

    def __init__(self, count: int) -> None:
        self._block = LOANS.take(count)
        self._give = LOANS.give
        data = self._block.address, False
        self.__array_interface__ = {"version": 3, "shape": (self._block.size,), "typestr": "|u1", "data": data}

    def __del__(self) -> None:
        self._give(self._block)


class Room:
    """A block of memory, which goes back when the room does.

    Args:
        count: of bytes, at least.

    Attributes:
        address: where it begins, a cache line.
    """

    _block: Block | None = None  # of one that could not be made

    def __init__(self, count: int) -> None:
        self._give = POOL.give
        self._block = POOL.take(max(count, LINE))
        self.address = self._block.address

    def __reduce__(self) -> NoReturn:
        """A copy would have the address of memory that is not its own."""
        raise TypeError("a room is not copied: take another one")

    def __del__(self) -> None:
        if self._block is not None:
            self._give(self._block)


class Workspace(Room):
    """Arrays of one dtype in a room.

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
        super().__init__(end)
        assert self._block is not None
        block = self._block.array
        self.arrays = [np.ndarray(shape, dtype, block, place) for shape, place in zip(shapes, places, strict=True)]
