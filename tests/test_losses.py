"""Losses: against closed forms in numpy, and the promise that ragged batches average exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from seqbench.api import Batch, Form, Tokens, Vectors
from seqbench.errors import PluginError
from seqbench.losses import cross_entropy, loss_of, squared_error, targets_of

B, T, V = 4, 6, 5
LENGTHS = np.array([6, 1, 4, 2])
CPU = torch.device("cpu")
STEPS = Form(Tokens(V), output=V, head="step", target="class", length=T)
POOLED = Form(Tokens(V), output=V, head="pooled", target="class", length=T)
VALUES = Form(Vectors(2), output=3, head="step", target="value", length=T)
ONE_VALUE = Form(Vectors(2), output=3, head="pooled", target="value", length=T)
FORMS = [STEPS, POOLED, VALUES, ONE_VALUE]
NAMES = ["step-class", "pooled-class", "step-value", "pooled-value"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def outputs_of(form: Form, rng: np.random.Generator) -> np.ndarray:
    return rng.normal(scale=3.0, size=(B, T, form.output) if form.head == "step" else (B, form.output))


def batch_of(form: Form, rng: np.random.Generator, **fields: np.ndarray) -> Batch:
    shape = (B, T) if form.head == "step" else (B,)
    if form.target == "class":
        return Batch(np.zeros((B, T), np.int64), rng.integers(0, form.output, shape), **fields)
    return Batch(np.zeros((B, T, 2), np.float32), rng.normal(size=(*shape, form.output)), **fields)


def by_hand(form: Form, outputs: np.ndarray, batch: Batch) -> np.ndarray:
    """The loss of each target, ``(B, T)`` or ``(B,)``, one at a time."""
    losses = np.zeros(outputs.shape[:-1])
    for place in np.ndindex(losses.shape):
        out, target = outputs[place], batch.target[place]
        if form.target == "class":
            losses[place] = math.log(sum(math.exp(z) for z in out)) - out[target]
        else:
            losses[place] = sum((a - b) ** 2 for a, b in zip(out, target, strict=True)) / form.output
    return losses


def ours(form: Form, outputs: np.ndarray, batch: Batch) -> tuple[float, float]:
    targets = targets_of(batch, form, CPU)
    return float(loss_of(object(), form)(torch.from_numpy(outputs), targets)), targets.total


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_full_batches(form: Form, rng: np.random.Generator) -> None:
    outputs, batch = outputs_of(form, rng), batch_of(form, rng)
    expected = by_hand(form, outputs, batch)
    loss, weight = ours(form, outputs, batch)
    assert loss == pytest.approx(expected.sum(), rel=1e-12)
    assert weight == expected.size


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_weights_that_the_task_gives(form: Form, rng: np.random.Generator) -> None:
    """They win over those made from lengths; some are 0 inside a row."""
    outputs = outputs_of(form, rng)
    shape = outputs.shape[:-1]
    weight = rng.integers(0, 3, shape).astype(np.float32)
    batch = batch_of(form, rng, weight=weight, lengths=LENGTHS)
    loss, total = ours(form, outputs, batch)
    assert loss == pytest.approx((by_hand(form, outputs, batch) * weight).sum(), rel=1e-6)
    assert total == weight.sum()


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_a_padded_batch_is_the_sum_of_its_rows_alone(form: Form, rng: np.random.Generator) -> None:
    outputs, batch = outputs_of(form, rng), batch_of(form, rng, lengths=LENGTHS)
    alone = []
    for row, length in enumerate(LENGTHS):
        steps = slice(length) if form.head == "step" else ...
        x = batch.x[row : row + 1, :length]
        alone.append(ours(form, outputs[row][None, ...][:, steps], Batch(x, batch.target[row][None, ...][:, steps])))
    loss, weight = ours(form, outputs, batch)
    assert loss == pytest.approx(sum(sum_ for sum_, _ in alone), rel=1e-6)
    assert weight == sum(total for _, total in alone) == (LENGTHS.sum() if form.head == "step" else B)


@pytest.mark.parametrize("form", [STEPS, VALUES], ids=["class", "value"])
def test_padding_has_neither_loss_nor_gradient(form: Form, rng: np.random.Generator) -> None:
    outputs, batch = torch.from_numpy(outputs_of(form, rng)).requires_grad_(), batch_of(form, rng, lengths=LENGTHS)
    loss_of(object(), form)(outputs, targets_of(batch, form, CPU)).backward()
    inside = torch.arange(T) < torch.from_numpy(LENGTHS)[:, None]
    assert (outputs.grad[~inside] == 0).all()
    assert (outputs.grad[inside].abs().sum(-1) > 0).all()


def test_gradient_of_cross_entropy_is_softmax_less_one_hot(rng: np.random.Generator) -> None:
    outputs, batch = torch.from_numpy(outputs_of(STEPS, rng)).requires_grad_(), batch_of(STEPS, rng)
    cross_entropy(outputs, targets_of(batch, STEPS, CPU)).backward()
    z = np.exp(outputs.detach().numpy())
    expected = z / z.sum(-1, keepdims=True) - np.eye(V)[batch.target]
    np.testing.assert_allclose(outputs.grad.numpy(), expected, atol=1e-12)


def test_huge_logits_are_finite() -> None:
    outputs = torch.tensor([[[1e4, -1e4]]], dtype=torch.float64)
    targets = targets_of(Batch(np.zeros((1, 1), np.int64), np.array([[1]])), STEPS, CPU)
    assert float(cross_entropy(outputs, targets)) == 2e4


@pytest.mark.parametrize("target", [np.zeros(B), np.zeros((B, 1, 1)), np.zeros((1, 1))])
def test_a_target_that_torch_would_broadcast_is_refused(target: np.ndarray) -> None:
    form = Form(Vectors(1), output=1, head="pooled", target="value", length=T)
    targets = targets_of(Batch(np.zeros((B, T, 1)), target), form, CPU)
    with pytest.raises(PluginError, match=r"must have the outputs' shape \(4, 1\), the last axis too; got"):
        squared_error(torch.zeros(B, 1), targets)


def test_a_tasks_own_loss_comes_first() -> None:
    class Task:
        def loss(self, outputs, targets):
            return outputs.sum() * targets.total

    task = Task()
    assert loss_of(task, STEPS) == task.loss
    assert loss_of(object(), STEPS) is cross_entropy
    assert loss_of(object(), VALUES) is squared_error
