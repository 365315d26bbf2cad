"""The statistics of a few seeds: means, shares and differences, with intervals that cover what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

CONFIDENCE = 0.95
LEVEL = 0.05
"""How often a verdict may be wrong where there is no difference, over all pairs of a task together."""

POWER = 0.8
"""How often the smallest detectable difference would be detected."""

_ROUNDING = 1e-12
"""Differences below this share of the values are rounding."""


@dataclass(frozen=True)
class Interval:
    """The mean over seeds and its confidence interval.

    Attributes:
        mean: of the finite values; nan where there is none.
        low: lower end; nan with fewer than two values.
        high: upper end; nan with fewer than two values.
        n: how many finite values there are.
        dropped: how many values were None, nan or infinite.
    """

    mean: float
    low: float
    high: float
    n: int
    dropped: int = 0

    @property
    def half_width(self) -> float:
        """What stands behind the plus-minus sign; nan with fewer than two values."""
        return self.high - self.mean

    @property
    def reach(self) -> float:
        """How far from the mean one more seed lies at most, as often as the interval covers the mean.

        The prediction interval of Student's t, ``t * s * sqrt(1 + 1 / n)``; nan with fewer than two values.
        """
        return self.half_width * math.sqrt(self.n + 1)


def finite(values: Iterable[float | None]) -> list[float]:
    """The values that are numbers."""
    return [float(v) for v in values if v is not None and math.isfinite(v)]


def mean_interval(values: Iterable[float | None], confidence: float = CONFIDENCE) -> Interval:
    """Mean of the values of several seeds, with Student's t interval.

    The interval is ``mean ± t * s / sqrt(n)``, ``t`` the quantile of Student's distribution with ``n - 1`` degrees of
    freedom, ``s`` the sample standard deviation. It covers the mean in 95 of 100 repetitions from two seeds on, if
    the seeds scatter about normally; a bootstrap of three seeds would cover it in 73.

    Args:
        values: one a seed; what is not a finite number is dropped and counted.
        confidence: how often the interval shall cover the mean.
    """
    given = list(values)
    kept = finite(given)
    n, dropped = len(kept), len(given) - len(kept)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan, 0, dropped)
    mean = math.fsum(kept) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, dropped)
    half = _t_quantile(1 - confidence, n - 1) * _deviation(kept, mean) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, dropped)


def _deviation(values: Sequence[float], mean: float) -> float:
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


@lru_cache(maxsize=1024)
def _t_quantile(level: float, degrees: int) -> float:
    """Student's ``t`` that is passed, on either side, with probability ``level``."""
    from scipy.special import stdtrit  # imported here: `seqbench run` shall not wait for scipy before it starts

    return float(stdtrit(degrees, 1 - level / 2))


def median(values: Iterable[float | None]) -> float:
    """Median of the finite values; nan where there is none."""
    kept = sorted(finite(values))
    if not kept:
        return math.nan
    middle = len(kept) // 2
    return kept[middle] if len(kept) % 2 else (kept[middle - 1] + kept[middle]) / 2


# --- shares -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """``hits`` of ``n`` and the interval of the probability of a hit."""

    hits: int
    n: int
    low: float
    high: float


@lru_cache(maxsize=1024)
def share(hits: int, n: int, confidence: float = CONFIDENCE) -> Share:
    """The share of seeds that solved a task, with the exact interval of Clopper and Pearson (1934).

    It covers the probability at least as often as it says, whatever that is and however few the seeds.
    """
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = 0.0 if hits == 0 else float(betaincinv(hits, n - hits + 1, tail))
    high = 1.0 if hits == n else float(betaincinv(hits + 1, n - hits, 1 - tail))
    return Share(hits, n, low, high)


@lru_cache(maxsize=1024)
def shares_differ(a: Share, b: Share) -> float:
    """The p-value of two shares under Fisher's exact test, two-sided.

    Seeds in common make it cautious, never rash, as long as a seed that helps one model helps the other.
    """
    import numpy as np
    from scipy.stats import fisher_exact

    return float(fisher_exact(np.array([[a.hits, a.n - a.hits], [b.hits, b.n - b.hits]])).pvalue)


