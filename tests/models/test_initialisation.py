"""The biases at the start: forget bias, chrono initialisation, JANET's."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from seqbench.api import UsageError
from seqbench.backends.torch_recurrent import chrono_
from seqbench_models import janet, lstm

H, T = 4000, 50


def _sums(core: Any, layer: int = 0) -> tuple[Tensor, ...]:
    module = core.layers[layer].rnn
    return (module.bias_ih_l0 + module.bias_hh_l0).detach().chunk(4)


def _check_log_uniform(b: Tensor) -> None:
    """``exp(b)`` is uniform on ``[1, T - 1]``: bounds, and the Kolmogorov-Smirnov distance below its 1 % point."""
    assert b.min() >= 0
    assert b.max() <= math.log(T - 1)
    share = ((b.exp() - 1) / (T - 2)).sort().values
    distance = (share - (torch.arange(H) + 0.5) / H).abs().max()
    assert distance < 1.63 / math.sqrt(H)


@pytest.mark.parametrize("value", [1.0, -2.5])
def test_lstm_forget_bias_is_the_sum_of_both(build: Any, value: float) -> None:
    core = build(lstm.card, H=7, L=2, forget_bias=value)
    for layer in range(2):
        assert torch.equal(_sums(core, layer)[1], torch.full((7,), value, dtype=torch.float64))
    assert core.layers[0].rnn.bias_ih_l0.abs().max() <= max(abs(value), 1 / math.sqrt(7))


def test_chrono_is_the_logarithm_of_a_uniform_number() -> None:
    torch.manual_seed(3)
    b = torch.empty(H, dtype=torch.float64)
    chrono_(b, T)
    _check_log_uniform(b)


def test_lstm_chrono(build: Any) -> None:
    core = build(lstm.card, H=64, L=2, chrono=True, train_length=T)
    for layer in range(2):
        b_i, b_f, _, _ = _sums(core, layer)
        assert torch.equal(b_i, -b_f)
        assert 0 <= b_f.min() < 1.5
        assert 3 < b_f.max() <= math.log(T - 1)


@pytest.mark.parametrize("length", [1, 2])
def test_chrono_with_nothing_to_remember_is_zero(build: Any, length: int) -> None:
    assert torch.equal(_sums(build(lstm.card, chrono=True, train_length=length))[1], torch.zeros(4).double())


def test_lstm_refuses_two_values_for_one_bias() -> None:
    with pytest.raises(UsageError, match=r"chrono=true and forget_bias=2\.0 both set"):
        lstm.Options(forget_bias=2.0, chrono=True)


def test_janet_chrono(build: Any) -> None:
    b_s, b_n = build(janet.card, D=1, H=64, train_length=T).layers[0].b.detach().chunk(2)
    assert torch.equal(b_n, torch.zeros_like(b_n))
    assert 0 <= b_s.min() < 1.5
    assert 3 < b_s.max() <= math.log(T - 1)
    assert b_s.unique().numel() == 64


def test_janet_without_chrono(build: Any) -> None:
    b_s, b_n = build(janet.card, chrono=False).layers[0].b.detach().chunk(2)
    assert torch.equal(b_s, torch.ones_like(b_s))
    assert torch.equal(b_n, torch.zeros_like(b_n))
