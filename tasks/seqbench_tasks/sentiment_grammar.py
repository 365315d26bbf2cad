"""A small grammar of opinions whose verdict follows from the structure of the sentence, not from its words alone.

::

    nobody will agree that the plot is truly dull                                positive (flipped by the opening)
    the acting was not good , but the music was fairly moving                    positive (after "but" counts)
    although the plot is great , the cast is never funny , said the critic       negative
    the music is very bad and the story is fairly fresh , said no one            positive (sum, flipped by the end)

A clause says of a thing that it is good or bad, weakly (1), plainly (2) or strongly (3); ``not`` and its like turn it
round. Clauses make a verdict::

    verdict(clause)             sign * strength
    verdict(A and B)            verdict(A) + verdict(B), never 0
    verdict(A , but B)          verdict(B);  "although A , B" as well
    opening or end that flips   - verdict

Openings and ends that flip have doubles that do not, so no such word tells anything alone; each may stand far from the
words that it turns round. A known share of labels, ``NOISE``, is flipped at random, exactly that share in every split,
so nobody can be right more often than ``1 - NOISE``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from seqbench_tasks.dice import Dice
from seqbench_tasks.randomness import fixed, permutation

SIZES = {"train": 20_000, "valid": 1000, "test": 10_000}
NOISE = 0.02
SEED = 2013

THINGS = ("plot", "acting", "music", "story", "cast", "ending", "script", "humour")
POSITIVE = ("good", "great", "moving", "fresh", "funny", "clever")
NEGATIVE = ("bad", "awful", "dull", "stale", "clumsy", "boring")
DEGREES = {"fairly": 1, "slightly": 1, "": 2, "very": 3, "truly": 3}
NEGATIONS = ("not", "never", "hardly")
VERBS = ("is", "was", "seems")
FILLERS = ("in the second half", "for the most part", "as far as i can tell", "on a second viewing", "to my mind")
OPENINGS = ("everybody will agree that", "it is no secret that")
FLIPPING_OPENINGS = ("nobody will agree that", "it is no truth that")
ENDS = (", said the critic", ", said my friend")
FLIPPING_ENDS = (", said no one", ", said no friend")


@dataclass(frozen=True)
class Opinion:
    """Words and their verdict, above 0 if positive."""

    text: str
    verdict: int


def _clause(dice: Dice) -> Opinion:
    """``the plot is not very good``, with a filler now and then."""
    degree, positive = dice.one(tuple(DEGREES)), dice.chance(50)
    negation = dice.one(NEGATIONS) if dice.chance(35) else ""
    adjective = dice.one(POSITIVE if positive else NEGATIVE)
    filler = dice.one(FILLERS) if dice.chance(25) else ""
    words = ("the", dice.one(THINGS), dice.one(VERBS), negation, degree, adjective, filler)
    sign = (1 if positive else -1) * (-1 if negation else 1)
    return Opinion(" ".join(filter(None, words)), sign * DEGREES[degree])


def _both(dice: Dice) -> Opinion:
    while True:
        a, b = _clause(dice), _clause(dice)
        if a.verdict + b.verdict:
            return Opinion(f"{a.text} and {b.text}", a.verdict + b.verdict)


def _but(dice: Dice) -> Opinion:
    a, b = _clause(dice), _simple(dice)
    return Opinion(f"{a.text} , but {b.text}", b.verdict)


def _although(dice: Dice) -> Opinion:
    a, b = _clause(dice), _simple(dice)
    return Opinion(f"although {a.text} , {b.text}", b.verdict)


def _simple(dice: Dice) -> Opinion:
    return _both(dice) if dice.chance(25) else _clause(dice)


KINDS: tuple[Callable[[Dice], Opinion], ...] = (_clause, _both, _but, _but, _although, _although)


def opinion(dice: Dice) -> Opinion:
    """A sentence of 4 to about 40 words."""
    said = dice.one(KINDS)(dice)
    frame = dice.below(5)
    if frame == 0:
        flips = dice.chance(50)
        return _framed(f"{dice.one(FLIPPING_OPENINGS if flips else OPENINGS)} {said.text}", said, flips)
    if frame == 1:
        flips = dice.chance(50)
        return _framed(f"{said.text} {dice.one(FLIPPING_ENDS if flips else ENDS)}", said, flips)
    return said


def _framed(text: str, said: Opinion, flips: bool) -> Opinion:
    return Opinion(text, -said.verdict if flips else said.verdict)


@dataclass(frozen=True)
class Labelled:
    """A split: sentences, true classes and classes as given, int64 ``(n,)``; 1 is positive."""

    texts: list[str]
    truth: np.ndarray
    label: np.ndarray


def embedded_opinions() -> dict[str, Labelled]:
    """The embedded dataset: three splits, no sentence twice, the share ``NOISE`` of each split's labels wrong."""
    dice, found = Dice(fixed(SEED)), dict[str, int]()
    while len(found) < sum(SIZES.values()):
        said = opinion(dice)
        found[said.text] = int(said.verdict > 0)
    texts, classes = list(found), np.array(list(found.values()), np.int64)
    order, splits = permutation(fixed(SEED, 1), len(texts)), {}
    for number, (split, size) in enumerate(SIZES.items()):
        rows, order = order[:size], order[size:]
        wrong = permutation(fixed(SEED, 2, number), size)[: round(NOISE * size)]
        label = classes[rows].copy()
        label[wrong] = 1 - label[wrong]
        splits[split] = Labelled([texts[i] for i in rows], classes[rows], label)
    return splits
