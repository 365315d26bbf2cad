"""Intervals and tests: against hand calculation, other libraries, and by how often they are really right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference

from seqbench.stats import (
    Difference,
    finite,
    holm,
    mean_interval,
    median,
    paired_difference,
    share,
    shares_differ,
    two_groups,
)


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


@pytest.mark.parametrize("n", [3, 5, 10])
def test_it_covers_what_it_says(n: int) -> None:
    rng = np.random.default_rng(20)
    found = [mean_interval(row) for row in rng.normal(7.0, 2.0, (2000, n))]
    coverage = np.mean([interval.low <= 7.0 <= interval.high for interval in found])
    assert 0.93 <= coverage <= 0.97


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


# --- shares


@pytest.mark.parametrize(("hits", "n"), [(0, 3), (1, 3), (3, 3), (2, 5), (5, 5), (7, 10), (50, 100)])
def test_share_against_scipy(hits: int, n: int) -> None:
    expected = reference.binomtest(hits, n).proportion_ci(0.95, method="exact")
    found = share(hits, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("p", [0.05, 0.3, 0.5, 0.7, 0.95])
def test_share_covers_at_least_what_it_says(n: int, p: float) -> None:
    """Summed over all outcomes, not drawn."""
    covered = [share(k, n).low <= p <= share(k, n).high for k in range(n + 1)]
    assert np.dot(reference.binom.pmf(range(n + 1), n, p), covered) >= 0.95


def test_shares_differ_by_hand() -> None:
    assert shares_differ(share(5, 5), share(0, 5)) == pytest.approx(2 / math.comb(10, 5))
    assert shares_differ(share(3, 3), share(3, 3)) == 1.0


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.lists(st.floats(3.1, 4), min_size=1, max_size=6))
def test_two_groups_are_seen(low: list[float], high: list[float]) -> None:
    assert two_groups([*high, *low], distance=4.0)
    assert not two_groups(low, distance=4.0)


# --- differences


@given(st.integers(0, 2**32), st.integers(2, 12))
def test_difference_against_scipy(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=n), rng.normal(1, 3, size=n)
    expected = reference.ttest_rel(a, b)
    found = paired_difference(a, b)
    assert (found.mean, found.n) == (pytest.approx((a - b).mean()), n)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    interval = expected.confidence_interval(0.99)
    assert found.half_width(0.01) == pytest.approx((interval.high - interval.low) / 2)


def test_difference_of_the_seeds_in_common() -> None:
    found = paired_difference([1.0, None, 3.0, 7.0], [0.0, 5.0, math.nan, 4.0])
    assert (found.n, found.mean) == (2, 2.0)
    assert paired_difference([1.0], [None]).n == 0
    assert math.isnan(paired_difference([1.0], [2.0]).p)
    assert math.isnan(paired_difference([1.0], [2.0]).half_width())


def test_rounding_is_no_difference() -> None:
    found = paired_difference([0.3, 0.3, 0.3], [0.1 + 0.2, 0.3, 0.1 + 0.2])
    assert (found.mean, found.deviation, found.p) == (0.0, 0.0, 1.0)
    assert math.isnan(found.effect)
    shifted = paired_difference([1.3, 2.3], [1.0, 2.0])
    assert (shifted.p, shifted.effect) == (0.0, math.inf)


def test_effect_is_hedges() -> None:
    """The correction is the ratio of gamma functions, which the short formula comes near."""
    n, values = 5, [1.0, 2.0, 4.0, 3.0, 1.5]
    exact = math.gamma((n - 1) / 2) / (math.sqrt((n - 1) / 2) * math.gamma((n - 2) / 2))
    found = paired_difference(values, [0.0] * n)
    assert found.effect == pytest.approx(exact * np.mean(values) / np.std(values, ddof=1), rel=0.01)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_what_is_called_detectable_is_detected_in_four_of_five(n: int) -> None:
    known = Difference(0.0, 1.0, n, 1.0)  # a deviation of 1, as the samples have
    level = 0.02
    rng = np.random.default_rng(3)
    samples = rng.normal(known.detectable(level), 1.0, (4000, n))
    p = reference.ttest_1samp(samples, 0, axis=1).pvalue
    assert np.mean(p <= level) == pytest.approx(0.8, abs=0.02)


# --- many comparisons


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.001, 0.2))
def test_holm_by_its_definition(p_values: list[float], level: float) -> None:
    rejected, ordered = set(), sorted(range(len(p_values)), key=lambda k: p_values[k])
    for place, k in enumerate(ordered):
        if p_values[k] * (len(p_values) - place) > level:
            break
        rejected.add(k)
    found = holm(p_values, level)
    assert {k for k, one in enumerate(found) if one.p <= level} == rejected
    for k, one in enumerate(found):
        assert (p_values[k] <= one.level) == (k in rejected) or math.isclose(p_values[k], one.level)


def test_holm_by_hand() -> None:
    assert [one.p for one in holm([0.01, 0.04, 0.03, 0.005])] == pytest.approx([0.03, 0.06, 0.06, 0.02])


@pytest.mark.parametrize("n", [2, 5, 8])
def test_one_more_seed_lies_within_reach_as_often_as_said(n: int) -> None:
    """A prediction interval: 95 of 100 further seeds, whatever the number of seeds it is made of."""
    rng = np.random.default_rng(n)
    hits = 0
    for _ in range(2000):
        *seen, more = rng.normal(3.0, 2.0, n + 1)
        found = mean_interval(seen)
        hits += abs(more - found.mean) <= found.reach
    assert 0.935 <= hits / 2000 <= 0.965
