"""A made-up language whose entropy is known exactly: the embedded dataset of ``char-lm``.

A hundred pronounceable words follow one another as a Markov chain; each is spelled out and closed by a space::

    ... bo ridan meti bo ...     P(ridan | bo) = 9120 / 65536

A word's end is visible, so text and word sequence determine each other, and the entropy rate per character is that
of the chain, spread over the characters::

    h = sum_w pi_w H(P_w) / sum_w pi_w (len(w) + 1)        nats per character

with ``pi`` the stationary distribution and ``H(P_w)`` the entropy of row ``w`` (Cover and Thomas, Elements of
Information Theory, section 4.2).

Transition weights are integers that sum to 2**16 in each row and draws are raw random bits, so no floating-point
rounding enters the text: it is the same bytes everywhere. Shape letters here: ``W`` words, ``S`` states (a state is a
word and a place in it), ``B`` sequences, ``T`` characters.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from seqbench_tasks.randomness import below, fixed

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SCALE", "WordSource", "embedded_source"]

SCALE = 1 << 16
"""What the weights of a row sum to."""
WORDS, SUCCESSORS = 100, 12
CONSONANTS, VOWELS = "bdfglmnprstv", "aeiou"
SEED = 1951
BURN_IN = 1000
"""Words thrown away, after which the chain has forgotten where it started."""


@dataclass(frozen=True, eq=False)
class WordSource:
    """Words and their chain.

    Attributes:
        words: ``W`` distinct words without spaces.
        weights: int64 ``(W, W)``; row ``w`` over ``SCALE`` is the distribution of the word after ``w``.
    """

    words: tuple[str, ...]
    weights: np.ndarray

    @cached_property
    def transition(self) -> np.ndarray:
        """``P``, float64 ``(W, W)``; exact, since ``SCALE`` is a power of two."""
        return np.asarray(self.weights / SCALE)

    @cached_property
    def stationary(self) -> np.ndarray:
        """``pi``, float64 ``(W,)``: the solution of ``pi P = pi``, ``sum pi = 1``."""
        W = len(self.words)
        equations = self.transition.T - np.eye(W)
        equations[-1] = 1.0  # one equation of the W is redundant: the sum takes its place
        return np.linalg.solve(equations, np.eye(W)[-1])

    @property
    def word_entropy(self) -> float:
        """``sum_w pi_w H(P_w)``, in nats per word."""
        P = self.transition
        rows = -np.sum(P * np.log(np.where(P > 0, P, 1.0)), axis=1)  # (W,)
        return float(self.stationary @ rows)

    @property
    def characters_per_word(self) -> float:
        """``sum_w pi_w (len(w) + 1)``: the space counts."""
        return float(self.stationary @ np.array([len(w) + 1 for w in self.words]))

    @property
    def entropy_rate(self) -> float:
        """``h``, in nats per character."""
        return self.word_entropy / self.characters_per_word

    def sample(self, rng: np.random.Generator, characters: int) -> str:
        """A text of that many characters, from the stationary chain."""
        shortest = min(map(len, self.words)) + 1
        draws = below(rng, SCALE, (BURN_IN + characters // shortest + 2,)).tolist()
        limits = [row.tolist() for row in np.cumsum(self.weights, axis=1)]
        word, chain = 0, []
        for draw in draws:
            word = bisect_right(limits[word], draw)
            chain.append(word)
        return "".join(self.words[w] + " " for w in chain[BURN_IN:])[:characters]

    # --- the best possible prediction where a text starts in the middle of nowhere ---

    @cached_property
    def alphabet(self) -> str:
        """The characters of the language in code order; a character's code is its place here."""
        return "".join(sorted({" ", *"".join(self.words)}))

    @cached_property
    def _last(self) -> np.ndarray:
        """``(W,)``: each word's state at its space; states count up word by word, place by place."""
        return np.cumsum([len(w) + 1 for w in self.words]) - 1

    @cached_property
    def _first(self) -> np.ndarray:
        """``(W,)``: each word's state at its first letter."""
        return np.asarray(np.concatenate([[0], self._last[:-1] + 1]))

    @cached_property
    def _shows(self) -> np.ndarray:
        """float64 ``(characters, S)``: 1 where the state shows the character."""
        codes = np.array([self.alphabet.index(c) for word in self.words for c in word + " "])  # (S,)
        return np.asarray(np.arange(len(self.alphabet))[:, None] == codes, dtype=np.float64)

    @cached_property
    def _prior(self) -> np.ndarray:
        """float64 ``(S,)``: the state at a random place of an endless text. Every place of a word is as likely."""
        mass = np.repeat(self.stationary, [len(w) + 1 for w in self.words])
        return np.asarray(mass / mass.sum())

    def _advance(self, belief: np.ndarray) -> np.ndarray:
        """One character on: ``(B, S)`` to ``(B, S)``."""
        ahead = np.empty_like(belief)
        ahead[:, 1:] = belief[:, :-1]
        ahead[:, self._first] = belief[:, self._last] @ self.transition  # (B, W)
        return ahead

    def best_nats(self, codes: np.ndarray) -> np.ndarray:
        """The surprise of the Bayes-optimal predictor that knows the source but not what came before a sequence.

        The forward recursion of a hidden Markov model over states (word, place), from the stationary distribution.

        Args:
            codes: int64 ``(B, T + 1)``, sequences of characters that the source can produce.

        Returns:
            float64 ``(B, T)``: at ``t``, ``-ln p(codes[t + 1] | codes[0 .. t])``.
        """
        belief = self._prior * self._shows[codes[:, 0]]  # (B, S)
        belief /= belief.sum(1, keepdims=True)
        p = np.empty((len(codes), codes.shape[1] - 1))
        for t in range(p.shape[1]):
            belief = self._advance(belief) * self._shows[codes[:, t + 1]]  # (B, S)
            p[:, t] = belief.sum(1)
            belief /= p[:, t, None]
        return np.asarray(-np.log(p))


