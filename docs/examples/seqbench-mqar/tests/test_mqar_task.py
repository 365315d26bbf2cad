"""The task ``mqar``: what a sequence is, what counts, and that the references are what such predictors score."""

from __future__ import annotations

import hashlib
import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from seqbench.api import Batch, Prediction, Tokens, UsageError
from seqbench_mqar import MQAR, Options
from seqbench_mqar.task import HELD_OUT, SEEDS, Recall, draw, sequences

PINNED = "3fc21c9ed643c93e8f4cd33c5aa4190034ba8a446bffb317b24e1d6407bad207"
"""sha256 of the test data under numpy 2.4: if it changes, published scores are void."""


class Fake:
    """A stand-in for a trained network: any function from a batch to logits, under a cross-entropy in plain numpy."""

    def __init__(self, logits: Callable[[Batch], np.ndarray]) -> None:
        self.logits = logits

    def __call__(self, batch: Batch) -> Prediction:
        outputs = self.logits(batch).astype(np.float64)
        total = np.log(np.exp(outputs).sum(-1))
        costs = total - np.take_along_axis(outputs, batch.target[..., None], -1)[..., 0]
        assert batch.weight is not None
        return Prediction(outputs, float((costs * batch.weight).sum()), float(batch.weight.sum(dtype=np.float64)))


def prepared(**options: Any) -> Recall:
    task = Recall(Options(**options))
    task.prepare("embedded", files=None)  # embedded data has no files
    return task


SIZES = [
    {"pairs": 8, "length": 64, "vocabulary": 64},
    {"pairs": 1, "length": 4, "vocabulary": 2},
    {"pairs": 4, "length": 16, "vocabulary": 8},
    {"pairs": 5, "length": 40, "vocabulary": 100, "power": 1.0},
]


@pytest.mark.parametrize("options", SIZES, ids=str)
def test_a_sequence_by_the_words_of_its_description(options: dict[str, Any]) -> None:
    """Read off the inputs alone, without the arrays that they were made from."""
    o = Options(**options)
    batch = sequences(np.random.default_rng(0), 50, o).batch()
    assert batch.weight is not None
    assert batch.x.shape == batch.target.shape == batch.weight.shape == (50, o.length)
    assert batch.x.dtype == batch.target.dtype == np.int64
    assert batch.weight.dtype == np.float32
    assert batch.x.min() >= 0
    assert batch.x.max() < o.vocabulary
    for x, target, weight in zip(batch.x.tolist(), batch.target.tolist(), batch.weight.tolist(), strict=True):
        keys, values = x[0 : 2 * o.pairs : 2], x[1 : 2 * o.pairs : 2]
        assert len(set(keys)) == len(set(values)) == o.pairs
        assert max(keys) < o.vocabulary // 2 <= min(values)
        asked = [place for place in range(o.length) if weight[place]]
        assert all(place >= 2 * o.pairs and place % 2 == 0 for place in asked)
        assert sorted(x[place] for place in asked) == sorted(keys)
        pairs = dict(zip(keys, values, strict=True))
        assert all(target[place] == pairs[x[place]] for place in asked)
        assert sum(weight) == o.pairs


def test_other_places_hold_any_token() -> None:
    found = sequences(np.random.default_rng(0), 2000, Options(pairs=8, length=64, vocabulary=16))
    others = np.ones_like(found.x, dtype=bool)
    others[:, :16] = False
    np.put_along_axis(others, found.at, False, axis=1)
    counts = np.bincount(found.x[others], minlength=16)
    assert np.abs(counts / counts.sum() - 1 / 16).max() < 5 * math.sqrt(1 / 16 / counts.sum())


def test_draws_follow_the_weights_one_after_another() -> None:
    """All six ordered pairs of three numbers, against the formula of successive draws."""
    weights, B = np.array([0.5, 0.3, 0.2]), 60_000
    drawn = draw(np.random.default_rng(1), weights, B, 2)
    for first, second in itertools.permutations(range(3), 2):
        expected = weights[first] * weights[second] / (1 - weights[first])
        share = float((drawn == [first, second]).all(1).mean())
        assert share == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / B))


