"""The product of one row with a matrix, in which a step of one sequence spends its time; in bfloat16 half of it.

The product reads each number of the matrix once and is as fast as the memory that holds it; tiles made for many rows
gain nothing here. So the matrix ``(K, N)`` is packed in the order in which it is read, one tile of columns after the
other: of 8 vectors as long as there are so many, then of 4, 2 and 1; each ``(K, vectors * lanes)``, contiguous. So many
sums at once hide the latency of the additions.

bfloat16 is the first half of a float32: its range, and 8 bits of precision. An array of 32-bit words has two
neighbouring vectors of a tile's row in one, the first in the low halves, the second in the high ones; a vector alone
has its high halves zero. A shift and a mask make floats of them; to widen 16-bit numbers would take a shuffle for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from seqbench.backends.kernels.gemm import lanes_of
from seqbench.backends.kernels.jit import compiled, intrinsic
from seqbench.backends.kernels.target import HOST
from seqbench.backends.kernels.vector import VectorType, address, llvm_type, multiply_add, splat

Array = Any

SIZES = (8, 4, 2, 1)
"""Vectors of columns in a tile."""


# --- packing --------------------------------------------------------------------------------------


def packed(columns: Array, narrow: bool) -> Array:
    """``(K, N)``, ``N`` whole vectors, in tiles, flat; in bfloat16 if ``narrow``."""
    lanes = HOST.lanes(columns.itemsize)
    found = []
    for first, vectors in _tiles(columns.shape[1] // lanes):
        tile = columns[:, first * lanes : (first + vectors) * lanes]  # (K, vectors * lanes)
        found.append(_words(tile, lanes) if narrow else tile.ravel())
    return np.concatenate(found)


def _tiles(vectors: int) -> Iterator[tuple[int, int]]:
    """The first vector of each tile, and how many it has."""
    first = 0
    for size in SIZES:
        while first + size <= vectors:
            yield first, size
            first += size


def _words(tile: Array, lanes: int) -> Array:
    K, N = tile.shape
    halves = rounded(tile).astype(np.uint32).reshape(K, N // lanes, lanes)
    if halves.shape[1] == 1:
        return halves.ravel()
    return (halves[:, ::2] | halves[:, 1::2] << np.uint32(16)).ravel()


def rounded(x: Array) -> Array:
    """float32 to the nearest bfloat16, ties to even, as uint16; what is not a number stays so."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    quiet = bits >> np.uint32(16) | np.uint32(0x40)
    return np.where(np.isnan(x), quiet, nearest).astype(np.uint16)


def widened(halves: Array) -> Array:
    """The float32 that a bfloat16, as uint16, stands for."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


# --- the product ----------------------------------------------------------------------------------


@compiled
def multiply_row(a, a_at, K, b, at, N, c, c_at):
    """``c[c_at:] += a[a_at:] @ B`` with ``B (K, N)`` packed at ``at``; gives where the next matrix begins.

    ``K`` may be 0. ``N`` is whole vectors.
    """
    lanes = lanes_of(c)
    last = c_at + N
    while c_at + 8 * lanes <= last:
        at = _eight(a, a_at, K, b, at, c, c_at)
        c_at += 8 * lanes
    if c_at + 4 * lanes <= last:
        at = _four(a, a_at, K, b, at, c, c_at)
        c_at += 4 * lanes
    if c_at + 2 * lanes <= last:
        at = _two(a, a_at, K, b, at, c, c_at)
        c_at += 2 * lanes
    if c_at < last:
        at = _one(a, a_at, K, b, at, c, c_at)
    return at


def _tile(vectors: int) -> Any:
    """The product of a tile, ``tile(a, a_at, K, b, at, c, c_at) -> at``."""

    @intrinsic
    def tile(_typing: Any, a: Any, a_at: Any, K: Any, b: Any, at: Any, c: Any, c_at: Any) -> Any:
        index = types.intp

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return _Tile(context, builder, (a, b, c), vectors).emit(*arguments)

        return index(a, index, index, b, index, c, index), generate

    return tile


class _Tile:
    """Writes the loop over ``k`` in LLVM's language, where the sums are values and so stay in registers."""

    def __init__(self, context: Any, builder: Any, arrays: tuple[Any, Any, Any], vectors: int) -> None:
        self.context, self.builder, self.vectors = context, builder, vectors
        self.a_type, self.b_type, self.c_type = arrays
        vector = VectorType(self.c_type.dtype)
        self.lanes, self.vector = vector.lanes, llvm_type(vector)
        self.align = vector.element.bitwidth // 8
        self.narrow = self.b_type.dtype == types.uint32

    def emit(self, a: Any, a_at: Any, K: Any, b: Any, at: Any, c: Any, c_at: Any) -> Any:
        """The loop, and the sums to memory."""
        builder = self.builder
        starts = [self._int(0), at, *[ir.Constant(self.vector, [0.0] * self.lanes)] * self.vectors]
        before, head = builder.block, builder.append_basic_block("k")
        body, after = builder.append_basic_block("row"), builder.append_basic_block("summed")
        builder.branch(head)
        builder.position_at_end(head)
        phis = [builder.phi(start.type) for start in starts]
        k, row, *sums = phis
        builder.cbranch(builder.icmp_signed("<", k, K), body, after)
        builder.position_at_end(body)
        pointer = self._pointer(self.a_type, a, builder.add(a_at, k), self.vector.element)
        number = splat(builder, builder.load(pointer, align=self.align), self.vector)
        columns = self._words(b, row) if self.narrow else [self._load(b, row, n) for n in range(self.vectors)]
        new = [multiply_add(builder, number, column, total) for column, total in zip(columns, sums, strict=True)]
        step = self.lanes * (-(-self.vectors // 2) if self.narrow else self.vectors)
        following = [builder.add(k, self._int(1)), builder.add(row, self._int(step)), *new]
        builder.branch(head)
        for phi, start, next_ in zip(phis, starts, following, strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(next_, body)
        builder.position_at_end(after)
        # Added at the end, what is there costs one rounding; at the start, one for each of the K additions.
        for n, total in enumerate(sums):
            place = self._pointer(self.c_type, c, builder.add(c_at, self._int(n * self.lanes)), self.vector)
            builder.store(builder.fadd(builder.load(place, align=self.align), total), place, align=self.align)
        return row

    def _words(self, b: Any, row: Any) -> list[Any]:
        """The vectors of a row in bfloat16."""
        builder, integers, found = self.builder, ir.VectorType(ir.IntType(32), self.lanes), []
        for n in range(0, self.vectors, 2):
            words = builder.bitcast(self._load(b, row, n // 2), integers)
            low = builder.shl(words, ir.Constant(integers, [16] * self.lanes))
            high = builder.and_(words, ir.Constant(integers, [0xFFFF0000] * self.lanes))
            found += [builder.bitcast(half, self.vector) for half in (low, high)]
        return found[: self.vectors]

    def _load(self, b: Any, row: Any, n: int) -> Any:
        pointer = self._pointer(self.b_type, b, self.builder.add(row, self._int(n * self.lanes)), self.vector)
        return self.builder.load(pointer, align=self.align)

    def _pointer(self, array_type: Any, array: Any, offset: Any, to: Any) -> Any:
        return address(self.context, self.builder, array_type, array, offset, to)

    def _int(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)


_eight, _four, _two, _one = map(_tile, SIZES)
