"""GRU in numba: the torch model's parameters, our kernels."""

from __future__ import annotations

from torch import Tensor

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.numba_recurrent import KernelLayer
from seqbench.backends.torch_recurrent import RecurrentLayer, cell_weights
from seqbench_models.gru import torch_core
from seqbench_models.gru.cell import AFTER, BEFORE


class After(KernelLayer, torch_core.ResetAfter):
    """Gates in torch's order r, z, n; state ``h (B, H)``."""

    @property
    def kernel_cell(self) -> Cell:
        """In ``cell.py``."""
        return AFTER

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Torch's."""
        return cell_weights(self.rnn)


class Before(KernelLayer, torch_core.ResetBefore):
    """The rows of the matrices are r, z, n; state ``h (B, H)``."""

    @property
    def kernel_cell(self) -> Cell:
        """In ``cell.py``."""
        return BEFORE

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """One bias, with the input's product."""
        return self.W, self.U, self.b, None


class Core(torch_core.Core):
    """The gated recurrent unit on the fast kernels."""

    plain = False

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        layer = After if self.options.reset_after else Before
        return layer(input_size, self.spec).run_plain(self.plain)


class Reference(Core):
    """The same in plain loops."""

    plain = True
