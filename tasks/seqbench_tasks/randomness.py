"""Random numbers that are the same bytes on every platform and under every version of numpy.

numpy guarantees the raw stream of a bit generator for good (NEP 19), but not what ``Generator.integers`` or
``random`` make of it. These few lines go from the raw 64-bit words to numbers by exact integer arithmetic.
Every ``rng`` must sit on a 64-bit bit generator, as that of ``numpy.random.default_rng`` (PCG64) does.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["below", "fixed", "permutation", "unit"]


def fixed(*key: int) -> np.random.Generator:
    """A generator with a fixed seed: for data that must be the same for everyone."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))


def _words(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Raw 64-bit words, uint64, of that shape."""
    return np.asarray(rng.bit_generator.random_raw(math.prod(shape)), dtype=np.uint64).reshape(shape)


def below(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform integers in ``0 .. n-1``, int64: exactly so for powers of two, else with a bias under ``n / 2**32``."""
    high = _words(rng, shape) >> np.uint64(32)
    return ((high * np.uint64(n)) >> np.uint64(32)).astype(np.int64)


def unit(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform multiples of 2**-24 in [0, 1), float32: each value is exact."""
    return (_words(rng, shape) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def permutation(rng: np.random.Generator, n: int) -> np.ndarray:
    """``0 .. n-1`` in random order, int64 ``(n,)``: ordered by random words (two that are equal stay in order)."""
    return np.argsort(_words(rng, (n,)), kind="stable")
