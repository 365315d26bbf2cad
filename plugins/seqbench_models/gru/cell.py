"""The cell of GRU, without torch: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.pointwise import sigmoid, tanh
from seqbench.backends.recurrence import TORCH_NAMES, Recurrence

if TYPE_CHECKING:
    from seqbench_models.gru import Options


def forward_after(a, before, constants):
    """``n = tanh(W x + b + r (U h + b'))``: what the state gives to ``n`` has a slot of its own."""
    a_r, a_z, a_n, u_n = a
    h = before[0]
    r, z = sigmoid(a_r), sigmoid(a_z)
    n = tanh(a_n + r * u_n)
    return ((1 - z) * n + z * h,), (r, z, n, u_n)


def backward_after(kept, before, after, d, constants):
    """The derivative."""
    r, z, n, u_n = kept
    h, d_h = before[0], d[0]
    d_n = d_h * (1 - z) * (1 - n * n)
    d_a = (d_n * u_n * r * (1 - r), d_h * (h - n) * z * (1 - z), d_n, d_n * r)
    return d_a, (d_h * z,)


def reset(a, before, constants):
    """``r h``, which the candidate's product reads."""
    return sigmoid(a[0]) * before[0]


def forward_before(a, before, constants):
    """``n = tanh(W x + b + U (r h))``: its slot is filled last."""
    a_r, a_z, a_n = a
    h = before[0]
    r, z, n = sigmoid(a_r), sigmoid(a_z), tanh(a_n)
    return ((1 - z) * n + z * h,), (r, z, n)


def backward_before(kept, before, after, d, constants):
    """The derivative up to the candidate's product; ``r`` stays for what comes through it."""
    r, z, n = kept
    h, d_h = before[0], d[0]
    return (r, d_h * (h - n) * z * (1 - z), d_h * (1 - z) * (1 - n * n)), (d_h * z,)


def backward_reset(left, before, d_reset, constants):
    """From the gradient of ``r h`` on."""
    r, d_z, d_n = left
    return (d_reset * before[0] * r * (1 - r), d_z, d_n), (d_reset * r,)


AFTER = Cell("gru-after", gates=3, slots=4, recurrent=(0, 1, 3), forward=forward_after, backward=backward_after)
BEFORE = Cell(
    "gru-before",
    gates=3,
    late=1,
    forward=forward_before,
    backward=backward_before,
    between=reset,
    backward_between=backward_reset,
)


def recurrence(options: Options) -> Recurrence:
    """Torch's cell, or the one with the reset before."""
    return Recurrence(AFTER, names=TORCH_NAMES) if options.reset_after else Recurrence(BEFORE)
