"""The cell of JANET, without torch: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.vector import sigmoid, tanh
from seqbench.backends.recurrence import Recurrence

if TYPE_CHECKING:
    from seqbench_models.janet import Options


def forward(a, before, constants):
    """``h = f h + i g`` with ``f = sigmoid(s)`` and ``i = 1 - sigmoid(s - beta)``; the third slot keeps ``i``."""
    s, n, _ = a
    h, beta = before[0], constants[0]
    f, i, g = sigmoid(s), sigmoid(beta - s), tanh(n)
    return (f * h + i * g,), (f, g, i)


def backward(kept, before, after, d, constants):
    """The derivative: ``s`` opens one gate and closes the other."""
    f, g, i = kept
    h, d_h = before[0], d[0]
    d_s = d_h * (h * f * (1 - f) - g * i * (1 - i))
    return (d_s, d_h * i * (1 - g * g), i), (d_h * f,)


CELL = Cell("janet", gates=2, slots=3, forward=forward, backward=backward)


def recurrence(options: Options) -> Recurrence:
    """With its constant."""
    return Recurrence(CELL, constants=(options.beta,))
