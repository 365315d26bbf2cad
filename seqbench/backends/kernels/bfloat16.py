"""Packed matrices in bfloat16, the first half of a float32: half the bytes to read, the arithmetic as before.

A product with one row does nothing but read its matrix, so it takes half the time. A word of 32 bits holds a number of
the panel's first vector (low half) and the one in the same lane of its second vector (high half): a shift and a mask
make two vectors of floats from one load, where widening 16-bit numbers takes a shuffle for each vector.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from seqbench.backends.kernels.target import HOST

Array = Any


def rounded(x: Array) -> Array:
    """float32 to the nearest bfloat16, ties to even, as uint16; what is not a number stays so."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    quiet = bits >> np.uint32(16) | np.uint32(0x40)
    return np.where(np.isnan(x), quiet, nearest).astype(np.uint16)


def widened(halves: Array) -> Array:
    """The float32 that a bfloat16, as uint16, stands for."""
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrowed(packed: Array, K: int, N: int) -> Array:
    """A packed ``(K, N)`` of float32, ``N`` whole vectors, as words."""
    lanes = HOST.lanes(4)
    full = N // (2 * lanes)
    halves = rounded(packed[: K * N]).astype(np.uint32)
    pairs = halves[: K * full * 2 * lanes].reshape(-1, 2, lanes)  # (panels * K, 2, lanes)
    alone = halves[K * full * 2 * lanes :]  # the last panel, if it has one vector
    return np.concatenate([(pairs[:, 0] | pairs[:, 1] << np.uint32(16)).ravel(), alone])
