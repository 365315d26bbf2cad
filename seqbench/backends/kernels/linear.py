"""Products with a matrix that is packed once, finished while the sums are in registers: a bias, a residual, a function.

``C = finish(A B)`` in the tiles of ``gemm``. What ``finish`` may be, with ``s`` a sum, ``b`` the bias of its column and
``o`` the element of another matrix at its place:

==========  =====================  ==========================================
``STORE``   ``s``
``ADD``     ``o + s``              what is there plus the product, if ``o`` is ``C``
``BIAS``    ``s + b``              a linear layer
``RELU``    ``max(s + b, 0)``      with a rectifier
``SUM``     ``o + (s + b)``        with a residual
``GATE``    ``s`` where ``o > 0``  back through a rectifier, ``o`` being its value
``TIMES``   ``s o``                back through another function, ``o`` being its derivative
==========  =====================  ==========================================

All widths are whole vectors, all offsets and strides in elements.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from seqbench.backends.kernels.gemm import Tile, lanes_of
from seqbench.backends.kernels.jit import compiled, compiled_as, intrinsic, merged
from seqbench.backends.kernels.target import HOST
from seqbench.backends.kernels.vector import load, number, put, spread, store, transpose

MANY, SOME, ONE = HOST.tall.rows
STORE, ADD, BIAS, RELU, SUM, GATE, TIMES = range(7)
"""The ways to finish. Told apart at run time, once a tile: a compiled tile for each would take minutes to compile."""


class _Finishing(Tile):
    """A tile whose sums are finished in a way that is known at run time.

    Args:
        way: LLVM's value of the way.
        bias: type, value and offset of an array.
        other: type, value, offset and distance of rows of an array.
    """

    def __init__(self, *arguments: Any, way: Any, bias: Any, other: Any) -> None:
        super().__init__(*arguments)
        self.way, self.bias, self.other = way, bias, other

    def _finish(self, places: list[Any], sums: list[Any]) -> None:
        builder = self.builder
        end, impossible = builder.append_basic_block("end"), builder.append_basic_block("impossible")
        switch = builder.switch(self.way, impossible)
        for way in range(7):
            block = builder.append_basic_block(f"way{way}")
            switch.add_case(self._int(way), block)
            builder.position_at_end(block)
            for n, (place, total) in enumerate(zip(places, sums, strict=True)):
                finished = self._finished(way, total, *divmod(n, self.vectors))
                builder.store(finished, place, align=self.align)
            builder.branch(end)
        builder.position_at_end(impossible)
        builder.unreachable()
        builder.position_at_end(end)

    def _finished(self, way: int, total: Any, row: int, vector: int) -> Any:
        builder, zero, shift = self.builder, ir.Constant(self.vector, [0.0] * self.lanes), vector * self.lanes
        if way in (BIAS, RELU, SUM):
            array_type, array, at = self.bias
            total = builder.fadd(total, self._vector_of(array_type, array, builder.add(at, self._int(shift))))
        if way == RELU:
            below = builder.fcmp_ordered("<", total, zero)  # not a number stays what it is
            return builder.select(below, zero, total)
        if way in (STORE, BIAS):
            return total
        array_type, array, at, apart = self.other
        offset = builder.add(at, builder.add(builder.mul(apart, self._int(row)), self._int(shift)))
        other = self._vector_of(array_type, array, offset)
        if way == GATE:
            return builder.select(builder.fcmp_ordered(">", other, zero), total, zero)
        return builder.fmul(other, total) if way == TIMES else builder.fadd(other, total)

    def _vector_of(self, array_type: Any, array: Any, offset: Any) -> Any:
        return self.builder.load(self._pointer(array_type, array, offset, self.vector), align=self.align)


def _tile(rows: int, vectors: int) -> Any:
    """``c[:rows, :vectors * lanes] = finish(a[:rows, :K] @ b)``, ``K >= 1``; operands as in ``gemm``."""

    @intrinsic
    def tile(
        _typing: Any, a: Any, a_at: Any, a_row: Any, a_column: Any, b: Any, b_at: Any, b_step: Any,
        c: Any, c_at: Any, c_row: Any, K: Any, way: Any, bias: Any, bias_at: Any, other: Any, other_at: Any,
        other_row: Any,
    ) -> Any:  # fmt: skip
        index = types.intp

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            a_, a_at_, a_row_, a_column_, b_, b_at_, b_step_, c_, c_at_, c_row_, K_, way_, *rest = arguments
            bias_, bias_at_, other_, other_at_, other_row_ = rest
            writer = _Finishing(
                context, builder, rows, vectors, (a, b, c), way=way_,
                bias=(bias, bias_, bias_at_), other=(other, other_, other_at_, other_row_),
            )  # fmt: skip
            no_panel = context.get_constant(types.intp, 0)
            writer.emit(a_, a_at_, a_row_, a_column_, b_, b_at_, b_step_, no_panel, c_, c_at_, c_row_, K_)
            return context.get_dummy_value()

        signature = types.void(
            a, index, index, index, b, index, index, c, index, index, index, index, bias, index, other, index, index
        )
        return signature, generate

    return tile


def _panel(vectors: int) -> Any:
    """One panel of columns for all rows: tiles of many rows, then of some, then single rows."""
    many, some, one = (_tile(rows, vectors) for rows in (MANY, SOME, ONE))

    @compiled_as(str(vectors))
    def panel(
        a, a_at, a_row, a_column, M, K, b, b_at, b_step, c, c_at, c_row, way, bias, bias_at, other, other_at, other_row
    ):
        i = 0
        while i + MANY <= M:
            many(
                a, a_at + i * a_row, a_row, a_column, b, b_at, b_step, c, c_at + i * c_row, c_row, K, way,
                bias, bias_at, other, other_at + i * other_row, other_row,
            )  # fmt: skip
            i += MANY
        while i + SOME <= M:
            some(
                a, a_at + i * a_row, a_row, a_column, b, b_at, b_step, c, c_at + i * c_row, c_row, K, way,
                bias, bias_at, other, other_at + i * other_row, other_row,
            )  # fmt: skip
            i += SOME
        while i < M:
            one(
                a, a_at + i * a_row, a_row, a_column, b, b_at, b_step, c, c_at + i * c_row, c_row, K, way,
                bias, bias_at, other, other_at + i * other_row, other_row,
            )  # fmt: skip
            i += 1

    return panel


_panel_of_two, _panel_of_one = _panel(2), _panel(1)


@merged
def product(a, a_at, a_row, a_column, M, K, b, b_at, b_step, N, c, c_at, c_row, way, bias, other, other_at, other_row):
    """``C (M, N) = finish(A (M, K) B (K, N))``; ``b_step`` is the distance of two rows of ``B``, 0 if it is packed.

    All arrays have one axis. numba would compile what this calls anew for each constant among the arguments.
    """
    _product(
        a, np.intp(a_at), np.intp(a_row), np.intp(a_column), np.intp(M), np.intp(K), b, np.intp(b_at), np.intp(b_step),
        np.intp(N), c, np.intp(c_at), np.intp(c_row), np.intp(way), bias, other, np.intp(other_at), np.intp(other_row),
    )  # fmt: skip


@merged
def linear(x, x_at, x_row, rows, K, W, N, y, y_at, way, bias, other, other_at):
    """``y (rows, N) = finish(x (rows, K) W)``, ``W`` packed; ``other`` lies as ``y`` does."""
    product(x, x_at, x_row, 1, rows, K, W, 0, 0, N, y, y_at, N, way, bias, other, other_at, N)


@compiled
def _product(a, a_at, a_row, a_column, M, K, b, b_at, b_step, N, c, c_at, c_row, way, bias, other, other_at, other_row):
    lanes = lanes_of(c)
    column = np.intp(0)
    while column < N:
        two = N - column > lanes
        width = 2 * lanes if two else lanes
        start = b_at + column if b_step else b_at + column * K
        step = b_step if b_step else width
        if two:
            _panel_of_two(
                a, a_at, a_row, a_column, M, K, b, start, step, c, c_at + column, c_row, way, bias, column,
                other, other_at + column, other_row,
            )  # fmt: skip
        else:
            _panel_of_one(
                a, a_at, a_row, a_column, M, K, b, start, step, c, c_at + column, c_row, way, bias, column,
                other, other_at + column, other_row,
            )  # fmt: skip
        column += width


# --- packing --------------------------------------------------------------------------------------


@compiled
def pack(W, N, Kp, K, packed):
    """``W (N, Kp)`` as the matrix ``B (K, N)`` of ``x W'``: forward."""
    lanes = lanes_of(packed)
    for first in range(0, N, 2 * lanes):
        width = min(2 * lanes, N - first)
        for n in range(0, width, lanes):
            transpose_into(W, (first + n) * Kp, Kp, lanes, K, packed, first * K + n, width)


