"""Buckets of similar lengths: every index once a pass, the order from the generator alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench_tasks.ragged import POOL, flat, padded, rows_of, shuffled_buckets, sorted_buckets
from seqbench_tasks.randomness import fixed

rows = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=30)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 400), st.integers(1, 7), st.integers(0, 5))
def test_every_pass_takes_each_index_once(n: int, size: int, seed: int) -> None:
    lengths = np.arange(n) % 13 + 1
    buckets = shuffled_buckets(lengths, size, fixed(seed))
    passes = 2 * n * POOL * size  # whole pools and whole passes
    taken = np.concatenate([next(buckets) for _ in range(passes // size)])
    assert (np.bincount(taken, minlength=n) == passes // n).all()


def test_a_batch_holds_similar_lengths_and_batches_come_in_no_order() -> None:
    lengths = fixed(3).integers(1, 100, 10_000)
    batches = [lengths[b] for b, _ in zip(shuffled_buckets(lengths, 32, fixed(1)), range(POOL), strict=False)]
    assert np.mean([b.max() - b.min() for b in batches]) < 5
    assert 0.3 < np.mean(np.diff([b.mean() for b in batches]) > 0) < 0.7


def test_the_order_follows_from_the_generator() -> None:
    first, same, other = (shuffled_buckets(np.arange(50), 8, fixed(seed)) for seed in (1, 1, 2))
    a, b, c = ([next(it).tolist() for _ in range(20)] for it in (first, same, other))
    assert a == b != c


def test_nothing_to_take_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sequences"):
        next(shuffled_buckets(np.empty(0), 4, fixed(0)))


def test_sorted_buckets_take_each_index_once_longest_first() -> None:
    lengths = np.array([3, 9, 1, 9, 5])
    assert [b.tolist() for b in sorted_buckets(lengths, 2)] == [[1, 3], [4, 0], [2]]


@given(rows)
def test_padding_and_flattening_lose_nothing(given_: list[list[int]]) -> None:
    together, lengths = padded([np.array(row) for row in given_], fill=-1)
    assert [row[:n].tolist() for row, n in zip(together, lengths, strict=True)] == given_
    assert all((row[n:] == -1).all() for row, n in zip(together, lengths, strict=True))
    assert [row.tolist() for row in rows_of(*flat(given_))] == given_


def test_empty_rows_survive_flattening() -> None:
    assert [row.tolist() for row in rows_of(*flat([[], [4], []]))] == [[], [4], []]
    assert rows_of(*flat([])) == []