@pytest.mark.parametrize("power", [0.01, 0.5, 1.0])
def test_queries_come_soon_by_a_power_law(power: float) -> None:
    """With one pair, place k is taken with a probability in proportion to k ** (power - 1)."""
    B = 40_000
    found = sequences(np.random.default_rng(2), B, Options(pairs=1, length=12, power=power))
    law = np.array([k ** (power - 1.0) for k in range(1, 6)])
    law /= law.sum()
    shares = np.bincount((found.at[:, 0] - 2) // 2, minlength=5) / B
    assert np.abs(shares - law).max() < 4 * math.sqrt(0.25 / B)


def test_distances_are_counted_from_the_key() -> None:
    found = sequences(np.random.default_rng(3), 20, Options(pairs=4, length=40))
    for row, (at, distance) in enumerate(zip(found.at, found.distances(), strict=True)):
        keys = [found.x[row].tolist().index(found.x[row, place]) for place in at]  # where each was shown first
        assert (at - keys == distance).all()


def test_form() -> None:
    form = Recall(Options(vocabulary=30, length=50)).prepare("embedded", None)
    assert (form.input, form.output, form.head, form.target, form.length) == (Tokens(30), 30, "step", "class", 50)
    assert form.causal


LOW = -50.0


def among_all_values(batch: Batch) -> np.ndarray:
    logits = np.full((*batch.x.shape, 20), LOW)
    logits[..., 10:] = np.random.default_rng(5).uniform(0, 1e-9, (*batch.x.shape, 10))  # ties at random
    return logits


def among_those_shown(batch: Batch) -> np.ndarray:
    logits = np.full((*batch.x.shape, 20), LOW)
    noise = np.random.default_rng(6).uniform(0, 1e-9, (*batch.x.shape, 4))
    shown = np.broadcast_to(batch.x[:, None, 1:8:2], noise.shape)
    np.put_along_axis(logits, shown, noise, axis=-1)
    return logits


def looked_up(batch: Batch) -> np.ndarray:
    """By hand from the inputs alone: nothing is read off the targets."""
    logits = np.full((*batch.x.shape, 20), LOW)
    for row, x in enumerate(batch.x.tolist()):
        pairs = dict(zip(x[0:8:2], x[1:8:2], strict=True))
        for place, token in enumerate(x):
            logits[row, place, pairs.get(token, 0)] = 0.0
    return logits


@pytest.mark.parametrize(
    ("name", "logits"), [("trivial", among_all_values), ("unbound", among_those_shown), ("optimum", looked_up)]
)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_references_are_what_such_predictors_score(name: str, logits: Any, split: str) -> None:
    task = prepared(pairs=4, length=24, vocabulary=20)
    wanted = next(line.metrics for line in task.references() if line.name == name)
    found = task.evaluate(Fake(logits), split)
    assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-8)
    p = wanted["recall"] / 100
    assert found["recall"] == pytest.approx(wanted["recall"], abs=400 * math.sqrt(p * (1 - p) / (4 * HELD_OUT)))


def test_diagnosis_says_which_queries_were_right_and_how_far_they_were() -> None:
    task = prepared(pairs=4, length=24, vocabulary=20)

    def near_ones(batch: Batch) -> np.ndarray:
        logits = looked_up(batch)
        logits[:, 14:] = 0.0
        logits[:, 14:, 0] = 1.0  # a key: always wrong
        return logits

    found = task.diagnose(Fake(near_ones), np.random.default_rng(0))
    assert found["distance"].shape == found["right"].shape == (HELD_OUT, 4)
    at = found["distance"] + [0, 2, 4, 6]
    assert (found["right"] == (at < 14)).all()
    assert 0 < found["right"].mean() < 1


def test_training_follows_the_generator_alone() -> None:
    task = prepared()
    first, again, other = (
        list(itertools.islice(task.batches("train", 8, np.random.default_rng(seed)), 3)) for seed in (1, 1, 2)
    )
    assert all((a.x == b.x).all() and (a.target == b.target).all() for a, b in zip(first, again, strict=True))
    assert not (first[0].x == other[0].x).all()
    assert not (first[0].x == first[1].x).all()


@pytest.mark.parametrize("size", [1000, 300, 7])
def test_held_out_sets_are_passed_once_whatever_the_batch(size: int) -> None:
    x = np.concatenate([batch.x for batch in prepared().batches("test", size, np.random.default_rng(size))])
    assert len(x) == HELD_OUT
    assert hashlib.sha256(x.astype("<i8").tobytes()).hexdigest() == PINNED


def test_held_out_sets_differ() -> None:
    assert len(set(SEEDS.values())) == 2
    valid, test = (next(prepared().batches(split, HELD_OUT, np.random.default_rng(0))).x for split in SEEDS)
    assert not {tuple(row) for row in valid.tolist()} & {tuple(row) for row in test.tolist()}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 14}, "at least 16"),
        ({"length": 33}, "even length"),
        ({"vocabulary": 6}, "at least 8"),
        ({"vocabulary": 33}, "even number"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Options(**options)


def test_the_card_loads_neither_torch_nor_numpy_nor_matplotlib() -> None:
    code = "import sys, seqbench_mqar; print({'torch', 'numpy', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_references_of_the_card_are_of_its_metrics() -> None:
    lines = prepared().references()
    assert [line.name for line in lines] == ["trivial", "unbound", "optimum"]
    assert all(set(line.metrics) == {metric.name for metric in MQAR.metrics} for line in lines)
