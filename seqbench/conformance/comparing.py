"""Comparing what came with what was expected, and saying what is wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seqbench.api import State
from seqbench.errors import SeqbenchError
from seqbench.states import leaves

TOLERANCE = 1e-9
"""Largest error accepted in float64, relative to the largest value expected (or to 1, if that is larger)."""


class ConformanceError(SeqbenchError):
    """A plugin does not do what its card or the interface promises; ``what`` is the thing that was compared."""

    def __init__(self, message: str, what: str = "") -> None:
        self.what = what
        super().__init__(message)


def error_of(who: object, what: str, expected: object, got: object, cause: str) -> ConformanceError:
    """What is raised: who failed in what, and what usually causes it."""
    hint = f" Usual cause: {cause}." if cause else ""
    return ConformanceError(f"{who}: {what}: expected {expected}, got {got}.{hint}", what)


def equal(who: object, what: str, got: object, want: object, cause: str) -> None:
    """Compare anything that can be printed."""
    if got != want:
        raise error_of(who, what, want, got, cause)


def close(who: object, what: str, got: Tensor, want: Tensor, cause: str, tolerance: float = TOLERANCE) -> None:
    """Compare values; ``want`` may be a single number."""
    if want.dim() and got.shape != want.shape:
        raise error_of(who, what, f"shape {tuple(want.shape)}", f"shape {tuple(got.shape)}", cause)
    if not got.numel():
        return
    error = (got - want).detach().abs().nan_to_num(nan=float("inf"))
    allowed = tolerance * max(1.0, float(want.detach().abs().max()))
    worst = float(error.max())
    if not worst <= allowed:
        where = tuple(int(n) for n in torch.unravel_index(error.argmax(), error.shape))
        raise error_of(who, what, f"equal within {allowed:.1e}", f"max abs error {worst:.1e} at {where}", cause)


def same_tree(who: object, what: str, got: State, want: State, cause: str) -> None:
    """Compare states, bit for bit."""
    for g, w in zip(leaves(got), leaves(want), strict=True):
        close(who, what, g.to(torch.float64), w.to(torch.float64), cause, tolerance=0.0)


def normal(shape: Sequence[int], seed: int) -> Tensor:
    """Normal numbers in float64, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tuple(shape), generator=generator, dtype=torch.float64)


def gradients(loss: Any, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients of a loss; zeros where it does not depend on the tensor."""
    return torch.autograd.grad(loss, tensors, retain_graph=True, allow_unused=True, materialize_grads=True)


def counted_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """What torch counts; the plain attention kernel, the only one whose products it can see on every device."""
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function(*arguments)
    return int(counter.get_total_flops())


def generators() -> dict[str, Any]:
    """The states of the random generators that everybody in the process shares."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.random.get_rng_state().tolist(),
        "numpy": [kind, np.asarray(keys).tolist(), *rest],
        "Python": random.getstate(),
    }


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of torch's global generator from ``seed``; afterwards it is as before."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
