"""The parallel scan against the loop and against the paper's log-space form."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import gradcheck, gradgradcheck

from seqbench_mingru.scan import scan


def loop(a: Tensor, b: Tensor) -> Tensor:
    h, states = torch.zeros_like(b[:, 0]), []
    for t in range(a.shape[1]):
        h = a[:, t] * h + b[:, t]
        states.append(h)
    return torch.stack(states, dim=1)


def log_space(a: Tensor, b: Tensor) -> Tensor:
    """The appendix's ``parallel_scan_log``, from ``h_0 = 0``."""
    total = a.log().cumsum(1)
    return (total + torch.logcumsumexp(b.log() - total, dim=1)).exp()


def terms(T: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(T)
    return torch.rand(2, T, 3, generator=generator, dtype=dtype), torch.rand(2, T, 3, generator=generator, dtype=dtype)


@pytest.mark.parametrize("T", [*range(1, 18), 31, 32, 33, 255, 1000])
def test_equals_the_loop_at_every_length(T: int) -> None:
    a, b = terms(T)
    torch.testing.assert_close(scan(a, b - 0.5), loop(a, b - 0.5), rtol=0, atol=1e-14)


@pytest.mark.parametrize("T", [1, 6, 7])
def test_derivatives(T: int) -> None:
    learned = [one.requires_grad_() for one in terms(T)]
    assert gradcheck(scan, learned)
    assert gradgradcheck(scan, learned)


def test_equals_the_papers_form_where_that_is_exact() -> None:
    a, b = terms(64)
    torch.testing.assert_close(scan(a, b), log_space(a, b), rtol=1e-9, atol=0)


def test_keeps_its_digits_in_float32_where_the_papers_form_loses_them() -> None:
    """4096 steps of gates at random: outputs, and gradients of the gates before their sigmoid, against float64."""
    logits, new, dy = torch.randn(3, 2, 4096, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def outputs_and_gradient(form: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        z = logits.to(dtype, copy=True).requires_grad_()
        h = form(torch.sigmoid(-z), torch.sigmoid(z) * new.to(dtype).exp())
        (dz,) = torch.autograd.grad((h * dy.to(dtype)).sum(), z)
        return h.detach().double(), dz.double()

    exact = outputs_and_gradient(loop, torch.float64)
    for form, low, high in ((scan, 0.0, 5e-7), (log_space, 2e-5, 1.0)):
        found = outputs_and_gradient(form, torch.float32)
        errors = [float((f - e).norm() / e.norm()) for f, e in zip(found, exact, strict=True)]
        assert all(low <= error < high for error in errors)


def test_a_gate_of_zero_forgets_and_a_gate_of_one_adds_up() -> None:
    a, b = torch.zeros(1, 50, 1), torch.ones(1, 50, 1)
    assert (scan(a, b) == 1).all()
    assert (scan(a + 1, b)[0, :, 0] == torch.arange(1, 51)).all()
