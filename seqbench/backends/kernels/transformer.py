"""The sublayers of a Transformer over rows: attention and feed-forward, each with residual and layer normalisation.

A row is a step of a sequence; rows of all sequences lie one after another, padding left out. Buffers, every width
rounded up to whole vectors (``Hp``, ``Fp``; a head has ``Dp`` columns, all heads ``Np``), all of them flat arrays, so
that each function is compiled for one type::

    x, y        (R, Hp)     what comes in and goes out, 0 beyond H
    inner       (R, 3 Np)   attention: queries, keys, values; to a memory: (R, Np), the queries
                (R, Fp)     feed-forward: f after dropout
    keys        (S, 2 Np)   keys and values of a memory, or of a cache
    heads       (R, Np)     what the heads give
    slope       (R, Fp)     the derivative of f, where it is not 1 and 0
    statistics  (R, 2)      of the layer normalisation
    sums        (R, Hp)     post-norm: x + A(x), what is normalised
    lse         (N, ...)    each query's logarithm of the sum of exponentials

A part of the batch goes through a sublayer in groups of about ``BLOCK`` rows, so that what passes from one product to
the next is still in the cache. What a backward pass needs stays in buffers of all rows; without one, a part's buffers
have a group's rows alone, and each group overwrites the last one's. Weight gradients are added up part by part.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from seqbench.backends.kernels.attention import ALL, attend, attend_back, scratch_of
from seqbench.backends.kernels.gemm import lanes_of
from seqbench.backends.kernels.jit import compiled, merged
from seqbench.backends.kernels.layer_norm import normalise, normalise_again, normalise_back
from seqbench.backends.kernels.linear import (
    ADD,
    BIAS,
    GATE,
    RELU,
    STORE,
    SUM,
    TIMES,
    add_column_sums,
    add_weight_gradient,
    linear,
    pack,
    pack_back,
)
from seqbench.backends.kernels.pointwise import gelu, positive, relu
from seqbench.backends.kernels.vector import load, spread, store

Array = Any

BLOCK = 128
"""Rows that go through a sublayer at a time."""


class Sizes(NamedTuple):
    """Of a sublayer, and how it is run.

    Attributes:
        H: the width.
        Hp: the same padded.
        inner: columns of ``inner``.
        outer: columns of what the second matrix reads: ``Np`` or ``Fp``.
        F: how many of them it reads: all ``Np``, or those of ``Fp`` that are no padding.
        heads: their number; 0: a feed-forward layer.
        d: the width of a head.
        mask_row: elements between the dropout factors of two queries.
        mask_head: between those of two heads.
        lse_head: between the logarithms of two heads.
        pre: the layer normalisation comes before it.
        gelu: the function of the feed-forward layer, else the rectifier.
        causal: a query sees no later key.
        append: keys and values of the rows belong behind those of a cache.
        keep: leave what the backward pass needs.
    """

    H: int
    Hp: int
    inner: int
    outer: int
    F: int
    heads: int
    d: int
    mask_row: int
    mask_head: int
    lse_head: int
    pre: bool
    gelu: bool
    causal: bool
    append: bool
    keep: bool


class Parameters(NamedTuple):
    """Of a sublayer; the matrices ``W_in (inner, Hp)`` and ``W_out (Hp, outer)``."""

    norm_w: Array
    norm_b: Array
    W_in: Array
    b_in: Array
    W_out: Array
    b_out: Array


class Packed(NamedTuple):
    """Both matrices as a pass reads them."""

    W_in: Array
    W_out: Array


class Rows(NamedTuple):
    """Which rows belong to a sequence, and what they attend to.

    Attributes:
        first: ``(B + 1)`` of the sequences.
        first_key: ``(B + 1)`` of what they attend to.
        start: ``(B)``: the position of a sequence's first row among its keys; of use where it is causal.
    """

    first: Array
    first_key: Array
    start: Array


class Kept(NamedTuple):
    """Buffers as above; of attention ``slope``, of feed-forward ``heads`` and ``lse`` are empty."""

    inner: Array
    heads: Array
    slope: Array
    statistics: Array
    sums: Array
    lse: Array


class Drops(NamedTuple):
    """Factors by which a dropout multiplies, or empty.

    Attributes:
        inside: attention: of the weights, ``(B, N, T, S)``; feed-forward: of f, ``(R, Fp)``.
        outside: of the sublayer's output, ``(R, Hp)``.
    """

    inside: Array
    outside: Array


# --- rows and groups ------------------------------------------------------------------------------


@compiled
def _share(n, part, parts, multiple):
    """Bounds of one of ``parts`` shares of ``n``, at multiples."""
    each = -(-n // (parts * multiple)) * multiple
    return min(n, part * each), min(n, (part + 1) * each)


@compiled
def _group_end(first, b, last):
    """The sequence after a group that begins with ``b``: as many as make a block of rows."""
    end = b + 1
    while end < last and first[end] - first[b] < BLOCK:
        end += 1
    return end


@compiled
def _block_rows(rows):
    """Rows of a block, all blocks about equal."""
    blocks = max(1, -(-rows // BLOCK))
    return max(8, -(-rows // (8 * blocks)) * 8)


@compiled
def _multiply(x, x_at, factors, factors_at, count, y, y_at):
    """``y = x factors``."""
    for n in range(0, count, lanes_of(y)):
        store(y, y_at + n, load(x, x_at + n) * load(factors, factors_at + n))


@compiled
def _add_multiple(x, x_at, d, factors, count, y, y_at):
    """``y = x + d factors``, the factors being at ``x_at`` too."""
    for n in range(0, count, lanes_of(y)):
        store(y, y_at + n, load(x, x_at + n) + load(d, n) * load(factors, x_at + n))


@merged
def _part_of(sizes, sums, part):
    """One part's sums of the parameters' gradients, which lie one after another."""
    Hp, N, K = sizes.Hp, sizes.inner, sizes.outer
    W_in, b_in, W_out, b_out = 2 * Hp, 2 * Hp + N * Hp, 2 * Hp + N * Hp + N, 2 * Hp + N * Hp + N + Hp * K
    g = sums[part * (b_out + Hp) : (part + 1) * (b_out + Hp)]
    return Parameters(g[:Hp], g[Hp:W_in], g[W_in:b_in], g[b_in:W_out], g[W_out:b_out], g[b_out:])


# --- both sublayers: into the two matrices and out of them ----------------------------------------


@merged
def pack_forward(sizes, p, packed):
    """Both matrices for the forward pass."""
    pack(p.W_in, sizes.inner, sizes.Hp, sizes.H, packed.W_in)
    pack(p.W_out, sizes.Hp, sizes.outer, sizes.F, packed.W_out)


@merged
def pack_backward(sizes, p, packed):
    """Both matrices for the backward pass."""
    pack_back(p.W_in, sizes.Hp, sizes.inner, packed.W_in)
    pack_back(p.W_out, sizes.outer, sizes.H, packed.W_out)


@merged
def _way_in(sizes, p, x, first, rows, kept, shift, normal):
    """What the first matrix reads, ``(array, offset)``: the normalised rows, or the rows."""
    zero = np.intp(0)
    if not sizes.pre:
        return x, first * sizes.Hp
    normalise(x, first * sizes.Hp, rows, sizes.H, p.norm_w, p.norm_b, kept.statistics, first + shift, normal, zero)
    return normal, zero


@merged
def _way_out(sizes, p, W_out, x, source, source_at, first, rows, kept, shift, drops, dropped, y):
    """The second matrix, dropout, residual, and in post-norm the normalisation; ``y`` may lie where ``x`` does."""
    Hp, at = sizes.Hp, first * sizes.Hp
    sums = y if sizes.pre or not sizes.keep else kept.sums
    to, to_at, way = (dropped, np.intp(0), BIAS) if drops.outside.size else (sums, at, SUM)
    linear(source, source_at, sizes.outer, rows, sizes.F, W_out, Hp, to, to_at, way, p.b_out, x, at)
    if drops.outside.size:
        _add_multiple(x, at, dropped, drops.outside, rows * Hp, sums, at)
    if not sizes.pre:
        normalise(sums, at, rows, sizes.H, p.norm_w, p.norm_b, kept.statistics, first + shift, y, at)


@merged
def _back_out(sizes, p, kept, drops, d, first, rows, dropped, g):
    """From the output's gradient ``d`` to that of what the second matrix gives, ``(array, offset)``.

    In post-norm ``d`` becomes that of the sum before the normalisation. ``g`` has the gradients of the parameters;
    that of the second matrix itself is the caller's.
    """
    Hp, at = sizes.Hp, first * sizes.Hp
    if not sizes.pre:
        normalise_back(
            d, at, kept.sums, at, rows, sizes.H, p.norm_w, kept.statistics, first, d, at, np.bool_(False), d, at,
            g.norm_w, g.norm_b,
        )  # fmt: skip
    source = d
    if drops.outside.size:
        _multiply(d, at, drops.outside, at, rows * Hp, dropped, 0)
        source, at = dropped, np.intp(0)
    add_column_sums(source, at, Hp, rows, g.b_out)
    return source, at


@merged
def _back_in(sizes, p, W_in, x, kept, d_inner, d_at, first, rows, d, normal, d_normal, g):
    """Through the first matrix and in pre-norm the normalisation, added to ``d``."""
    H, Hp, N, at = sizes.H, sizes.Hp, sizes.inner, first * sizes.Hp
    add_column_sums(d_inner, d_at, N, rows, g.b_in)
    source, source_at, to, to_at, way, zero = x, at, d, at, ADD, np.intp(0)
    if sizes.pre:
        normalise_again(x, at, rows, p.norm_w, p.norm_b, kept.statistics, first, normal, zero)
        source, source_at, to, to_at, way = normal, zero, d_normal, zero, STORE
    add_weight_gradient(d_inner, d_at, N, source, source_at, Hp, rows, g.W_in)
    linear(d_inner, d_at, N, rows, N, W_in, Hp, to, to_at, way, p.norm_b, to, to_at)
    if sizes.pre:
        normalise_back(
            d_normal, zero, x, at, rows, H, p.norm_w, kept.statistics, first, d, at, np.bool_(True), d, at,
            g.norm_w, g.norm_b,
        )  # fmt: skip


# --- attention ------------------------------------------------------------------------------------


def attention_scratch(sizes, lanes):
    """Elements of scratch that a part of the attention needs, forward or backward."""
    return 3 * BLOCK * sizes.Hp + scratch_of(sizes.outer // sizes.heads, lanes)


@merged
def attention_forward(sizes, p, packed, rows, x, keys, kept, drops, y, scratch, group, part, parts):
    """A part of the sequences, in groups; ``group`` is the number of rows of a part's buffers if they are not kept."""
    Hp, outer, width = sizes.Hp, sizes.outer, sizes.inner
    normal, rest = scratch[: BLOCK * Hp], scratch[BLOCK * Hp :]
    b, last = _share(rows.first.size - 1, part, parts, 1)
    while b < last:
        end = _group_end(rows.first, b, last)
        r0, r1 = rows.first[b], rows.first[end]
        shift = 0 if sizes.keep else part * group - r0
        step = _block_rows(r1 - r0)
        for r in range(r0, r1, step):
            n = min(step, r1 - r)
            source, at = _way_in(sizes, p, x, r, n, kept, shift, normal)
            to = (r + shift) * width
            linear(source, at, Hp, n, sizes.H, packed.W_in, width, kept.inner, to, BIAS, p.b_in, x, 0)
        for s in range(b, end):
            if sizes.append:
                _append(sizes, rows, kept.inner, shift, keys, s)
            _heads(sizes, rows, keys, kept, shift, drops.inside, s, rest)
        for r in range(r0, r1, step):
            n = min(step, r1 - r)
            _way_out(sizes, p, packed.W_out, x, kept.heads, (r + shift) * outer, r, n, kept, shift, drops, normal, y)
        b = end


