"""TCN in numba: the torch core's parameters, run by the kernels of ``seqbench.backends``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from seqbench.backends.kernels.blocks import Kernels
from seqbench.backends.numba_convolution import Parameters, Plan, run_blocks
from seqbench_models.tcn import torch_core

if TYPE_CHECKING:
    from seqbench.api import State


class Core(torch_core.Core):
    """The temporal convolutional network on the fast kernels.

    State: ``past (B, S)``, for each convolution a ring of its last inputs, and ``position (B,)``, the steps written.
    """

    plain = False

    def through(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        """``x (B, T, D)`` through all blocks to ``(B, T, C)``."""
        return run_blocks(self._plan(blocks, x), x, None, _parameters(blocks))[0]

    def chunk(self, x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, State]:
        """The next chunk, ``(B, T, D)`` to ``(B, T, C)``; the rings begin anew with their oldest input."""
        past, position = state
        consumed = torch.full((x.shape[0],), x.shape[1]) if lengths is None else lengths
        plan = self._plan(self.blocks, x, position, consumed)
        y, past = run_blocks(plan, x, past, _parameters(self.blocks))
        return y, (past, torch.zeros_like(position))

    def initial_state(self, B: int, capacity: int) -> State:  # noqa: ARG002 - the past that counts does not grow
        """Zeros: nothing before the first step."""
        self._refuse_state()
        size = sum(conv.past * conv.inputs for block in self.blocks for conv in (block.conv1, block.conv2))
        parameter = next(self.parameters())
        return parameter.new_zeros(B, size), parameter.new_zeros(B, dtype=torch.int64)

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step without gradient: ``x_t (B, D)`` to ``y_t (B, C)``."""
        y, after = self.chunk(x_t.unsqueeze(1), state, None)
        return y.squeeze(1), after

    def _plan(
        self, blocks: nn.ModuleList, x: Tensor, position: Tensor | None = None, lengths: Tensor | None = None
    ) -> Plan:
        masks, p = _masks(blocks, x), blocks[0].dropout.p if self.training else 0.0
        dilations = [block.conv1.dilation for block in blocks]
        scale = 1 / (1 - p) if p < 1 else 0.0
        return Plan(Kernels(self.plain), dilations, masks, scale, position, lengths, torch.get_num_threads())


class Reference(Core):
    """The same in plain loops."""

    plain = True


def _masks(blocks: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Of every dropout, ``(B, C, T)``, drawn as the torch core draws them; none where nothing is dropped."""
    B, T, _ = x.shape
    drops = [(block.conv1.outputs, block.dropout) for block in blocks for _ in range(2)]
    return [
        functional.dropout(x.new_ones(B, C, T), dropout.p) for C, dropout in drops if dropout.training and dropout.p
    ]


def _parameters(blocks: nn.ModuleList) -> list[tuple[Parameters, Parameters, Parameters]]:
    """Of each block, as ``run_blocks`` takes them."""
    return [(block.conv1.parts(), block.conv2.parts(), _shortcut(block)) for block in blocks]


def _shortcut(block: Any) -> Parameters:
    if isinstance(block.shortcut, nn.Conv1d):
        return block.shortcut.weight, None, block.shortcut.bias
    return None, None, None
