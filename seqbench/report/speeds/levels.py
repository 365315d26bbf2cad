"""Medians of what was measured in rounds, less what each round did to all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

TURNS = 50
"""Of the polishing, at most; a few are enough."""

SETTLED = 1e-9
"""Of a logarithm: what changes by less changes no more."""

Rows = Sequence[Sequence[float]]


def levels(samples: Rows) -> list[float]:
    """What a sample of each subject usually is, in a usual round.

    A machine that others use is slow for a second or a minute. That slows down all samples of a round, and where half
    of the rounds are slow it decides which sample is in the middle. So the logarithm of a sample is taken for
    ``level + slope * loudness + rest``, the loudness being the round's, the same for all subjects, and 0 in the middle.
    A subject's slope says how much it suffers: where memory is short, not all do alike (bundles of lines, Mandel 1961,
    JASA 56; joint regression, Finlay and Wilkinson 1963). The slope is a repeated median (Siegel 1982), the level the
    median of ``logarithm - slope * loudness``.

    Args:
        samples: of each subject one a round, in the order of the rounds.

    Returns:
        For each subject its level. The plain median where there is one subject, or where a sample is 0.
    """
    if len(samples) < 2 or any(value <= 0 for own in samples for value in own):
        return [median(own) for own in samples]
    logarithms = [[math.log(value) for value in own] for own in samples]
    loudness = _loudness(logarithms)
    return [math.exp(_at_usual(own, loudness)) for own in logarithms]


def _loudness(table: Rows) -> list[float]:
    """Of each round, what it adds to all subjects: median polish (Tukey 1977, "Exploratory Data Analysis", ch. 11)."""
    rest = table
    rounds = [0.0] * len(table[0])
    for _ in range(TURNS):
        common = [median(column) for column in zip(*rest, strict=True)]
        rounds = [a + b for a, b in zip(rounds, common, strict=True)]
        rest = [[value - part for value, part in zip(own, common, strict=True)] for own in rest]
        usual = [median(own) for own in rest]
        rest = [[value - part for value in own] for own, part in zip(rest, usual, strict=True)]
        if max(map(abs, usual)) < SETTLED:
            break
    middle = median(rounds)
    return [each - middle for each in rounds]


def _at_usual(values: Sequence[float], loudness: Sequence[float]) -> float:
    """Of values that lie about a line over the loudness: where it is 0."""
    from scipy.stats import siegelslopes

    if max(loudness) - min(loudness) < SETTLED:
        return median(values)
    slope = max(0.0, float(siegelslopes(values, loudness).slope))  # nothing is faster for noise
    return median(value - slope * loud for value, loud in zip(values, loudness, strict=True))
