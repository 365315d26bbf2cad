"""A linear layer by itself, ``y = W x + b``, from numpy arrays to numpy arrays."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.linear import BIAS, STORE, add_column_sums, add_weight_gradient, pack, pack_back
from seqbench.backends.kernels.linear import linear as multiply
from seqbench.backends.kernels.ownership import borrowed
from seqbench.backends.kernels.padding import narrowed, padded, widened
from seqbench.backends.kernels.sources import kernel_sources
from seqbench.backends.kernels.transformer import BLOCK
from seqbench.backends.kernels.workspace import aligned

Array = Any


@cache
def _compiled() -> tuple[Callable[..., Any], Callable[..., Any]]:
    @cached(kernel_sources())
    def forward(x, R, K, Kp, W, b, packed, y):
        x, W, b, packed, y = borrowed((x, W, b, packed, y))
        N = b.size
        pack(W, N, Kp, K, packed)
        for r in range(0, R, BLOCK):
            multiply(x, r * Kp, Kp, min(BLOCK, R - r), K, packed, N, y, r * N, BIAS, b, x, 0)

    @cached(kernel_sources())
    def backward(x, R, Kp, W, N, packed, dy, dx, dW, db):
        x, W, packed, dy, dx, dW, db = borrowed((x, W, packed, dy, dx, dW, db))
        Np = db.size
        pack_back(W, Kp, N, packed)
        for r in range(0, R, BLOCK):
            n = min(BLOCK, R - r)
            multiply(dy, r * Np, Np, n, N, packed, Kp, dx, r * Kp, STORE, db, x, 0)
            add_weight_gradient(dy, r * Np, Np, x, r * Kp, Kp, n, dW)
            add_column_sums(dy, r * Np, Np, n, db)

    return forward, backward


def linear(x: Array, W: Array, b: Array) -> Array:
    """``x (R, K)`` to ``y (R, N)``: ``W (N, K)``."""
    (R, K), N, dtype = x.shape, b.size, x.dtype
    Kp, Np = padded(K, dtype), padded(N, dtype)
    y = aligned((R * Np,), dtype)
    wide = widened(x, (1, R, R), (1, K, Kp)), widened(W, (1, N, Np), (1, K, Kp)), widened(b, (1, N, Np))
    _compiled()[0](wide[0], R, K, Kp, *wide[1:], aligned((K * Np,), dtype), y)
    return y.reshape(R, Np)[:, :N]


def linear_back(x: Array, W: Array, dy: Array) -> tuple[Array, Array, Array]:
    """The gradients of ``x``, ``W`` and ``b`` from ``dy (R, N)``."""
    (R, K), N, dtype = x.shape, W.shape[0], x.dtype
    Kp, Np = padded(K, dtype), padded(N, dtype)
    dx, dW, db = aligned((R * Kp,), dtype), aligned((Np * Kp,), dtype, zero=True), aligned((Np,), dtype, zero=True)
    wide_x, wide_W = widened(x, (1, R, R), (1, K, Kp)), widened(W, (1, N, Np), (1, K, Kp))
    wide_d = widened(dy, (1, R, R), (1, N, Np))
    _compiled()[1](wide_x, R, Kp, wide_W, N, aligned((N * Kp,), dtype), wide_d, dx, dW, db)
    return dx.reshape(R, Kp)[:, :K], narrowed(dW, (1, N, Np), (1, K, Kp)), db[:N]