@compiled
def pack_back(W, Kp, N, packed):
    """``W (Np, Kp)`` as the matrix ``B (N, Kp)`` of ``d W``: backward."""
    lanes = lanes_of(packed)
    for first in range(0, Kp, 2 * lanes):
        width = min(2 * lanes, Kp - first)
        for n in range(N):
            for k in range(0, width, lanes):
                store(packed, first * N + n * width + k, load(W, n * Kp + first + k))


@compiled
def transpose_into(source, at, row, rows, columns, target, to, target_row):
    """``target[c, r] = source[r, c]``: squares of vectors where they fit, single numbers at the edges."""
    lanes = lanes_of(target)
    whole_rows, whole_columns = rows // lanes * lanes, columns // lanes * lanes
    for r in range(0, whole_rows, lanes):
        for c in range(0, whole_columns, lanes):
            transpose(source, at + r * row + c, row, target, to + c * target_row + r, target_row)
    for r in range(rows):
        for c in range(whole_columns if r < whole_rows else 0, columns):
            put(target, to + c * target_row + r, number(source, at + r * row + c))


# --- gradients of the parameters ------------------------------------------------------------------


@merged
def add_weight_gradient(d, d_at, M, x, x_at, N, rows, dW):
    """``dW (M, N) += d' x`` over ``rows`` rows, of ``d (., M)`` from ``d_at`` and of ``x (., N)`` from ``x_at`` on.

    Both are read where they lie, in the cache or near: to pack them first (``gemm``) costs more here than it gains.
    """
    product(d, d_at, 1, M, M, rows, x, x_at, N, N, dW, 0, N, ADD, dW, dW, 0, N)


@compiled
def add_column_sums(d, at, d_row, rows, total):
    """``total += `` the sum over rows of ``d (rows, total.size)``."""
    for n in range(0, total.size, lanes_of(total)):
        value = spread(load(total, n), 0.0)
        for r in range(rows):
            value = value + load(d, at + r * d_row + n)
        store(total, n, load(total, n) + value)
