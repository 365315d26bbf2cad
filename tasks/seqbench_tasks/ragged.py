"""Batches of sequences of different lengths: buckets, so that little of a batch is padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from seqbench_tasks.randomness import permutation

POOL = 50
"""Batches that are filled from one shuffled pool, sorted by length: short ones together, long ones together."""


def shuffled_buckets(lengths: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of indices, ``(size,)`` each, from one shuffled pass over the data after another.

    A pool may reach into the next pass. The order depends on ``rng`` and ``lengths`` alone: ``(n,)``, or ``(n, 2)``
    with the second one breaking ties.

    Raises:
        ValueError: there is nothing to take.
    """
    if not len(lengths):
        raise ValueError("no sequences to make batches of")
    keys = lengths.reshape(len(lengths), -1)
    left = np.empty(0, np.int64)
    while True:
        while len(left) < POOL * size:
            left = np.concatenate([left, permutation(rng, len(keys))])
        pool, left = left[: POOL * size], left[POOL * size :]
        pool = pool[np.lexsort(keys[pool].T[::-1])]
        for place in permutation(rng, POOL):
            yield pool[place * size : (place + 1) * size]


def sorted_buckets(lengths: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """All indices once, the longest first, in batches of up to ``size``: for scoring."""
    order = np.argsort(-lengths, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(rows: Sequence[np.ndarray], fill: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sequences of tokens side by side: int64 ``(B, T)`` with ``fill`` beyond each length, and lengths ``(B,)``."""
    lengths = np.array([len(row) for row in rows], np.int64)
    together = np.full((len(rows), int(lengths.max())), fill, np.int64)
    for place, row in enumerate(rows):
        together[place, : len(row)] = row
    return together, lengths


def flat(rows: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Ragged rows as one array of tokens, int32, and where each row ends, int64."""
    ends = np.cumsum([len(row) for row in rows], dtype=np.int64)
    tokens = np.fromiter((token for row in rows for token in row), np.int32, count=int(ends[-1]) if len(ends) else 0)
    return tokens, ends


def rows_of(tokens: np.ndarray, ends: np.ndarray) -> list[np.ndarray]:
    """The rows that ``flat`` has joined, int64."""
    return np.split(tokens.astype(np.int64), ends[:-1]) if len(ends) else []
