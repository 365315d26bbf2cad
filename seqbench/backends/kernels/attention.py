"""Scaled dot-product attention of one head, ``softmax(q k' / sqrt(d)) v``, in blocks of queries and keys.

``q``, ``k``, ``v``, the output and all gradients are rows with a head in ``Dp`` columns, ``d`` rounded up to whole
vectors; what lies beyond ``d`` is 0. A panel of queries, one in each lane of two vectors, meets a block of keys at a
time: scores lie ``(keys, W)``, a row for a key, so that the softmax's maximum and sum run down the rows, lane by lane,
and the next product reads the block as it lies. The softmax is made online: maximum and sum so far, and what was added
up under an older maximum is scaled down. The backward pass makes the probabilities again, from ``lse``, the logarithm
of each query's sum of exponentials.

Query ``t`` sees the keys ``0 .. start + t``, or all ``keys`` of them; where there are none the output is 0.
"""

from __future__ import annotations

import math

import numpy as np

from seqbench.backends.kernels.gemm import lanes_of
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.linear import ADD, STORE, product, transpose_into
from seqbench.backends.kernels.pointwise import exp_of_negative, log
from seqbench.backends.kernels.vector import from_lane, load, maximum, spread, store

KEYS = 128
"""Keys of a block: their scores with a panel of queries fit into the first cache."""

ALL = -1
"""The ``start`` of queries that see every key."""


def scratch_of(Dp, lanes):
    """Elements of scratch that ``attend`` and ``attend_back`` need."""
    W = 2 * lanes
    return W * (3 * Dp + 3 * KEYS + 3)


@compiled
def _visible(start, query, keys):
    """How many keys a query sees."""
    return keys if start == ALL else min(keys, start + query + 1)


