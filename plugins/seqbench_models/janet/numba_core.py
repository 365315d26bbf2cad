"""JANET in numba: the torch model's parameters, our kernels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.numba_recurrent import KernelLayer
from seqbench.backends.torch_recurrent import RecurrentLayer
from seqbench_models.janet import torch_core
from seqbench_models.janet.cell import CELL, constants_of


class Layer(KernelLayer, torch_core.Layer):
    """The rows of the matrices are s, n; state ``h (B, H)``."""

    @property
    def kernel_cell(self) -> Cell:
        """In ``cell.py``."""
        return CELL

    @property
    def constants(self) -> tuple[float, ...]:
        """Of ``beta``."""
        cell: Any = self.cell  # torch's
        return constants_of(cell.beta)

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
