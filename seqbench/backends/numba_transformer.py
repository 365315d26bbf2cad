"""The Transformer's sublayers in the numba kernels, inside torch's autograd: all of them under one function.

Arrays go between torch and numba without copies. Dropout draws from torch's generator what ``nn.Dropout`` and the
attention of torch would draw, in their order; the kernels get the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from seqbench.backends.kernels import stack
from seqbench.backends.kernels.stack import Call, Stack, Sublayer
from seqbench.backends.kernels.transformer import Parameters
from seqbench.backends.numba_arrays import refuse_others, refuse_second_derivative
from seqbench.backends.numba_threads import numba_threads

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Part:
    """A sublayer.

    Attributes:
        kind: ``"self"``, ``"memory"`` or ``"feed-forward"``.
        parameters: weight and bias of its normalisation, of its first linear layer and of its second.
        pair: keys and values ``2 x (B, N, C, d)`` of a memory or a cache.
    """

    kind: str
    parameters: tuple[Tensor, ...]
    pair: Pair | None = None


def run_stack(
    kernels: Stack,
    x: Tensor,
    parts: Sequence[Part],
    norm: tuple[Tensor, ...],
    dropout: float = 0.0,
    lengths: Tensor | None = None,
    start: Tensor | None = None,
    memory_lengths: Tensor | None = None,
) -> tuple[Tensor, tuple[Pair, ...]]:
    """All sublayers, differentiable once in ``x``, the parameters, the memories and the caches.

    Args:
        kernels: what runs them.
        x: ``(B, T, H)``.
        parts: the sublayers in order.
        norm: weight and bias of the last normalisation, or nothing.
        dropout: the probability; 0 outside training.
        lengths: ``(B,)`` int64, or None where every row is full.
        start: ``(B,)`` int64, the steps in the caches, if there are caches.
        memory_lengths: ``(B,)`` int64, of the memory, if there is one.

    Returns:
        ``y (B, T, H)``, 0 beyond ``lengths``, and the caches afterwards.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64.
    """
    refuse_others(x)
    drops = [draw(x, part, kernels.heads, dropout) for part in parts]
    counts = [None if n is None else n.numpy() for n in (lengths, start, memory_lengths)]
    call = Call(*counts, threads=torch.get_num_threads())
    plan = _Plan(kernels, call, tuple(part.kind for part in parts), tuple(part.pair is not None for part in parts), drops)
    tensors = [tensor for part in parts for tensor in (*part.parameters, *(part.pair or ()))]
    y, *caches = _Stack.apply(plan, x, *tensors, *norm)  # type: ignore[no-untyped-call]
    return y, tuple(zip(caches[::2], caches[1::2], strict=True))


def draw(x: Tensor, part: Part, heads: int, p: float) -> tuple[Tensor | None, Tensor | None]:
    """Factors of the dropouts inside a sublayer and on its output, or None."""
    if not p:
        return None, None
    B, T, H = x.shape
    if part.kind == "feed-forward":
        inside: tuple[int, ...] = (B, T, part.parameters[2].shape[0])
    else:
        inside = (B, heads, T, T if part.pair is None else part.pair[0].shape[2])
    return factors(inside, p, x), factors((B, T, H), p, x)


def factors(shape: tuple[int, ...], p: float, like: Tensor) -> Tensor:
    """What ``torch.nn.functional.dropout`` multiplies by: ``1 / (1 - p)``, or 0 with probability ``p``."""
    if p == 1:
        return like.new_zeros(shape)
    return like.new_empty(shape).bernoulli_(1 - p).div_(1 - p)


@dataclass(frozen=True)
class _Plan:
    """All that is no tensor of the graph."""

    kernels: Stack
    call: Call
    kinds: tuple[str, ...]
    has_pair: tuple[bool, ...]
    drops: list[tuple[Tensor | None, Tensor | None]]

    def sublayers(self, tensors: Sequence[Tensor]) -> tuple[list[Sublayer], tuple[Any, ...]]:
        """As the kernels take them, and the last normalisation's parameters."""
        arrays = [tensor.detach().numpy() for tensor in tensors]
        found, at = [], 0
        for kind, has_pair, (inside, outside) in zip(self.kinds, self.has_pair, self.drops, strict=True):
            p = Parameters(*arrays[at : at + 6])
            at += 6
            pair = (arrays[at], arrays[at + 1]) if has_pair else None
            at += 2 if has_pair else 0
            found.append(Sublayer(kind, p, pair, *(None if d is None else d.numpy() for d in (inside, outside))))
        return found, tuple(arrays[at:])


class _Stack(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See ``run_stack``."""
        sublayers, norm = plan.sublayers(tensors)
        call = replace(plan.call, training=any(ctx.needs_input_grad))
        with numba_threads(call.threads):
            y, caches, tape = plan.kernels.forward(x.detach().numpy(), sublayers, norm or None, call)
        if call.training:
            ctx.save_for_backward(x, *tensors)
            ctx.plan, ctx.tape, ctx.norm = plan, tape, norm
        return torch.from_numpy(y), *(torch.from_numpy(side) for pair in caches for side in pair)

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *d_caches: Tensor) -> tuple[Tensor | None, ...]:
        """All gradients.

        Raises:
            Refused: under ``create_graph=True``.
        """
        refuse_second_derivative()
        _ = ctx.saved_tensors  # raises if one of them was changed meanwhile; the tape has them as arrays
        sides = [side.numpy() for side in d_caches]
        pairs = list(zip(sides[::2], sides[1::2], strict=True))
        with numba_threads(ctx.plan.call.threads):
            found = ctx.plan.kernels.backward(ctx.tape, dy.numpy(), pairs, ctx.norm or None)
        gradients = [found.x]
        for parameters, pair in zip(found.parameters, found.pairs, strict=True):
            gradients += [*parameters, *(pair or ())]
        gradients += found.norm or ()
        return None, *(torch.from_numpy(g) for g in gradients)


def alignment(kernels: Stack, x: Tensor, parts: Sequence[Part], memory_lengths: Tensor) -> Tensor:
    """The weights of the last attention to a memory, averaged over the heads: ``(B, T, S)``."""
    plan = _Plan(
        kernels,
        Call(memory_lengths=memory_lengths.numpy(), training=True, threads=torch.get_num_threads()),
        tuple(part.kind for part in parts),
        tuple(part.pair is not None for part in parts),
        [(None, None)] * len(parts),
    )
    sublayers, _ = plan.sublayers([tensor for part in parts for tensor in (*part.parameters, *(part.pair or ()))])
    with numba_threads(plan.call.threads):
        _, _, tape = kernels.forward(x.detach().numpy(), sublayers, None, plan.call)
    return torch.from_numpy(stack.alignment(tape))
