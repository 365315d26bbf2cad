"""LSTM on torch: ``nn.LSTM`` for whole sequences, the ATen cell for single steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, cell_weights, chrono_

if TYPE_CHECKING:
    from seqbench.api import CoreSpec
    from seqbench_models.lstm import Options

Pair = tuple[Tensor, Tensor]


class Layer(RecurrentLayer):
    """Gates in torch's order i, f, g, o; state ``(h (B, H), c (B, H))``."""

    gates = 4

    def __init__(self, input_size: int, spec: CoreSpec, options: Options) -> None:
        super().__init__(input_size, spec.width)
        self.rnn = nn.LSTM(input_size, spec.width, batch_first=True)
        self._initialise_forget_bias(spec, options)

    @torch.no_grad()
    def _initialise_forget_bias(self, spec: CoreSpec, options: Options) -> None:
        """Set one of torch's two biases and clear the other, so that their sum is what the options say."""
        _, _, b_ih, b_hh = cell_weights(self.rnn)
        b_i, b_f, _, _ = b_ih.chunk(4)
        other_i, other_f, _, _ = b_hh.chunk(4)
        other_f.zero_()
        b_f.fill_(options.forget_bias)
        if options.chrono:
            chrono_(b_f, spec.train_length)
            other_i.zero_()
            b_i.copy_(-b_f)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps from zeros, ``(B, T, D)`` to ``(B, T, H)``."""
        assert h0 is None
        y, _ = self.rnn(x)  # (B, T, H)
        return y  # type: ignore[no-any-return]

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """All steps; with a state and lengths packed, since the last ``c`` of a shorter row is not in ``y``."""
        if state is None:
            return self.sequence(x, None), None
        T = x.shape[1]
        start = (state[0].unsqueeze(0), state[1].unsqueeze(0))  # 2 x (1, B, H)
        if lengths is None:
            y, (h, c) = self.rnn(x, start)  # (B, T, H), 2 x (1, B, H)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            packed, (h, c) = self.rnn(packed, start)
            y, _ = pad_packed_sequence(packed, batch_first=True, total_length=T)  # (B, T, H)
        return y, (h.squeeze(0), c.squeeze(0))

    def initial_state(self, B: int) -> Pair:
        """Zeros."""
        return self.zeros(B), self.zeros(B)

    def step(self, x_t: Tensor, state: Pair) -> tuple[Tensor, Pair]:
        """One step, ``(B, D)`` to ``(B, H)``."""
        h, c = torch.lstm_cell(x_t, state, *cell_weights(self.rnn))
        return h, (h, c)


class Core(RecurrentCore):
    """Long short-term memory; see the card for its equations."""

    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options)
