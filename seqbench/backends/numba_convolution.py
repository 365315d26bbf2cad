"""Stacks of residual convolution blocks that run in the numba kernels, inside torch's autograd.

Arrays go between torch and numba without copies, but for the input and the last gradient, which are put time first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqbench.backends.kernels.blocks import Block, Gradients, Kept, Kernels
from seqbench.backends.kernels.rings import Before
from seqbench.backends.numba_calls import refuse_other, refuse_second_derivative, with_threads

Parameters = tuple[Tensor | None, Tensor | None, Tensor | None]
"""Of one convolution: the filter ``(H, D, K)``, the norms ``(H, 1, 1)`` or None where it is not normed, the bias."""


@dataclass(frozen=True)
class Plan:
    """What a call computes, but for its tensors.

    Attributes:
        kernels: which run it.
        dilations: of each block.
        masks: two a block, ``(B, H, T)``, 0 or ``1 / (1 - p)``; empty: no dropout.
        scale: ``1 / (1 - p)``.
        position: of the state, ``(B,)``, or None.
        lengths: ``(B,)``, valid steps, where a state came in.
        threads: of numba.
    """

    kernels: Kernels
    dilations: Sequence[int]
    masks: Sequence[Tensor]
    scale: float
    position: Tensor | None
    lengths: Tensor | None
    threads: int

    def before(self, past: Tensor | None) -> Before | None:
        """The state, as the kernels read it."""
        if past is None or self.position is None or self.lengths is None:
            return None
        return Before(past.detach().contiguous().numpy(), self.position.numpy(), self.lengths.numpy())

    def blocks(self, tensors: Sequence[Tensor | None]) -> list[Block]:
        """The parameters, as the kernels read them, from nine tensors a block."""
        arrays = [None if tensor is None else tensor.detach().contiguous().numpy() for tensor in tensors]
        return [_block(arrays[9 * n : 9 * n + 9], dilation) for n, dilation in enumerate(self.dilations)]

    def forward(self, x: Tensor, past: Tensor | None, blocks: list[Block], training: bool) -> Kept:
        """All steps of ``x (B, T, D)``."""
        masks = [mask.permute(2, 0, 1).numpy() for mask in self.masks]  # (T, B, H)
        rows = x.detach().transpose(0, 1).numpy()  # (T, B, D)
        kept: Kept = with_threads(
            self.threads, self.kernels.forward, rows, blocks, masks, self.before(past), training
        )
        return kept


def _block(arrays: list[Any], dilation: int) -> Block:
    """Three for each convolution; what is not there becomes an empty array."""
    dtype = arrays[0].dtype
    filters, norms = np.empty((0, 0, 0), dtype), np.empty(0, dtype)
    V, g, b = (arrays[n::3] for n in range(3))
    return Block(
        tuple(filters if a is None else a for a in V),
        tuple(norms if a is None else a.reshape(-1) for a in g),
        tuple(norms if a is None else a for a in b),
        dilation,
    )


def run_blocks(
    plan: Plan, x: Tensor, past: Tensor | None, parameters: Sequence[tuple[Parameters, Parameters, Parameters]]
) -> tuple[Tensor, Tensor | None]:
    """A stack of blocks, differentiable once in ``x``, ``past`` and the parameters.

    Args:
        plan: the rest of what is computed.
        x: ``(B, T, D)``.
        past: ``(B, S)``, what the convolutions have read before, or None: nothing.
        parameters: of each block, of both convolutions and the 1x1 convolution, three times None where there is none.

    Returns:
        ``y (B, T, H)``, unspecified beyond the lengths, and the past after them, its position 0; None if none came in.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64.
    """
    refuse_other(x)
    tensors = [tensor for block in parameters for convolution in block for tensor in convolution]
    y, past_after = _Blocks.apply(plan, x, past, *tensors)  # type: ignore[no-untyped-call]
    return y, past_after


class _Blocks(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, x: Tensor, past: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See ``run_blocks``."""
        training = any(ctx.needs_input_grad)
        blocks = plan.blocks(tensors)
        kept = plan.forward(x, past, blocks, training)
        y = torch.from_numpy(kept.y[:, :, : blocks[-1].sizes[1]]).transpose(0, 1)  # (B, T, H)
        if training:
            ctx.save_for_backward(x, past, y, *tensors)
            ctx.plan, ctx.kept = plan, kept
            ctx.set_materialize_grads(False)
        return y, None if kept.after is None else torch.from_numpy(kept.after)

    @staticmethod
    def backward(ctx: Any, d_y: Tensor | None, d_after: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients.

        Raises:
            Refused: under ``create_graph=True``.
        """
        refuse_second_derivative()
        x, past, y, *tensors = ctx.saved_tensors
        plan, blocks = ctx.plan, ctx.plan.blocks(tensors)
        # The backward pass uses up what the forward pass kept: a second one over the same graph makes it anew.
        kept = ctx.kept or plan.forward(x, past, blocks, True)
        ctx.kept = None
        d_y = torch.zeros_like(y) if d_y is None else d_y
        found: Gradients = with_threads(
            plan.threads, plan.kernels.backward, kept, blocks, d_y.transpose(0, 1).numpy(), plan.scale,
            plan.before(past), None if d_after is None else d_after.contiguous().numpy(),
        )  # fmt: skip
        d_past = None if found.past is None else torch.from_numpy(found.past)
        return None, torch.from_numpy(found.x).transpose(0, 1), d_past, *_flat(found, tensors)


def _flat(found: Gradients, tensors: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
    """The gradients in the order and the shapes of the tensors."""
    arrays = (array for block in found.blocks for three in zip(block.V, block.g, block.b, strict=True) for array in three)
    for array, tensor in zip(arrays, tensors, strict=True):
        yield None if tensor is None else torch.from_numpy(array).view_as(tensor)
