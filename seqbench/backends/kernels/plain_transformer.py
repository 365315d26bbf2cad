"""What a Transformer is made of in plain loops over single numbers: slow, easy to follow, the reference.

Each function has its derivative beside it, which adds to the gradients of the parameters and writes the others. The
letters are those of the equations on the card; arrays are as torch has them.
"""

from __future__ import annotations

import math

import numpy as np

from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.sources import kernel_sources

EPSILON = 1e-5
"""Of the layer normalisation: ``nn.LayerNorm``'s."""


@cached(kernel_sources())
def linear(x, W, b, y):
    """``y = W x + b`` for each row: ``x (R, K)``, ``W (N, K)``, ``y (R, N)``."""
    for r in range(x.shape[0]):
        for n in range(W.shape[0]):
            y[r, n] = b[n]
            for k in range(W.shape[1]):
                y[r, n] += W[n, k] * x[r, k]


@cached(kernel_sources())
def linear_back(x, W, dy, dx, dW, db):
    """From ``dy (R, N)``."""
    dx[:] = 0
    for r in range(x.shape[0]):
        for n in range(W.shape[0]):
            db[n] += dy[r, n]
            for k in range(W.shape[1]):
                dx[r, k] += dy[r, n] * W[n, k]
                dW[n, k] += dy[r, n] * x[r, k]


@cached(kernel_sources())
def layer_norm(x, w, b, y):
    """``y = (x - mean) / sqrt(variance + EPSILON) * w + b`` for each row ``(R, H)``."""
    for r in range(x.shape[0]):
        mean = x[r].mean()
        deviation = math.sqrt(((x[r] - mean) ** 2).mean() + EPSILON)
        for j in range(w.size):
            y[r, j] = (x[r, j] - mean) / deviation * w[j] + b[j]


@cached(kernel_sources())
def layer_norm_back(x, w, dy, dx, dw, db):
    """With ``n`` the normalised row and ``g = dy w``: ``dx = (g - mean(g) - n mean(g n)) / deviation``."""
    for r in range(x.shape[0]):
        mean = x[r].mean()
        deviation = math.sqrt(((x[r] - mean) ** 2).mean() + EPSILON)
        n = (x[r] - mean) / deviation  # (H,)
        g = dy[r] * w  # (H,)
        for j in range(w.size):
            dx[r, j] = (g[j] - g.mean() - n[j] * (g * n).mean()) / deviation
            dw[j] += dy[r, j] * n[j]
            db[j] += dy[r, j]


@cached(kernel_sources())
def activation(x, smooth, y):
    """``relu`` or, with ``smooth``, ``gelu(x) = x Phi(x)``, of each number."""
    for i in range(x.size):
        if smooth:
            y[i] = x[i] * 0.5 * (1 + math.erf(x[i] / math.sqrt(2.0)))
        else:
            y[i] = 0.0 if x[i] < 0 else x[i]


@cached(kernel_sources())
def activation_back(x, smooth, dy, dx):
    """``gelu'(x) = Phi(x) + x phi(x)``."""
    for i in range(x.size):
        if smooth:
            cdf = 0.5 * (1 + math.erf(x[i] / math.sqrt(2.0)))
            dx[i] = dy[i] * (cdf + x[i] * math.exp(-x[i] * x[i] / 2) / math.sqrt(2 * math.pi))
        else:
            dx[i] = dy[i] if x[i] > 0 else 0.0


@cached(kernel_sources())
def attention(q, k, v, seen, factors, y, p):
    """``y = (softmax(q k' / sqrt(d)) * factors) v`` over the keys that are seen; 0 where there are none.

    ``q`` and ``y`` are ``(B, N, T, d)``, ``k`` and ``v (B, N, S, d)``, ``seen (B, T, S)``. ``factors`` of a dropout, or
    nothing, and ``p``, the weights before it, are ``(B, N, T, S)``.
    """
    B, N, T, d = q.shape
    S = k.shape[2]
    for b in range(B):
        for n in range(N):
            for t in range(T):
                top, total = -np.inf, 0.0
                for s in range(S):
                    p[b, n, t, s] = (q[b, n, t] * k[b, n, s]).sum() / math.sqrt(d)
                    if seen[b, t, s]:
                        top = max(top, p[b, n, t, s])
                for s in range(S):
                    p[b, n, t, s] = math.exp(p[b, n, t, s] - top) if seen[b, t, s] else 0.0
                    total += p[b, n, t, s]
                y[b, n, t] = 0
                for s in range(S):
                    if total > 0:
                        p[b, n, t, s] /= total
                    factor = factors[b, n, t, s] if factors.size else 1.0
                    for j in range(d):
                        y[b, n, t, j] += p[b, n, t, s] * factor * v[b, n, s, j]


@cached(kernel_sources())
def attention_back(q, k, v, p, factors, dy, dq, dk, dv):
    """With ``dp = (dy v') * factors``: the scores' gradient is ``p (dp - sum(p dp))``."""
    B, N, T, d = q.shape
    S = k.shape[2]
    dp = np.zeros(S, q.dtype)
    dq[:] = 0
    dk[:] = 0
    dv[:] = 0
    for b in range(B):
        for n in range(N):
            for t in range(T):
                mean = 0.0
                for s in range(S):
                    factor = factors[b, n, t, s] if factors.size else 1.0
                    dp[s] = (dy[b, n, t] * v[b, n, s]).sum() * factor
                    mean += p[b, n, t, s] * dp[s]
                    for j in range(d):
                        dv[b, n, s, j] += p[b, n, t, s] * factor * dy[b, n, t, j]
                for s in range(S):
                    ds = p[b, n, t, s] * (dp[s] - mean) / math.sqrt(d)
                    for j in range(d):
                        dq[b, n, t, j] += ds * k[b, n, s, j]
                        dk[b, n, s, j] += ds * q[b, n, t, j]
