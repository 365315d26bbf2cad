"""RNN on torch: ``nn.RNN`` for whole sequences, the ATen cell for single steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, cell_weights

if TYPE_CHECKING:
    from seqbench.api import CoreSpec
    from seqbench_models.rnn import Options


class Layer(RecurrentLayer):
    """``h = tanh(W x + U h + b)``; state ``h (B, H)``."""

    gates = 1

    def __init__(self, input_size: int, spec: CoreSpec, options: Options) -> None:
        super().__init__(input_size, spec.width)
        self.rnn = nn.RNN(input_size, spec.width, nonlinearity=options.nonlinearity, batch_first=True)
        self.cell = {"tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[options.nonlinearity]

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        y, _ = self.rnn(x, None if h0 is None else h0.unsqueeze(0))  # (B, T, H)
        return y  # type: ignore[no-any-return]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, ``(B, D)`` to ``(B, H)``."""
        h = self.cell(x_t, state, *cell_weights(self.rnn))  # (B, H)
        return h, h


class Core(RecurrentCore):
    """The simple recurrent network; see the card for its equation."""

    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options)
