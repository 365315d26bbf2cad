"""The cell of RNN, without torch: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.pointwise import positive, relu, tanh, zero
from seqbench.backends.recurrence import TORCH_NAMES, Recurrence

if TYPE_CHECKING:
    from seqbench_models.rnn import Options


def forward_tanh(a, before, constants):
    """``h = tanh(a)``."""
    h = tanh(a[0])
    return (h,), (h,)


def backward_tanh(kept, before, after, d, constants):
    """``da = dh (1 - h^2)``."""
    h = kept[0]
    return (d[0] * (1.0 - h * h),), (zero(h),)


def forward_relu(a, before, constants):
    """``h = max(a, 0)``."""
    h = relu(a[0])
    return (h,), (h,)


def backward_relu(kept, before, after, d, constants):
    """``da = dh`` where ``h > 0``."""
    h = kept[0]
    return (d[0] * positive(h),), (zero(h),)


CELLS = {
    "tanh": Cell("rnn-tanh", gates=1, forward=forward_tanh, backward=backward_tanh),
    "relu": Cell("rnn-relu", gates=1, forward=forward_relu, backward=backward_relu),
}


def recurrence(options: Options) -> Recurrence:
    """With the chosen nonlinearity."""
    return Recurrence(CELLS[options.nonlinearity], names=TORCH_NAMES)
