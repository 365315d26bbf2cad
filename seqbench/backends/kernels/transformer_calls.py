"""The sublayers of a Transformer as compiled functions that Python calls, kept on disk.

Each comes twice: for one thread, and with the parts of a batch running at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import transformer
from seqbench.backends.kernels.jit import cached, cached_parallel, prange
from seqbench.backends.kernels.layer_norm import normalise, normalise_back
from seqbench.backends.kernels.sources import kernel_sources

Compiled = Callable[..., Any]


@cache
def attention_calls(parallel: bool) -> tuple[Compiled, Compiled]:
    """Forward and backward; ``scratch`` has a row for each part."""
    decorate = (cached_parallel if parallel else cached)(kernel_sources())

    @decorate
    def forward(sizes, p, packed, rows, x, keys, kept, drops, y, scratch, group):
        transformer.pack_forward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.attention_forward(
                sizes, p, packed, rows, x, keys, kept, drops, y, scratch[part], group, part, parts
            )

    @decorate
    def backward(sizes, p, packed, rows, x, keys, kept, drops, d, d_keys, d_inner, d_heads, sums, scratch, group):
        transformer.pack_backward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.attention_backward(
                sizes, p, packed, rows, x, keys, kept, drops, d, d_keys, d_inner, d_heads, sums, scratch[part], group,
                part, parts,
            )  # fmt: skip

    return forward, backward


@cache
def feed_forward_calls(parallel: bool) -> tuple[Compiled, Compiled]:
    """Forward and backward, of ``R`` rows."""
    decorate = (cached_parallel if parallel else cached)(kernel_sources())

    @decorate
    def forward(sizes, p, packed, R, x, kept, drops, y, scratch):
        transformer.pack_forward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.feed_forward_forward(sizes, p, packed, R, x, kept, drops, y, scratch[part], part, parts)

    @decorate
    def backward(sizes, p, packed, R, x, kept, drops, d, sums, scratch):
        transformer.pack_backward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.feed_forward_backward(sizes, p, packed, R, x, kept, drops, d, sums, scratch[part], part, parts)

    return forward, backward


@cache
def normalise_calls() -> tuple[Compiled, Compiled]:
    """Forward and backward of the last layer normalisation, of all rows."""

    @cached(kernel_sources())
    def forward(x, H, w, b, statistics, y):
        none = np.intp(0)
        normalise(x, none, x.size // w.size, H, w, b, statistics, none, y, none)

    @cached(kernel_sources())
    def backward(d, x, H, w, statistics, dx, dw, db):
        R = x.size // w.size
        for r in range(0, R, transformer.BLOCK):
            at, n = r * w.size, min(transformer.BLOCK, R - r)
            normalise_back(d, at, x, at, n, H, w, statistics, r, d, at, np.bool_(False), dx, at, dw, db)

    return forward, backward
