"""The statistics of a few seeds: the mean with an interval that covers what it says."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

CONFIDENCE = 0.95


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
    half = _t_quantile(confidence, n) * _deviation(kept, mean) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n, dropped)


def _deviation(values: list[float], mean: float) -> float:
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _t_quantile(confidence: float, n: int) -> float:
    from scipy.stats import t  # imported here: 0.5 s that `seqbench run` shall not wait for before it starts

    return float(t.ppf((1 + confidence) / 2, n - 1))


def median(values: Iterable[float | None]) -> float:
    """Median of the finite values; nan where there is none."""
    kept = sorted(finite(values))
    if not kept:
        return math.nan
    middle = len(kept) // 2
    return kept[middle] if len(kept) % 2 else (kept[middle - 1] + kept[middle]) / 2
