"""Transformer in numba: the torch core's parameters, run by the fast kernels, or its operations in plain loops."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from seqbench.api import Memory, State
from seqbench.backends.kernels.stack import Stack
from seqbench.backends.numba_plain_transformer import (
    PlainGELU,
    PlainLayerNorm,
    PlainLinear,
    PlainReLU,
    plain_attention,
)
from seqbench.backends.numba_transformer import (
    Context,
    FastLinear,
    Front,
    Layers,
    alignment,
    run_stack,
    run_step,
    stepper_of,
)
from seqbench_models.transformer import torch_core


class Core(torch_core.Core):
    """The Transformer on the fast kernels, which run all its layers in one call.

    They look after the linear layers of all sublayers; the input projection and a memory's are fast ones of their own.
    """

    operations = torch_core.Operations(linear=FastLinear)

    def _whole(self, x: Tensor, lengths: Tensor | None, memory: Any = None) -> Tensor:
        h = self._embed(x, torch.arange(x.shape[1]))  # (B, T, H)
        y, _ = run_stack(self._kernels(), h, self._layers(), self._dropout(), lengths, None, memory and read(memory))
        return y

    def _chunk(self, x: Tensor, state: Any, lengths: Tensor | None, memory: Any = None) -> tuple[Tensor, State]:
        start, caches = state
        T = x.shape[1]
        h = self._embed(x, start.unsqueeze(1) + torch.arange(T))  # (B, T, H)
        positions = torch_core.positions_after(state, T, lengths)
        contexts = Context(caches, start), memory and read(memory)
        y, after = run_stack(self._kernels(), h, self._layers(), self._dropout(), lengths, *contexts)
        return y, (positions, after)

    def _one(self, x_t: Tensor, state: Any, memory: Any = None) -> tuple[Tensor, State]:
        """With dropout a chunk of one step, which draws what it needs."""
        if self._dropout():
            y, state = self._chunk(x_t.unsqueeze(1), state, None, memory)
            return y.squeeze(1), state  # (B, H)
        start, caches = state
        caches = tuple((keys.contiguous(), values.contiguous()) for keys, values in caches)
        stepper = stepper_of(self, self._kernels(), self._front(), self._layers())
        return run_step(stepper, x_t, Context(caches, start), memory and read(memory)), (start + 1, caches)  # (B, H)

    def _sines(self, position: Tensor, like: Tensor) -> Tensor:
        if position.dim() == 1:  # 0, 1, ...: a whole sequence
            return first_sines(len(position), self.spec.width, like.dtype)
        return super()._sines(position, like)

    def _dropout(self) -> float:
        return self.dropout.p if self.training else 0.0

    def _kernels(self) -> Stack:
        o = self.options
        return Stack(o.heads, o.norm == "pre", o.activation == "gelu", self.spec.causal)

    def _front(self) -> Front:
        o = self.options
        scale = math.sqrt(self.spec.width) if o.embedding_scale else 1.0
        return Front(tuple(self.project.parameters()), scale, self.positions, o.positions == "sinusoidal")

    def _layers(self) -> Layers:
        found = []
        for layer in self._decoder_layers():
            found.append(("self", of(layer.norm_attention, layer.qkv, layer.out)))
            if self.spec.memory_size:
                found.append(("memory", of(layer.norm_cross, layer.cross.query, layer.cross.out)))
            found.append(("feed-forward", of(layer.norm_feed_forward, layer.hidden, layer.back)))
        last = self.norm
        return Layers(found, (last.weight, last.bias) if isinstance(last, nn.LayerNorm) else ())

    def _decoder_layers(self) -> Any:
        return self.layers


class Decoder(Core, torch_core.Decoder):
    """Its decoder."""

    def start(self, memory: Memory, capacity: int) -> State:
        """As torch's; for single steps keys and values are put in the order in which these read them."""
        state: Any = super().start(memory, capacity)
        (crosses, mask), own = state
        if capacity:
            crosses = tuple((keys.contiguous(), values.contiguous()) for keys, values in crosses)
        return (crosses, mask), own

    def explain(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        """``"alignment" (B, U, S)``: the last layer's attention to the memory, averaged over its heads."""
        memory, _ = state
        h = self._embed(x, torch.arange(x.shape[1]))  # (B, U, H)
        return {"alignment": alignment(self._kernels(), h, self._layers(), read(memory))}


@lru_cache(maxsize=8)
def first_sines(T: int, H: int, dtype: torch.dtype) -> Tensor:
    """``(T, H)``; to make them takes a tenth of a short sequence's time."""
    with torch.inference_mode(False):
        return torch_core.sinusoidal(torch.arange(T), H, torch.empty(0, dtype=dtype))


def read(memory: Any) -> Context:
    """A decoder's keys and values, and how many steps of each row are valid; they come first."""
    return Context(memory[0], memory[1].sum((1, 2, 3)))


def of(norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, ...]:
    """The parameters of a sublayer."""
    return norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias


# --- the reference --------------------------------------------------------------------------------

PLAIN = torch_core.Operations(PlainLinear, PlainLayerNorm, PlainReLU, PlainGELU, plain_attention)


class Reference(torch_core.Core):
    """The torch core, each of its operations in plain loops."""

    operations = PLAIN


class ReferenceDecoder(torch_core.Decoder):
    """Its decoder."""

    operations = PLAIN
