"""The training loop: against a loop written by hand, closed forms, and planted faults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from seqbench.api import Batch, Form, Metric, Vectors
from seqbench.errors import Diverged
from seqbench.losses import squared_error
from seqbench.quantities import Budget
from seqbench.spec import Training
from seqbench.train import Problem, Stepper, fit, learning_rate, make_optimizer, pauses, steps_in

FORM = Form(Vectors(3), output=1, head="pooled", target="value", length=5)
MSE = Metric("mse", "mean squared error")
STEPS = 40


class Heard:
    """Remembers what the loop tells."""

    def __init__(self) -> None:
        self.steps: dict[int, dict[str, float]] = {}
        self.metrics: dict[int, dict[str, float]] = {}

    def trained(self, step, values):
        self.steps[step] = values

    def validated(self, step, metrics):
        self.metrics[step] = metrics


class Mean(nn.Module):
    """A network of two layers over the mean of the sequence, in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8).double(), nn.Linear(8, 1).double()

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        assert lengths is None
        return self.second(torch.tanh(self.first(x.mean(1))))

    def outputs(self, batch: Batch) -> torch.Tensor:
        return self(torch.from_numpy(batch.x))


def network(seed: int = 0) -> Mean:
    torch.manual_seed(seed)
    return Mean()


def batches(seed: int = 0) -> Iterator[Batch]:
    rng = np.random.default_rng(seed)
    while True:
        x = rng.normal(size=(8, 5, 3))
        yield Batch(x, x[:, :, :1].sum(1))


def training(**changes: float) -> Training:
    return Training(**{"lr": 0.01, "batch": 8, "budget": Budget("steps", STEPS), **changes})


def mean_squared_error(model: nn.Module) -> float:
    batch = next(batches(99))
    with torch.no_grad():
        return float((model(torch.from_numpy(batch.x)) - torch.from_numpy(batch.target)).square().mean())


def fitted(model: nn.Module, steps: int = STEPS, heard: Heard | None = None, **changes: float):
    problem = Problem(model, FORM, squared_error)
    validate = lambda: {"mse": mean_squared_error(model)}  # noqa: E731
    return fit(problem, training(**changes), steps, batches(), validate, MSE, heard or Heard())


def adamw_by_hand(model: nn.Module, steps: int, clip: float) -> list[float]:
    """The published algorithm (Loshchilov and Hutter 2019, algorithm 2), decay on matrices alone, step by step."""
    parameters = list(model.parameters())
    first, second = ([torch.zeros_like(p) for p in parameters] for _ in range(2))
    norms, source = [], batches()
    for t in range(1, steps + 1):
        batch = next(source)
        loss = functional.mse_loss(model(torch.from_numpy(batch.x)), torch.from_numpy(batch.target))
        gradients = torch.autograd.grad(loss, parameters)
        norm = float(torch.cat([g.flatten() for g in gradients]).norm())
        norms.append(norm)
        rate = learning_rate(training(), t, steps)
        for k, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
            g = g * min(1.0, clip / (norm + 1e-6))
            first[k] = 0.9 * first[k] + 0.1 * g
            second[k] = 0.999 * second[k] + 0.001 * g * g
            update = (first[k] / (1 - 0.9**t)) / ((second[k] / (1 - 0.999**t)).sqrt() + 1e-8)
            with torch.no_grad():
                p -= rate * (update + (0.01 * p if p.ndim == 2 else 0.0))
    return norms


def test_equals_adamw_written_by_hand_with_clipping_after_backward() -> None:
    ours, theirs = network(), network()
    norms = adamw_by_hand(theirs, STEPS, clip=1.0)
    assert max(norms) > 1.0, "clipping must have mattered, else the test cannot see it"
    heard = Heard()
    fitted(ours, heard=heard)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    said = [values["gradient_norm"] for values in heard.steps.values()]
    np.testing.assert_allclose(said, norms, rtol=1e-9, err_msg="of every step, before clipping")
    assert [v["lr"] for v in heard.steps.values()] == [learning_rate(training(), t, STEPS) for t in heard.steps]


def test_weight_decay_is_on_matrices_alone() -> None:
    groups = make_optimizer(network(), training(weight_decay=0.5)).param_groups
    assert [(g["weight_decay"], [p.ndim for p in g["params"]]) for g in groups] == [(0.5, [2, 2]), (0.0, [1, 1])]


