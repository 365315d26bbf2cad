"""The cell of JANET, without torch: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.pointwise import exp, tanh
from seqbench.backends.recurrence import Recurrence

if TYPE_CHECKING:
    from seqbench_models.janet import Options


def forward(a, before, constants):
    """``h = f h + i g`` with ``f = sigmoid(s)`` and ``i = 1 - sigmoid(s - beta)``, both from ``e = exp(-s)``.

    ``1 - sigmoid(s - beta) = e / (e + exp(-beta))`` saves an exponential, and a number to keep for the derivative.
    """
    s, n = a
    h, e_beta = before[0], constants[0]
    e, g = exp(-s), tanh(n)
    f, i = 1 / (1 + e), e / (e + e_beta)
    return (f * h + i * g,), (e, g)


def backward(kept, before, after, d, constants):
    """The derivative: ``s`` opens one gate and closes the other."""
    e, g = kept
    h, d_h, e_beta = before[0], d[0], constants[0]
    f, i = 1 / (1 + e), e / (e + e_beta)
    d_s = d_h * (h * f * (1 - f) - g * i * (1 - i))
    return (d_s, d_h * i * (1 - g * g)), (d_h * f,)


CELL = Cell("janet", gates=2, forward=forward, backward=backward)


def constants_of(beta: float) -> tuple[float, ...]:
    """``exp(-beta)``, cut to what float32 can bear: that shows only where ``beta`` is beyond 80 and ``s`` beyond 60."""
    return (math.exp(-min(max(beta, -80.0), 80.0)),)


def recurrence(options: Options) -> Recurrence:
    """With its constant."""
    return Recurrence(CELL, constants=constants_of(options.beta))