@compiled
def attend(
    q, q_at, q_row, queries, k, k_at, v_at, k_row, keys, start, d, mask, mask_at, mask_row, y, y_at, y_row,
    lse, lse_at, scratch,
):  # fmt: skip
    """One head of one sequence.

    Its ``queries`` are rows of ``q``, ``q_row`` apart from ``q_at`` on; its ``keys`` are rows of ``k``, ``k_row`` apart
    from ``k_at`` on, its values from ``v_at`` on. ``start`` is the position of the first query among the keys, or
    ``ALL``. ``mask`` has factors of the weights (dropout), a row for each query, or is empty. The output goes to ``y``,
    the logarithms of the sums to ``lse``, unless that is empty. ``scratch`` has ``scratch_of`` elements.
    """
    lanes = lanes_of(y)
    W, Dp = 2 * lanes, -(-d // lanes) * lanes
    scale = 1 / math.sqrt(d)
    queries_t, outputs, block, drops, rows = _pieces(scratch, Dp, W)
    for first in range(0, queries, W):
        count = min(W, queries - first)
        _turn(q, q_at + first * q_row, q_row, count, d, scale, queries_t, W)
        _fill(outputs, Dp * W, 0.0)
        _fill(rows, W, -np.inf)
        _fill(rows[W:], 2 * W, 0.0)
        seen = _visible(start, first + count - 1, keys)
        for key in range(0, seen, KEYS):
            n = min(KEYS, seen - key)
            product(
                k, k_at + key * k_row, k_row, 1, n, d, queries_t, 0, W, W, block, 0, W, STORE, block, block, 0, 0
            )  # fmt: skip
            _hide(block, W, n, key, start, first)
            _soften(block, W, n, rows, outputs, d)
            if mask.size:
                transpose_into(mask, mask_at + first * mask_row + key, mask_row, count, n, drops, np.intp(0), W)
                _scale(block, drops, n * W)
            product(
                k, v_at + key * k_row, 1, k_row, d, n, block, 0, W, W, outputs, 0, W, ADD, block, outputs, 0, W
            )  # fmt: skip
        _finish(outputs, rows, W, d)
        transpose_into(outputs, np.intp(0), W, Dp, count, y, y_at + first * y_row, y_row)
        if lse.size:
            _logarithms(rows, W, lse, lse_at + first)


@compiled
def _pieces(scratch, Dp, W):
    """Queries and outputs, turned; two blocks of scores; maxima, sums and a row more."""
    turned, block = Dp * W, KEYS * W
    at = 3 * turned
    return (
        scratch[:turned],
        scratch[turned : 2 * turned],
        scratch[at : at + block],
        scratch[at + block : at + 2 * block],
        scratch[at + 3 * block :],
    )


@compiled
def _fill(target, count, value):
    """``count`` elements."""
    vector = spread(load(target, 0), value)
    for n in range(0, count, lanes_of(target)):
        store(target, n, vector)


@compiled
def _turn(q, q_at, q_row, count, d, scale, turned, W):
    """Rows of queries as ``(d, W)``, times ``scale``; lanes without a query 0."""
    if count < W:
        _fill(turned, d * W, 0.0)
    transpose_into(q, q_at, q_row, count, d, turned, np.intp(0), W)
    for n in range(0, d * W, lanes_of(turned)):
        store(turned, n, load(turned, n) * scale)


@compiled
def _hide(block, W, n, key, start, first):
    """Scores of keys that a query does not see yet become ``-inf``."""
    if start == ALL:
        return
    lanes = lanes_of(block)
    for i in range(max(0, start + first + 1 - key), n):
        unseen = key + i - start - first  # queries before that one
        for lane in range(0, W, lanes):
            at = i * W + lane
            store(block, at, from_lane(load(block, at), unseen - lane, -np.inf))


@compiled
def _soften(block, W, n, rows, outputs, d):
    """Scores to exponentials, maxima and sums (rows 0 and 1) brought up to date, what was added up scaled down."""
    lanes = lanes_of(block)
    for lane in range(0, W, lanes):
        before = load(rows, lane)
        top = before
        for i in range(n):
            top = maximum(load(block, i * W + lane), top)
        added = spread(top, 0.0)
        for i in range(n):
            weight = exp_of_negative(load(block, i * W + lane) - top)
            added = added + weight
            store(block, i * W + lane, weight)
        factor = exp_of_negative(before - top)
        store(rows, lane, top)
        store(rows, W + lane, load(rows, W + lane) * factor + added)
        for j in range(d):
            store(outputs, j * W + lane, load(outputs, j * W + lane) * factor)


@compiled
def _scale(block, factors, count):
    for n in range(0, count, lanes_of(block)):
        store(block, n, load(block, n) * load(factors, n))


@compiled
def _finish(outputs, rows, W, d):
    """Divide by the sums; where there were no keys the output is 0."""
    lanes = lanes_of(outputs)
    for lane in range(0, W, lanes):
        sums = load(rows, W + lane)
        inverse = 1.0 / maximum(sums, spread(sums, np.finfo(np.float32).tiny))
        for j in range(d):
            store(outputs, j * W + lane, load(outputs, j * W + lane) * inverse)


@compiled
def _logarithms(rows, W, lse, at):
    lanes = lanes_of(lse)
    for lane in range(0, W, lanes):
        store(lse, at + lane, load(rows, lane) + log(load(rows, W + lane)))


@compiled
def attend_back(
    q, q_at, q_row, queries, k, k_at, v_at, k_row, keys, start, d, mask, mask_at, mask_row, y, y_at, y_row,
    lse, lse_at, dy, dy_at, dq, dq_at, dk, dk_at, dv_at, scratch,
):  # fmt: skip
    """The gradients ``dq``, ``dk`` and ``dv``, added to what is there; each lies as what it belongs to.

    With ``P`` the weights and ``D`` their gradient, ``D = dy v'``: that of the scores is ``P (D - dy . y)``.
    """
    lanes = lanes_of(y)
    W, Dp = 2 * lanes, -(-d // lanes) * lanes
    scale = 1 / math.sqrt(d)
    queries_t, d_outputs, block, d_block, rows = _pieces(scratch, Dp, W)
    outputs = scratch[2 * Dp * W : 3 * Dp * W]
    drops = scratch[3 * Dp * W + 2 * KEYS * W :]
    for first in range(0, queries, W):
        count = min(W, queries - first)
        seen = _visible(start, first + count - 1, keys)
        _turn(q, q_at + first * q_row, q_row, count, d, scale, queries_t, W)
        _turn(dy, dy_at + first * y_row, y_row, count, d, scale, d_outputs, W)
        _turn(y, y_at + first * y_row, y_row, count, d, 1.0, outputs, W)
        _dot(d_outputs, outputs, W, d, rows)
        for key in range(0, seen, KEYS):
            n = min(KEYS, seen - key)
            product(
                k, k_at + key * k_row, k_row, 1, n, d, queries_t, 0, W, W, block, 0, W, STORE, block, block, 0, 0
            )  # fmt: skip
            _hide(block, W, n, key, start, first)
            product(
                k, v_at + key * k_row, k_row, 1, n, d, d_outputs, 0, W, W, d_block, 0, W, STORE, block, block, 0, 0
            )  # fmt: skip
            if mask.size:
                transpose_into(mask, mask_at + first * mask_row + key, mask_row, count, n, drops, np.intp(0), W)
                _scale(d_block, drops, n * W)
            _soften_back(block, d_block, W, n, lse, lse_at + first, rows)
            if mask.size:
                _scale(block, drops, n * W)
            to = key * k_row
            product(
                block, 0, W, 1, n, count, dy, dy_at + first * y_row, y_row, Dp,
                dk, dv_at + to, k_row, ADD, block, dk, dv_at + to, k_row,
            )  # fmt: skip
            product(
                d_block, 0, W, 1, n, count, q, q_at + first * q_row, q_row, Dp,
                dk, dk_at + to, k_row, ADD, block, dk, dk_at + to, k_row,
            )  # fmt: skip
            to = dq_at + first * q_row
            product(
                d_block, 0, 1, W, count, n, k, k_at + key * k_row, k_row, Dp,
                dq, to, q_row, ADD, block, dq, to, q_row,
            )  # fmt: skip


@compiled
def _dot(x, y, W, d, rows):
    """Lane by lane, ``x . y`` into row 0."""
    lanes = lanes_of(x)
    for lane in range(0, W, lanes):
        value = spread(load(x, lane), 0.0)
        for j in range(d):
            value = value + load(x, j * W + lane) * load(y, j * W + lane)
        store(rows, lane, value)


@compiled
def _soften_back(block, d_block, W, n, lse, lse_at, rows):
    """Scores to weights, and the weights' gradients to those of the scores; ``rows`` has ``dy . y``, both scaled."""
    lanes = lanes_of(block)
    for lane in range(0, W, lanes):
        logarithm, mean = load(lse, lse_at + lane), load(rows, lane)
        for i in range(n):
            at = i * W + lane
            weight = exp_of_negative(load(block, at) - logarithm)
            store(block, at, weight)
            store(d_block, at, weight * (load(d_block, at) - mean))
