"""One step of a Transformer's sublayers for a few sequences: products of vectors with matrices as they lie.

Packing a matrix costs as much as using it for a row or two, so nothing is packed here: a row of the matrix and the
vector are multiplied lane by lane, and the lanes added up in the end. All arrays are flat, without padding; what does
not fill a register is finished number by number.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types

from seqbench.backends.kernels.gemm import lanes_of
from seqbench.backends.kernels.jit import compiled, intrinsic, merged
from seqbench.backends.kernels.layer_norm import normalise
from seqbench.backends.kernels.plain_transformer import EPSILON
from seqbench.backends.kernels.pointwise import exp_of_negative, gelu, relu
from seqbench.backends.kernels.vector import (
    VectorType,
    address,
    first_lanes,
    lanes_before,
    llvm_type,
    load,
    multiply_add,
    spread,
    store,
    total,
    totals,
)

OUTPUTS = 4
"""Rows of a matrix in a tile; there are as many sums in a tile as lanes, or one for each of these."""


# --- products -------------------------------------------------------------------------------------


def _dots(full: bool, outputs: int) -> Any:
    """``y[m, n] = x[m] . w[n]``: for as many ``m`` as fill a vector with sums, or for one.

    Over ``whole`` numbers, a multiple of a vector, and with ``low < high`` over the lanes between of one more vector at
    ``last``; where there are fewer numbers than lanes, or to take the rest without reading beyond it.
    """

    @intrinsic
    def dots(
        _typing: Any, x: Any, x_at: Any, x_row: Any, w: Any, w_at: Any, w_row: Any, whole: Any, last: Any, low: Any,
        high: Any, y: Any, y_at: Any, y_row: Any,
    ) -> Any:  # fmt: skip
        index = types.intp
        rows = VectorType(x.dtype).lanes // outputs if full else 1

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            _Dots(context, builder, rows, outputs, (x, w, y)).emit(*arguments)
            return context.get_dummy_value()

        return types.void(x, index, index, w, index, index, index, index, index, index, y, index, index), generate

    return dots


class _Dots:
    """Writes the loop in LLVM's language, where the sums are values and so stay in registers."""

    def __init__(self, context: Any, builder: Any, rows: int, outputs: int, arrays: tuple[Any, Any, Any]) -> None:
        self.context, self.builder, self.rows, self.outputs = context, builder, rows, outputs
        self.x_type, self.w_type, self.y_type = arrays
        self.type = VectorType(self.x_type.dtype)
        self.vector, self.align = llvm_type(self.type), self.type.element.bitwidth // 8

    def _int(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def _vectors(self, array_type: Any, array: Any, at: Any, row: Any, count: int) -> list[Any]:
        builder = self.builder
        offsets = [builder.add(at, builder.mul(row, self._int(n))) for n in range(count)]
        pointers = [address(self.context, builder, array_type, array, offset, self.vector) for offset in offsets]
        return [builder.load(pointer, align=self.align) for pointer in pointers]

    def emit(
        self, x: Any, x_at: Any, x_row: Any, w: Any, w_at: Any, w_row: Any, whole: Any, last: Any, low: Any, high: Any,
        y: Any, y_at: Any, y_row: Any,
    ) -> None:  # fmt: skip
        """The loop over vectors, the rest, and the sums to memory."""
        builder = self.builder

        def added(sums: list[Any], k: Any, only: Callable[[Any], Any]) -> list[Any]:
            xs = self._vectors(self.x_type, x, builder.add(x_at, k), x_row, self.rows)
            ws = self._vectors(self.w_type, w, builder.add(w_at, k), w_row, self.outputs)
            pairs = [(only(a), only(b)) for a in xs for b in ws]
            return [multiply_add(builder, a, b, old) for (a, b), old in zip(pairs, sums, strict=True)]

        zeros = [ir.Constant(self.vector, [0.0] * self.type.lanes)] * (self.rows * self.outputs)
        sums = self._while(whole, zeros, lambda sums, k: added(sums, k, lambda value: value))
        before, rest, after = builder.block, builder.append_basic_block("rest"), builder.append_basic_block("summed")
        builder.cbranch(builder.icmp_signed("<", low, high), rest, after)
        builder.position_at_end(rest)
        more = added(sums, last, lambda value: self._between(value, low, high))
        builder.branch(after)
        builder.position_at_end(after)
        results = []
        for old, new in zip(sums, more, strict=True):
            results.append(builder.phi(self.vector))
            results[-1].add_incoming(old, before)
            results[-1].add_incoming(new, rest)
        for n, value in enumerate(totals(builder, results)):
            row, output = divmod(n, self.outputs)
            offset = builder.add(y_at, builder.add(builder.mul(y_row, self._int(row)), self._int(output)))
            place = address(self.context, builder, self.y_type, y, offset, self.vector.element)
            builder.store(value, place, align=self.align)

    def _while(self, end: Any, start: list[Any], body: Callable[[list[Any], Any], list[Any]]) -> list[Any]:
        """``body`` for every whole vector before ``end``; what it gives last, or ``start``."""
        builder = self.builder
        before, loop = builder.block, builder.append_basic_block("k")
        inside, after = builder.append_basic_block("whole"), builder.append_basic_block("wholes")
        builder.branch(loop)
        builder.position_at_end(loop)
        k, values = builder.phi(ir.IntType(64)), [builder.phi(self.vector) for _ in start]
        builder.cbranch(builder.icmp_signed("<", k, end), inside, after)
        builder.position_at_end(inside)
        following = [builder.add(k, self._int(self.type.lanes)), *body(values, k)]
        builder.branch(loop)
        for phi, first, next_ in zip([k, *values], [self._int(0), *start], following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, inside)
        builder.position_at_end(after)
        return values

    def _between(self, value: Any, low: Any, high: Any) -> Any:
        """0 but in the lanes from ``low`` to ``high``; what lies elsewhere may not even be a number."""
        builder = self.builder
        inside = builder.and_(
            builder.not_(lanes_before(builder, self.type, low)), lanes_before(builder, self.type, high)
        )
        return builder.select(inside, value, ir.Constant(self.vector, [0.0] * self.type.lanes))


_full, _four, _one = _dots(True, OUTPUTS), _dots(False, OUTPUTS), _dots(False, 1)


@compiled
def _readable(array, at, row, count, K):
    """How many of ``count`` rows are followed by enough of the array to be read in whole vectors."""
    lanes = lanes_of(array)
    return count if lanes <= K else max(0, min(count, (array.size - lanes - at) // row + 1))


@compiled
def _products(x, x_at, x_row, M, w, w_at, N, K, y, y_at, y_row):
    """``y[m, n] = x[m] . w[n]``, ``w (N, K)``."""
    lanes = lanes_of(x)
    whole, rest, rows, n = K // lanes * lanes, K % lanes, lanes // OUTPUTS, 0
    last, low, high = (K - lanes, lanes - rest, lanes) if whole and rest else (np.intp(0), np.intp(0), rest)
    in_vectors = _readable(w, w_at, K, N, K) if _readable(x, x_at, x_row, M, K) == M else 0
    while n + OUTPUTS <= in_vectors:
        m, w_n = 0, w_at + n * K
        while m + rows <= M:
            _full(x, x_at + m * x_row, x_row, w, w_n, K, whole, last, low, high, y, y_at + m * y_row + n, y_row)
            m += rows
        while m < M:
            _four(x, x_at + m * x_row, x_row, w, w_n, K, whole, last, low, high, y, y_at + m * y_row + n, y_row)
            m += 1
        n += OUTPUTS
    for k in range(n, in_vectors):
        for m in range(M):
            at, to = x_at + m * x_row, y_at + m * y_row + k
            _one(x, at, x_row, w, w_at + k * K, K, whole, last, low, high, y, to, y_row)
    for k in range(in_vectors, N):
        for m in range(M):
            y[y_at + m * y_row + k] = _dot(x, x_at + m * x_row, w, w_at + k * K, K)


@compiled
def _dot(x, x_at, w, w_at, K):
    """Number by number."""
    added = x.dtype.type(0)
    for k in range(K):
        added += x[x_at + k] * w[w_at + k]
    return added


@compiled
def dense(x, K, M, W, b, y):
    """``y[m] = W x[m] + b``: ``x (M, K)``, ``W (N, K)``, ``y (M, N)``."""
    N = b.size
    _products(x, np.intp(0), K, M, W, np.intp(0), N, K, y, np.intp(0), N)
    for m in range(M):
        for n in range(N):
            y[m * N + n] += b[n]


# --- sublayers ------------------------------------------------------------------------------------


@compiled
def normalise_rows(x, B, H, w, b, y, scratch):
    """Layer normalisation of each row of ``x (B, H)``."""
    if H % lanes_of(x) == 0:
        normalise(x, np.intp(0), B, H, w, b, scratch, np.intp(0), y, np.intp(0))
        return
    for at in range(0, B * H, H):
        mean, square = 0.0, 0.0
        for j in range(H):
            mean += x[at + j]
        mean /= H
        for j in range(H):
            square += (x[at + j] - mean) ** 2
        inverse = 1 / math.sqrt(square / H + EPSILON)
        for j in range(H):
            y[at + j] = (x[at + j] - mean) * inverse * w[j] + b[j]


@merged
def embed(x, B, D, W, b, scale, table, turning, start, h):
    """``h = scale (W x + b) + position``; without ``W``, of ``x`` itself.

    The position is a row of ``table (P, H)``, of its last beyond it; without one, sines and cosines if ``turning``.
    """
    H = h.size // B
    if W.size:
        dense(x, D, B, W, b, h)
    else:
        for n in range(h.size):
            h[n] = x[n]
    for row in range(B):
        for j in range(H):
            h[row * H + j] *= scale
        if table.size:
            at = min(start[row], table.size // H - 1) * H
            for j in range(H):
                h[row * H + j] += table[at + j]
        elif turning:
            for j in range(0, H, 2):
                angle = start[row] * math.exp(-j * math.log(10000.0) / H)
                h[row * H + j] += math.sin(angle)
                h[row * H + j + 1] += math.cos(angle)


@compiled
def _way_out(pre, p, source, h, B, H, K, new, scratch):
    """``h += W_out source + b_out``, in post-norm normalised."""
    dense(source, K, B, p.W_out, p.b_out, new)
    for j in range(B * H):
        h[j] += new[j]
    if not pre:
        normalise_rows(h, B, H, p.norm_w, p.norm_b, h, scratch)


@merged
def step_attention(pre, N, d, C, append, p, h, counts, keys, values, normal, inside, heads, scores):
    """Attention of one step of each sequence, ``h (B, H)`` in place.

    ``keys`` and ``values (B, N, C, d)`` have ``counts (B,)`` steps; with ``append``, those of this step are written
    behind them, and seen. Scratch: ``normal (B, H)``, ``inside (B, 3 H)``, ``heads (B, H)`` and a vector, ``scores``
    the larger of ``C`` and ``2 B``, and a vector.
    """
    B, H, width = counts.size, N * d, p.b_in.size
    source = h
    if pre:
        normalise_rows(h, B, H, p.norm_w, p.norm_b, normal, scores)
        source = normal
    dense(source, H, B, p.W_in, p.b_in, inside)
    for b in range(B):
        for n in range(N):
            first, at = (b * N + n) * C * d, b * width + n * d
            if append:
                new = first + counts[b] * d
                for j in range(d):
                    keys[new + j] = inside[at + H + j]
                    values[new + j] = inside[at + 2 * H + j]
            _one_head(inside, at, keys, values, first, counts[b] + append, d, heads, b * H + n * d, scores)
    _way_out(pre, p, heads, h, B, H, H, normal, scores)


@compiled
def _one_head(q, q_at, keys, values, first, count, d, y, y_at, scores):
    """``softmax(q k' / sqrt(d)) v`` over ``count`` keys; 0 if there are none.

    A head narrower than a vector is written as one: what lies behind it must not have been written yet.
    """
    one = np.intp(1)
    _products(q, q_at, d, one, keys, first, count, d, scores, np.intp(0), one)
    inverse = 1 / _exponentials(scores, count, 1 / math.sqrt(d)) if count else 0.0
    lanes = lanes_of(y)
    in_vectors = _readable(values, first, d, count, d)
    for j in range(0, d, lanes):
        place = min(j, max(0, d - lanes))  # the last vector begins where it ends with the head
        store(y, y_at + place, _weighted(values, first + place, d, in_vectors, scores) * inverse)
    for s in range(in_vectors, count):
        for j in range(d):
            y[y_at + j] += values[first + s * d + j] * scores[s] * inverse


@compiled
def _weighted(values, at, row, count, weights):
    """The sum of a vector in each of ``count`` rows times its weight, in four sums that do not wait for one another."""
    a = spread(load(weights, 0), 0.0)
    b, c, d = a, a, a
    s = 0
    while s + 4 <= count:
        a = a + load(values, at + s * row) * weights[s]
        b = b + load(values, at + (s + 1) * row) * weights[s + 1]
        c = c + load(values, at + (s + 2) * row) * weights[s + 2]
        d = d + load(values, at + (s + 3) * row) * weights[s + 3]
        s += 4
    while s < count:
        a = a + load(values, at + s * row) * weights[s]
        s += 1
    return (a + b) + (c + d)


@compiled
def _exponentials(scores, count, scale):
    """``exp(scale (scores - max))`` in place; their sum."""
    lanes = lanes_of(scores)
    top = scores[0]
    for s in range(1, count):
        top = max(top, scores[s])
    added = spread(load(scores, 0), 0.0)
    for s in range(0, count, lanes):
        weight = first_lanes(exp_of_negative((load(scores, s) - top) * scale), count - s, 0.0)
        store(scores, s, weight)
        added = added + weight
    return total(added)


@merged
def step_feed_forward(pre, smooth, B, H, p, h, normal, inside, scratch):
    """The feed-forward layer of one step of each sequence, ``h (B, H)`` in place; ``inside (B, F)`` and a vector."""
    source, F = h, p.b_in.size
    if pre:
        normalise_rows(h, B, H, p.norm_w, p.norm_b, normal, scratch)
        source = normal
    dense(source, H, B, p.W_in, p.b_in, inside)
    for n in range(0, B * F, lanes_of(inside)):
        x = load(inside, n)
        store(inside, n, gelu(x)[0] if smooth else relu(x))
    _way_out(pre, p, inside, h, B, H, F, normal, scratch)
