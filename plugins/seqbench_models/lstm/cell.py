"""The cell of LSTM, without torch: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.pointwise import sigmoid, tanh, zero
from seqbench.backends.recurrence import TORCH_NAMES, Recurrence

if TYPE_CHECKING:
    from seqbench_models.lstm import Options


def forward(a, before, constants):
    """``c = f c + i g``, ``h = o tanh(c)``."""
    a_i, a_f, a_g, a_o = a
    _, c = before
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
    c = f * c + i * g
    return (o * tanh(c), c), (i, f, g, o)


def backward(kept, before, after, d, constants):
    """The derivative; ``tanh(c)`` is made anew, which costs less than keeping it."""
    i, f, g, o = kept
    _, c_before = before
    _, c = after
    d_h, d_c = d
    t = tanh(c)
    d_c = d_c + d_h * o * (1 - t * t)
    d_a = (
        d_c * g * i * (1 - i),
        d_c * c_before * f * (1 - f),
        d_c * i * (1 - g * g),
        d_h * t * o * (1 - o),
    )
    return d_a, (zero(d_h), d_c * f)


CELL = Cell("lstm", gates=4, states=2, forward=forward, backward=backward)


def recurrence(options: Options) -> Recurrence:
    """Torch's four gates, in its order."""
    return Recurrence(CELL, names=TORCH_NAMES)
