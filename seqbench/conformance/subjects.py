"""What is tested: a model in a setting, and how large."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from seqbench.api import CoreSpec, Model
from seqbench.conformance.comparing import ConformanceError, normal, seeded
from seqbench.errors import SeqbenchError
from seqbench.registry import resolve

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """How large the cores and inputs of a proof are: small, so that a failure can be read.

    Attributes:
        B: sequences in a batch.
        T: steps of a sequence.
        long: steps of a long one.
        D: input width.
        H: the least width; the next multiple that the card allows is taken.
        L: layers.
    """

    B: int = 3
    T: int = 8
    long: int = 300
    D: int = 5
    H: int = 6
    L: int = 2

    def __str__(self) -> str:
        return ", ".join(f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self) if f.name != "long")

    @property
    def lengths(self) -> Lengths:
        """Of a ragged batch: half of the steps, all of them, one."""
        return (max(1, self.T // 2), self.T, 1)[: self.B]


REFERENCE = "-ref"
"""How the name of a backend ends that is there to prove others against, in float64: plain loops, which take time."""

D = Sizes.D
"""Input width of the cores that are tested."""


@dataclass(frozen=True)
class Subject:
    """One model in one setting.

    Attributes:
        card: the model's card.
        options: an instance of ``card.options``.
        causal: the direction asked of the core (``CoreSpec.causal``).
        backend: a key of ``card.cores``.
        sizes: of cores and inputs.
    """

    card: Model
    options: Any
    causal: bool = True
    backend: str = "torch"
    sizes: Sizes = field(default_factory=Sizes)

    def __str__(self) -> str:
        direction = "causal" if self.causal else "bidirectional"
        return f"{self.card.name} ({self.backend}, {direction}, {self.options})"

    @property
    def width(self) -> int:
        """A small legal width, other than the inputs' where sizes are the usual ones."""
        multiple = self.card.width_multiple(self.options)
        return multiple * -(-self.sizes.H // multiple)

    @property
    def has_state(self) -> bool:
        """Whether the core promises a state and single steps here."""
        return self.causal and "step" in self.card.can

    def spec(self, dropout: float = 0.0, train_length: int = 16, memory_size: int = 0) -> CoreSpec:
        """What is asked of a core here."""
        s = self.sizes
        return CoreSpec(s.D, self.width, s.L, self.causal, dropout, max(train_length, s.T), memory_size)

    def core(self, seed: int = 0, dropout: float = 0.0, train_length: int = 16) -> Any:
        """A float64 core in training mode (where a dependence on the batch shows), its parameters from ``seed``."""
        with seeded(seed):
            return resolve(self.card.cores[self.backend])(self.spec(dropout, train_length), self.options).double()

    def inputs(self, B: int | None = None, T: int | None = None, seed: int = 0) -> Tensor:
        """``x (B, T, D)``, normal."""
        s = self.sizes
        return normal((s.B if B is None else B, s.T if T is None else T, s.D), seed)

    def walk(self, core: Any, x: Tensor) -> dict[str, Tensor]:
        """Every way through a core, without gradients: whole, ragged, summed up, in a single step."""
        lengths = torch.tensor(self.sizes.lengths)
        with torch.no_grad():
            ragged, _ = core(x, None, lengths)
            found = {"y": core(x)[0], "y of a ragged batch": ragged, "summary": core.summary(ragged, lengths)}
            if self.has_state:
                found["step"], _ = core.step(x[:, 0], core.initial_state(*x.shape[:2]))
        return found


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
    sizes = Sizes(long=64) if backend.endswith(REFERENCE) else Sizes()
    found = [Subject(card, chosen, causal, backend, sizes) for name, causal in names.items() if name in card.can]
    if not found:
        raise ConformanceError(f"{card.name}: expected 'causal' or 'bidirectional' among can, got {sorted(card.can)}")
    return found


def beyond(lengths: Lengths, T: int) -> Tensor:
    """Which steps are padding: bool ``(B, T)``."""
    return torch.arange(T) >= torch.tensor(lengths).unsqueeze(1)  # (B, T)
