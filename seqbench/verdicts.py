"""What may be said of two models from a few seeds: a test for each pair, corrected for all pairs of a task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

from seqbench.api import Metric
from seqbench.stats import (
    LEVEL,
    Corrected,
    Difference,
    Interval,
    Share,
    finite,
    holm,
    mean_interval,
    paired_difference,
    share,
    shares_differ,
)

Scores = Mapping[str, Sequence[float | None]]
"""Model name to its scores, one a seed, the same seeds in the same order for all; None where a trial failed."""


@dataclass(frozen=True)
class Verdict:
    """Of two models on a task.

    Attributes:
        first: the one with the better mean (or share), better or not.
        second: the other one.
        differ: whether the better one is better, as far as the test can say.
        by: ``"score"``, judged by Student's paired test, or ``"solved"``, by Fisher's exact test of solved fractions.
        n: seeds that both have a score for.
        difference: of the scores, ``first - second``.
        p: adjusted by Holm for all pairs of the task.
        level: at which this pair was tested.
        solved: of both, where the task can be solved.
    """

    first: str
    second: str
    differ: bool
    by: Literal["score", "solved"]
    n: int
    difference: Difference
    p: float
    level: float
    solved: tuple[Share, Share] | None = None

    @property
    def half_width(self) -> float:
        """Of the interval of the difference, at the pair's own level: it excludes 0 where ``differ`` is by score."""
        return self.difference.half_width(self.level)

    @property
    def detectable(self) -> float:
        """The difference that would have been found in four of five repetitions, given the scatter of these seeds."""
        return self.difference.detectable(self.level)


def solved_share(values: Sequence[float | None], metric: Metric) -> Share | None:
    """How many seeds solved the task, where the metric says what that is and there is a score."""
    kept = finite(values)
    if metric.solved is None or not kept:
        return None
    return share(sum(metric.solves(value) for value in kept), len(kept))


def compare(
    scores: Scores, metric: Metric, level: float = LEVEL, pairs: Sequence[tuple[str, str]] | None = None
) -> list[Verdict]:
    """A verdict for each pair of models that have two seeds in common, surest first.

    A pair is judged by its scores, but where one of the two solved a task that can be solved and they did so unequally
    often: then the scores of seeds are of two kinds, Student's test does not hold, and the solved fractions are
    compared. The correction is for all pairs of the task together.

    Args:
        scores: of all models of a task.
        metric: what they are scored by.
        level: the probability of any false difference among all pairs.
        pairs: which ones; default: all.
    """
    tests = [_test(a, b, scores, metric) for a, b in pairs or combinations(scores, 2)]
    known = [test for test in tests if not math.isnan(test.p)]
    corrected = holm([test.p for test in known], level)
    verdicts = [_verdict(test, one, level) for test, one in zip(known, corrected, strict=True)]
    return sorted(verdicts, key=lambda verdict: verdict.p)


@dataclass(frozen=True)
class _Test:
    pair: tuple[str, str]
    by: Literal["score", "solved"]
    p: float
    difference: Difference
    solved: tuple[Share, Share] | None


def _test(a: str, b: str, scores: Scores, metric: Metric) -> _Test:
    """The one with the better mean over the seeds in common comes first."""
    pair, difference = (a, b), paired_difference(scores[a], scores[b])
    if difference.mean > 0 if metric.lower_is_better else difference.mean < 0:
        pair, difference = (b, a), replace(difference, mean=-difference.mean)
    shares = [solved_share(scores[name], metric) for name in pair]
    if shares[0] is None or shares[1] is None:
        return _Test(pair, "score", difference.p, difference, None)
    both = shares[0], shares[1]
    if shares[0].hits / shares[0].n == shares[1].hits / shares[1].n and shares[0].hits in {0, shares[0].n}:
        return _Test(pair, "score", difference.p, difference, both)
    return _Test(pair, "solved", shares_differ(*both) if difference.n > 1 else math.nan, difference, both)


def _verdict(test: _Test, corrected: Corrected, level: float) -> Verdict:
    return Verdict(
        *test.pair,
        differ=corrected.p <= level,
        by=test.by,
        n=test.difference.n,
        difference=test.difference,
        p=corrected.p,
        level=corrected.level,
        solved=test.solved,
    )


def fewest_seeds(pairs: int, by_share: bool, level: float = LEVEL) -> int:
    """The fewest seeds at which one of so many pairs can differ at all.

    Student's test can always find a difference that is large enough, so for scores this is the number at which the
    interval of the surest pair is no wider than three standard deviations of the differences to either side.
    """
    n = 2
    while True:
        if by_share:
            reached = shares_differ(share(n, n), share(0, n)) <= level / pairs
        else:
            reached = Difference(0.0, 1.0, n, 1.0).half_width(level / pairs) <= 3
        if reached:
            return n
        n += 1


def mean_ranks(tasks: Sequence[tuple[Scores, Metric]]) -> dict[str, Interval]:
    """The mean rank over tasks of each model that all of them have, 1 for the best.

    In each task models are ranked seed by seed, ties sharing their ranks, a seed without a score last. The interval
    (Student's, over seeds) says how far the ranks of these tasks would move with other seeds; it says nothing of
    other tasks.

    Args:
        tasks: the scores of each and its metric.
    """
    from scipy.stats import rankdata

    names = [name for name in tasks[0][0] if all(name in scores for scores, _ in tasks)]
    seeds = min(len(scores[name]) for scores, _ in tasks for name in names) if names else 0
    sums = {name: [0.0] * seeds for name in names}
    for scores, metric in tasks:
        for seed in range(seeds):
            for name, rank in zip(names, rankdata([_cost(scores[name][seed], metric) for name in names]), strict=True):
                sums[name][seed] += float(rank) / len(tasks)
    return {name: mean_interval(ranks) for name, ranks in sums.items()}


def _cost(value: float | None, metric: Metric) -> float:
    """Smaller is better; without a score the worst."""
    if not finite((value,)):
        return math.inf
    assert value is not None
    return value if metric.lower_is_better else -value