def test_learning_rate_warms_up_then_falls_as_a_cosine() -> None:
    plan = training(lr=2.0, warmup=0.1, final_lr=0.01)
    rates = [learning_rate(plan, step, 1000) for step in range(1, 1001)]
    np.testing.assert_allclose(rates[:100], [2.0 * k / 100 for k in range(1, 101)])
    assert rates[99] == max(rates) == 2.0
    assert rates[549] == pytest.approx(2.0 * (0.01 + 0.99 * 0.5)), "half-way down the cosine"
    assert rates[-1] == pytest.approx(0.02)
    assert all(a >= b for a, b in itertools.pairwise(rates[99:]))


@given(steps=st.integers(1, 5000), validations=st.integers(1, 50))
def test_pauses_are_in_order_and_end_with_a_validation(steps: int, validations: int) -> None:
    found = pauses(steps, validations)
    at = [step for step, _ in found]
    assert at == sorted(set(at))
    assert at[0] >= 1
    assert found[-1] == (steps, True)
    assert sum(validated for _, validated in found) == min(steps, validations)


def test_divergence_names_the_step_and_the_loss() -> None:
    class Exploding(Mean):
        calls = 0

        def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
            self.calls += 1
            return super().forward(x) * (math.inf if self.calls == 7 else 1.0)

    with pytest.raises(Diverged, match="at step 7; try a lower --lr") as caught:
        fitted(Exploding(), steps=1000)
    assert caught.value.step == 7


def test_keeps_the_weights_of_the_best_validation() -> None:
    model = network()
    scores = iter([5.0, 1.0, 3.0, 1.0, 2.0])
    seen = []

    def validate() -> dict[str, float]:
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return {"mse": next(scores)}

    problem = Problem(model, FORM, squared_error)
    done = fit(problem, training(validations=5), 50, batches(), validate, MSE, Heard())
    assert (done.best_step, done.best) == (20, {"mse": 1.0}), "of two equals the first is kept"
    for name, tensor in done.weights.items():
        assert torch.equal(tensor, seen[1][name])
    assert not torch.equal(done.weights["first.weight"], model.state_dict()["first.weight"])


@pytest.mark.parametrize(("lower", "best"), [(True, 10), (False, 30)])
def test_nan_never_wins_and_the_metric_says_which_way(lower: bool, best: int) -> None:
    scores = iter([1.0, math.nan, 2.0])
    metric = Metric("mse", "", lower_is_better=lower)
    problem = Problem(network(), FORM, squared_error)
    done = fit(problem, training(validations=3), 30, batches(), lambda: {"mse": next(scores)}, metric, Heard())
    assert done.best_step == best


def test_curve_and_counts() -> None:
    heard = Heard()
    problem = Problem(network(), FORM, squared_error)
    done = fit(
        problem,
        training(validations=4),
        STEPS,
        batches(),
        lambda: {"mse": mean_squared_error(problem.network)},
        MSE,
        heard,
    )
    assert done.curve.valid["step"] == [10, 20, 30, 40]
    assert done.curve.train["step"] == list(range(1, 41))
    assert [*heard.steps] == done.curve.train["step"]
    assert [said["loss"] for said in heard.steps.values()] == done.curve.train["loss"]
    assert [said["seconds"] for said in heard.steps.values()] == done.curve.train["seconds"]
    assert heard.metrics == {
        step: {"mse": value} for step, value in zip([10, 20, 30, 40], done.curve.valid["mse"], strict=True)
    }
    assert done.lengths == {(5, 0): STEPS * 8}
    assert done.seconds == done.curve.train["seconds"][-1] > 0


def test_timing_the_budget_leaves_no_trace() -> None:
    timed, plain = network(), network()
    steps = steps_in(0.05, Problem(timed, FORM, squared_error), training(), batches())
    assert steps >= 1
    for a, b in zip(timed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.grad is None


def test_gradient_is_zeroed_between_steps() -> None:
    """The gradient after a step is that of its batch alone (up to clipping)."""
    model = network()
    stepper = Stepper(Problem(model, FORM, squared_error), training(clip=1e9), STEPS)
    source = batches()
    stepper(1, next(source))
    batch = next(source)
    before = [p.detach().clone() for p in model.parameters()]
    stepper(2, batch)
    twin = network()
    for p, value in zip(twin.parameters(), before, strict=True):
        p.data.copy_(value)
    functional.mse_loss(twin(torch.from_numpy(batch.x)), torch.from_numpy(batch.target)).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
