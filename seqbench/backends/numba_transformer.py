"""The Transformer's sublayers in the numba kernels, inside torch's autograd: all of them under one function.

Arrays go between torch and numba without copies. Dropout draws from torch's generator what ``nn.Dropout`` and the
attention of torch would draw, in their order; the kernels get the factors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from seqbench.backends.kernels import stack
from seqbench.backends.kernels import stepper as steps
from seqbench.backends.kernels.linear_layer import linear, linear_back
from seqbench.backends.kernels.stack import Call, Stack, Sublayer, Tape
from seqbench.backends.kernels.stepper import Stepper
from seqbench.backends.kernels.transformer import Parameters
from seqbench.backends.numba_arrays import refuse_others, refuse_second_derivative
from seqbench.backends.numba_threads import numba_threads

Pair = tuple[Tensor, Tensor]
"""Keys and values ``2 x (B, N, C, d)``."""


class Layers(NamedTuple):
    """The parameters of a stack.

    Attributes:
        sublayers: the kind of each, ``"self"``, ``"memory"`` or ``"feed-forward"``, and weight and bias of its
            normalisation, of its first linear layer and of its second.
        norm: weight and bias of the last normalisation, or nothing.
    """

    sublayers: list[tuple[str, tuple[Tensor, ...]]]
    norm: tuple[Tensor, ...]


class Context(NamedTuple):
    """What the attentions of one kind read besides the steps themselves: caches, or a memory.

    Attributes:
        pairs: one for each layer.
        counts: ``(B,)`` int64: how many steps are there.
    """

    pairs: Sequence[Pair]
    counts: Tensor


def run_stack(
    kernels: Stack,
    x: Tensor,
    layers: Layers,
    dropout: float = 0.0,
    lengths: Tensor | None = None,
    caches: Context | None = None,
    memory: Context | None = None,
) -> tuple[Tensor, tuple[Pair, ...]]:
    """All sublayers, differentiable once in ``x``, the parameters, the memories and the caches.

    Args:
        kernels: what runs them.
        x: ``(B, T, H)``.
        layers: their parameters.
        dropout: the probability; 0 outside training.
        lengths: ``(B,)`` int64, or None where every row is full.
        caches: of the steps before, if there are any.
        memory: what a decoder reads.

    Returns:
        ``y (B, T, H)``, 0 beyond ``lengths``, and the caches afterwards.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64, or they differ in that.
    """
    contexts = {"self": caches, "memory": memory}
    tensors = [x, *_tensors(layers, contexts), *layers.norm]
    refuse_others(*tensors)
    # The function cannot know: inside it there is never a gradient, and its ``needs_input_grad`` ignores ``no_grad``.
    training = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    start, seen = (None if context is None else context.counts.numpy() for context in (caches, memory))
    plan = _Plan(
        kernels,
        Call(None if lengths is None else lengths.numpy(), start, seen, training),
        torch.get_num_threads(),
        tuple(kind for kind, _ in layers.sublayers),
        frozenset(kind for kind, context in contexts.items() if context is not None),
        draw(x, layers, kernels.heads, contexts, dropout),
    )
    y, *after = _Stack.apply(plan, *tensors) if training else plan.forward(*tensors)[0]  # type: ignore[no-untyped-call]
    return y, tuple(zip(after[::2], after[1::2], strict=True))


def _tensors(layers: Layers, contexts: dict[str, Context | None]) -> list[Tensor]:
    """Each sublayer's parameters and its keys and values, if it has some."""
    pairs = {kind: iter(context.pairs) for kind, context in contexts.items() if context is not None}
    found: list[Tensor] = []
    for kind, parameters in layers.sublayers:
        found += [*parameters, *(next(pairs[kind]) if kind in pairs else ())]
    return found


Drops = tuple[Tensor | None, Tensor | None]


def draw(x: Tensor, layers: Layers, heads: int, contexts: dict[str, Context | None], p: float) -> list[Drops]:
    """Factors of the dropouts inside each sublayer and on its output, or None."""
    if not p:
        return [(None, None)] * len(layers.sublayers)
    (B, T, _) = x.shape
    found: list[Drops] = []
    for kind, parameters in layers.sublayers:
        context = contexts.get(kind)
        seen = T if context is None else context.pairs[0][0].shape[2]
        inside = (B, T, parameters[2].shape[0]) if kind == "feed-forward" else (B, heads, T, seen)
        found.append((factors(inside, p, x), factors(x.shape, p, x)))
    return found


