"""Residual blocks of causal dilated convolutions over time: forward, backward, weight gradients, on packed filters.

A convolution is one matrix product for each of its ``K`` taps, over the same rows shifted in time::

    c[t] += sum_k W_k a[t - (K-1-k) d]

Time comes first, so that a shift by ``s`` steps of ``B`` sequences is a shift by ``s * B`` rows, and the steps that a tap
does not reach, before the first input, cost nothing. Buffers, in elements (``Dp``, ``Hp``: input and output channels
rounded up to whole vectors)::

    x      (P + T, B, Dp)    a block's input. In front what came before, if a state came in; else P = 0
    h      (P + T, B, Hp)    what conv_2 reads: dropout(relu(conv_1(x)))
    f      (T, B, Hp)        F(x) = dropout(relu(conv_2(h))); without training a block of steps, scratch
    y      (P' + T, B, Hp)   relu(f + x): the next block's x
    masks  (T, B, Hp)        0 or 1 / (1 - p) for each unit, or empty
    W      packed (D, Hp) or, for the backward pass, (H, Dp) for each tap

The backward pass turns ``f`` into the gradient of conv_2's sum, and ``d_h`` into that of conv_1's.
"""

from __future__ import annotations

import numpy as np

from seqbench.backends.kernels.engine import bias_gradient, block_steps, bounds_of, copy, pack_columns, pack_rows
from seqbench.backends.kernels.gemm import BLOCK, lanes_of, multiply, multiply_transposed
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.vector import load, positive, relu, store

# --- filters --------------------------------------------------------------------------------------


@compiled
def norms_of(V, norms):
    """``|V|`` of each output channel of ``V (H, D, K)``."""
    for n in range(V.shape[0]):
        total = 0.0  # in float64
        for c in range(V.shape[1]):
            for k in range(V.shape[2]):
                total += V[n, c, k] * V[n, c, k]
        norms[n] = np.sqrt(total)


@compiled
def filter_taps(V, g, taps):
    """``taps (K, H, D)`` of ``V (H, D, K)``: ``W = g V / |V|``, or ``V`` itself if ``g`` is empty."""
    norms = np.empty(g.size, V.dtype)
    if g.size:
        norms_of(V, norms)
    for n in range(V.shape[0]):
        scale = g[n] / norms[n] if g.size else 1
        for c in range(V.shape[1]):
            for k in range(V.shape[2]):
                taps[k, n, c] = V[n, c, k] * scale


