"""Arrays whose references nobody counts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from doors import callable_from_python

from seqbench.backends.kernels.ownership import array_at, borrowed, keep


class Pair(NamedTuple):
    """Two arrays."""

    a: np.ndarray
    b: np.ndarray


@callable_from_python
def _sums(x, pair, nested):
    x, pair, nested = borrowed((x, pair, nested))
    total = 0.0
    for _ in range(3):
        which = pair.a if total < 1 else pair.b
        total += which.sum()
    return total + x[1, 2] + nested[0][1][0] + nested[1]


def test_what_is_borrowed_is_the_same_in_tuples_of_tuples_and_by_name() -> None:
    x, pair = np.arange(6.0).reshape(2, 3), Pair(np.ones(4), np.full(2, 5.0))
    nested = (np.zeros(1, np.int64), np.array([7.0])), 100
    assert _sums(x, pair, nested) == 4 + 10 + 10 + 5 + 7 + 100
    assert (x == np.arange(6.0).reshape(2, 3)).all()


@callable_from_python
def _kept(n):
    own = np.full(n, 1.0)
    values = borrowed(own)
    total = 0.0
    for k in range(20):
        total += values.sum()
        other = np.full(n, 100.0 + k)  # would take the memory of an array that was let go
        total += 0 * other[k]
    keep(own)
    return total


def test_an_owner_that_is_kept_outlives_what_is_borrowed() -> None:
    assert [_kept(n) for n in (20, 1000, 100_000)] == [20 * 20, 20 * 1000, 20 * 100_000]


@callable_from_python
def _halved(address, count, like):
    found = array_at(address, count, like)
    found[1:] /= 2
    return found.sum() + 100 * found.size


def test_an_array_at_an_address_is_the_memory_there() -> None:
    for dtype in (np.float32, np.float64):
        x = np.arange(6, dtype=dtype)
        assert _halved(x.ctypes.data + x.itemsize, 4, x[:0]) == 1 + (2 + 3 + 4) / 2 + 400
        assert x.tolist() == [0, 1, 1, 1.5, 2, 5]
        assert _halved(0, 0, x) == 0
