"""What the tests of several numba cores share: cores from one seed, errors, and a short training on a real task."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from seqbench import registry
from seqbench.api import CoreSpec
from seqbench.assemble import build, core_spec
from seqbench.losses import cross_entropy
from seqbench.quantities import Budget
from seqbench.registry import Registry, resolve
from seqbench.spec import Training
from seqbench.streams import stream
from seqbench.train import Problem, Stepper


def core_of(card: Any, options: dict[str, Any], backend: str, spec: CoreSpec, dtype: torch.dtype) -> Any:
    """A core with the parameters of one seed, made in float32 on every backend."""
    torch.manual_seed(3)
    return resolve(card.cores[backend])(spec, card.options(**options)).to(dtype)


def weighted_sum(outputs: list[Tensor]) -> Tensor:
    """A loss whose gradient differs from output to output."""
    generator = torch.Generator().manual_seed(5)
    weights = [torch.randn(o.shape, generator=generator, dtype=torch.float64).to(o) for o in outputs]
    return torch.stack([(o * w).sum() for o, w in zip(outputs, weights, strict=True)]).sum()


def error(got: Tensor, want: Tensor) -> float:
    """In the norm, relative."""
    return float((got.double() - want.double()).norm() / want.double().norm().clamp(min=1e-12))


def losses_of_training(
    cards: Registry, card: Any, options: dict[str, Any], backend: str, layers: int = 1, dropout: float = 0.0
) -> list[float]:
    """50 steps of char-lm in float64 from one seed."""
    task_card = cards.task("char-lm")
    task = registry.resolve(task_card.factory)(task_card.options(window=24))
    form = task.prepare("embedded", None)
    torch.manual_seed(0)
    spec = core_spec(card, form, 20, layers, dropout)
    network = build(card, backend, spec, card.options(**options), form).double()
    training = Training(lr=1e-2, batch=8, budget=Budget("steps", 50))
    stepper = Stepper(Problem(network, form, cross_entropy), training, 50)
    batches = itertools.islice(task.batches("train", 8, stream(0, "data")), 50)
    return [float(stepper(step, batch)) for step, batch in enumerate(batches, 1)]