@compiled
def pack_filter(V, g, transposed, packed):
    """All taps, one after the other; ``transposed`` as the backward pass reads them."""
    H, D, K = V.shape
    lanes = lanes_of(packed)
    Hp, Dp = -(-H // lanes) * lanes, -(-D // lanes) * lanes
    taps = np.empty((K, H, D), V.dtype)
    filter_taps(V, g, taps)
    for k in range(K):
        if transposed:
            pack_columns(taps[k], 0, 1, H, H, D, packed, k * H * Dp)
        else:
            pack_rows(taps[k], 0, 1, H, Hp, D, packed, k * D * Hp)


@compiled
def filter_gradients(V, g, d_taps, d_V, d_g):
    """From ``d_taps (K, Hp, Dp)``, the gradient of ``W``, those of ``V`` and ``g``.

    ``d_g = V . d_W / |V|`` and ``d_V = (g / |V|) (d_W - d_g V / |V|)``, for each output channel.
    """
    norms = np.empty(g.size, V.dtype)
    if g.size:
        norms_of(V, norms)
    for n in range(V.shape[0]):
        total = 0.0  # in float64
        if g.size:
            for c in range(V.shape[1]):
                for k in range(V.shape[2]):
                    total += V[n, c, k] * d_taps[k, n, c]
            d_g[n] = total / norms[n]
        for c in range(V.shape[1]):
            for k in range(V.shape[2]):
                d = d_taps[k, n, c]
                if g.size:
                    d = g[n] / norms[n] * (d - d_g[n] / norms[n] * V[n, c, k])
                d_V[n, c, k] = d


# --- one convolution ------------------------------------------------------------------------------


@compiled
def convolve(a, W, K, C, c, c0, c1, offset, step, first, rows):
    """``c[i] += sum_k W_k a[i + offset + k * step]`` for ``c0 <= i < c1``, where ``a`` has such a step.

    ``a (steps, B, Ca)`` and ``c (steps, B, Cc)``; ``C`` of ``a``'s columns count; sequences ``first .. first + rows``.
    """
    B, Ca, Cc = a.shape[1], a.shape[2], c.shape[2]
    for k in range(K):
        shift = offset + k * step
        low, high = max(c0, -shift), min(c1, a.shape[0] - shift)
        if low >= high:
            continue
        a_at, c_at, W_at = ((low + shift) * B + first) * Ca, (low * B + first) * Cc, k * C * Cc
        if rows == B:  # one long run of rows
            multiply(a, a_at, 0, Ca, 1, (high - low) * B, 1, C, W, W_at, Cc, c, c_at, 0, Cc)
        else:
            multiply(a, a_at, B * Ca, Ca, high - low, rows, 1, C, W, W_at, Cc, c, c_at, B * Cc, Cc)


@compiled
def rows_of(x, part, parts):
    """Bounds of one of ``parts`` parts of the batch."""
    B = x.shape[1]
    return B * part // parts, B * (part + 1) // parts


@compiled
def fill(bias, c, c0, c1, first, rows):
    """Every row of these steps becomes the bias."""
    B, C = c.shape[1], c.shape[2]
    for i in range(c0, c1):
        for b in range(first, first + rows):
            copy(bias, 0, c, (i * B + b) * C, C)


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


@compiled
def forward_rows(x, h, f, y, T, weights, biases, masks, taps, sizes, first, last, training):
    """A block for the sequences ``first .. last``.

    Args:
        x: the input; what comes in front of its last ``T`` steps is the past.
        h: the same for the second convolution.
        f: see the module.
        y: its last ``T`` steps are the output.
        T: steps.
        weights: packed, of both convolutions and the shortcut (empty: none).
        biases: of the same, padded.
        masks: of both dropouts.
        taps: ``(K, dilation)``.
        sizes: channels ``(D, H)`` without padding.
        first: sequence.
        last: the one after the last sequence.
        training: keep ``f``.
    """
    (K, dilation), (D, H) = taps, sizes
    B, rows, reach = x.shape[1], last - first, (K - 1) * dilation
    x_past, h_past, y_past = x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    steps = block_steps(rows)
    for t0 in range(0, T, steps):
        t1 = min(T, t0 + steps)
        fill(biases[0], h, h_past + t0, h_past + t1, first, rows)
        convolve(
            x, weights[0], K, D, h, h_past + t0, h_past + t1, x_past - h_past - reach, dilation, first, rows
        )
        rectify(h, h_past, masks[0], t0, t1, first, rows)
        f_past = 0 if training else -t0
        fill(biases[1], f, t0 + f_past, t1 + f_past, first, rows)
        convolve(h, weights[1], K, H, f, t0 + f_past, t1 + f_past, h_past - f_past - reach, dilation, first, rows)
        rectify(f, f_past, masks[1], t0, t1, first, rows)
        if weights[2].size:
            fill(biases[2], y, y_past + t0, y_past + t1, first, rows)
            convolve(x, weights[2], 1, D, y, y_past + t0, y_past + t1, x_past - y_past, 0, first, rows)
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


@compiled
def backward_rows(y, d_y, f, h, d_h, d_x, T, weights, scale, taps, sizes, first, last):
    """The gradients of both convolutions' sums and of what comes in, for the sequences ``first .. last``.

    Args:
        y: the output.
        d_y: its gradient; where there is a shortcut, afterwards that of ``f + x``.
        f: what the forward pass kept; afterwards the gradient of the second convolution's sum.
        h: the input of the second convolution.
        d_h: the gradient of its steps from elsewhere (zeros, or that of the state after the last step); afterwards of
            the past, and then of the first convolution's sum.
        d_x: the same of the block's input; afterwards its gradient.
        T: steps.
        weights: packed for the backward pass.
        scale: ``1 / (1 - p)``.
        taps: ``(K, dilation)``.
        sizes: ``(D, H)``.
        first: sequence.
        last: the one after the last sequence.
    """
    (K, dilation), (_, H) = taps, sizes
    rows, reach = last - first, (K - 1) * dilation
    x_past, h_past, y_past = d_x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    steps = block_steps(rows)
    t1 = T
    while t1 > 0:
        t0 = max(0, t1 - steps)
        _split(y, y_past, d_y, f, d_x, x_past, scale, weights[2].size > 0, t0, t1, first, rows)
        convolve(f, weights[1], K, H, d_h, h_past + t0, h_past + t1, reach - h_past, -dilation, first, rows)
        _through_relu(d_h, h, h_past, scale, t0, t1, first, rows)
        convolve(
            d_h[h_past:], weights[0], K, H, d_x, x_past + t0, x_past + t1, reach - x_past, -dilation, first, rows
        )
        if weights[2].size:
            convolve(d_y, weights[2], 1, H, d_x, x_past + t0, x_past + t1, y_past - x_past, 0, first, rows)
        t1 = t0
    convolve(f, weights[1], K, H, d_h, 0, h_past, reach - h_past, -dilation, first, rows)
    convolve(d_h[h_past:], weights[0], K, H, d_x, 0, x_past, reach - x_past, -dilation, first, rows)


@compiled
def _split(y, y_past, d_y, f, d_x, x_past, scale, shortcut, t0, t1, first, rows):
    """From ``y`` to ``f`` (its gradient through the rectifier and dropout, in place) and to the residual path."""
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


@compiled
def weight_gradients(x, d_c, T, dilation, d_taps, D, part, parts):
    """``d_taps (K, Hp, Dp)`` of a convolution that reads ``x`` from the gradient ``d_c`` of its sums; a part of the rows.

    The last ``T`` steps of ``x (.., B, Dp)`` and ``d_c (.., B, Hp)`` belong together.
    """
    K, Hp, Dp = d_taps.shape
    B, lanes = x.shape[1], lanes_of(x)
    x_past, c_past = x.shape[0] - T, d_c.shape[0] - T
    a_block = np.empty(BLOCK * 2 * lanes_of(x), x.dtype)
    b_block = np.empty(BLOCK * Dp, x.dtype)
    first, last = bounds_of(Hp, lanes, part, parts)
    for k in range(K):
        shift = (K - 1 - k) * dilation
        t0 = max(0, shift - x_past)
        if t0 < T:
            a_at, source = (c_past + t0) * B * Hp, x[x_past + t0 - shift :]
            multiply_transposed(
                d_c, a_at, Hp, first, last, source, B * Dp, Dp, T - t0, B, D, d_taps[k], Dp, a_block, b_block
            )



@compiled
def parameter_gradients(x, d_y, f, h, d_h, T, taps, sizes, d_taps, part, parts):
    """Those of all taps of the block's convolutions, after ``backward_rows``."""
    (_, dilation), (D, H) = taps, sizes
    weight_gradients(x, d_h, T, dilation, d_taps[0], D, part, parts)
    weight_gradients(h, f, T, dilation, d_taps[1], H, part, parts)
    if d_taps[2].size:
        weight_gradients(x, d_y, T, 0, d_taps[2], D, part, parts)


@compiled
def bias_gradients(d_y, f, d_h, T, d_taps, d_biases):
    """The gradients of the sums, added over all steps of all sequences."""
    bias_gradient(d_h[d_h.shape[0] - T :], d_biases[0])
    bias_gradient(f, d_biases[1])
    if d_taps[2].size:
        bias_gradient(d_y[d_y.shape[0] - T :], d_biases[2])
