"""TCN in numba: the torch core's parameters, run by the kernels of ``seqbench.backends``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqbench.backends.kernels.blocks import Stepper
from seqbench.backends.numba_arrays import refuse_others
from seqbench.backends.numba_convolution import Filters, Plan, run_blocks, run_step
from seqbench.backends.torch_derived import Derived
from seqbench_models.tcn import torch_core

if TYPE_CHECKING:
    from seqbench.api import CoreSpec, State
    from seqbench_models.tcn import Options


class Stack(torch_core.Stack):
    """Blocks on the fast kernels.

    State: ``past (B, S)``, for each convolution a ring of its last inputs, and ``position (B,)``, the steps written.
    """

    plain = False

    def __init__(self, spec: CoreSpec, options: Options, channels: int) -> None:
        super().__init__(spec, options, channels)
        places = [place for block in self for place in _places(block)]
        self._filters = Filters(places, [2**i for i in range(spec.layers)])
        self._channels = [conv.outputs for conv in self.convolutions()]
        self._dropout, self._stepper = spec.dropout, Derived()

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence, ``x (B, T, D)`` to ``(B, T, C)``."""
        return run_blocks(self._plan(x), x, None)[0]

    def chunk(self, x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, State]:
        """The next chunk, ``(B, T, D)`` to ``(B, T, C)``; afterwards the rings begin with their oldest input."""
        past, position = state
        consumed = torch.full((x.shape[0],), x.shape[1]) if lengths is None else lengths
        y, past = run_blocks(self._plan(x, position, consumed), x, past)
        return y, (past, torch.zeros_like(position))

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step, ``x_t (B, D)`` to ``y_t (B, C)``; the state's tensors are written to."""
        if self.plain or (self.training and self._dropout):
            y, after = self.chunk(x_t.unsqueeze(1), state, None)
            return y.squeeze(1), after
        refuse_others(x_t, state[0])
        if self.training:
            self._stepper.forget()
        tensors = self._filters.tensors()
        there = [tensor for tensor in tensors if tensor is not None]
        stepper = self._stepper.get(there, lambda: Stepper(self._filters.blocks(tensors)))
        return run_step(stepper, x_t, state), state

    def initial_state(self, B: int) -> State:
        """Zeros: nothing before the first step."""
        size = sum(conv.past * conv.inputs for conv in self.convolutions())
        parameter = next(self.parameters())
        return parameter.new_zeros(B, size), parameter.new_zeros(B, dtype=torch.int64)

    def train(self, mode: bool = True) -> Stack:
        """Forget the packed parameters on every change of mode."""
        self._stepper.forget()
        super().train(mode)
        return self

    def _plan(self, x: Tensor, position: Tensor | None = None, lengths: Tensor | None = None) -> Plan:
        p = self._dropout if self.training else 0.0
        return Plan(self.plain, self._filters, self._masks(x, p), p, position, lengths, torch.get_num_threads())

    def _masks(self, x: Tensor, p: float) -> list[Tensor]:
        """Of every dropout, ``(B, C, T)``, drawn as the torch core draws them; none where nothing is dropped."""
        B, T, _ = x.shape
        return [functional.dropout(x.new_ones(B, C, T), p) for C in self._channels] if p else []


class PlainStack(Stack):
    """The same in plain loops."""

    plain = True


class Core(torch_core.Core):
    """The temporal convolutional network on the fast kernels."""

    make_stack = Stack


class Reference(torch_core.Core):
    """The same in plain loops."""

    make_stack = PlainStack


def _places(block: Any) -> list[tuple[nn.Module, str] | None]:
    """Where a block's parameters are, in the order of ``Filters``."""
    found: list[tuple[nn.Module, str] | None] = []
    for conv in (block.conv1, block.conv2):
        if conv.normed:
            parts = conv.conv.parametrizations.weight
            found += [(parts, "original1"), (parts, "original0")]
        else:
            found += [(conv.conv, "weight"), None]
        found.append((conv.conv, "bias"))
    if isinstance(block.shortcut, nn.Conv1d):
        return [*found, (block.shortcut, "weight"), None, (block.shortcut, "bias")]
    return [*found, None, None, None]