def _lexicon(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """That many distinct words of one to three syllables, some closed by a consonant; shared beginnings are common."""
    words: dict[str, None] = {}  # a dict keeps the order of arrival, a set would not
    while len(words) < count:
        syllables, *dice = below(rng, 1 << 16, (8,)).tolist()
        pairs = zip(dice[0:6:2], dice[1:6:2], strict=True)
        spelled = [CONSONANTS[c % len(CONSONANTS)] + VOWELS[v % len(VOWELS)] for c, v in pairs]
        close = dice[6] % (3 * len(CONSONANTS))  # a third of the words end in a consonant
        words["".join(spelled[: 1 + syllables % 3]) + CONSONANTS[close : close + 1]] = None
    return tuple(words)


def _distinct(rng: np.random.Generator, n: int, count: int) -> list[int]:
    """The first ``count`` distinct numbers below ``n`` that ``rng`` brings."""
    found: dict[int, None] = {}
    while len(found) < count:
        found[int(below(rng, n, (1,))[0])] = None
    return list(found)


def _weights(rng: np.random.Generator, W: int, successors: int) -> np.ndarray:
    """Sparse random rows that sum to ``SCALE``: the gaps between random cuts (a flat Dirichlet distribution)."""
    weights = np.zeros((W, W), dtype=np.int64)
    for row in weights:
        cuts = sorted(1 + c for c in _distinct(rng, SCALE - 1, successors - 1))
        row[_distinct(rng, W, successors)] = np.diff([0, *cuts, SCALE])
    return weights


def embedded_source(words: Sequence[str] | None = None, successors: int = SUCCESSORS) -> WordSource:
    """The source of the embedded dataset; tests make smaller ones of the same kind."""
    rng = fixed(SEED)
    lexicon = tuple(words) if words is not None else _lexicon(rng, WORDS)
    return WordSource(lexicon, _weights(rng, len(lexicon), successors))
