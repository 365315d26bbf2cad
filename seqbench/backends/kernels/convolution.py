"""Residual blocks of causal dilated convolutions over time: forward, backward, weight gradients, on packed filters.

A convolution is one matrix product for each of its ``K`` taps, over the same rows shifted in time::

    c[t] += sum_k W_k a[t - (K-1-k) d]

Time comes first, so that a shift by ``s`` steps of ``B`` sequences is a shift by ``s * B`` rows; what a tap would read
before the first input costs nothing. Buffers, in elements (``Dp``, ``Hp``: input and output channels rounded up to
whole vectors)::

    x      (P + T, B, Dp)    a block's input. In front what came before, if a state came in; else P = 0
    h      (P + T, B, Hp)    what conv_2 reads: dropout(relu(conv_1(x)))
    f      (T, B, Hp)        F(x) = dropout(relu(conv_2(h))); without training a block of steps, scratch
    y      (P' + T, B, Hp)   relu(f + x): the next block's x
    masks  (T, B, Hp)        0 or 1 / (1 - p) for each unit, or empty
    W      packed (D, Hp) or, for the backward pass, (H, Dp), for each tap

The backward pass turns ``f`` into the gradient of conv_2's sums, and makes that of conv_1's in ``d_h``. Parameters come
in threes: of conv_1, conv_2 and the 1x1 convolution beside them, the last one empty where there is none.
"""

from __future__ import annotations

import numpy as np

from seqbench.backends.kernels.engine import add, block_steps, bounds_of, copy
from seqbench.backends.kernels.gemm import BLOCK, aligned, lanes_of, multiply, multiply_columns
from seqbench.backends.kernels.jit import compiled, merged
from seqbench.backends.kernels.ownership import borrowed, keep
from seqbench.backends.kernels.pointwise import positive, relu
from seqbench.backends.kernels.vector import load, number, spread, store, transpose

# --- filters --------------------------------------------------------------------------------------


