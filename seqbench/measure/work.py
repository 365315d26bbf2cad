"""How much work data are for a network: time steps and matrix-product FLOPs, counted, not timed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from seqbench.api import Batch

if TYPE_CHECKING:
    import numpy as np

Lengths = Mapping[tuple[int, int], int]
"""Steps of the source and of the target (0 where there is none) to how many such sequences there are."""

PASSES = 3
"""A training step is taken for three forward passes: in the backward pass every matrix product of the forward pass
becomes two, one for the gradient of its input and one for that of its weights (Kaplan et al. 2020, section 2.1)."""


class Counted(Protocol):
    """A network that knows its FLOPs."""

    def forward_flops(self, T: int, U: int = 0) -> int:
        """Of the matrix products of a forward pass over one sequence."""


def lengths_in(batch: Batch) -> Counter[tuple[int, int]]:
    """The sequences of a batch by their lengths, padding not counted."""
    count = batch.x.shape[0]
    sources = _lengths(batch.x, batch.lengths)
    targets = (0,) if batch.y_in is None else _lengths(batch.y_in, batch.target_lengths)
    if len(sources) == len(targets) == 1:
        return Counter({(sources[0], targets[0]): count})
    return Counter(zip(sources * (count // len(sources)), targets * (count // len(targets)), strict=True))


def _lengths(array: np.ndarray, lengths: np.ndarray | None) -> tuple[int, ...]:
    """Of each row; only one where all are full."""
    return (array.shape[1],) if lengths is None else tuple(lengths.tolist())


def count_tokens(lengths: Lengths) -> int:
    """Time steps of all sequences, sources and targets: what the network reads."""
    return sum((T + U) * count for (T, U), count in lengths.items())


def training_flops(network: Counted, lengths: Lengths) -> int:
    """Matrix-product FLOPs of training on these sequences once, by the formulas of the network's parts.

    Normalisations, gates, the loss and the optimiser are not counted: they are not what grows with the width squared.
    """
    return PASSES * sum(network.forward_flops(T, U) * count for (T, U), count in lengths.items())
