"""RNN in numba: the pointwise part of a step and its derivative; the engine does the rest."""

from __future__ import annotations

from torch import Tensor

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.vector import positive, relu, tanh, zero
from seqbench.backends.numba_recurrent import KernelLayer
from seqbench.backends.torch_recurrent import RecurrentLayer, cell_weights
from seqbench_models.rnn import torch_core


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


class Layer(KernelLayer, torch_core.Layer):
    """``h = tanh(W x + U h + b)``; state ``h (B, H)``."""

    @property
    def kernel_cell(self) -> Cell:
        """With the chosen nonlinearity."""
        return CELLS[self.rnn.nonlinearity]

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Torch's."""
        return cell_weights(self.rnn)


class Core(torch_core.Core):
    """The simple recurrent network on the fast kernels."""

    plain = False

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options).run_plain(self.plain)


class Reference(Core):
    """The same in plain loops."""

    plain = True