@compiled
def padded(n, like):
    """``n`` rounded up to whole vectors of such numbers."""
    lanes = lanes_of(like)
    return -(-n // lanes) * lanes


@compiled
def dot(a, a_at, b, b_at, n, scratch):
    """``sum_i a[a_at + i] b[b_at + i]`` for ``i < n``; ``scratch`` has room for a vector."""
    lanes = lanes_of(a)
    whole, total = n - n % lanes, 0.0
    if whole:
        sums = load(a, a_at) * load(b, b_at)
        for i in range(lanes, whole, lanes):
            sums = sums + load(a, a_at + i) * load(b, b_at + i)
        store(scratch, 0, sums)
        for i in range(lanes):
            total += scratch[i]
    for i in range(whole, n):
        total += number(a, a_at + i) * number(b, b_at + i)
    return total


@compiled
def norms_of(V, g):
    """``|V|`` of each output channel of ``V (H, D, K)``, as many as there are in ``g``."""
    norms, scratch = np.empty_like(g), np.empty(lanes_of(V), V.dtype)
    n = V.shape[1] * V.shape[2]
    for m in range(g.size):
        norms[m] = np.sqrt(dot(V, m * n, V, m * n, n, scratch))
    return norms


@compiled
def pack_filter(V, g, together, packed):
    """``W = g V / |V|``, or ``V`` where ``g`` is empty: each tap as a packed ``(D, Hp)``, one after the other.

    Or all taps ``together`` as one packed ``(K * D, Hp)``.
    """
    H, D, K = V.shape
    lanes, norms, Hp, row = lanes_of(packed), norms_of(V, g), padded(H, packed), D * K
    square, scales = np.empty(lanes * lanes, V.dtype), np.empty(lanes, V.dtype)
    for n in range(0, Hp, lanes):
        panel = n - n % (2 * lanes)
        width = min(2 * lanes, Hp - panel)
        at, tap = panel * (row if together else D) + n - panel, D * (width if together else Hp)
        for m in range(n, n + lanes):
            scales[m - n] = g[m] / norms[m] if m < g.size else V.dtype.type(m < H)
        scale, rows = load(scales, 0), min(lanes, H - n)
        whole, c, k = row // lanes * lanes if rows == lanes else 0, 0, 0
        for j in range(row):
            to = at + k * tap + c * width
            if j < whole:
                if j % lanes == 0:
                    transpose(V, n * row + j, row, square, np.int64(0), lanes)
                store(packed, to, load(square, j % lanes * lanes) * scale)
            else:
                for m in range(lanes):
                    packed[to + m] = number(V, (n + m) * row + j) * scales[m] if m < rows else 0
            k += 1
            if k == K:
                c, k = c + 1, 0


@compiled
def pack_bias(b, packed):
    """With zeros behind."""
    for n in range(packed.size):
        packed[n] = b[n] if n < b.size else 0


@compiled
def pack_transposed(V, g, packed):
    """The same for the backward pass: each tap as a packed ``(H, Dp)``."""
    H, D, K = V.shape
    lanes, norms, Dp = lanes_of(packed), norms_of(V, g), padded(D, packed)
    for n in range(H):
        scale = g[n] / norms[n] if g.size else V.dtype.type(1)
        for panel in range(0, Dp, 2 * lanes):
            width = min(2 * lanes, Dp - panel)
            at = panel * H + n * width
            for j in range(width):
                for k in range(K):
                    packed[at + k * H * Dp + j] = V[n, panel + j, k] * scale if panel + j < D else 0


@compiled
def filter_gradients(V, g, d_taps, d_V, d_g):
    """From ``d_taps (K, Hp, Dp)``, the gradient of ``W``, those of ``V`` and ``g``.

    ``d_g = V . d_W / |V|`` and ``d_V = g / |V| (d_W - d_g V / |V|)``, for each output channel.
    """
    H, D, K = V.shape
    norms, scratch = norms_of(V, g), np.empty(lanes_of(V), V.dtype)
    for m in range(H):
        for c in range(D):
            for k in range(K):
                d_V[m, c, k] = d_taps[k, m, c]
        if g.size:
            d_g[m] = dot(V, m * D * K, d_V, m * D * K, D * K, scratch) / norms[m]
            scale, along = g[m] / norms[m], d_g[m] / norms[m]
            for c in range(D):
                for k in range(K):
                    d_V[m, c, k] = scale * (d_V[m, c, k] - along * V[m, c, k])


# --- one convolution ------------------------------------------------------------------------------


@compiled
def convolve(a, a0, W, K, C, c, c0, c1, offset, step, first, rows):
    """``c[i] += sum_k W_k a[i + offset + k * step]`` for ``c0 <= i < c1``, where ``a`` has such a step from ``a0`` on.

    ``a (steps, B, Ca)`` and ``c (steps, B, Cc)``; ``C`` of ``a``'s columns count; sequences ``first .. first + rows``.
    """
    B, Ca, Cc = a.shape[1], a.shape[2], c.shape[2]
    flat_a, flat_c = a.ravel(), c.ravel()  # for arrays of three axes numba would compile the product once more
    for k in range(K):
        shift = offset + k * step
        low, high = max(c0, a0 - shift), min(c1, a.shape[0] - shift)
        if low >= high:
            continue
        a_at, c_at = ((low + shift) * B + first) * Ca, (low * B + first) * Cc
        outer, inner = high - low, rows
        if rows == B:  # one long run of rows
            outer, inner = 1, outer * rows
        multiply(flat_a, a_at, B * Ca, Ca, outer, inner, 1, C, W, k * C * Cc, Cc, flat_c, c_at, B * Cc, Cc)


@compiled
def fill(bias, c, c0, c1, first, rows):
    """Every row of these steps becomes the bias; zero if it is empty."""
    B, C = c.shape[1], c.shape[2]
    lanes = lanes_of(c)
    for i in range(c0, c1):
        for at in range((i * B + first) * C, (i * B + first + rows) * C, C):
            for o in range(0, C, lanes):
                store(c, at + o, load(bias, o) if bias.size else spread(load(c, at + o), 0))


@compiled
def rectify(c, c_past, mask, t0, t1, first, rows):
    """``c = relu(c) * mask`` at the steps ``t0 .. t1``, before which ``c`` has ``c_past`` more; no mask if empty."""
    B, C = c.shape[1], c.shape[2]
    lanes = lanes_of(c)
    for t in range(t0, t1):
        at, m = ((t + c_past) * B + first) * C, (t * B + first) * C
        for o in range(0, rows * C, lanes):
            value = relu(load(c, at + o))
            if mask.size:
                value = value * load(mask, m + o)
            store(c, at + o, value)


# --- a block, forward -----------------------------------------------------------------------------


@merged
def filters_in(V, packed):
    """The filters for the forward pass and the biases, in threes, one after another in ``packed``."""
    H, Hp = V[0].shape[0], padded(V[0].shape[0], packed)
    first, second, short = V[0].size // H * Hp, V[1].size // H * Hp, V[2].size // H * Hp
    at = first + second + short
    weights = (packed[:first], packed[first : first + second], packed[first + second : at])
    biases = (packed[at : at + Hp], packed[at + Hp : at + 2 * Hp], packed[at + 2 * Hp : at + 3 * Hp])
    return weights, biases


@merged
def pack_forward(V, g, b, weights, biases):
    """Pack the filters and the biases, all in threes."""
    for i in range(3):
        if V[i].size:
            pack_filter(V[i], g[i], False, weights[i])
            pack_bias(b[i], biases[i])


@merged
def forward_rows(x, h, f, y, T, V, weights, biases, masks, dilation, first, last, training):
    """A block for the sequences ``first .. last``.

    Args:
        x: the input; what comes in front of its last ``T`` steps is the past.
        h: the same for the second convolution.
        f: see the module.
        y: its last ``T`` steps are the output.
        T: steps.
        V: the filters, for their sizes.
        weights: packed.
        biases: padded.
        masks: of both dropouts.
        dilation: of both convolutions.
        first: sequence.
        last: the one after the last sequence.
        training: keep ``f``.
    """
    H, D, K = V[0].shape
    rows, reach = last - first, (K - 1) * dilation
    x_past, h_past, y_past = x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    steps, start = block_steps(rows), np.intp(0)  # of a literal, numba would compile what it is passed to once more
    for t0 in range(0, T, steps):
        t1 = min(T, t0 + steps)
        h0, h1 = h_past + t0, h_past + t1
        fill(biases[0], h, h0, h1, first, rows)
        convolve(x, start, weights[0], K, D, h, h0, h1, x_past - h_past - reach, dilation, first, rows)
        rectify(h, h_past, masks[0], t0, t1, first, rows)
        f_past = 0 if training else -t0
        f0, f1 = f_past + t0, f_past + t1
        fill(biases[1], f, f0, f1, first, rows)
        convolve(h, start, weights[1], K, H, f, f0, f1, h_past - f_past - reach, dilation, first, rows)
        rectify(f, f_past, masks[1], t0, t1, first, rows)
        if weights[2].size:
            y0, y1 = y_past + t0, y_past + t1
            fill(biases[2], y, y0, y1, first, rows)
            convolve(x, start, weights[2], V[2].shape[2], D, y, y0, y1, x_past - y_past, dilation, first, rows)
            _join(y, y_past, f, f_past, y, y_past, t0, t1, first, rows)
        else:
            _join(x, x_past, f, f_past, y, y_past, t0, t1, first, rows)


@compiled
def _join(x, x_past, f, f_past, y, y_past, t0, t1, first, rows):
    """``y = relu(f + x)``."""
    B, C = y.shape[1], y.shape[2]
    lanes = lanes_of(y)
    for t in range(t0, t1):
        at = (t * B + first) * C
        at_x, at_f, at_y = at + x_past * B * C, at + f_past * B * C, at + y_past * B * C
        for o in range(0, rows * C, lanes):
            store(y, at_y + o, relu(load(f, at_f + o) + load(x, at_x + o)))


# --- a block, backward ----------------------------------------------------------------------------


@merged
def filters_back_in(V, packed):
    """The filters for the backward pass, in threes, one after another in ``packed``."""
    H, D, K = V[0].shape
    Hp, Dp = padded(H, packed), padded(D, packed)
    first, second, short = K * H * Dp, K * H * Hp, V[2].size // D * Dp
    at = first + second
    return packed[:first], packed[first:at], packed[at : at + short]


@merged
def pack_backward(V, g, weights):
    """Pack the filters, in threes."""
    for i in range(3):
        if V[i].size:
            pack_transposed(V[i], g[i], weights[i])


@merged
def backward_rows(h, f, y, T, d_y, d_h, d_x, V, weights, scale, dilation, first, last, fresh):
    """The gradients of both convolutions' sums and of what comes in, for the sequences ``first .. last``.

    Args:
        h: the input of the second convolution.
        f: what the forward pass kept; afterwards the gradient of the second convolution's sums.
        y: the output.
        T: steps.
        d_y: the gradient of ``y``; where there is a shortcut, afterwards that of ``f + x``.
        d_h: that of ``h``; afterwards, in the last ``T`` steps, that of the first convolution's sums.
        d_x: that of the block's input.
        V: the filters, for their sizes.
        weights: packed.
        scale: ``1 / (1 - p)``.
        dilation: of both convolutions.
        first: sequence.
        last: the one after the last sequence.
        fresh: ``d_h`` and ``d_x`` hold nothing yet; else what is there is added to.
    """
    H, _, K = V[0].shape
    rows, reach = last - first, (K - 1) * dilation
    x_past, h_past, y_past = d_x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    steps, start, nothing = block_steps(rows), np.intp(0), np.empty(0, f.dtype)
    t1 = T
    while t1 > 0:
        t0 = max(0, t1 - steps)
        h0, h1, x0, x1 = h_past + t0, h_past + t1, x_past + t0, x_past + t1
        if fresh:
            fill(nothing, d_h, h0, h1, first, rows)
            fill(nothing, d_x, x0, x1, first, rows)
        _split(y, y_past, d_y, f, d_x, x_past, scale, weights[2].size > 0, t0, t1, first, rows)
        convolve(f, start, weights[1], K, H, d_h, h0, h1, reach - h_past, -dilation, first, rows)
        _through_relu(d_h, h, h_past, scale, t0, t1, first, rows)
        convolve(d_h, h_past, weights[0], K, H, d_x, x0, x1, reach + h_past - x_past, -dilation, first, rows)
        if weights[2].size:
            convolve(d_y, y_past, weights[2], V[2].shape[2], H, d_x, x0, x1, y_past - x_past, dilation, first, rows)
        t1 = t0
    convolve(f, start, weights[1], K, H, d_h, start, h_past, reach - h_past, -dilation, first, rows)
    convolve(d_h, h_past, weights[0], K, H, d_x, start, x_past, reach + h_past - x_past, -dilation, first, rows)


@compiled
def _split(y, y_past, d_y, f, d_x, x_past, scale, shortcut, t0, t1, first, rows):
    """From ``y`` to ``f`` (through the rectifier and dropout, in place) and to what goes past the convolutions."""
    B, C = y.shape[1], y.shape[2]
    lanes = lanes_of(y)
    for t in range(t0, t1):
        at_f = (t * B + first) * C
        at_y, at_x = at_f + y_past * B * C, at_f + x_past * B * C
        for o in range(0, rows * C, lanes):
            d = load(d_y, at_y + o) * positive(load(y, at_y + o))
            store(f, at_f + o, d * positive(load(f, at_f + o)) * scale)
            if shortcut:
                store(d_y, at_y + o, d)
            else:
                store(d_x, at_x + o, load(d_x, at_x + o) + d)


@compiled
def _through_relu(d_h, h, past, scale, t0, t1, first, rows):
    """Where a unit was on: ``h > 0`` says that it was neither negative nor dropped."""
    B, C = h.shape[1], h.shape[2]
    lanes = lanes_of(h)
    for t in range(t0, t1):
        at = ((t + past) * B + first) * C
        for o in range(0, rows * C, lanes):
            store(d_h, at + o, load(d_h, at + o) * positive(load(h, at + o)) * scale)


# --- gradients of the parameters ------------------------------------------------------------------


@merged
def weight_gradients(x, h, f, T, d_y, d_h, V, dilation, d_taps, part, parts):
    """``d_taps (K, Hp, Dp)`` of each convolution, after ``backward_rows``; a part of the output channels.

    Split by channels, each sum is made by one thread in one order.
    """
    _tap_gradients(x, d_h, T, dilation, d_taps[0], part, parts)
    _tap_gradients(h, f, T, dilation, d_taps[1], part, parts)
    if V[2].size:
        _tap_gradients(x, d_y, T, dilation, d_taps[2], part, parts)


@compiled
def _tap_gradients(x, d_c, T, dilation, d_taps, part, parts):
    """Of a convolution that reads ``x`` and whose sums have the gradient ``d_c``; their last ``T`` steps match."""
    K, Hp, Dp = d_taps.shape
    B, lanes = x.shape[1], lanes_of(x)
    x_past, c_past = x.shape[0] - T, d_c.shape[0] - T
    flat_x, flat_c, taps = x.ravel(), d_c.ravel(), d_taps.ravel()  # as in ``convolve``
    first, last = bounds_of(Hp, lanes, part, parts)
    for k in range(K):
        for at in range((k * Hp + first) * Dp, (k * Hp + last) * Dp, lanes):
            store(d_taps, at, spread(load(d_taps, at), 0))
    for k in range(K):
        shift = (K - 1 - k) * dilation
        t0 = max(0, shift - x_past)
        if t0 < T:
            c_at, x_at = (c_past + t0) * B * Hp, (x_past + t0 - shift) * B * Dp
            multiply_columns(flat_c, c_at, Hp, first, last, flat_x, x_at, Dp, (T - t0) * B, Dp, taps, k * Hp * Dp, Dp)


@merged
def parameter_gradients(f, T, d_y, d_h, V, g, d_taps, d_V, d_g, d_b):
    """From the taps' gradients to those of the filters, and the biases' (with room for whole vectors)."""
    for i in range(3):
        filter_gradients(V[i], g[i], d_taps[i], d_V[i], d_g[i])
    sum_rows(d_h, d_h.shape[0] - T, d_b[0])
    sum_rows(f, f.shape[0] - T, d_b[1])
    if V[2].size:
        sum_rows(d_y, d_y.shape[0] - T, d_b[2])


@compiled
def sum_rows(d_c, first, d_b):
    """``d_b (Hp)``: ``d_c`` from step ``first`` on, summed over all steps of all sequences.

    In blocks: a sum of sums loses less than one long sum.
    """
    d_c, row, zero = d_c[first:].ravel(), d_b.size, np.intp(0)
    own = aligned(row, d_b.dtype)
    block = borrowed(own)
    d_b[:] = 0
    for start in range(0, d_c.size, BLOCK * row):
        copy(d_c, start, block, zero, row)
        for at in range(start + row, min(start + BLOCK * row, d_c.size), row):
            add(d_c, at, block, zero, row)
        add(block, zero, d_b, zero, row)
    keep(own)
