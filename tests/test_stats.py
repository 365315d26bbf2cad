"""Intervals: against hand calculation, and by how often they really cover."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from seqbench.stats import finite, mean_interval, median


def test_by_hand() -> None:
    found = mean_interval([1.0, 2.0, 6.0])
    half = 4.302653 * math.sqrt(7.0) / math.sqrt(3)  # t of two degrees of freedom; variance (4 + 1 + 9) / 2
    assert found.mean == pytest.approx(3.0)
    assert found.half_width == pytest.approx(half, rel=1e-6)
    assert (found.low, found.high) == pytest.approx((3 - half, 3 + half))
    assert (found.n, found.dropped) == (3, 0)


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_against_scipy(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n)
    expected = reference.t.interval(0.95, n - 1, loc=values.mean(), scale=reference.sem(values))
    found = mean_interval(values)
    assert (found.low, found.high) == pytest.approx(expected)


@pytest.mark.parametrize("n", [3, 5])
def test_it_covers_what_it_says(n: int) -> None:
    rng = np.random.default_rng(20)
    repetitions = 4000
    samples = rng.normal(7.0, 2.0, (repetitions, n))
    found = [mean_interval(row) for row in samples]
    coverage = np.mean([interval.low <= 7.0 <= interval.high for interval in found])
    assert coverage == pytest.approx(0.95, abs=0.011)


def test_one_value_has_no_interval() -> None:
    found = mean_interval([4.0])
    assert (found.mean, found.n) == (4.0, 1)
    assert math.isnan(found.low)
    assert math.isnan(found.half_width)


def test_nothing_gives_nan() -> None:
    found = mean_interval([])
    assert (found.n, found.dropped) == (0, 0)
    assert math.isnan(found.mean)


def test_what_is_no_number_is_dropped_and_counted() -> None:
    found = mean_interval([1.0, None, math.nan, 3.0, math.inf])
    assert (found.mean, found.n, found.dropped) == (2.0, 2, 3)
    assert mean_interval([None, math.nan]).dropped == 2


def test_equal_values_have_an_interval_of_no_width() -> None:
    found = mean_interval([0.1] * 3)
    assert found.half_width == pytest.approx(0.0, abs=1e-15)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_the_mean_lies_in_the_interval(values: list[float]) -> None:
    found = mean_interval(values)
    assert found.low <= found.mean <= found.high


def test_confidence_widens_it() -> None:
    assert mean_interval([1.0, 2.0, 4.0], 0.99).half_width > mean_interval([1.0, 2.0, 4.0]).half_width


def test_median() -> None:
    assert median([3.0, 1.0, None, 2.0]) == 2.0
    assert median([4.0, 1.0]) == 2.5
    assert math.isnan(median([None]))


def test_finite() -> None:
    assert finite([1, None, math.inf, 2.0]) == [1.0, 2.0]
