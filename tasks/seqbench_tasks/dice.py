"""Uniform choices for the made-up languages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from seqbench_tasks.randomness import below

Item = TypeVar("Item")


class Dice:
    """Uniform choices, from words drawn in bulk: a draw of one number costs a hundred times more."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._words: Iterator[int] = iter(())

    def below(self, n: int) -> int:
        """A number in ``0 .. n-1``."""
        word = next(self._words, None)
        if word is None:
            self._words = iter(below(self._rng, 1 << 30, (4096,)).tolist())
            word = next(self._words)
        return (word * n) >> 30

    def one(self, items: Sequence[Item]) -> Item:
        """One of the items."""
        return items[self.below(len(items))]

    def chance(self, per_cent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.below(100) < per_cent
