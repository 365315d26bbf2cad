"""Lanes of vectors against numpy, and the choice of the vector's width."""

from __future__ import annotations

import numpy as np
import pytest
from doors import callable_from_python

from seqbench.backends.kernels.target import HOST, target_of
from seqbench.backends.kernels.vector import first_lanes, from_lane, load, maximum, store, total

DTYPES = [np.float32, np.float64]


@callable_from_python
def lanes_apart(x, y, bound, which):
    value = load(x, 0)
    if which == 0:
        store(y, 0, first_lanes(value, bound, -7))
    elif which == 1:
        store(y, 0, from_lane(value, bound, -7))
    elif which == 2:
        store(y, 0, maximum(value, value * -1.0))
    else:
        y[0] = total(value)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lanes_are_chosen_compared_and_added(dtype: type) -> None:
    n = HOST.lanes(np.dtype(dtype).itemsize)
    x = np.random.default_rng(0).normal(size=n).astype(dtype)
    lane, y = np.arange(n), np.empty_like(x)
    for bound in (-3, 0, 1, n - 1, n, n + 40):
        lanes_apart(x, y, bound, 0)
        np.testing.assert_array_equal(y, np.where(lane < bound, x, -7))
        lanes_apart(x, y, bound, 1)
        np.testing.assert_array_equal(y, np.where(lane >= bound, x, -7))
    lanes_apart(x, y, 0, 2)
    np.testing.assert_array_equal(y, np.abs(x))
    lanes_apart(x, y, 0, 3)
    np.testing.assert_allclose(y[0], x.astype(np.longdouble).sum(), rtol=0, atol=n * np.finfo(dtype).eps)


# --- the vector unit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("features", "machine", "size", "wide", "tall"),
    [
        ("+sse2,+avx,+avx2,+fma,+avx512f", "x86_64-unknown-linux-gnu", 64, (4, 4), (8, 2)),
        ("+sse2,+avx,+avx2,+fma,-avx512f", "x86_64-unknown-linux-gnu", 32, (6, 2), (6, 2)),
        ("+sse2,+avx,-avx2", "x86_64-unknown-linux-gnu", 16, (6, 2), (6, 2)),
        ("", "x86_64-pc-windows-msvc", 16, (6, 2), (6, 2)),
        ("+neon", "aarch64-unknown-linux-gnu", 16, (8, 2), (8, 2)),
    ],
)
def test_the_tiles_follow_from_the_processor(
    features: str, machine: str, size: int, wide: tuple[int, int], tall: tuple[int, int]
) -> None:
    target = target_of(features, machine)
    registers = 32 if size == 64 or machine.startswith("aarch64") else 16
    assert target.vector_bytes == size
    for (rows, vectors), (most, widest) in ((target.wide, wide), (target.tall, tall)):
        assert (rows[0], rows[-1], vectors) == (most, 1, widest)
        assert most * widest + widest + 1 <= registers
