from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.api import Tokens
from seqbench_tasks.cards.copy_memory import CopyOptions
from seqbench_tasks.copy_memory import HELD_OUT, CopyMemory, sequences

LOW = -1e4  # exp(LOW) is exactly 0

PINNED = "3a0906c271e0f3b8fb54481f76a64633408da79f129e57979dd574b9ab27b67a"
"""sha256 of the test data: if it changes, every published figure is void."""


def prepared(no_files, T=50):
    task = CopyMemory(CopyOptions(T=T))
    return task, task.prepare("embedded", no_files)


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 2**32))
def test_a_sequence_is_symbols_blanks_delimiter_blanks(T, B, seed):
    x, target = sequences(np.random.default_rng(seed), B, T)
    assert x.shape == target.shape == (B, T + 20)
    assert x.dtype == target.dtype == np.int64
    assert ((x[:, :10] >= 1) & (x[:, :10] <= 8)).all()
    assert (x[:, 10 : T + 9] == 0).all()
    assert (x[:, T + 9] == 9).all()
    assert (x[:, T + 10 :] == 0).all()
    assert (target[:, : T + 10] == 0).all()
    assert (target[:, T + 10 :] == x[:, :10]).all()


def test_all_eight_symbols_are_equally_likely():
    x, _ = sequences(np.random.default_rng(0), 4000, 1)
    counts = np.bincount(x[:, :10].ravel(), minlength=9)[1:]
    assert np.abs(counts - 5000).max() < 5 * math.sqrt(5000)


def test_form(no_files):
    _, form = prepared(no_files, T=7)
    assert (form.input, form.output, form.head, form.target, form.length) == (Tokens(10), 10, "step", "class", 27)
    assert form.causal


@pytest.mark.parametrize("T", [1, 20, 50])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_trivial_reference_is_what_the_trivial_predictor_scores(T, split, fake, no_files):
    task, _ = prepared(no_files, T)
    logits = np.full((T + 20, 10), LOW)
    logits[: T + 10, 0] = 0.0  # sure of a blank
    logits[T + 10 :, 1:9] = 0.0  # any of the eight symbols
    scores = task.evaluate(fake(lambda batch: np.broadcast_to(logits, (*batch.x.shape, 10))), split)
    trivial = task.references()[0].metrics
    assert trivial["loss"] == pytest.approx(10 * math.log(8) / (T + 20), rel=1e-12)
    assert scores["loss"] == pytest.approx(trivial["loss"], rel=1e-9)
    assert scores["recall"] == pytest.approx(trivial["recall"], abs=4 * 100 * math.sqrt(0.125 * 0.875 / 10_000))


def test_optimum_reference_is_what_perfection_scores(fake, no_files):
    task, _ = prepared(no_files)
    scores = task.evaluate(fake(lambda batch: -LOW * np.eye(10)[batch.target]), "test")
    assert scores == task.references()[1].metrics


def test_recall_counts_only_the_last_ten(fake, no_files):
    task, _ = prepared(no_files)

    def half(batch):
        said = batch.target.copy()
        said[:, :60] = 5  # wrong everywhere before the answer, which must not count
        said[:, -5:] = 0
        return np.eye(10)[said]

    assert task.evaluate(fake(half), "test")["recall"] == 50.0


def test_train_follows_the_generator_alone(no_files):
    task, _ = prepared(no_files)
    first, again, other = (
        list(itertools.islice(task.batches("train", 8, np.random.default_rng(seed)), 3)) for seed in (1, 1, 2)
    )
    assert all((a.x == b.x).all() and (a.target == b.target).all() for a, b in zip(first, again, strict=True))
    assert not (first[0].x == other[0].x).all()
    assert not (first[0].x == first[1].x).all()


@pytest.mark.parametrize("size", [1000, 300, 7])
def test_held_out_sets_are_passed_once_whatever_the_batch(size, no_files):
    task, _ = prepared(no_files, T=5)
    x = np.concatenate([batch.x for batch in task.batches("test", size, np.random.default_rng(size))])
    assert len(x) == HELD_OUT
    assert hashlib.sha256(x.astype("<i8").tobytes()).hexdigest() == PINNED


def test_held_out_sets_differ(no_files):
    task, _ = prepared(no_files)
    valid, test = (next(task.batches(split, HELD_OUT, np.random.default_rng(0))).x for split in ("valid", "test"))
    assert not {tuple(row) for row in valid[:, :10].tolist()} & {tuple(row) for row in test[:, :10].tolist()}