@merged
def _append(sizes, rows, inner, shift, keys, s):
    """Keys and values of a sequence's rows behind those of its cache."""
    width, N = sizes.inner, 2 * sizes.outer
    for r in range(rows.first[s], rows.first[s + 1]):
        to = (rows.first_key[s] + rows.start[s] + r - rows.first[s]) * N
        for n in range(0, N, lanes_of(keys)):
            store(keys, to + n, load(inner, (r + shift) * width + width - N + n))


@merged
def _places(sizes, rows, has_keys, shift, s):
    """Where queries, keys, values and heads of a sequence begin, and which it sees.

    Returns:
        ``q_at, k_at, v_at, y_at, k_row, queries, keys, start``; keys are in a buffer of their own, or in ``inner``.
    """
    width, outer = sizes.inner, sizes.outer
    r = rows.first[s] + shift
    queries = rows.first[s + 1] - rows.first[s]
    if has_keys:
        k_row = 2 * outer
        k_at, n = rows.first_key[s] * k_row, rows.first_key[s + 1] - rows.first_key[s]
        return r * width, k_at, k_at + outer, r * outer, k_row, queries, n, rows.start[s] if sizes.causal else ALL
    k_at = r * width + outer
    return r * width, k_at, k_at + outer, r * outer, width, queries, queries, 0 if sizes.causal else ALL


