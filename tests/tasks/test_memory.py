"""How far back a network remembers: what tasks measure of it, on networks whose memory is known."""

from __future__ import annotations

import numpy as np
import pytest

from seqbench.api import Prediction, Refused
from seqbench_tasks.adding import HELD_OUT, Adding
from seqbench_tasks.adding import sequences as sums
from seqbench_tasks.cards.adding import AddingOptions
from seqbench_tasks.cards.copy_memory import CopyOptions
from seqbench_tasks.copy_memory import CopyMemory
from seqbench_tasks.memory import at_lengths, fewer, gradient_by_lag, memory_length, other_lengths


class Known:
    """Answers by a function of the batch, up to a longest length; its gradient fades by a factor a step."""

    can_step = True

    def __init__(self, outputs, fade=0.5, longest=10**6):
        self.outputs, self.fade, self.longest = outputs, fade, longest
        self.asked = []

    def __call__(self, batch):
        if batch.x.shape[1] > self.longest:
            raise Refused("too long")
        return Prediction(self.outputs(batch), 0.0, 1.0)

    def input_gradient(self, batch):
        self.asked.append(batch)
        B, T = batch.x.shape[:2]
        return np.outer(np.arange(1, B + 1), self.fade ** np.arange(T)[::-1])


def test_a_gradient_is_told_by_lag_from_the_end():
    batch = next(CopyMemoryOf(5).batches("train", 3, np.random.default_rng(0)))
    found = gradient_by_lag(Known(None, fade=0.1), batch)
    np.testing.assert_allclose(found, 2 * 0.1 ** np.arange(25))  # rows weigh 1, 2, 3


def test_few_sequences_are_followed_at_a_time():
    """A batch of training may have been small for want of memory."""
    known = Known(None, fade=0.1)
    batch = next(CopyMemoryOf(5).batches("train", 10, np.random.default_rng(0)))
    found = gradient_by_lag(known, batch)
    assert [len(part.x) for part in known.asked] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate([part.x for part in known.asked]), batch.x)
    np.testing.assert_allclose(found, 2.3 * 0.1 ** np.arange(25))  # rows weigh 1 2 3 4, 1 2 3 4, 1 2


@pytest.mark.parametrize(("length", "size"), [(25, 100), (100, 100), (150, 66), (400, 25), (10**6, 1)])
def test_of_long_sequences_fewer_are_read_at_once(length, size):
    assert fewer(100, 100, length) == size


@pytest.mark.parametrize(
    ("gradient", "length"),
    [
        (0.5 ** np.arange(20), 6),  # 1/64 is above one per cent, 1/128 is not
        (np.ones(7), 6),
        (np.array([0.0, 1e-9, 1.0, 0.0]), 2),
        (np.array([1.0, 0.0, 0.0, 0.02, 0.0]), 3),
        (np.zeros(4), 0),
    ],
)
def test_the_memory_length_is_the_last_lag_above_one_per_cent_of_the_largest(gradient, length):
    assert memory_length(gradient) == length


@pytest.mark.parametrize(
    ("T", "lengths"),
    [
        (100, [25, 50, 75, 100, 150, 200, 300, 400]),
        (1, [1, 2, 3, 4]),
        (1000, [250, 500, 750, 1000, 1500, 2000]),
        (5000, [1250, 2500, 3750, 5000]),
    ],
)
def test_other_lengths_reach_from_a_quarter_to_four_times(T, lengths):
    assert other_lengths(T).tolist() == lengths


def test_lengths_that_a_model_cannot_read_are_nan():
    def measure(length):
        if length > 2:
            raise Refused("too long")
        return np.array([length, 10 * length])

    found = at_lengths(np.array([1, 2, 3]), measure, size=2)
    np.testing.assert_array_equal(found, [[1, 10], [2, 20], [np.nan, np.nan]])


def CopyMemoryOf(T):
    return CopyMemory(CopyOptions(T=T))


def one_hot(classes):
    return np.eye(10, dtype=np.float32)[classes]


def test_recall_is_told_by_delay_and_place():
    """A network that repeats what stood T + 10 steps ago for T = 8 alone, and at odd places alone."""

    def repeats(batch):
        said = np.zeros_like(batch.target)
        said[:, -10::2] = np.roll(batch.x, 18, axis=1)[:, -10::2]
        return one_hot(said)

    arrays = CopyMemoryOf(8).diagnose(Known(repeats, longest=8 * 3 + 20), None)
    assert arrays["delays"].tolist() == [2, 4, 6, 8, 12, 16, 24, 32]
    at = dict(zip(arrays["delays"].tolist(), arrays["recall"], strict=True))
    np.testing.assert_array_equal(at[8], [100, 0] * 5)
    assert np.isnan(at[32]).all()
    for delay in (2, 4, 6, 12, 16, 24):
        assert at[delay][1::2].tolist() == [0] * 5
        assert at[delay].mean() < 20


def test_the_probe_of_copy_follows_the_last_symbol_alone():
    known = Known(None)
    task = CopyMemoryOf(6)
    arrays = task.probe(known, np.random.default_rng(2))
    assert arrays["gradient"].shape == (26,)
    for batch in known.asked:
        assert batch.weight[:, -1].tolist() == [1.0] * len(batch.x)
        assert (batch.weight[:, :-1] == 0).all()
        assert (batch.target[:, -1] == batch.x[:, 9]).all()


def test_errors_of_adding_are_told_by_length_and_lag(no_files):
    """A network that sees the last five steps alone: right where both marks lie there, else off by what it missed."""

    def sees_five(batch):
        seen = batch.x[:, -5:]
        return (seen[:, :, 0] * seen[:, :, 1]).sum(1, keepdims=True)

    task = Adding(AddingOptions(T=8))
    task.prepare("embedded", no_files)
    known = Known(sees_five, longest=16)
    arrays = task.diagnose(known, None)
    assert arrays["lag"].shape == arrays["error"].shape == (HELD_OUT,)
    assert (arrays["error"][arrays["lag"] < 5] < 1e-10).all()
    assert (arrays["error"][arrays["lag"] >= 5] > 0).mean() > 0.99
    assert sorted(set(arrays["lag"].tolist())) == [4, 5, 6, 7]
    assert arrays["error"].mean() == pytest.approx(task.evaluate(known, "test")["mse"])
    assert arrays["lengths"].tolist() == [2, 4, 6, 8, 12, 16, 24, 32]
    assert arrays["mse"][:2].max() < 1e-10, "no mark is out of sight"
    assert arrays["mse"][5] > arrays["mse"][3] > 0.05
    assert np.isnan(arrays["mse"][6:]).all()


def test_the_probe_of_adding_is_of_its_own_sequences():
    known = Known(None)
    arrays = Adding(AddingOptions(T=9)).probe(known, np.random.default_rng(5))
    assert arrays["gradient"].shape == (9,)
    x, target = sums(np.random.default_rng(5), 32, 9)
    np.testing.assert_array_equal(np.concatenate([batch.x for batch in known.asked]), x)
    np.testing.assert_array_equal(np.concatenate([batch.target for batch in known.asked]), target)
