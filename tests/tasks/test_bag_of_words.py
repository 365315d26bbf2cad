"""Logistic regression against torch's autograd, a closed form, and a planted answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqbench_tasks.bag_of_words import PENALTIES, Bags, bags, choose, fit, objective, probabilities

ROWS = [np.array([1, 2, 2]), np.array([3]), np.array([1, 3]), np.array([2])]
LABEL = np.array([1, 0, 1, 0])


def test_features_say_which_words_are_there_however_often() -> None:
    assert bags(ROWS, LABEL, 4).features.toarray().tolist() == [[0, 1, 1, 0], [0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 0]]


def test_loss_and_gradient_are_torchs() -> None:
    data, weights = bags(ROWS, LABEL, 4), np.array([0.3, -0.2, 0.7, 0.1, -0.4])
    loss, gradient = objective(weights, data, 0.05)
    w = torch.tensor(weights, requires_grad=True)
    margin = torch.tensor(data.features.toarray()) @ w[:-1] + w[-1]
    target = torch.tensor(LABEL, dtype=torch.float64)
    want = torch.nn.functional.binary_cross_entropy_with_logits(margin, target) + 0.025 * (w[:-1] ** 2).sum()
    want.backward()
    assert loss == pytest.approx(float(want.detach()), rel=1e-12)
    np.testing.assert_allclose(gradient, w.grad.numpy(), atol=1e-14)


def test_the_minimum_has_no_gradient() -> None:
    data = bags(ROWS, LABEL, 4)
    assert np.abs(objective(fit(data, 1e-2), data, 1e-2)[1]).max() < 1e-5


def test_without_words_the_bias_is_the_log_odds() -> None:
    data = bags([np.array([0])] * 4, np.array([1, 1, 1, 0]), 1)
    empty = Bags(data.features * 0, data.label)
    assert fit(empty, 1.0)[-1] == pytest.approx(np.log(3), abs=1e-4)
    np.testing.assert_allclose(probabilities(fit(empty, 1.0), empty), 0.75, atol=1e-4)


def test_the_penalty_is_the_one_that_validates_best() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 40, 6) for _ in range(300)]
    label = np.array([int((row < 20).sum() + rng.normal() > 3) for row in rows])
    train, valid = bags(rows[:200], label[:200], 40), bags(rows[200:], label[200:], 40)
    losses = [objective(fit(train, penalty), valid, 0.0)[0] for penalty in PENALTIES]
    assert objective(choose(train, valid), valid, 0.0)[0] == pytest.approx(min(losses))
    assert min(losses) < losses[0]
