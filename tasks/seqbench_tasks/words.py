"""Words and their codes, from the training split alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

UNKNOWN = 0


class WordVocabulary:
    """Words seen at least ``min_count`` times in training, in code-point order from 1 on; 0 is the unknown word.

    The rarer words of the training split are unknown too, so that its embedding is learned.
    """

    def __init__(self, train: Iterable[Sequence[str]], min_count: int) -> None:
        counts = Counter(word for words in train for word in words)
        self.words = ["<unk>", *sorted(word for word, n in counts.items() if n >= min_count)]
        self._code = {word: code for code, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, words: Sequence[str]) -> list[int]:
        """The code of each word."""
        return [self._code.get(word, UNKNOWN) for word in words]


def tokenise(text: str) -> list[str]:
    """The words between single blanks: text is tokenised already.

    ``str.split()`` would also cut at U+00A0, which some words hold.
    """
    return [word for word in text.split(" ") if word]
