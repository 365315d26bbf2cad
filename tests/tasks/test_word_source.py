"""The made-up language: its entropy and its best predictor, against enumeration that shares no code with them."""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict

import numpy as np
import pytest

from seqbench_tasks.char_lm import embedded_text
from seqbench_tasks.randomness import fixed
from seqbench_tasks.word_source import SCALE, WordSource, embedded_source

PINNED = "a0f728aa9067d81a199fab33457e451b38ba27a15b9a2a9510382f461f21df83"
"""sha256 of the test data: if it changes, every published figure is void."""


@pytest.fixture(scope="module")
def tiny() -> WordSource:
    """Three words, two of which begin alike; by hand, not by the generator under test."""
    return WordSource(("a", "ab", "b"), SCALE // 16 * np.array([[2, 8, 6], [12, 0, 4], [1, 5, 10]]))


@pytest.fixture(scope="module")
def source() -> WordSource:
    return embedded_source()


def state_chain(source: WordSource):
    """The source as a chain over (word, place): start probabilities and moves, by power iteration and plain loops."""
    W = len(source.words)
    P = source.weights / source.weights.sum(1, keepdims=True)
    pi = np.full(W, 1 / W)
    for _ in range(2000):
        pi = pi @ P
    per_word = sum(pi[w] * (len(word) + 1) for w, word in enumerate(source.words))
    start = {(w, k): pi[w] / per_word for w, word in enumerate(source.words) for k in range(len(word) + 1)}
    moves = defaultdict(dict)
    for w, k in start:
        if k < len(source.words[w]):
            moves[w, k][w, k + 1] = 1.0
        else:
            moves[w, k] = {(v, 0): P[w, v] for v in range(W) if P[w, v] > 0}
    return start, moves


def string_probabilities(source: WordSource, length: int) -> dict[str, float]:
    """The probability of every string of that length in an endless text, by following every path."""
    start, moves = state_chain(source)
    paths = [(source.words[w][k : k + 1] or " ", (w, k), p) for (w, k), p in start.items()]
    for _ in range(length - 1):
        merged: dict[tuple[str, tuple[int, int]], float] = defaultdict(float)
        for text, state, p in paths:
            for (w, k), q in moves[state].items():
                merged[text + (source.words[w][k : k + 1] or " "), (w, k)] += p * q
        paths = [(text, state, p) for (text, state), p in merged.items()]
    strings: dict[str, float] = defaultdict(float)
    for text, _, p in paths:
        strings[text] += p
    return strings


def block_entropy(source: WordSource, length: int) -> float:
    return -sum(p * math.log(p) for p in string_probabilities(source, length).values())


def test_entropy_rate_is_the_limit_of_the_growth_of_block_entropies(tiny):
    blocks = [block_entropy(tiny, n) for n in range(1, 14)]
    growth = np.diff(blocks)
    assert (np.diff(growth) <= 1e-12).all()  # it falls towards the rate, never below it
    assert growth[-1] >= tiny.entropy_rate - 1e-12
    assert growth[-1] == pytest.approx(tiny.entropy_rate, abs=2e-4)


def test_entropy_rate_of_a_single_fair_coin():
    # Two one-letter words, equally likely whatever came before: ln 2 for each letter-and-space.
    coin = WordSource(("a", "b"), np.full((2, 2), SCALE // 2))
    assert coin.entropy_rate == pytest.approx(math.log(2) / 2, rel=1e-12)


def test_entropy_rate_is_what_a_long_text_costs(source):
    words = source.sample(fixed(7), 1_000_000).split(" ")[1:-1]
    number = {word: i for i, word in enumerate(source.words)}
    chain = np.array([number[word] for word in words])
    costs = -np.log(source.transition[chain[:-1], chain[1:]])
    characters = sum(len(word) + 1 for word in words[1:])
    assert costs.sum() / characters == pytest.approx(source.entropy_rate, rel=0.01)


def test_best_nats_is_the_conditional_probability_of_every_string(tiny):
    strings = string_probabilities(tiny, 7)
    assert sum(strings.values()) == pytest.approx(1.0)
    firsts = string_probabilities(tiny, 1)
    codes = np.array([[tiny.alphabet.index(c) for c in text] for text in strings])
    total = tiny.best_nats(codes).sum(1)  # -ln p(string | its first character)
    expected = [-math.log(p / firsts[text[0]]) for text, p in strings.items()]
    np.testing.assert_allclose(total, expected, rtol=1e-10)


def test_best_nats_step_by_step(tiny):
    text = "ab a "
    codes = np.array([[tiny.alphabet.index(c) for c in text]])
    upto = [string_probabilities(tiny, n)[text[:n]] for n in range(1, len(text) + 1)]
    np.testing.assert_allclose(tiny.best_nats(codes)[0], -np.diff(np.log(upto)), rtol=1e-10)


def test_rows_are_distributions_and_sparse(source):
    assert (source.weights.sum(1) == SCALE).all()
    assert (source.weights >= 0).all()
    assert ((source.weights > 0).sum(1) == 12).all()


def test_chain_is_irreducible_and_aperiodic(source):
    reached = np.linalg.matrix_power((source.weights > 0).astype(np.float64) + 0.0, 8)
    assert (reached > 0).all()  # every word can follow every word after exactly eight steps


def test_stationary_distribution_is_stationary(source):
    np.testing.assert_allclose(source.stationary @ source.transition, source.stationary, atol=1e-15)
    assert source.stationary.sum() == pytest.approx(1.0, abs=1e-12)
    assert (source.stationary > 0).all()


def test_words_are_distinct_and_hold_no_space(source):
    assert len(set(source.words)) == 100
    assert all(word.isalpha() and word.isascii() for word in source.words)


def test_text_spells_words_of_the_lexicon(source):
    first, *middle, last = embedded_text()["train"].split(" ")
    assert set(middle) == set(source.words)
    assert any(word.endswith(first) for word in source.words)
    assert any(word.startswith(last) for word in source.words)


def test_text_is_the_same_bytes_everywhere():
    text = "".join(embedded_text().values())
    assert len(text) == 360_000
    assert hashlib.sha256(text.encode()).hexdigest() == PINNED


def test_entropy_rate_is_pinned(source):
    assert source.entropy_rate == pytest.approx(0.3891639820212, rel=1e-12)
