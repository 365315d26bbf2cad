"""The cores against plain loops over the paper's equations, in float64: outputs and every gradient to 1e-9."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqbench import conformance
from seqbench.api import CoreSpec, Model
from seqbench_mingru import MINGRU, MINLSTM, Options
from seqbench_mingru.torch_core import MinGRU, MinLSTM, positive

B, T, D, H = 3, 23, 4, 5
CORES: dict[str, Any] = {"mingru": MinGRU, "minlstm": MinLSTM}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build(name: str, layers: int = 1, causal: bool = True, train_length: int = T, **options: Any) -> Any:
    torch.manual_seed(1)
    return CORES[name](CoreSpec(D, H, layers, causal, 0.0, train_length), Options(**options)).double()


def g(v: Tensor) -> Tensor:
    """With a step for a switch, so that nothing is shared with the core's; no number in these tests is 0."""
    above = (v.sign() + 1) / 2
    return above * (v + 0.5) + (1 - above) / (1 + torch.exp(-v))


def sigmoid(v: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-v))


def mingru_step(x: Tensor, h: Tensor, W: Tensor, b: Tensor, candidate: Callable[[Tensor], Tensor]) -> Tensor:
    z = sigmoid(x @ W[:H].T + b[:H])
    n = candidate(x @ W[H:].T + b[H:])
    return (1 - z) * h + z * n


def minlstm_step(x: Tensor, h: Tensor, W: Tensor, b: Tensor, candidate: Callable[[Tensor], Tensor]) -> Tensor:
    f = sigmoid(x @ W[:H].T + b[:H])
    i = sigmoid(x @ W[H : 2 * H].T + b[H : 2 * H])
    n = candidate(x @ W[2 * H :].T + b[2 * H :])
    return f / (f + i) * h + i / (f + i) * n


STEPS = {"mingru": mingru_step, "minlstm": minlstm_step}


def loop(name: str, x: Tensor, h: Tensor, layer: Any, candidate: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """All outputs of one layer and the state after the last one."""
    outputs = []
    for x_t in x.unbind(1):
        h = STEPS[name](x_t, h, layer.linear.weight, layer.linear.bias, candidate)
        outputs.append(h)
    return torch.stack(outputs, dim=1), h


CANDIDATES: dict[str, Callable[[Tensor], Tensor]] = {"positive": g, "linear": lambda v: v}


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("candidate", CANDIDATES)
@pytest.mark.parametrize("layers", [1, 3])
def test_a_chunk_from_a_state(name: str, candidate: str, layers: int) -> None:
    core = build(name, layers, candidate=candidate)

    def oracle(x: Tensor, state: tuple[Tensor, ...]) -> Any:
        after = []
        for layer, h in zip(core.layers, state, strict=True):
            x, h = loop(name, x, h, layer, CANDIDATES[candidate])
            after.append(h)
        return x, tuple(after)

    state = tuple(normal(B, H, seed=2 + n) for n in range(layers))
    conformance.check_oracle(core, oracle, (normal(B, T, D), state))


@pytest.mark.parametrize("name", CORES)
def test_both_directions(name: str) -> None:
    core = build(name, layers=2, causal=False)

    def oracle(x: Tensor) -> Tensor:
        for there, back in zip(core.layers, core.backward_layers, strict=True):
            zero = x.new_zeros(B, H)
            forwards, _ = loop(name, x, zero, there, g)
            backwards, _ = loop(name, x.flip(1), zero, back, g)
            x = torch.cat([forwards, backwards.flip(1)], dim=-1)
        return x

    conformance.check_oracle(core, oracle, (normal(B, T, D),))


@pytest.mark.parametrize("name", CORES)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("causal", [True, False])
def test_number_of_parameters(name: str, layers: int, causal: bool) -> None:
    gates, directions = {"mingru": 2, "minlstm": 3}[name], 1 if causal else 2
    expected = directions * gates * H * (D + 1) + (layers - 1) * directions * gates * H * (directions * H + 1)
    conformance.check_parameter_count(build(name, layers, causal), expected)


@pytest.mark.parametrize("name", CORES)
def test_gates_that_are_shut_or_open_altogether_give_finite_numbers(name: str) -> None:
    """Logits of 2000 in float32: both gates of minLSTM underflow to 0, whose quotient has no value."""
    core = build(name).float()
    x = (2000 * normal(B, T, D)).float().requires_grad_()
    y, _ = core(x)
    assert y.isfinite().all()
    found = torch.autograd.grad(y.sum(), [x, *core.parameters()])
    assert all(gradient.isfinite().all() for gradient in found)


@pytest.mark.parametrize("card", [MINGRU, MINLSTM], ids=lambda card: card.name)
def test_chrono_keeps_for_up_to_the_training_length(card: Model) -> None:
    """``sigmoid(ln u) = u / (u + 1)``, with ``u`` from 1 to T - 1; a network of zero input shows it."""
    core = build(card.name, chrono=True, train_length=100)
    state = core.initial_state(1, 1)[0] + 1.0
    core.layers[0].linear.bias.data[-H:] = 0.0
    (without,), (with_one,) = (core.step(torch.zeros(1, D).double(), (h,))[0] for h in (0 * state, state))
    u = 1 / (1 / (with_one - without) - 1)
    assert ((u > 1) & (u < 99)).all()
    assert len(set(u.tolist())) == H


def test_the_positive_candidate_is_continuous_and_above_zero() -> None:
    v = torch.tensor([-1e4, -3.0, -1e-9, 0.0, 1e-9, 3.0], dtype=torch.float64)
    torch.testing.assert_close(positive(v), torch.tensor([0, 1 / (1 + torch.e**3), 0.5, 0.5, 0.5, 3.5]).double())
    assert (positive(v[1:]) > 0).all()
