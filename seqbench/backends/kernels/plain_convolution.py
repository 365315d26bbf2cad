"""The same residual blocks in plain loops over single numbers: slow, easy to follow, the reference for the fast ones.

The buffers are those of ``convolution`` without padding.
"""

from __future__ import annotations

import math

import numpy as np

from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.pointwise import positive, relu

# --- filters --------------------------------------------------------------------------------------


@compiled
def norm_of(V, n):
    """``|V|`` of output channel ``n`` of ``V (H, D, K)``."""
    total = 0.0
    for c in range(V.shape[1]):
        for k in range(V.shape[2]):
            total += V[n, c, k] ** 2
    return math.sqrt(total)


@compiled
def plain_filter(V, g):
    """``W (H, D, K)``: ``g V / |V|`` for each output channel, or ``V`` where ``g`` is empty."""
    W = np.empty(V.shape, V.dtype)
    for n in range(V.shape[0]):
        scale = g[n] / norm_of(V, n) if g.size else 1.0
        for c in range(V.shape[1]):
            for k in range(V.shape[2]):
                W[n, c, k] = scale * V[n, c, k]
    return W


@compiled
def plain_filter_gradients(V, g, d_W, d_V, d_g):
    """``d_g = V . d_W / |V|`` and ``d_V = g / |V| (d_W - d_g V / |V|)``, for each output channel."""
    for n in range(V.shape[0]):
        norm = scale = 1.0
        along = 0.0
        if g.size:
            norm = norm_of(V, n)
            for c in range(V.shape[1]):
                for k in range(V.shape[2]):
                    along += V[n, c, k] * d_W[n, c, k] / norm
            d_g[n], scale = along, g[n] / norm
        for c in range(V.shape[1]):
            for k in range(V.shape[2]):
                d_V[n, c, k] = scale * (d_W[n, c, k] - along * V[n, c, k] / norm)


# --- forward --------------------------------------------------------------------------------------


@compiled
def plain_forward(V, g, biases, x, h, f, y, T, masks, dilation):
    """``h = dropout(relu(conv_1(x)))``, ``f = dropout(relu(conv_2(h)))``, ``y = relu(f + x)``."""
    x_past, h_past, y_past = x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    W_1, W_2, W_short = plain_filter(V[0], g[0]), plain_filter(V[1], g[1]), plain_filter(V[2], g[2])
    for t in range(T):
        for b in range(x.shape[1]):
            for n in range(W_1.shape[0]):
                h[h_past + t, b, n] = relu(convolved(x, W_1, biases[0], dilation, x_past + t, b, n))
                if masks[0].size:
                    h[h_past + t, b, n] *= masks[0][t, b, n]
            for n in range(W_2.shape[0]):
                f[t, b, n] = relu(convolved(h, W_2, biases[1], dilation, h_past + t, b, n))
                if masks[1].size:
                    f[t, b, n] *= masks[1][t, b, n]
            for n in range(W_2.shape[0]):
                beside = x[x_past + t, b, n]
                if W_short.size:
                    beside = convolved(x, W_short, biases[2], 0, x_past + t, b, n)
                y[y_past + t, b, n] = relu(f[t, b, n] + beside)


@compiled
def convolved(x, W, bias, dilation, i, b, n):
    """``bias_n + sum_{k,c} W[n, c, k] x_{i - (K-1-k) d}[c]``; before the first step ``x`` is 0."""
    _, D, K = W.shape
    total = bias[n]
    for k in range(K):
        j = i - (K - 1 - k) * dilation
        if j >= 0:
            for c in range(D):
                total += W[n, c, k] * x[j, b, c]
    return total


# --- backward -------------------------------------------------------------------------------------


@compiled
def plain_backward(V, g, x, h, f, y, T, d_y, d_h, d_x, scale, dilation, fresh, d_V, d_g, d_biases):
    """Every gradient; ``f``, ``d_y`` and ``d_h`` become those of what the rectifiers read."""
    x_past, h_past, y_past = x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    if fresh:
        clear(d_h)
        clear(d_x)
    for t in range(T):
        for b in range(x.shape[1]):
            for n in range(f.shape[2]):
                d_y[y_past + t, b, n] *= positive(y[y_past + t, b, n])
                f[t, b, n] = d_y[y_past + t, b, n] * positive(f[t, b, n]) * scale  # f > 0: not dropped either
                if not V[2].size:
                    d_x[x_past + t, b, n] += d_y[y_past + t, b, n]
    plain_convolution_backward(h, V[1], g[1], dilation, f, T, d_h, d_V[1], d_g[1], d_biases[1])
    for t in range(T):
        for b in range(x.shape[1]):
            for n in range(f.shape[2]):
                d_h[h_past + t, b, n] *= positive(h[h_past + t, b, n]) * scale
    plain_convolution_backward(x, V[0], g[0], dilation, d_h, T, d_x, d_V[0], d_g[0], d_biases[0])
    if V[2].size:
        plain_convolution_backward(x, V[2], g[2], 0, d_y, T, d_x, d_V[2], d_g[2], d_biases[2])


@compiled
def clear(d):
    """Zeros."""
    for t in range(d.shape[0]):
        for b in range(d.shape[1]):
            for n in range(d.shape[2]):
                d[t, b, n] = 0


@compiled
def plain_convolution_backward(x, V, g, dilation, d_c, T, d_x, d_V, d_g, d_bias):
    """From the gradient of the last ``T`` steps of a convolution's sums to those of its input and parameters."""
    W, d_W = plain_filter(V, g), np.empty(V.shape, V.dtype)
    clear(d_W)
    H, D, K = W.shape
    x_past, c_past = x.shape[0] - T, d_c.shape[0] - T
    for n in range(H):
        d_bias[n] = 0
    for t in range(T):
        for b in range(x.shape[1]):
            for n in range(H):
                d = d_c[c_past + t, b, n]
                d_bias[n] += d
                for k in range(K):
                    j = x_past + t - (K - 1 - k) * dilation
                    if j >= 0:
                        for c in range(D):
                            d_W[n, c, k] += d * x[j, b, c]
                            d_x[j, b, c] += d * W[n, c, k]
    plain_filter_gradients(V, g, d_W, d_V, d_g)
