"""Transformer in numba: the parameters of the torch core, every sublayer run by the kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqbench.api import Memory, State
from seqbench.backends.kernels.stack import Stack
from seqbench.backends.numba_transformer import Part, alignment, run_stack
from seqbench_models.transformer import torch_core


class Fast(torch_core.Core):
    """Put in front of a torch core among the bases of a class, runs its layers in the kernels."""

    def _whole(self, x: Tensor, lengths: Tensor | None, memory: Any = None) -> Tensor:
        h = self._embed(x, torch.arange(x.shape[1]))  # (B, T, H)
        y, _ = self._layers(h, lengths, memory)
        return y

    def _chunk(self, x: Tensor, state: Any, lengths: Tensor | None, memory: Any = None) -> tuple[Tensor, State]:
        start, caches = state
        T = x.shape[1]
        h = self._embed(x, start.unsqueeze(1) + torch.arange(T))  # (B, T, H)
        y, after = self._layers(h, lengths, memory, caches, start)
        return y, (start + (T if lengths is None else lengths), after)

    def _one(self, x_t: Tensor, state: Any, memory: Any = None) -> tuple[Tensor, State]:
        y, (start, after) = self._chunk(x_t.unsqueeze(1), state, None, memory)
        _, caches = state
        for old, new in zip(caches, after, strict=True):
            for a, b in zip(old, new, strict=True):
                a.copy_(b)
        return y.squeeze(1), (start, caches)  # (B, H)

    def _layers(self, h: Tensor, lengths: Tensor | None, memory: Any, caches: Any = None, start: Any = None) -> Any:
        dropout = self.dropout.p if self.training else 0.0
        seen = None if memory is None else memory[1].sum((1, 2, 3))
        return run_stack(
            self._kernels(), h, self._parts(memory, caches), tuple(self.norm.parameters()), dropout, lengths, start, seen
        )

    def _kernels(self) -> Stack:
        o = self.options
        return Stack(o.heads, o.norm == "pre", o.activation == "gelu", self.spec.causal)

    def _parts(self, memory: Any, caches: Any = None) -> list[Part]:
        """All sublayers."""
        found = []
        for n, layer in enumerate(self._decoder_layers()):
            pair = None if caches is None else caches[n]
            found.append(Part("self", of(layer.norm_attention, layer.qkv, layer.out), pair))
            if memory is not None:
                found.append(Part("memory", of(layer.norm_cross, layer.cross.query, layer.cross.out), memory[0][n]))
            found.append(Part("feed-forward", of(layer.norm_feed_forward, layer.hidden, layer.back)))
        return found

    def _decoder_layers(self) -> Any:
        return self.layers


def of(norm: nn.LayerNorm, first: nn.Linear, second: nn.Linear) -> tuple[Tensor, ...]:
    """The parameters of a sublayer."""
    return norm.weight, norm.bias, first.weight, first.bias, second.weight, second.bias


class Core(Fast):
    """The Transformer on the fast kernels."""


class Decoder(Fast, torch_core.Decoder):
    """Its decoder."""

    def explain(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        """``"alignment" (B, U, S)``: the last layer's attention to the memory, averaged over its heads."""
        memory, _ = state
        h = self._embed(x, torch.arange(x.shape[1]))  # (B, U, H)
        return {"alignment": alignment(self._kernels(), h, self._parts(memory), memory[1].sum((1, 2, 3)))}
