"""Cores and inputs for the tests of models."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from seqbench.api import CoreSpec, Model
from seqbench.registry import resolve


@pytest.fixture
def build() -> Callable[..., Any]:
    """``build(card, D=.., H=.., ..., option=..)``: a float64 core with seeded parameters."""

    def make(card: Model, D: int = 3, H: int = 4, L: int = 1, causal: bool = True, **options: Any) -> Any:
        torch.manual_seed(1)
        spec = CoreSpec(D, H, L, causal, options.pop("dropout", 0.0), options.pop("train_length", 20))
        return resolve(card.cores["torch"])(spec, card.options(**options)).double()

    return make


@pytest.fixture
def normal() -> Callable[..., Tensor]:
    """``normal(2, 3)``: float64 normal numbers, the next of one seeded stream at each call."""
    generator = torch.Generator().manual_seed(7)
    return lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)