@merged
def _lse_place(rows, s, lanes):
    """Where a sequence's logarithms begin: each has room for whole panels of queries."""
    return rows.first[s] + s * 2 * lanes


@merged
def _heads(sizes, rows, keys, kept, shift, mask, s, scratch):
    """All heads of one sequence."""
    inner, heads, lse = kept.inner, kept.heads, kept.lse
    q_at, k_at, v_at, y_at, k_row, queries, n_keys, start = _places(sizes, rows, keys.size > 0, shift, s)
    source = keys if keys.size else inner
    lse_at = _lse_place(rows, s, lanes_of(heads))
    for n in range(sizes.heads):
        c = n * (sizes.outer // sizes.heads)
        attend(
            inner, q_at + c, sizes.inner, queries, source, k_at + c, v_at + c, k_row, n_keys, start, sizes.d,
            mask, (s * sizes.heads + n) * sizes.mask_head, sizes.mask_row, heads, y_at + c, sizes.outer,
            lse, n * sizes.lse_head + lse_at, scratch,
        )  # fmt: skip


@merged
def attention_backward(
    sizes, p, packed, rows, x, keys, kept, drops, d, d_keys, d_inner, d_heads, sums, scratch, group, part, parts
):
    """The gradients of a part of the sequences: ``d``, of the output, becomes that of the input.

    ``d_inner`` and ``d_heads`` have ``group`` rows for each part. ``d_keys`` is added to, and so is the part's share
    of ``sums``, the parameters' gradients.
    """
    g = _part_of(sizes, sums, part)
    Hp, outer, width = sizes.Hp, sizes.outer, sizes.inner
    normal, dropped, d_normal, rest = _backward_scratch(scratch, Hp)
    b, last = _share(rows.first.size - 1, part, parts, 1)
    while b < last:
        end = _group_end(rows.first, b, last)
        r0, r1 = rows.first[b], rows.first[end]
        shift = part * group - r0
        step = _block_rows(r1 - r0)
        for r in range(r0, r1, step):
            n = min(step, r1 - r)
            source, at = _back_out(sizes, p, kept, drops, d, r, n, dropped, g)
            add_weight_gradient(source, at, Hp, kept.heads, r * outer, outer, n, g.W_out)
            to = (r + shift) * outer
            linear(source, at, Hp, n, sizes.H, packed.W_out, outer, d_heads, to, STORE, p.b_in, d_heads, 0)
        _clear(d_inner, (r0 + shift) * width, (r1 - r0) * width)
        for s in range(b, end):
            _heads_back(sizes, rows, keys, kept, drops.inside, d_heads, d_inner, d_keys, shift, s, rest)
            if sizes.append:
                _append_back(sizes, rows, d_inner, shift, d_keys, s)
        for r in range(r0, r1, step):
            n = min(step, r1 - r)
            at = (r + shift) * width
            _back_in(
                sizes, p, packed.W_in, x, kept, d_inner, at, r, n, d, normal, d_normal, g
            )  # fmt: skip
        b = end


@merged
def _backward_scratch(scratch, Hp):
    """Three blocks of rows, and the rest."""
    block = BLOCK * Hp
    return scratch[:block], scratch[block : 2 * block], scratch[2 * block : 3 * block], scratch[3 * block :]


@compiled
def _clear(target, at, count):
    zeros = spread(load(target, at), 0.0)
    for n in range(at, at + count, lanes_of(target)):
        store(target, n, zeros)


@merged
def _heads_back(sizes, rows, keys, kept, mask, d_heads, d_inner, d_keys, shift, s, scratch):
    """All heads of one sequence; ``d_heads`` and ``d_inner`` are a group's."""
    inner, heads, lse = kept.inner, kept.heads, kept.lse
    has_keys = keys.size > 0
    q_at, k_at, v_at, y_at, k_row, queries, n_keys, start = _places(sizes, rows, has_keys, 0, s)
    dq_at, dk_at, dv_at, dy_at, _, _, _, _ = _places(sizes, rows, has_keys, shift, s)
    source, target = (keys, d_keys) if has_keys else (inner, d_inner)
    lse_at = _lse_place(rows, s, lanes_of(heads))
    for n in range(sizes.heads):
        c = n * (sizes.outer // sizes.heads)
        attend_back(
            inner, q_at + c, sizes.inner, queries, source, k_at + c, v_at + c, k_row, n_keys, start, sizes.d,
            mask, (s * sizes.heads + n) * sizes.mask_head, sizes.mask_row, heads, y_at + c, sizes.outer,
            lse, n * sizes.lse_head + lse_at, d_heads, dy_at + c, d_inner, dq_at + c, target, dk_at + c, dv_at + c,
            scratch,
        )  # fmt: skip


@merged
def _append_back(sizes, rows, d_inner, shift, d_keys, s):
    """The gradients of a sequence's own keys and values, from behind those of its cache."""
    width, N = sizes.inner, 2 * sizes.outer
    for r in range(rows.first[s], rows.first[s + 1]):
        at = (rows.first_key[s] + rows.start[s] + r - rows.first[s]) * N
        for n in range(0, N, lanes_of(d_keys)):
            store(d_inner, (r + shift) * width + width - N + n, load(d_keys, at + n))


# --- feed-forward ---------------------------------------------------------------------------------


def feed_forward_scratch(sizes):
    """Elements of scratch that a part of the feed-forward layer needs, forward or backward."""
    return BLOCK * (3 * sizes.Hp + sizes.outer)


@merged
def feed_forward_forward(sizes, p, packed, R, x, kept, drops, y, scratch, part, parts):
    """A part of the rows, in blocks."""
    Hp, Fp = sizes.Hp, sizes.outer
    normal = scratch[: BLOCK * Hp]
    way = BIAS if sizes.gelu or drops.inside.size else RELU
    first, last = _share(R, part, parts, 8)
    step = _block_rows(last - first)
    for r in range(first, last, step):
        n = min(step, last - r)
        shift = 0 if sizes.keep else part * BLOCK - r
        source, at = _way_in(sizes, p, x, r, n, kept, shift, normal)
        to = (r + shift) * Fp
        linear(source, at, Hp, n, sizes.H, packed.W_in, Fp, kept.inner, to, way, p.b_in, x, 0)
        if way == BIAS:
            _activate(sizes.gelu, kept.inner, kept.slope, to, n * Fp, drops.inside, r * Fp)
        _way_out(sizes, p, packed.W_out, x, kept.inner, to, r, n, kept, shift, drops, normal, y)


@compiled
def _activate(smooth, inner, slope, at, count, drops, drops_at):
    """The function and dropout in place, and the derivative of both."""
    for n in range(0, count, lanes_of(inner)):
        x = load(inner, at + n)
        if smooth:
            value, derivative = gelu(x)
        else:
            value, derivative = relu(x), positive(x)
        if drops.size:
            factor = load(drops, drops_at + n)
            value, derivative = value * factor, derivative * factor
        store(inner, at + n, value)
        if slope.size:
            store(slope, at + n, derivative)


@merged
def feed_forward_backward(sizes, p, packed, R, x, kept, drops, d, sums, scratch, part, parts):
    """The gradients of a part of the rows."""
    g = _part_of(sizes, sums, part)
    Hp, Fp = sizes.Hp, sizes.outer
    normal, dropped, d_normal, d_inner = _backward_scratch(scratch, Hp)
    way, other = (TIMES, kept.slope) if kept.slope.size else (GATE, kept.inner)
    first, last = _share(R, part, parts, 8)
    step = _block_rows(last - first)
    for r in range(first, last, step):
        n = min(step, last - r)
        source, at = _back_out(sizes, p, kept, drops, d, r, n, dropped, g)
        add_weight_gradient(source, at, Hp, kept.inner, r * Fp, Fp, n, g.W_out)
        linear(source, at, Hp, n, sizes.H, packed.W_out, Fp, d_inner, 0, way, p.b_in, other, r * Fp)
        _back_in(sizes, p, packed.W_in, x, kept, d_inner, np.intp(0), r, n, d, normal, d_normal, g)
