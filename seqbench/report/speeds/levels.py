"""Medians of what was measured in rounds, less what each round did to all alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

TURNS = 50
"""Of the polishing, at most; a few are enough."""

SETTLED = 1e-9
"""Of a logarithm: what changes by less changes no more."""


def levels(samples: Sequence[Sequence[float]]) -> list[float]:
    """What a sample of each subject usually is, in a usual round.

    A machine that others use is slow for a second or a minute. That slows down all samples of a round alike, and where
    half of the rounds are slow it decides which of them is in the middle. So every sample is taken for ``subject *
    round * rest``. The factors of the rounds, with 1 in their middle, are divided out before a subject's median is
    taken: median polish of the logarithms (Tukey, "Exploratory Data Analysis", 1977, chapter 11).

    Args:
        samples: of each subject one a round, in the order of the rounds.

    Returns:
        For each subject its level. The plain median where there is one subject, or where a sample is 0.
    """
    if len(samples) < 2 or any(value <= 0 for own in samples for value in own):
        return [median(own) for own in samples]
    rest = [[math.log(value) for value in own] for own in samples]
    subjects, rounds = [0.0] * len(rest), [0.0] * len(rest[0])
    for _ in range(TURNS):
        by_round = [median(column) for column in zip(*rest, strict=True)]
        rest = [[value - common for value, common in zip(own, by_round, strict=True)] for own in rest]
        by_subject = [median(own) for own in rest]
        rest = [[value - usual for value in own] for own, usual in zip(rest, by_subject, strict=True)]
        rounds = [a + b for a, b in zip(rounds, by_round, strict=True)]
        subjects = [a + b for a, b in zip(subjects, by_subject, strict=True)]
        if max(map(abs, by_subject)) < SETTLED:
            break
    return [math.exp(own + median(rounds)) for own in subjects]
