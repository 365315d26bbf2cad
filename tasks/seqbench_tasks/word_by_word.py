"""Which sentences of the test set of ``sentiment`` the report reads word by word: a rule that knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

CONTRAST = frozenset({"but", "although", "though", "yet", "however"})
NEGATION = frozenset({"not", "n't", "never", "no", "nobody", "hardly"})
WANTED = ((1, CONTRAST), (0, CONTRAST), (1, NEGATION))
"""The class of each, and words of which it has one, if any sentence does."""
WORDS = (8, 16)
"""The fewest words of such a sentence, and the most."""


def examples(sentences: Sequence[Sequence[str]], label: np.ndarray) -> list[int]:
    """Which sentences are read word by word: a rule that knows no model.

    For each of ``WANTED`` the first sentence of that class with ``WORDS`` words that has one of the words
    named, or, where none has, the first of that class and length; no sentence twice.
    """
    chosen: list[int] = []
    low, high = WORDS
    for wanted, turns in WANTED:
        fit = [i for i, words in enumerate(sentences) if low <= len(words) <= high and label[i] == wanted]
        free = [i for i in fit if i not in chosen]
        turned = [i for i in free if not turns.isdisjoint(sentences[i])]
        chosen += (turned or free)[:1]
    return chosen
