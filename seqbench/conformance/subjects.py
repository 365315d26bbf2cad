"""What is tested: a model in a setting."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqbench.api import CoreSpec, Model
from seqbench.conformance.comparing import ConformanceError, normal, seeded
from seqbench.errors import SeqbenchError
from seqbench.registry import resolve

D, LAYERS, TRAIN_LENGTH = 5, 2, 16
"""Input width, layers and training length of the cores that are tested."""

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class Subject:
    """One model in one setting.

    Attributes:
        card: the model's card.
        options: an instance of ``card.options``.
        causal: the direction asked of the core (``CoreSpec.causal``).
        backend: a key of ``card.cores``.
    """

    card: Model
    options: Any
    causal: bool = True
    backend: str = "torch"

    def __str__(self) -> str:
        direction = "causal" if self.causal else "bidirectional"
        return f"{self.card.name} ({self.backend}, {direction}, {self.options})"

    @property
    def width(self) -> int:
        """A small legal width, other than ``D``."""
        multiple = self.card.width_multiple(self.options)
        return multiple * -(-6 // multiple)

    @property
    def has_state(self) -> bool:
        """Whether the core promises a state and single steps here."""
        return self.causal and "step" in self.card.can

    def core(self, seed: int = 0, dropout: float = 0.0) -> Any:
        """A float64 core in training mode (where a dependence on the batch shows), its parameters from ``seed``."""
        spec = CoreSpec(D, self.width, LAYERS, self.causal, dropout, TRAIN_LENGTH)
        with seeded(seed):
            return resolve(self.card.cores[self.backend])(spec, self.options).double()


def cases(card: Model) -> list[Any]:
    """The default options, and every legal setting that differs from them in one option."""
    found = [card.options()]
    for f in dataclasses.fields(card.options):
        for value in _others(f):
            try:
                found.append(card.options(**{f.name: value}))
            except (SeqbenchError, ValueError):
                continue
    return found


def _others(f: dataclasses.Field[Any]) -> list[Any]:
    """Values of an option other than its default: all choices, or one number."""
    default: Any = f.default
    if f.metadata["choices"] is not None:
        return [value for value in f.metadata["choices"] if value != default]
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, str):
        return []
    low, high = f.metadata["low"], f.metadata["high"]
    if low is not None and low != default:
        return [type(default)(low)]
    further = default + (7 if isinstance(default, int) else 0.5)
    return [further if high is None or further <= high else type(default)(high)]


def subjects(card: Model, options: Any = None, backend: str = "torch") -> list[Subject]:
    """One subject for each direction that the card declares.

    Raises:
        ConformanceError: it declares none.
    """
    chosen = card.options() if options is None else options
    names = {"causal": True, "bidirectional": False}
    found = [Subject(card, chosen, causal, backend) for name, causal in names.items() if name in card.can]
    if not found:
        raise ConformanceError(f"{card.name}: expected 'causal' or 'bidirectional' among can, got {sorted(card.can)}")
    return found


def inputs(B: int, T: int, seed: int = 0) -> Tensor:
    """``x (B, T, D)``."""
    return normal((B, T, D), seed)


def beyond(lengths: Lengths, T: int) -> Tensor:
    """Which steps are padding: bool ``(B, T)``."""
    return torch.arange(T) >= torch.tensor(lengths).unsqueeze(1)  # (B, T)
