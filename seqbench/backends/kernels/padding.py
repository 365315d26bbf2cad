"""Arrays as the kernels want them: every width a whole number of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqbench.backends.kernels.target import HOST

Array = Any
Blocks = tuple[int, int, int]
"""An axis in blocks: their number, the size of one, the same padded."""


def lanes(dtype: Any) -> int:
    """Numbers in a vector."""
    return HOST.lanes(np.dtype(dtype).itemsize)


def padded(n: int, dtype: Any) -> int:
    """``n`` rounded up to whole vectors."""
    whole = lanes(dtype)
    return -(-n // whole) * whole


def widened(W: Array, rows: Blocks, columns: Blocks | None = None) -> Array:
    """A matrix, or a vector if it has no columns, with zeros behind each block; flat."""
    (n, size, full), (m, breadth, whole) = rows, columns or (1, 1, 1)
    if size == full and breadth == whole:
        return W.reshape(-1)
    wide = np.zeros((n, full, m, whole), W.dtype)
    wide[:, :size, :, :breadth] = W.reshape(n, size, m, breadth)
    return wide.reshape(-1)


def narrowed(W: Array, rows: Blocks, columns: Blocks | None = None) -> Array:
    """The inverse of ``widened``."""
    (n, size, full), (m, breadth, whole) = rows, columns or (1, 1, 1)
    narrow = W.reshape(n, full, m, whole)[:, :size, :, :breadth]
    return narrow.reshape((n * size, m * breadth) if columns else n * size)