def factors(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """What ``torch.nn.functional.dropout`` multiplies by: ``1 / (1 - p)``, or 0 with probability ``p``."""
    if p == 1:
        return like.new_zeros(shape)
    return like.new_empty(shape).bernoulli_(1 - p).div_(1 - p)


@dataclass(frozen=True)
class _Plan:
    """All that is no tensor of the graph; ``pairs`` names the kinds that have some."""

    kernels: Stack
    call: Call
    threads: int
    kinds: tuple[str, ...]
    pairs: frozenset[str]
    drops: list[Drops]

    def arrays(self, tensors: Sequence[Tensor]) -> tuple[list[Sublayer], Any]:
        """The sublayers as the kernels take them, and the last normalisation's parameters or None."""
        left, found = iter([tensor.detach().numpy() for tensor in tensors]), []
        for kind, drops in zip(self.kinds, self.drops, strict=True):
            p = Parameters(*islice(left, 6))
            pair = (next(left), next(left)) if kind in self.pairs else None
            found.append(Sublayer(kind, p, pair, *(None if d is None else d.numpy() for d in drops)))
        return found, tuple(left) or None

    def forward(self, x: Tensor, *tensors: Tensor) -> tuple[tuple[Tensor, ...], Tape, Any]:
        """``y`` and the caches, the tape, and the last normalisation's parameters."""
        sublayers, norm = self.arrays(tensors)
        rows = x.detach().numpy()
        with numba_threads(self.threads):
            y, caches, tape = self.kernels.forward(rows, sublayers, norm, self.call, self.threads)
        return (torch.from_numpy(y), *(torch.from_numpy(side) for pair in caches for side in pair)), tape, norm


class _Stack(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See ``run_stack``."""
        outputs, ctx.tape, ctx.norm = plan.forward(x, *tensors)
        ctx.save_for_backward(x, *tensors)
        ctx.plan = plan
        return outputs

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
        plan = ctx.plan
        with numba_threads(plan.threads):
            found = plan.kernels.backward(ctx.tape, dy.numpy(), pairs, ctx.norm, plan.threads)
        gradients = [found.x]
        for parameters, pair in zip(found.parameters, found.pairs, strict=True):
            gradients += [*parameters, *(pair or ())]
        return None, *(torch.from_numpy(g) for g in (*gradients, *(found.norm or ())))


def alignment(kernels: Stack, x: Tensor, layers: Layers, memory: Context) -> Tensor:
    """The weights of the last attention to a memory, averaged over the heads: ``(B, T, S)``."""
    refuse_others(x)
    call = Call(memory_lengths=memory.counts.numpy(), training=True)
    kinds = tuple(kind for kind, _ in layers.sublayers)
    plan = _Plan(kernels, call, 1, kinds, frozenset({"memory"}), [(None, None)] * len(kinds))
    sublayers, _ = plan.arrays(_tensors(layers, {"memory": memory}))
    _, _, tape = kernels.forward(x.detach().numpy(), sublayers, None, call)
    return torch.from_numpy(stack.alignment(tape))


# --- single steps ---------------------------------------------------------------------------------


class Front(NamedTuple):
    """What comes before the sublayers.

    Attributes:
        project: weight and bias of the input projection, or nothing.
        scale: a factor.
        table: ``(P, H)`` of positions, or None.
        turning: positions are sines and cosines.
    """

    project: tuple[Tensor, ...]
    scale: float
    table: Tensor | None
    turning: bool


_STEPPERS: WeakKeyDictionary[nn.Module, tuple[list[int], Stepper]] = WeakKeyDictionary()


def stepper_of(core: nn.Module, kernels: Stack, front: Front, layers: Layers) -> Stepper:
    """The stepper of a core, made anew when its parameters lie elsewhere than they did.

    Its arrays are views: what is written into a parameter is seen. And while they live, nothing else can lie there.
    """
    table = () if front.table is None else (front.table,)
    tensors = [*front.project, *table, *layers.norm, *(p for _, group in layers.sublayers for p in group)]
    places = [p.data_ptr() for p in tensors]
    known = _STEPPERS.get(core)
    if known is None or known[0] != places:
        known = _STEPPERS[core] = (places, _stepper(kernels, front, layers))
    return known[1]


def _stepper(kernels: Stack, front: Front, layers: Layers) -> Stepper:
    def arrays(tensors: Sequence[Tensor]) -> list[Any]:
        return [tensor.detach().numpy() for tensor in tensors]

    sublayers = [(kind, Parameters(*arrays(group))) for kind, group in layers.sublayers]
    empty = np.empty(0, sublayers[0][1].norm_w.dtype)
    W, b = arrays(front.project) or (empty, empty)
    (table,) = [empty] if front.table is None else arrays([front.table])
    return Stepper(
        kernels, steps.Front(W, b, front.scale, table, front.turning), sublayers, tuple(arrays(layers.norm)) or None
    )  # fmt: skip


def run_step(stepper: Stepper, x: Tensor, caches: Context, memory: Context | None) -> Tensor:
    """One step of each sequence without gradient: ``x (B, D)`` to ``y (B, H)``, keys and values into the caches.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64, or they differ in that.
    """
    refuse_others(x, *(keys for keys, _ in caches.pairs))
    own = [(keys.detach().numpy(), values.detach().numpy()) for keys, values in caches.pairs]
    read = (
        None if memory is None else [(keys.detach().numpy(), values.detach().numpy()) for keys, values in memory.pairs]
    )
    seen = None if memory is None else memory.counts.numpy()
    return torch.from_numpy(stepper.step(x.detach().contiguous().numpy(), own, caches.counts.numpy(), read, seen))


# --- a linear layer alone -------------------------------------------------------------------------


class FastLinear(nn.Linear):
    """``nn.Linear`` on the kernels."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., K)`` to ``(..., N)``."""
        refuse_others(x, self.weight)
        y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, W)
        return torch.from_numpy(linear(x.detach().numpy(), W.detach().numpy(), b.detach().numpy()))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        refuse_second_derivative()
        x, W = ctx.saved_tensors
        found = linear_back(x.detach().numpy(), W.detach().numpy(), dy.numpy())
        return tuple(torch.from_numpy(g) for g in found)
