"""LSTM in numba: the torch model's parameters, our kernels."""

from __future__ import annotations

from torch import Tensor

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.numba_recurrent import KernelLayer
from seqbench.backends.torch_recurrent import RecurrentLayer, cell_weights
from seqbench_models.lstm import torch_core
from seqbench_models.lstm.cell import CELL


class Layer(KernelLayer, torch_core.Layer):
    """Gates in torch's order i, f, g, o; state ``(h (B, H), c (B, H))``."""

    @property
    def kernel_cell(self) -> Cell:
        """In ``cell.py``."""
        return CELL

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Torch's."""
        return cell_weights(self.rnn)


class Core(torch_core.Core):
    """Long short-term memory on the fast kernels."""

    plain = False

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options).run_plain(self.plain)


class Reference(Core):
    """The same in plain loops."""

    plain = True
