"""Matrix products ``C += A B`` in tiles that stay in registers, ``B`` packed once and used many times.

A recurrent network multiplies by the same matrix at every step. A BLAS packs it anew each time; here it is packed once
a call, and that is where the speed comes from. All offsets and strides are in elements; ``C``'s columns are contiguous.

Packed layout of ``B (K, N)``: panels of two vectors of columns, each ``(K, 2 lanes)`` and contiguous, the columns
beyond ``N`` zero; if ``N`` fills only half of the last panel, that one is ``(K, lanes)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from seqbench.backends.kernels.jit import compiled, compiled_as, intrinsic, merged
from seqbench.backends.kernels.target import HOST
from seqbench.backends.kernels.vector import (
    VectorType,
    address,
    fetch,
    llvm_type,
    load,
    multiply_add,
    number,
    prefetch,
    splat,
    spread,
    store,
)
from seqbench.backends.kernels.workspace import LINE

(MANY, SOME, ONE), WIDEST = HOST.wide
VECTOR_BYTES = HOST.vector_bytes
WIDE = 8
"""Vectors of columns in a product with one row: so many sums at once hide the latency of the additions."""
BLOCK = 192
"""Rows that a product over many rows (a weight gradient) packs at a time: a panel of each operand fits the L1 cache."""
AHEAD = 1024
"""Elements that are fetched ahead when rows are packed: they come from memory, and the copy alone waits for each."""


def _tile(rows: int, vectors: int) -> Any:
    """The kernel: ``c[:rows, :vectors * lanes] = base + a[:rows, :K] @ b``, ``K >= 1``, sums in registers.

    ``tile(a, a_at, a_row, a_column, b, b_at, b_step, b_panel, c, c_at, c_row, K, base, base_at, base_row)``: ``a``
    starts at element ``a_at``; ``b_step`` is a row of a panel, ``b_panel`` the distance of two panels.
    """

    @intrinsic
    def tile(
        _typing: Any, a: Any, a_at: Any, a_row: Any, a_column: Any, b: Any, b_at: Any, b_step: Any, b_panel: Any,
        c: Any, c_at: Any, c_row: Any, K: Any, base: Any, base_at: Any, base_row: Any,
    ) -> Any:  # fmt: skip
        index = types.intp

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            added = (base, *arguments[-3:])
            _Adding(context, builder, rows, vectors, (a, b, c), added).emit(*arguments[:-3])
            return context.get_dummy_value()

        signature = types.void(
            a, index, index, index, b, index, index, index, c, index, index, index, base, index, index
        )
        return signature, generate

    return tile


class Tile:
    """Writes the loop over ``k`` in LLVM's language, where the sums are values and so stay in registers."""

    def __init__(self, context: Any, builder: Any, rows: int, vectors: int, arrays: tuple[Any, Any, Any]) -> None:
        self.context, self.builder, self.rows, self.vectors = context, builder, rows, vectors
        self.a_type, self.b_type, self.c_type = arrays
        vector = VectorType(self.c_type.dtype)
        self.lanes, self.vector = vector.lanes, llvm_type(vector)
        self.align = vector.element.bitwidth // 8

    def _int(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def _pointer(self, array_type: Any, array: Any, offset: Any, to: Any) -> Any:
        return address(self.context, self.builder, array_type, array, offset, to)

    def emit(
        self, a: Any, a_at: Any, a_row: Any, a_column: Any, b: Any, b_at: Any, b_step: Any, b_panel: Any,
        c: Any, c_at: Any, c_row: Any, K: Any,
    ) -> None:  # fmt: skip
        """The loop, and the sums to memory."""
        builder = self.builder
        places = [
            self._pointer(
                self.c_type, c,
                builder.add(c_at, builder.add(builder.mul(c_row, self._int(i)), self._int(j * self.lanes))),
                self.vector,
            )
            for i in range(self.rows)
            for j in range(self.vectors)
        ]  # fmt: skip
        self._begin(places)
        zeros = [ir.Constant(self.vector, [0.0] * self.lanes)] * len(places)
        before = builder.block
        loop, after = builder.append_basic_block("k"), builder.append_basic_block("summed")
        builder.branch(loop)
        builder.position_at_end(loop)
        counters = [builder.phi(ir.IntType(64)) for _ in range(3)]
        sums = [builder.phi(self.vector) for _ in places]
        k, a_k, b_k = counters
        new = self._one_k(sums, a, a_k, a_row, b, b_k, b_panel)
        following = [builder.add(k, self._int(1)), builder.add(a_k, a_column), builder.add(b_k, b_step)]
        starts = [self._int(0), a_at, b_at]
        for phi, start, next_ in zip([*counters, *sums], [*starts, *zeros], [*following, *new], strict=True):
            phi.add_incoming(start, before)
            phi.add_incoming(next_, loop)
        builder.cbranch(builder.icmp_signed("<", following[0], K), loop, after)
        builder.position_at_end(after)
        self._finish(places, new)

    def _begin(self, places: list[Any]) -> None:
        """Have ``C`` fetched into the cache while the sums are made: it may be larger than the cache."""
        for place in places:
            prefetch(self.builder, place, write=True)

    def _finish(self, places: list[Any], sums: list[Any]) -> None:
        """Write the sums, row by row."""

    def _one_k(self, sums: list[Any], a: Any, a_k: Any, a_row: Any, b: Any, b_k: Any, b_panel: Any) -> list[Any]:
        builder, new = self.builder, []
        columns = []
        for j in range(self.vectors):
            panel = builder.mul(b_panel, self._int(j // 2))
            offset = builder.add(b_k, builder.add(panel, self._int(j % 2 * self.lanes)))
            columns.append(builder.load(self._pointer(self.b_type, b, offset, self.vector), align=self.align))
        for i in range(self.rows):
            offset = builder.add(a_k, builder.mul(a_row, self._int(i)))
            pointer = self._pointer(self.a_type, a, offset, self.vector.element)
            number = splat(builder, builder.load(pointer, align=self.align), self.vector)
            row = sums[i * self.vectors : (i + 1) * self.vectors]
            new += [multiply_add(builder, number, column, total) for column, total in zip(columns, row, strict=True)]
        return new


class _Adding(Tile):
    """A tile whose sums are added to a matrix, which may be ``C`` itself.

    Added at the end, it costs one rounding; at the start, one for each of the K additions.
    """

    def __init__(self, *arguments: Any) -> None:
        *most, self.base = arguments
        super().__init__(*most)

    def _finish(self, places: list[Any], sums: list[Any]) -> None:
        builder = self.builder
        array_type, array, at, apart = self.base
        for n, (place, total) in enumerate(zip(places, sums, strict=True)):
            row, vector = divmod(n, self.vectors)
            offset = builder.add(at, builder.add(builder.mul(apart, self._int(row)), self._int(vector * self.lanes)))
            base = builder.load(self._pointer(array_type, array, offset, self.vector), align=self.align)
            builder.store(builder.fadd(base, total), place, align=self.align)


_one_wide = _tile(ONE, WIDE)


def _columns(vectors: int) -> Any:
    """All rows of ``C = base + A B`` in so many vectors of columns: tiles of many rows, of some, then single rows."""
    many, some, one = (_tile(rows, vectors) for rows in (MANY, SOME, ONE))

    @compiled_as(str(vectors))
    def columns(a, a_at, a_row, a_column, b, b_at, b_step, b_panel, c, c_at, c_row, base, base_at, base_row, M, K):
        i = 0
        while i + MANY <= M:
            many(
                a, a_at + i * a_row, a_row, a_column, b, b_at, b_step, b_panel, c, c_at + i * c_row, c_row, K,
                base, base_at + i * base_row, base_row,
            )  # fmt: skip
            i += MANY
        while i + SOME <= M:
            some(
                a, a_at + i * a_row, a_row, a_column, b, b_at, b_step, b_panel, c, c_at + i * c_row, c_row, K,
                base, base_at + i * base_row, base_row,
            )  # fmt: skip
            i += SOME
        while i < M:
            one(
                a, a_at + i * a_row, a_row, a_column, b, b_at, b_step, b_panel, c, c_at + i * c_row, c_row, K,
                base, base_at + i * base_row, base_row,
            )  # fmt: skip
            i += 1

    return columns


_two_vectors, _one_vector = _columns(2), _columns(1)
_most_vectors = _two_vectors if WIDEST == 2 else _columns(WIDEST)


@compiled
def lanes_of(array):
    """Numbers of an array's type in a vector."""
    return VECTOR_BYTES // array.itemsize


@merged
def multiply(a, a_at, a_outer, a_inner, outer, inner, a_column, K, b, b_at, N, c, c_at, c_outer, c_inner):
    """``C += A B`` with ``B (K, N)`` packed at ``b_at``.

    The rows of ``A`` and ``C`` are pairs of an outer and an inner index with strides of their own: batch and time, in
    either order. ``N`` is rounded up to whole vectors, which ``C`` must have room for.
    """
    multiply_onto(
        a, a_at, a_outer, a_inner, outer, inner, a_column, K, b, b_at, N, c, c_at, c_outer, c_inner,
        c, c_at, c_outer, c_inner,
    )  # fmt: skip


@compiled
def multiply_onto(
    a, a_at, a_outer, a_inner, outer, inner, a_column, K, b, b_at, N, c, c_at, c_outer, c_inner,
    base, base_at, base_outer, base_inner,
):  # fmt: skip
    """``C = base + A B``; the rows of ``base`` may be ``C``'s own, or all the same one: a bias."""
    lanes = lanes_of(c)
    if inner < 2 * MANY and outer > inner:  # the longer side goes inside, where tiles are cut
        a_outer, a_inner, c_outer, c_inner = a_inner, a_outer, c_inner, c_outer
        base_outer, base_inner = base_inner, base_outer
        outer, inner = inner, outer
    first = 0
    if outer * inner == 1:
        while first + WIDE * lanes <= N:
            step = 2 * lanes
            _one_wide(a, a_at, 0, a_column, b, b_at, step, K * step, c, c_at + first, 0, K, base, base_at + first, 0)
            first += WIDE * lanes
            b_at += K * WIDE * lanes
    while first < N:
        vectors = vectors_of_tile(N - first, lanes)
        width = lanes * min(vectors, 2)
        for o in range(outer):
            a_o, c_o, base_o = a_at + o * a_outer, c_at + first + o * c_outer, base_at + first + o * base_outer
            _rows(
                vectors, a, a_o, a_inner, a_column, b, b_at, width, K * width, c, c_o, c_inner,
                base, base_o, base_inner, inner, K,
            )  # fmt: skip
        first += vectors * lanes
        b_at += K * vectors * lanes


@compiled
def vectors_of_tile(columns, lanes):
    """How many vectors the next tile takes of the columns that are left, the last vector perhaps not full."""
    if columns > (WIDEST - 1) * lanes:
        return WIDEST
    return 2 if columns > lanes else 1


@compiled
def _rows(vectors, a, a_at, a_row, a_column, b, b_at, b_step, b_panel, c, c_at, c_row, base, base_at, base_row, M, K):
    if vectors == WIDEST:
        _most_vectors(
            a, a_at, a_row, a_column, b, b_at, b_step, b_panel, c, c_at, c_row, base, base_at, base_row, M, K
        )  # fmt: skip
    elif vectors == 2:
        _two_vectors(a, a_at, a_row, a_column, b, b_at, b_step, b_panel, c, c_at, c_row, base, base_at, base_row, M, K)
    else:
        _one_vector(a, a_at, a_row, a_column, b, b_at, b_step, b_panel, c, c_at, c_row, base, base_at, base_row, M, K)


@compiled
def aligned(count, dtype):
    """``count`` elements that begin at a cache line, so that no vector lies across two."""
    room = np.empty(count + LINE, dtype)
    start = -room.ctypes.data % LINE // room.itemsize
    return room[start : start + count]


@compiled
def pack_block(b, at, outer_stride, inner_stride, inner, start, R, N, packed):
    """Pack rows ``start .. start + R`` of ``B`` as a ``(R, N)`` matrix.

    Row ``(o, i)``, the ``o * inner + i``-th, is at ``at + o * outer_stride + i * inner_stride``. Each row is read at
    one go, for the panels that it goes to are as many runs of writes; the rows to come are fetched meanwhile.
    """
    o, i = start // inner, start % inner
    next_ = start + -(-AHEAD // N)
    o_next, i_next = next_ // inner, next_ % inner
    for r in range(R):
        source, fetched = at + o * outer_stride + i * inner_stride, at + o_next * outer_stride + i_next * inner_stride
        pack_row(b, source, N, N, packed, np.int64(0), r, R, fetched)
        i, i_next = i + 1, i_next + 1
        if i == inner:
            o, i = o + 1, 0
        if i_next == inner:
            o_next, i_next = o_next + 1, 0


@compiled
def pack_row(b, at, valid, N, packed, to, k, K, fetched):
    """Put ``valid`` elements, then zeros up to ``N``, into row ``k`` of a packed ``(K, N)`` matrix at ``to``.

    The row of ``b`` at ``fetched`` is needed soon.
    """
    lanes = lanes_of(packed)
    wide = 2 * lanes
    whole = valid // wide * wide
    target = to + k * wide
    for column in range(0, whole, wide):
        fetch(b, fetched + column)
        fetch(b, fetched + column + lanes)
        store(packed, target, load(b, at + column))
        store(packed, target + lanes, load(b, at + column + lanes))
        target += K * wide
    for column in range(whole, N, wide):
        width = lanes if N - column <= lanes else wide
        target = to + column * K + k * width
        for n in range(width):
            packed[target + n] = number(b, at + column + n) if column + n < valid else 0


@compiled
def add_column_sums(b, R, N, sums, at):
    """``sums[at + n] += sum_r B[r, n]`` of a ``(R, N)`` matrix that ``pack_block`` has packed, ``N`` whole vectors.

    Even and odd rows apart: more sums at once hide the latency of the additions, and lose less to rounding.
    """
    lanes = lanes_of(b)
    for column in range(0, N, 2 * lanes):
        width = min(2 * lanes, N - column)
        other = width - lanes  # the panel's second vector, or its only one
        first, last = column * R, column * R + (R - R % 2) * width
        left = right = odd_left = odd_right = spread(load(b, first), 0.0)
        for row in range(first, last, 2 * width):
            left, right = left + load(b, row), right + load(b, row + other)
            odd_left, odd_right = odd_left + load(b, row + width), odd_right + load(b, row + width + other)
        if R % 2:
            left, right = left + load(b, last), right + load(b, last + other)
        store(sums, at + column, load(sums, at + column) + (left + odd_left))
        if other:
            store(sums, at + column + lanes, load(sums, at + column + lanes) + (right + odd_right))


@compiled
def multiply_blocks(a, M, first, last, b, N, R, c, c_at, c_row):
    """``C[m] += sum_r A[r, m] B[r]`` for ``first <= m < last``; ``C``'s row ``first`` is at ``c_at``.

    ``A (R, M)`` and ``B (R, N)`` are packed by ``pack_block``; ``first`` and ``last`` are multiples of a vector.
    """
    lanes = lanes_of(c)
    wide = 2 * lanes
    for panel in range(first // wide * wide, last, wide):
        low, high = max(panel, first), min(panel + wide, last)
        a_step = min(wide, M - panel)
        a_at = panel * R + low - panel
        to = c_at + (low - first) * c_row
        column = np.int64(0)
        while column < N:
            vectors = vectors_of_tile(N - column, lanes)
            b_step, c_block = lanes * min(vectors, 2), to + column
            _rows(
                vectors, a, a_at, 1, a_step, b, column * R, b_step, R * b_step, c, c_block, c_row,
                c, c_block, c_row, high - low, R,
            )  # fmt: skip
            column += vectors * lanes


@compiled
def multiply_columns(a, a_at, a_row, first, last, b, b_at, b_row, rows, N, c, c_at, c_row):
    """``C[m] += sum_r A[r, m] B[r]`` for ``first <= m < last``: a weight gradient, both operands read where they lie.

    Their rows are whole vectors, ``a_row`` and ``b_row`` apart and read to the end or nearly so, so that no part of a
    cache line is wasted; then packing (``multiply_blocks``) only costs time. ``first``, ``last`` and ``N`` are
    multiples of a vector.
    """
    lanes = lanes_of(c)
    for start in range(0, rows, BLOCK):
        R = min(BLOCK, rows - start)
        column = np.int64(0)
        while column < N:
            vectors = vectors_of_tile(N - column, lanes)
            a_block, b_block = a_at + start * a_row + first, b_at + start * b_row + column
            c_block = c_at + first * c_row + column
            _rows(
                vectors, a, a_block, 1, a_row, b, b_block, b_row, 2 * lanes, c, c_block, c_row,
                c, c_block, c_row, last - first, R,
            )  # fmt: skip
            column += vectors * lanes
