"""Stacks of residual convolution blocks that run in the numba kernels, inside torch's autograd.

Arrays go between torch and numba without copies, but for the input and the last gradient, which are put time first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqbench.backends.kernels.blocks import Block, Gradients, Kept, Kernels, Stepper
from seqbench.backends.kernels.rings import Before
from seqbench.backends.numba_arrays import refuse_others, refuse_second_derivative
from seqbench.backends.numba_threads import numba_threads


class Filters:
    """The parameters of a stack, nine of each block, where its modules hold them, and as the kernels read them.

    Of the first, the second and the 1x1 convolution the filter ``(H, D, K)``, its norms ``(H, 1, 1)`` (None: the filter
    is not normed) and the bias; three times None where there is no 1x1 convolution.

    Args:
        places: module and name of each; asking modules for attributes takes longer than the smallest stacks compute.
        dilations: of each block.
    """

    def __init__(self, places: Sequence[tuple[nn.Module, str] | None], dilations: Sequence[int]) -> None:
        self._holders = [place and (place[0]._parameters, place[1]) for place in places]  # noqa: SLF001 - see above
        self._dilations = dilations
        self._blocks: list[Block] = []
        self._addresses: list[int] = []

    def tensors(self) -> list[Tensor | None]:
        """What the modules hold now."""
        return [None if holder is None else holder[0][holder[1]] for holder in self._holders]

    def blocks(self, tensors: Sequence[Tensor | None]) -> list[Block]:
        """The same numbers as arrays, which stay the same while the tensors lie where they do."""
        addresses = [0 if tensor is None else tensor.data_ptr() for tensor in tensors]
        if addresses == self._addresses:
            return self._blocks
        arrays = [None if tensor is None else tensor.detach().contiguous().numpy() for tensor in tensors]
        blocks = [_block(arrays[9 * n : 9 * n + 9], dilation) for n, dilation in enumerate(self._dilations)]
        if all(tensor is None or tensor.is_contiguous() for tensor in tensors):  # else an array is a copy
            self._blocks, self._addresses = blocks, addresses
        return blocks

    def __getstate__(self) -> dict[str, Any]:
        """For copies: without the arrays, which would be copies too."""
        return self.__dict__ | {"_blocks": [], "_addresses": []}


def _block(arrays: list[Any], dilation: int) -> Block:
    """Three for each convolution; what is not there becomes an empty array."""
    dtype = arrays[0].dtype
    no_filter, no_numbers = np.empty((0, 0, 0), dtype), np.empty(0, dtype)
    V = [no_filter if a is None else a for a in arrays[::3]]
    g = [no_numbers if a is None else a.reshape(-1) for a in arrays[1::3]]
    b = [no_numbers if a is None else a for a in arrays[2::3]]
    return Block((V[0], V[1], V[2]), (g[0], g[1], g[2]), (b[0], b[1], b[2]), dilation)


@dataclass(frozen=True)
class Plan:
    """What a call computes, but for its tensors.

    Attributes:
        plain: run plain loops.
        filters: the parameters.
        masks: two a block, ``(B, H, T)``, 0 or ``1 / (1 - p)``; empty: no dropout.
        p: the probability of being dropped.
        position: of the state, ``(B,)``, or None.
        lengths: ``(B,)``, valid steps, where a state came in.
        threads: of numba.
    """

    plain: bool
    filters: Filters
    masks: Sequence[Tensor]
    p: float
    position: Tensor | None
    lengths: Tensor | None
    threads: int

    def before(self, past: Tensor | None) -> Before | None:
        """The state, as the kernels read it."""
        if past is None or self.position is None or self.lengths is None:
            return None
        return Before(past.detach().contiguous().numpy(), self.position.numpy(), self.lengths.numpy())

    def forward(self, x: Tensor, past: Tensor | None, blocks: Sequence[Block], training: bool) -> Kept:
        """All steps of ``x (B, T, D)``."""
        masks = [mask.permute(2, 0, 1).numpy() for mask in self.masks]  # (T, B, H)
        rows = x.detach().transpose(0, 1).numpy()  # (T, B, D)
        with numba_threads(self.threads):
            return Kernels(self.plain).forward(rows, blocks, masks, self.before(past), training, self.threads)

    def backward(
        self, kept: Kept, past: Tensor | None, blocks: Sequence[Block], d_y: Tensor, d_after: Tensor | None
    ) -> Gradients:
        """Every gradient, from those of ``y (B, T, H)`` and of the past after it."""
        rows, scale = d_y.transpose(0, 1).numpy(), 1 / (1 - self.p) if self.p < 1 else 0.0  # (T, B, H)
        d_rings = None if d_after is None else d_after.contiguous().numpy()
        with numba_threads(self.threads):
            return Kernels(self.plain).backward(kept, blocks, rows, scale, self.before(past), d_rings, self.threads)


def run_blocks(plan: Plan, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """A stack of blocks, differentiable once in ``x``, ``past`` and the parameters.

    Args:
        plan: the rest of what is computed.
        x: ``(B, T, D)``.
        past: ``(B, S)``, what the convolutions have read before, or None: nothing.

    Returns:
        ``y (B, T, H)``, unspecified beyond the lengths, and the past after them, its position 0; None if none came in.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64, or they differ in that.
    """
    parameters = plan.filters.tensors()
    refuse_others(x, *(t for t in (past, *parameters) if t is not None))
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, past, *parameters)):
        return _Blocks.apply(plan, x, past, *parameters)  # type: ignore[no-any-return, no-untyped-call]
    blocks = plan.filters.blocks(parameters)
    return _outputs(plan.forward(x, past, blocks, training=False), blocks)


def run_step(stepper: Stepper, x_t: Tensor, state: tuple[Tensor, Tensor]) -> Tensor:
    """``x_t (B, D)`` to ``y_t (B, H)``, without gradient; the state, past and position, goes on in place."""
    past, position = state
    return torch.from_numpy(stepper(x_t.detach().contiguous().numpy(), past.detach().numpy(), position.numpy()))


def _outputs(kept: Kept, blocks: Sequence[Block]) -> tuple[Tensor, Tensor | None]:
    """``y (B, T, H)`` and the past after it."""
    y = torch.from_numpy(kept.y[:, :, : blocks[-1].sizes[1]]).transpose(0, 1)  # (T, B, Hp) to (B, T, H)
    return y, None if kept.after is None else torch.from_numpy(kept.after)


class _Blocks(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, x: Tensor, past: Tensor | None, *tensors: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """See ``run_blocks``."""
        ctx.plan, ctx.blocks = plan, plan.filters.blocks(tensors)
        ctx.kept = plan.forward(x, past, ctx.blocks, training=True)
        ctx.set_materialize_grads(False)
        y, after = _outputs(ctx.kept, ctx.blocks)
        ctx.save_for_backward(x, past, y, *tensors)
        return y, after

    @staticmethod
    def backward(ctx: Any, d_y: Tensor | None, d_after: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients.

        Raises:
            Refused: under ``create_graph=True``.
        """
        refuse_second_derivative()
        x, past, y, *tensors = ctx.saved_tensors  # raises if one was changed since
        plan, blocks = ctx.plan, ctx.blocks
        # The backward pass uses up what the forward pass kept: a second one over the same graph makes it anew.
        kept = ctx.kept or plan.forward(x, past, blocks, training=True)
        ctx.kept = None
        found = plan.backward(kept, past, blocks, torch.zeros_like(y) if d_y is None else d_y, d_after)
        d_past = None if found.past is None else torch.from_numpy(found.past)
        return None, torch.from_numpy(found.x).transpose(0, 1), d_past, *_flat(found, tensors)


def _flat(found: Gradients, tensors: Sequence[Tensor | None]) -> Iterator[Tensor | None]:
    """The gradients in the order and the shapes of the tensors."""
    arrays = (a for block in found.blocks for three in zip(block.V, block.g, block.b, strict=True) for a in three)
    for array, tensor in zip(arrays, tensors, strict=True):
        yield None if tensor is None else torch.from_numpy(array.reshape(tensor.shape))
