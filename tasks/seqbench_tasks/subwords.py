"""From text to tokens and back: subword pieces learned from the training split, or the words of a closed vocabulary.

Tokens 0, 1 and 2 are the unknown piece, the begin and the end of a sentence, in both.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from typing import Protocol

from seqbench.api import DataError

UNKNOWN, BEGIN, END = 0, 1, 2
SPECIAL = ("<unk>", "<s>", "</s>")
SPACE = "\u2581"
"""What stands for a space at the beginning of a piece."""


class Codec(Protocol):
    """Text to tokens and back."""

    def __len__(self) -> int:
        """How many tokens there are."""

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The tokens of each line, without begin and end."""

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens."""

    def show(self, token: int) -> str:
        """A token as an axis of a figure names it."""


class Words:
    """The words of a closed vocabulary, in order of their code points; text is words joined by single spaces."""

    def __init__(self, words: Iterable[str]) -> None:
        self._words = [*SPECIAL, *sorted(set(words))]
        self._token = {word: token for token, word in enumerate(self._words)}

    def __len__(self) -> int:
        return len(self._words)

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """One token a word; a word that is not in the vocabulary is the unknown one."""
        return [[self._token.get(word, UNKNOWN) for word in line.split(" ") if word] for line in lines]

    def decode(self, tokens: Iterable[int]) -> str:
        """The words, spaces between."""
        return " ".join(self._words[token] for token in tokens)

    def show(self, token: int) -> str:
        """The word."""
        return self._words[token]


class Subwords:
    """A sentencepiece unigram model (Kudo 2018, arXiv:1804.10959) from its bytes."""

    def __init__(self, model: bytes) -> None:
        import sentencepiece

        self._model = sentencepiece.SentencePieceProcessor(model_proto=model)

    def __len__(self) -> int:
        return int(self._model.vocab_size())

    def encode(self, lines: Sequence[str]) -> list[list[int]]:
        """The likeliest pieces of each line."""
        return [list(map(int, row)) for row in self._model.encode(list(lines))]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text, without marks between pieces."""
        return str(self._model.decode([int(token) for token in tokens]))

    def show(self, token: int) -> str:
        """The piece, its mark of a space kept."""
        return str(self._model.id_to_piece(int(token)))


def learn(lines: Sequence[str], size: int) -> bytes:
    """Train a subword model of up to ``size`` pieces on the lines of a training split: the same bytes every time.

    Every character of the lines gets a piece; case and punctuation are kept.

    Raises:
        DataError: there is no text to learn from.
    """
    import sentencepiece

    if not any(line.strip() for line in lines):
        raise DataError("There is no text in the training split to learn subwords from.")
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="unigram",
        vocab_size=size,
        hard_vocab_limit=False,  # a small corpus may support fewer pieces
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=UNKNOWN,
        bos_id=BEGIN,
        eos_id=END,
        pad_id=-1,
        max_sentence_length=1 << 20,
        num_threads=1,  # the order of sums would differ
        minloglevel=2,
    )
    return out.getvalue()


def version() -> str:
    """Of the library that learns and applies subwords: what is cached depends on it."""
    import sentencepiece

    return str(sentencepiece.__version__)
