"""The sublayers of a Transformer as compiled functions that Python calls, kept on disk.

The last arguments of attention and feed-forward are described in ``parts``; ``scratch`` has a row for each part.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import transformer
from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.layer_norm import normalise, normalise_back
from seqbench.backends.kernels.ownership import borrowed
from seqbench.backends.kernels.parts import ROWS, WHOLE, in_parts, is_mine
from seqbench.backends.kernels.sources import kernel_sources

Compiled = Callable[..., Any]


@cache
def attention_calls() -> tuple[Compiled, Compiled]:
    """Forward and backward."""

    @cached(kernel_sources())
    def forward(sizes, p, packed, rows, x, keys, kept, drops, y, scratch, group, launch, stage, part, parts):
        p, packed, rows, x, keys, kept, drops, y, scratch = borrowed(
            (p, packed, rows, x, keys, kept, drops, y, scratch)
        )
        if stage == WHOLE:
            transformer.pack_forward(sizes, p, packed)
        if is_mine(stage, ROWS, parts):
            transformer.attention_forward(
                sizes, p, packed, rows, x, keys, kept, drops, y, scratch[part], group, part, parts
            )
        else:
            in_parts(launch, ROWS, parts, None)

    @cached(kernel_sources())
    def backward(
        sizes, p, packed, rows, x, keys, kept, drops, d, d_keys, d_inner, d_heads, sums, scratch, group,
        launch, stage, part, parts,
    ):  # fmt: skip
        p, packed, rows, x, keys, kept, drops = borrowed((p, packed, rows, x, keys, kept, drops))
        d, d_keys, d_inner, d_heads, sums, scratch = borrowed((d, d_keys, d_inner, d_heads, sums, scratch))
        if stage == WHOLE:
            transformer.pack_backward(sizes, p, packed)
        if is_mine(stage, ROWS, parts):
            transformer.attention_backward(
                sizes, p, packed, rows, x, keys, kept, drops, d, d_keys, d_inner, d_heads, sums, scratch[part], group,
                part, parts,
            )  # fmt: skip
        else:
            in_parts(launch, ROWS, parts, None)

    return forward, backward


@cache
def feed_forward_calls() -> tuple[Compiled, Compiled]:
    """Forward and backward, of ``R`` rows."""

    @cached(kernel_sources())
    def forward(sizes, p, packed, R, x, kept, drops, y, scratch, launch, stage, part, parts):
        p, packed, x, kept, drops, y, scratch = borrowed((p, packed, x, kept, drops, y, scratch))
        if stage == WHOLE:
            transformer.pack_forward(sizes, p, packed)
        if is_mine(stage, ROWS, parts):
            transformer.feed_forward_forward(sizes, p, packed, R, x, kept, drops, y, scratch[part], part, parts)
        else:
            in_parts(launch, ROWS, parts, None)

    @cached(kernel_sources())
    def backward(sizes, p, packed, R, x, kept, drops, d, sums, scratch, launch, stage, part, parts):
        p, packed, x, kept, drops, d, sums, scratch = borrowed((p, packed, x, kept, drops, d, sums, scratch))
        if stage == WHOLE:
            transformer.pack_backward(sizes, p, packed)
        if is_mine(stage, ROWS, parts):
            transformer.feed_forward_backward(sizes, p, packed, R, x, kept, drops, d, sums, scratch[part], part, parts)
        else:
            in_parts(launch, ROWS, parts, None)

    return forward, backward


@cache
def normalise_calls() -> tuple[Compiled, Compiled]:
    """Forward and backward of the last layer normalisation, of all rows."""

    @cached(kernel_sources())
    def forward(x, H, w, b, statistics, y):
        x, w, b, statistics, y = borrowed((x, w, b, statistics, y))
        none = np.intp(0)
        normalise(x, none, x.size // w.size, H, w, b, statistics, none, y, none)

    @cached(kernel_sources())
    def backward(d, x, H, w, statistics, dx, dw, db):
        d, x, w, statistics, dx, dw, db = borrowed((d, x, w, statistics, dx, dw, db))
        R = x.size // w.size
        for r in range(0, R, transformer.BLOCK):
            at, n = r * w.size, min(transformer.BLOCK, R - r)
            normalise_back(d, at, x, at, n, H, w, statistics, r, d, at, np.bool_(False), dx, at, dw, db)

    return forward, backward
