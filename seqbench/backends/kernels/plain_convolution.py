"""The same residual blocks in plain loops over single numbers: slow, easy to follow, the reference for the fast kernels.

The buffers are those of ``convolution`` without padding; ``W (K, H, D)`` has a matrix for each tap.
"""

from __future__ import annotations

from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.vector import positive, relu


@compiled
def plain_forward(x, h, f, y, W, biases, masks, dilation, T):
    """``h = dropout(relu(conv_1(x)))``, ``f = dropout(relu(conv_2(h)))``, ``y = relu(f + x)``."""
    x_past, h_past, y_past = x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    B, H = f.shape[1], f.shape[2]
    for t in range(T):
        for b in range(B):
            for n in range(H):
                h[h_past + t, b, n] = relu(convolved(x, W[0], biases[0], dilation, x_past + t, b, n))
                if masks[0].size:
                    h[h_past + t, b, n] *= masks[0][t, b, n]
            for n in range(H):
                f[t, b, n] = relu(convolved(h, W[1], biases[1], dilation, h_past + t, b, n))
                if masks[1].size:
                    f[t, b, n] *= masks[1][t, b, n]
            for n in range(H):
                if W[2].size:
                    short = convolved(x, W[2], biases[2], dilation, x_past + t, b, n)
                else:
                    short = x[x_past + t, b, n]
                y[y_past + t, b, n] = relu(f[t, b, n] + short)


@compiled
def convolved(x, W, bias, dilation, i, b, n):
    """``bias_n + sum_{k,c} W_k[n, c] x_{i - (K-1-k) d}[c]``; before the first step, ``x`` is 0."""
    K, _, D = W.shape
    total = bias[n]
    for k in range(K):
        j = i - (K - 1 - k) * dilation
        if j >= 0:
            for c in range(D):
                total += W[k, n, c] * x[j, b, c]
    return total


@compiled
def plain_backward(x, y, d_y, f, h, d_h, d_x, T, W, scale, dilation, d_W, d_biases):
    """Every gradient, as ``convolution.backward_rows`` and ``convolution.weight_gradients`` give them."""
    x_past, h_past, y_past = x.shape[0] - T, h.shape[0] - T, y.shape[0] - T
    B, H = f.shape[1], f.shape[2]
    for t in range(T):
        for b in range(B):
            for n in range(H):
                d = d_y[y_past + t, b, n] * positive(y[y_past + t, b, n])
                d_y[y_past + t, b, n] = d
                f[t, b, n] = d * positive(f[t, b, n]) * scale
                if not W[2].size:
                    d_x[x_past + t, b, n] += d
    _convolved_back(h, W[1], dilation, f, T, d_h, d_W[1], d_biases[1])
    for t in range(T):
        for b in range(B):
            for n in range(H):
                d_h[h_past + t, b, n] *= positive(h[h_past + t, b, n]) * scale
    _convolved_back(x, W[0], dilation, d_h, T, d_x, d_W[0], d_biases[0])
    if W[2].size:
        _convolved_back(x, W[2], dilation, d_y, T, d_x, d_W[2], d_biases[2])


@compiled
def _convolved_back(x, W, dilation, d_c, T, d_x, d_W, d_bias):
    """From the gradient of the last ``T`` steps of a convolution's sums to those of its input, filter and bias."""
    K, H, D = W.shape
    x_past, c_past = x.shape[0] - T, d_c.shape[0] - T
    for t in range(T):
        for b in range(x.shape[1]):
            for n in range(H):
                d = d_c[c_past + t, b, n]
                d_bias[n] += d
                for k in range(K):
                    j = x_past + t - (K - 1 - k) * dilation
                    if j >= 0:
                        for c in range(D):
                            d_W[k, n, c] += d * x[j, b, c]
                            d_x[j, b, c] += d * W[k, n, c]