def two_groups(values: Sequence[float], distance: float) -> bool:
    """Whether somewhere between the values there is a gap wider than half of ``distance``.

    Args:
        values: one a seed.
        distance: from the trivial score to the best.
    """
    ordered = sorted(values)
    return any(b - a > distance / 2 for a, b in pairwise(ordered))


# --- differences ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """Of two models, from the differences seed by seed.

    Attributes:
        mean: of the differences.
        deviation: their sample standard deviation.
        n: how many seeds both models have a number for.
        p: of Student's paired test, two-sided; nan with fewer than two seeds.
    """

    mean: float
    deviation: float
    n: int
    p: float

    @property
    def effect(self) -> float:
        """The mean in standard deviations of the differences, with Hedges' correction for few seeds."""
        if self.n < 2 or self.deviation == 0:
            return math.nan if self.mean == 0 or self.n < 2 else math.copysign(math.inf, self.mean)
        return self.mean / self.deviation * (1 - 3 / (4 * (self.n - 1) - 1))

    def half_width(self, level: float = LEVEL) -> float:
        """Of the interval that misses the true difference with probability ``level``; nan with fewer than two."""
        return math.nan if self.n < 2 else _t_quantile(level, self.n - 1) * self.deviation / math.sqrt(self.n)

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float:
        """The true difference that a test at ``level`` would find with probability ``power``, at this scatter.

        Exact, by the noncentral t distribution, but for the deviation, which is the one seen.
        """
        if self.n < 2:
            return math.nan
        return _detectable(level, power, self.n) * self.deviation / math.sqrt(self.n)


@lru_cache(maxsize=1024)
def _detectable(level: float, power: float, n: int) -> float:
    """The noncentrality at which Student's test of ``n`` values has this power."""
    from scipy.optimize import brentq
    from scipy.stats import nct

    limit = _t_quantile(level, n - 1)

    def lacking(shift: float) -> float:
        return float(nct.sf(limit, n - 1, shift)) - power

    return float(brentq(lacking, 0.0, 10 * limit + 10))


def paired_difference(a: Sequence[float | None], b: Sequence[float | None]) -> Difference:
    """Of ``a - b``, where both are numbers.

    Args:
        a: one a seed.
        b: of the same seeds, in the same order; what one has more than the other is left out.
    """
    pairs = [both for pair in zip(a, b, strict=False) if len(both := finite(pair)) == 2]
    n = len(pairs)
    if n == 0:
        return Difference(math.nan, math.nan, 0, math.nan)
    differences = [x - y for x, y in pairs]
    mean = math.fsum(differences) / n
    if n == 1:
        return Difference(mean, math.nan, 1, math.nan)
    rounding = _ROUNDING * max(abs(v) for pair in pairs for v in pair)
    deviation = _deviation(differences, mean)
    deviation = 0.0 if deviation <= rounding else deviation
    mean = 0.0 if abs(mean) <= rounding else mean
    return Difference(mean, deviation, n, _p_of(mean, deviation, n))


def _p_of(mean: float, deviation: float, n: int) -> float:
    from scipy.special import stdtr

    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stdtr(n - 1, -abs(mean) / deviation * math.sqrt(n)))


# --- many comparisons -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Corrected:
    """A p-value among others, by Holm (1979).

    Attributes:
        p: adjusted: a pair differs where it is at most the level for all.
        level: at which the pair itself was tested; its interval at this level excludes 0 where the pair differs.
    """

    p: float
    level: float


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[Corrected]:
    """Correct for the number of comparisons: that any pair without a difference gets one has probability ``level``.

    The smallest p-value is tested at ``level / m``, the next at ``level / (m - 1)``, and so on; the first that fails
    ends it, and all behind it are held against the level that it failed at.

    Args:
        p_values: none is nan.
        level: for all together.
    """
    m = len(p_values)
    found: list[Corrected] = [Corrected(1.0, level)] * m
    adjusted, failed = 0.0, None
    for place, k in enumerate(sorted(range(m), key=lambda k: p_values[k])):
        adjusted = max(adjusted, min(1.0, (m - place) * p_values[k]))
        found[k] = Corrected(adjusted, failed or level / (m - place))
        if failed is None and adjusted > level:
            failed = level / (m - place)
    return found
