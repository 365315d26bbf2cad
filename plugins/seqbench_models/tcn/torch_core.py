"""TCN on torch: dilated convolutions for whole sequences; each keeps its last inputs for chunks and single steps."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, pad
from torch.nn.utils.parametrizations import weight_norm

from seqbench.api import CoreSpec, Refused, State
from seqbench.backends.torch_derived import Derived
from seqbench.backends.torch_sequence import last_valid, reverse_valid, window, zero_beyond

if TYPE_CHECKING:
    from seqbench_models.tcn import Options


class CausalConv(nn.Module):
    """A dilated convolution that looks back ``P = (K-1) * dilation`` steps; state: those inputs, ``(B, P, C)``."""

    def __init__(self, inputs: int, outputs: int, dilation: int, options: Options) -> None:
        super().__init__()
        self.inputs, self.outputs, self.dilation = inputs, outputs, dilation
        self.past = (options.kernel - 1) * dilation
        self.conv = nn.Conv1d(inputs, outputs, options.kernel, dilation=dilation)
        self.normed = options.weight_norm
        if self.normed:
            weight_norm(self.conv)
        self._matrix = Derived()

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, T)`` after zeros to ``(B, C', T)``."""
        y: Tensor = self.conv(pad(x, (self.past, 0)))  # (B, C, P + T) to (B, C', T)
        return y

    def chunk(self, x: Tensor, before: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """``x (B, C, T)`` after the inputs ``before (B, P, C)``; returns also the last ``P`` inputs of each row."""
        B, _, T = x.shape
        seen = torch.cat([before.transpose(1, 2), x], dim=2)  # (B, C, P + T)
        consumed = torch.full((B,), T) if lengths is None else lengths
        return self.conv(seen), window(seen.transpose(1, 2), consumed, self.past)  # (B, C', T), (B, P, C)

    def step(self, x_t: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """``x_t (B, C)`` after the inputs ``before (B, P, C)`` to ``(B, C')``: every ``dilation``-th input counts."""
        seen = torch.cat([before, x_t.unsqueeze(1)], dim=1)  # (B, P + 1, C)
        taps = seen[:, :: self.dilation].flatten(1)  # (B, K * C)
        return linear(taps, self._step_matrix(), self.conv.bias), seen[:, 1:]

    def _step_matrix(self) -> Tensor:
        """The filter as ``(C', K * C)``, made anew only when a parameter has changed since."""
        if self.training:
            self._matrix.forget()
        filter_, norms, _ = self.parts()
        made: Tensor = self._matrix.get([filter_] if norms is None else [filter_, norms], self._make_step_matrix)
        return made

    def _make_step_matrix(self) -> Tensor:
        return self.conv.weight.detach().transpose(1, 2).flatten(1)  # (C', C, K) to (C', K * C)

    def parts(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The filter's direction ``(C', C, K)`` and norms ``(C', 1, 1)``, or itself and None; the bias ``(C',)``."""
        if not self.normed:
            return self.conv.weight, None, self.conv.bias
        parts: Any = self.conv.parametrizations.weight  # type: ignore[union-attr]
        return parts.original1, parts.original0, self.conv.bias

    def train(self, mode: bool = True) -> CausalConv:
        """Forget the step matrix on every change of mode."""
        self._matrix.forget()
        super().train(mode)
        return self


class Block(nn.Module):
    """``relu(x + F(x))`` with two convolutions of one dilation; state: a pair, one for each convolution."""

    def __init__(self, inputs: int, outputs: int, dilation: int, spec: CoreSpec, options: Options) -> None:
        super().__init__()
        self.conv1 = CausalConv(inputs, outputs, dilation, options)
        self.conv2 = CausalConv(outputs, outputs, dilation, options)
        self.shortcut = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.dropout = nn.Dropout(spec.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``x (B, C, T)`` to ``(B, C', T)``."""
        h = self.dropout(self.conv1(x).relu())  # (B, C', T)
        h = self.dropout(self.conv2(h).relu())
        return (h + self.shortcut(x)).relu()  # type: ignore[no-any-return]

    def chunk(self, x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, State]:
        """The same for the next chunk."""
        h, first = self.conv1.chunk(x, state[0], lengths)  # (B, C', T)
        h, second = self.conv2.chunk(self.dropout(h.relu()), state[1], lengths)
        return (self.dropout(h.relu()) + self.shortcut(x)).relu(), (first, second)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """The same for one step, ``x_t (B, C)`` to ``(B, C')``."""
        h, first = self.conv1.step(x_t, state[0])  # (B, C')
        h, second = self.conv2.step(self.dropout(h.relu_()), state[1])
        return self.dropout(h.relu_()).add(self._short(x_t)).relu_(), (first, second)

    def _short(self, x_t: Tensor) -> Tensor:
        if isinstance(self.shortcut, nn.Conv1d):
            return linear(x_t, self.shortcut.weight.squeeze(2), self.shortcut.bias)  # (B, C')
        return x_t


class Stack(nn.ModuleList):
    """Blocks whose dilation doubles; state: one of each block."""

    def __init__(self, spec: CoreSpec, options: Options, channels: int) -> None:
        sizes = [spec.input_size] + [spec.width] * (spec.layers - 1) + [channels]
        super().__init__(
            Block(inputs, outputs, 2**i, spec, options) for i, (inputs, outputs) in enumerate(pairwise(sizes))
        )

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence, ``x (B, T, D)`` to ``(B, T, C)``."""
        x = x.transpose(1, 2)  # (B, D, T)
        for block in self:
            x = block(x)  # (B, C, T)
        return x.transpose(1, 2)

    def chunk(self, x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, State]:
        """The next chunk, ``(B, T, D)`` to ``(B, T, C)``; unspecified beyond ``lengths``."""
        x, after = x.transpose(1, 2), []  # (B, D, T)
        for block, before in zip(self._blocks(), state, strict=True):
            x, new = block.chunk(x, before, lengths)  # (B, C, T)
            after.append(new)
        return x.transpose(1, 2), tuple(after)  # (B, T, C)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step, ``x_t (B, D)`` to ``y_t (B, C)``."""
        after = []
        for block, before in zip(self._blocks(), state, strict=True):
            x_t, new = block.step(x_t, before)  # (B, C)
            after.append(new)
        return x_t, tuple(after)

    def initial_state(self, B: int) -> State:
        """Zeros: nothing before the first step."""
        zeros = next(self.parameters()).new_zeros
        convs = [(block.conv1, block.conv2) for block in self._blocks()]
        return tuple(tuple(zeros(B, conv.past, conv.inputs) for conv in pair) for pair in convs)

    def convolutions(self) -> list[CausalConv]:
        """Two of each block, in order."""
        return [conv for block in self._blocks() for conv in (block.conv1, block.conv2)]

    def _blocks(self) -> Any:
        return self


class Core(nn.Module):
    """The temporal convolutional network; see the card for its equations.

    Asked for both directions, a second stack runs over each row reversed within its length, so padding never enters it.
    """

    make_stack: type[Stack] = Stack

    def __init__(self, spec: CoreSpec, options: Options) -> None:
        super().__init__()
        self.causal, self.channels = spec.causal, options.last_channels or spec.width
        self.output_size = self.channels if spec.causal else 2 * self.channels
        self.max_length: int | None = None
        self.kernel = options.kernel
        self.blocks = self.make_stack(spec, options, self.channels)
        self.backward_blocks = nn.ModuleList() if spec.causal else self.make_stack(spec, options, self.channels)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A whole sequence or the next chunk of one; see ``seqbench.api.Core``."""
        if state is None:
            return zero_beyond(self._stateless(x, lengths), lengths), None
        self._refuse_state()
        y, after = self.blocks.chunk(x, state, lengths)  # (B, T, C)
        return zero_beyond(y, lengths), after

    def _stateless(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        y: Tensor = self.blocks(x)  # (B, T, C)
        if self.causal:
            return y
        back = self.backward_blocks(reverse_valid(x, lengths))
        return torch.cat([y, reverse_valid(back, lengths)], dim=-1)  # (B, T, 2C)

    def initial_state(self, B: int, capacity: int) -> State:  # noqa: ARG002 - the past that counts does not grow
        """Nothing before the first step."""
        self._refuse_state()
        return self.blocks.initial_state(B)

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step without gradient: ``x_t (B, D)`` to ``y_t (B, C)``."""
        return self.blocks.step(x_t, state)

    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        """The last valid step, ``(B, C)``; of the backward direction the first, where it has read the whole row."""
        last = last_valid(y, lengths)
        return last if self.causal else torch.cat([last[:, : self.channels], y[:, 0, self.channels :]], dim=-1)

    def flops(self, B: int, T: int) -> int:
        """Every tap of every convolution at every step, the padding's zeros included."""
        return sum(2 * B * T * _weights(block, self.kernel) for block in [*self.blocks, *self.backward_blocks])

    def _refuse_state(self) -> None:
        if not self.causal:
            raise Refused("a bidirectional core has no state: it must read the whole sequence before its first output")


def _weights(block: Any, kernel: int) -> int:
    inputs, outputs = block.conv1.inputs, block.conv2.inputs
    shortcut = inputs * outputs if inputs != outputs else 0
    return int(kernel * outputs * (inputs + outputs) + shortcut)
