"""Stacking, direction, masking, summary and state of recurrent cores; a model adds only its own layer."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from seqbench.api import CoreSpec, Refused, State
from seqbench.backends.torch_sequence import last_valid, reverse_valid, zero_beyond


class RecurrentLayer(nn.Module):
    """One layer in one direction whose state is its last output, ``h (B, H)``.

    A layer with a richer state (LSTM) overrides ``forward`` and ``initial_state``.

    Attributes:
        gates: matrix products of width ``H`` from ``x`` and from ``h`` in one step.
    """

    gates: int

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__()
        self.input_size, self.width = input_size, width

    @abstractmethod
    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps: ``x (B, T, D)`` from ``h0 (B, H)`` (None: zeros) to ``y (B, T, H)``."""

    @abstractmethod
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: ``x_t (B, D)`` to ``y_t (B, H)``."""

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """``y (B, T, H)``, unspecified beyond ``lengths``, and the state there if one came in."""
        y = self.sequence(x, state)
        return y, None if state is None else last_valid(y, lengths)

    def initial_state(self, B: int) -> Any:
        """Zeros."""
        return self.zeros(B)

    def zeros(self, B: int) -> Tensor:
        """``(B, H)`` zeros where the parameters are."""
        return next(self.parameters()).new_zeros(B, self.width)


class RecurrentCore(nn.Module):
    """``L`` recurrent layers in one direction, or in two; dropout on each layer's output, the last one included.

    Dropping the last output too (Zaremba, Sutskever, Vinyals 2014, arXiv:1409.2329; ``nn.LSTM`` leaves it out) gives
    the option a meaning for one layer. What passes from step to step within a layer is never dropped.

    The backward direction runs over each row reversed within its length, so padding never enters it; the next layer
    sees both directions side by side. State: a tuple over layers; bidirectional cores have none.
    """

    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__()
        self.spec, self.options = spec, options
        self.output_size = spec.width if spec.causal else 2 * spec.width
        self.max_length: int | None = None
        sizes = [spec.input_size] + [self.output_size] * (spec.layers - 1)
        self.dropout = nn.Dropout(spec.dropout)
        self.layers = nn.ModuleList(self.make_layer(size) for size in sizes)
        self.backward_layers = nn.ModuleList(self.make_layer(size) for size in sizes if not spec.causal)

    @abstractmethod
    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A whole sequence or the next chunk of one; see ``seqbench.api.Core``."""
        if state is None:
            return zero_beyond(self._stateless(x, lengths), lengths), None
        self._refuse_state()
        after = []
        for number, layer in enumerate(self.layers):
            y, new = layer(x, state[number], lengths)  # (B, T, H)
            x = self.dropout(y)
            after.append(new)
        return zero_beyond(x, lengths), tuple(after)

    def _stateless(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        for number, layer in enumerate(self.layers):
            y, _ = layer(x)  # (B, T, H)
            if self.backward_layers:
                back, _ = self.backward_layers[number](reverse_valid(x, lengths))
                y = torch.cat([y, reverse_valid(back, lengths)], dim=-1)  # (B, T, 2H)
            x = self.dropout(y)
        return x

    def initial_state(self, B: int, capacity: int) -> State:  # noqa: ARG002 - a recurrent state does not grow
        """Zeros."""
        self._refuse_state()
        return tuple(layer.initial_state(B) for layer in self._forward_layers())

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step without gradient: ``x_t (B, D)`` to ``y_t (B, H)``."""
        if torch.is_grad_enabled():
            with torch.no_grad():  # where there are none already, as in a stream, this would be a tenth of a small step
                return self._step(x_t, state)
        return self._step(x_t, state)

    def _step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        after = []
        for number, layer in enumerate(self._forward_layers()):
            y_t, new = layer.step(x_t, state[number])
            x_t = self.dropout(y_t) if self.training else y_t
            after.append(new)
        return x_t, tuple(after)

    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        """The last valid step; of the backward direction the first, where it has read the whole row."""
        last = last_valid(y, lengths)
        if self.spec.causal:
            return last
        H = self.spec.width
        return torch.cat([last[:, :H], y[:, 0, H:]], dim=-1)  # (B, 2H)

    def flops(self, B: int, T: int) -> int:
        """One product of ``gates * H`` rows with ``[x; h]`` a step, layer and direction."""
        H = self.spec.width
        layers = [*self._forward_layers(), *self.backward_layers]
        return sum(2 * B * T * layer.gates * H * (layer.input_size + H) for layer in layers)

    def _forward_layers(self) -> Any:
        return self.layers

    def _refuse_state(self) -> None:
        if not self.spec.causal:
            raise Refused("a bidirectional core has no state: it must read the whole sequence before its first output")


def cell_weights(rnn: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``W (G*H, D)``, ``U (G*H, H)`` and the two biases ``(G*H,)`` of one of torch's recurrent modules.

    From the list that its own forward pass reads: by their names they take as long as a small step computes.
    """
    W, U, b_x, b_h = rnn._flat_weights  # noqa: SLF001 - see above
    return W, U, b_x, b_h


def uniform_(module: nn.Module, width: int) -> None:
    """Initialise all parameters as torch's recurrent modules do: ``U(-1/sqrt(H), 1/sqrt(H))``."""
    bound = 1 / math.sqrt(width)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -bound, bound)


def chrono_(bias: Tensor, train_length: int) -> None:
    """Fill ``bias (H,)`` with ``ln U(1, T_max - 1)``, so that memories last 1 to ``T_max - 1`` steps at the start.

    Tallec, Ollivier (2018), "Can recurrent neural networks warp time?", arXiv:1804.11188, eq. 16.
    """
    with torch.no_grad():
        bias.uniform_(1.0, max(1.0, train_length - 1.0)).log_()
