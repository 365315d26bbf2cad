from __future__ import annotations

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.api import Prediction, Vectors
from seqbench_tasks.adding import HELD_OUT, Adding, sequences
from seqbench_tasks.cards.adding import AddingOptions

PINNED = "2666ba0f153c285b31f7128c08b9691178bea99513d2c87ba0fc94f7dbf8ac21"
"""sha256 of the test data: if it changes, every published figure is void."""


def prepared(no_files, T=100):
    task = Adding(AddingOptions(T=T))
    return task, task.prepare("embedded", no_files)


def constant(value):
    return lambda batch: Prediction(np.full((len(batch.x), 1), value, np.float32), 0.0, float(len(batch.x)))


@given(st.integers(2, 60), st.integers(1, 5), st.integers(0, 2**32))
def test_target_is_the_sum_of_two_marked_numbers_one_in_each_half(T, B, seed):
    x, target = sequences(np.random.default_rng(seed), B, T)
    assert x.shape == (B, T, 2)
    assert target.shape == (B, 1)
    assert x.dtype == target.dtype == np.float32
    numbers, marks = x[..., 0], x[..., 1]
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert set(np.unique(marks)) <= {0.0, 1.0}
    assert (marks[:, : T // 2].sum(1) == 1).all()
    assert (marks[:, T // 2 :].sum(1) == 1).all()
    np.testing.assert_allclose((numbers * marks).sum(1, keepdims=True), target, rtol=1e-6)


def test_marks_reach_every_position_equally():
    x, _ = sequences(np.random.default_rng(0), 20_000, 10)
    assert np.abs(x[..., 1].sum(0) - 4000).max() < 5 * math.sqrt(4000)


def test_form(no_files):
    _, form = prepared(no_files, T=7)
    assert (form.input, form.output, form.head, form.target, form.length) == (Vectors(2), 1, "pooled", "value", 7)


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("value", [1.0, 0.5, 0.0])
def test_a_constant_scores_the_variance_and_its_bias(value, split, no_files):
    # E (u1 + u2 - c)^2 = 1/6 + (1 - c)^2. The squared error around 1 has variance 1/15 - 1/36 = 7/180.
    task, _ = prepared(no_files)
    spread = math.sqrt((7 / 180 + 4 * (1 - value) ** 2 / 6) / HELD_OUT)
    expected = 1 / 6 + (1 - value) ** 2
    assert task.evaluate(constant(value), split)["mse"] == pytest.approx(expected, abs=4 * spread)


def test_trivial_reference_is_a_sixth_not_the_figure_in_the_literature(no_files):
    task, _ = prepared(no_files)
    trivial = task.references()[0]
    assert trivial.metrics == {"mse": pytest.approx(0.16667, abs=1e-5)}
    assert "(0.1748 on these 1000 test sequences)" in trivial.summary


def test_perfection_scores_the_optimum(no_files):
    task, _ = prepared(no_files)
    perfect = task.evaluate(lambda batch: Prediction(batch.target, 0.0, float(len(batch.x))), "test")
    assert perfect == task.references()[1].metrics == {"mse": 0.0}


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
    assert hashlib.sha256(x.astype("<f4").tobytes()).hexdigest() == PINNED


def test_held_out_sets_differ(no_files):
    task, _ = prepared(no_files)
    valid, test = (next(task.batches(split, HELD_OUT, np.random.default_rng(0))).x for split in ("valid", "test"))
    assert not (valid == test).all(axis=(1, 2)).any()
