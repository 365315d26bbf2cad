from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench_tasks.randomness import below, fixed, unit


@given(st.integers(0, 2**32), st.integers(1, 1_000_000))
def test_below_stays_in_range(seed, n):
    numbers = below(np.random.default_rng(seed), n, (50,))
    assert numbers.dtype == np.int64
    assert 0 <= numbers.min() <= numbers.max() < n


def test_below_is_uniform():
    counts = np.bincount(below(fixed(1), 7, (70_000,)), minlength=7)
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)


def test_unit_is_float32_below_one_and_uniform():
    numbers = unit(fixed(1), (300, 100))
    assert numbers.dtype == np.float32
    assert 0 <= numbers.min() < 0.001 < 0.999 < numbers.max() < 1
    assert numbers.mean(dtype=np.float64) == pytest.approx(0.5, abs=5 / np.sqrt(12 * numbers.size))


def test_same_key_same_numbers_on_every_platform():
    assert below(fixed(20, 1), 1000, (6,)).tolist() == [399, 705, 985, 11, 757, 632]
