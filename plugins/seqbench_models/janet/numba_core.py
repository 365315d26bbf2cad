"""JANET in numba: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.vector import sigmoid, tanh
from seqbench.backends.numba_recurrent import KernelLayer
from seqbench.backends.torch_recurrent import RecurrentLayer
from seqbench_models.janet import torch_core


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


class Layer(KernelLayer, torch_core.Layer):
    """The rows of the matrices are s, n; state ``h (B, H)``."""

    @property
    def kernel_cell(self) -> Cell:
        """Above."""
        return CELL

    @property
    def constants(self) -> tuple[float, ...]:
        """``beta``."""
        cell: Any = self.cell  # torch's
        return (cell.beta,)

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """One bias, with the input's product."""
        return self.W, self.U, self.b, None


class Core(torch_core.Core):
    """JANET on the fast kernels."""

    plain = False

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options).run_plain(self.plain)


class Reference(Core):
    """The same in plain loops."""

    plain = True
