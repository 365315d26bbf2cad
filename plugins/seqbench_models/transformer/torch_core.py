"""Transformer on torch: whole sequences without a cache, chunks and single steps with cached keys and values.

``Core`` is an encoder or a language model; ``Decoder`` is the same with attention to a memory in each layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seqbench.api import CoreSpec, Memory, Refused, State
from seqbench.backends.torch_sequence import last_valid, valid, zero_beyond
from seqbench_models.transformer import Options, width_multiple


@dataclass(frozen=True)
class Operations:
    """What computes; each takes what torch's takes, and a module has the parameters of torch's.

    Attributes:
        linear: a module.
        layer_norm: a module.
        relu: a module.
        gelu: a module.
        attention: a function.
    """

    linear: type[nn.Linear] = nn.Linear
    layer_norm: type[nn.LayerNorm] = nn.LayerNorm
    relu: type[nn.Module] = nn.ReLU
    gelu: type[nn.Module] = nn.GELU
    attention: Callable[..., Tensor] = scaled_dot_product_attention


Cache = tuple[Tensor, Tensor] | None
Attend = Callable[[Callable[..., Tensor], Tensor, Tensor, Tensor, float], tuple[Tensor, Cache]]
"""``attend(attention, q, k, v, dropout)``: each ``(B, N, T, d)`` to the heads ``(B, N, T, d)`` and the cache after."""


def attend_plain(
    attention: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float, causal: bool, mask: Tensor | None
) -> Any:
    """Attention within one sequence: causal, or everywhere that ``mask (B, 1, 1, T)`` allows."""
    return attention(q, k, v, mask, dropout, is_causal=causal), None


def attend_chunk(
    attention: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float, cache: Any, start: Tensor, lengths: Tensor | None
) -> Any:
    """Attention of the next ``T`` steps, row ``b`` from position ``start[b]`` on, to themselves and to the cache."""
    T = q.shape[2]
    count = torch.full_like(start, T) if lengths is None else lengths.to(start.device)
    keys, values = (write(old, new, start, count) for old, new in zip(cache, (k, v), strict=True))  # (B, N, C, d)
    position = start.unsqueeze(1) + torch.arange(T, device=q.device)  # (B, T)
    seen = torch.arange(keys.shape[2], device=q.device) <= position.unsqueeze(2)  # (B, T, C)
    heads = attention(q, keys, values, seen.unsqueeze(1), dropout)
    return heads, (keys, values)


def positions_after(state: Any, T: int, lengths: Tensor | None) -> Tensor:
    """The positions ``(B,)`` after the next ``T`` steps.

    Raises:
        ValueError: the caches have no room for them, and would lose them.
    """
    start, caches = state
    after: Tensor = start + (T if lengths is None else lengths.to(start.device))
    capacity = caches[0][0].shape[2]
    if not after.is_meta and int(after.max()) > capacity:
        raise ValueError(f"the cache is full: it was made for {capacity} steps, and this chunk ends at {after.max()}")
    return after


def write(cache: Tensor, new: Tensor, start: Tensor, count: Tensor) -> Tensor:
    """``cache (B, N, C, d)`` with the first ``count[b]`` steps of ``new (B, N, T, d)`` at ``start[b]``.

    Reads from ``new`` rather than writes to the cache: padding then has no place to go to, and gradients flow.
    """
    step = torch.arange(cache.shape[2], device=cache.device) - start.unsqueeze(1)  # (B, C): which new step lies there
    fresh = (step >= 0) & (step < count.unsqueeze(1))
    index = step.clamp(0, new.shape[2] - 1)[:, None, :, None].expand_as(cache)
    return torch.where(fresh[:, None, :, None], new.gather(2, index), cache)


def attend_step(
    attention: Any, q: Tensor, k: Tensor, v: Tensor, dropout: float, cache: Any, start: Tensor, seen: Tensor
) -> Any:
    """Attention of one step to the cache, which it overwrites in place: ``q (B, N, 1, d)``, ``seen (B, 1, 1, C)``."""
    keys, values = cache
    rows = torch.arange(q.shape[0], device=q.device)
    keys[rows, :, start] = k[:, :, 0]
    values[rows, :, start] = v[:, :, 0]
    return attention(q, keys, values, seen, dropout), cache


Cross = tuple[Tensor, Tensor]
"""Keys and values of a memory in one layer: ``2 x (B, N, S, d)``."""


class CrossAttention(nn.Module):
    """Attention of a target's steps to a memory of width ``M``."""

    def __init__(self, width: int, memory_size: int, heads: int, operations: Operations) -> None:
        super().__init__()
        self.heads, self.attention, linear = heads, operations.attention, operations.linear
        self.query, self.out = linear(width, width), linear(width, width)
        self.key_value = linear(memory_size, 2 * width)
        for module in (self.query, self.key_value):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        nn.init.zeros_(self.out.bias)

    def remember(self, memory: Tensor) -> Cross:
        """``memory (B, S, M)`` to its keys and values."""
        key, value = self.key_value(memory).chunk(2, dim=-1)  # 2 x (B, S, H)
        return self._split(key), self._split(value)

    def forward(self, x: Tensor, cross: Cross, valid: Tensor, dropout: float) -> Tensor:
        """``x (B, U, H)`` to the same shape; ``valid (B, 1, 1, S)``."""
        heads = self.attention(self._split(self.query(x)), *cross, valid, dropout)  # (B, N, U, d)
        return self.out(heads.transpose(1, 2).reshape(x.shape))  # type: ignore[no-any-return]  # (B, U, H)

    def weights(self, x: Tensor, cross: Cross, valid: Tensor) -> Tensor:
        """The attention itself, averaged over the heads: ``(B, U, S)``."""
        q = self._split(self.query(x))  # (B, N, U, d)
        scores = q @ cross[0].transpose(2, 3) / math.sqrt(q.shape[-1])  # (B, N, U, S)
        return scores.masked_fill(~valid, -torch.inf).softmax(-1).mean(1)

    def _split(self, x: Tensor) -> Tensor:
        B, T, H = x.shape
        return x.view(B, T, self.heads, H // self.heads).transpose(1, 2)  # (B, N, T, d)


class Layer(nn.Module):
    """Self-attention, attention to a memory (in a decoder) and feed-forward.

    Each has a residual and a layer normalisation before or after.
    """

    def __init__(self, spec: CoreSpec, options: Options, operations: Operations) -> None:
        super().__init__()
        H, linear, norm = spec.width, operations.linear, operations.layer_norm
        hidden = options.feed_forward or 4 * H
        self.heads, self.pre, self.attention = options.heads, options.norm == "pre", operations.attention
        self.qkv, self.out = linear(H, 3 * H), linear(H, H)
        self.hidden, self.back = linear(H, hidden), linear(hidden, H)
        self.norm_attention, self.norm_feed_forward = norm(H), norm(H)
        self.cross, self.norm_cross = None, None
        if spec.memory_size:
            self.cross, self.norm_cross = CrossAttention(H, spec.memory_size, options.heads, operations), norm(H)
        self.dropout = nn.Dropout(spec.dropout)
        self.activation = operations.relu() if options.activation == "relu" else operations.gelu()
        self._initialise()

    def _initialise(self) -> None:
        """As ``nn.MultiheadAttention`` does; the rest keeps the initialisation of ``nn.Linear``."""
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, attend: Attend, cross: Cross | None, valid: Tensor | None) -> tuple[Tensor, Cache]:
        """``x (B, T, H)`` to the same shape, and what ``attend`` keeps; a decoder's attends to ``cross`` too."""
        cache: Cache = None

        def to_itself(h: Tensor) -> Tensor:
            nonlocal cache
            mixed, cache = self._attention(h, attend)
            return mixed

        x = self._sublayer(x, self.norm_attention, to_itself)
        if self.cross is not None and self.norm_cross is not None:
            p = self.dropout.p if self.training else 0.0
            x = self._sublayer(x, self.norm_cross, partial(self.cross, cross=cross, valid=valid, dropout=p))
        return self._sublayer(x, self.norm_feed_forward, self._feed_forward), cache

    def _sublayer(self, x: Tensor, norm: nn.Module, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``x + f(LN(x))`` or ``LN(x + f(x))``."""
        if self.pre:
            return x + self.dropout(function(norm(x)))  # type: ignore[no-any-return]
        return norm(x + self.dropout(function(x)))  # type: ignore[no-any-return]

    def _attention(self, x: Tensor, attend: Attend) -> tuple[Tensor, Cache]:
        B, T, H = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.heads, H // self.heads)  # (B, T, 3, N, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x (B, N, T, d)
        heads, cache = attend(self.attention, q, k, v, self.dropout.p if self.training else 0.0)
        return self.out(heads.transpose(1, 2).reshape(B, T, H)), cache  # (B, T, H)

    def _feed_forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.back(self.dropout(self.activation(self.hidden(x))))  # (B, T, 4H) to (B, T, H)
        return y


class Core(nn.Module):
    """The Transformer; see the card for its equations. A subclass may exchange what computes, ``operations``.

    State: ``(positions (B,), ((keys, values) of each layer))``, keys and values ``(B, N, capacity, H / N)``.
    """

    operations = Operations()

    def __init__(self, spec: CoreSpec, options: Options) -> None:
        super().__init__()
        _check_width(spec, options)
        H, do = spec.width, self.operations
        self.spec, self.options, self.output_size = spec, options, H
        learned = options.positions == "learned"
        self.max_length: int | None = spec.train_length if learned else None
        self.project = do.linear(spec.input_size, H) if spec.input_size != H else nn.Identity()
        self.positions = nn.Parameter(torch.randn(spec.train_length, H) / math.sqrt(2)) if learned else None
        self.dropout = nn.Dropout(spec.dropout)
        self.layers = nn.ModuleList(Layer(spec, options, do) for _ in range(spec.layers))
        self.norm = do.layer_norm(H) if options.norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A whole sequence or the next chunk of one; see ``seqbench.api.Core``."""
        if state is None:
            return zero_beyond(self._whole(x, lengths), lengths), None
        self._refuse_state()
        return self._chunk(x, state, lengths)

    def _chunk(self, x: Tensor, state: Any, lengths: Tensor | None, memory: Any = None) -> tuple[Tensor, State]:
        start, caches = state
        T = x.shape[1]
        h = self._embed(x, start.unsqueeze(1) + torch.arange(T, device=x.device))  # (B, T, H)
        positions = positions_after(state, T, lengths)
        h, after = self._run(h, [partial(attend_chunk, cache=c, start=start, lengths=lengths) for c in caches], memory)
        return zero_beyond(h, lengths), (positions, after)

    def _whole(self, x: Tensor, lengths: Tensor | None, memory: Any = None) -> Tensor:
        """Causal attention needs no padding mask: padded keys lie in the future of every valid step."""
        T, mask = x.shape[1], None
        if lengths is not None and not self.spec.causal:
            mask = valid(lengths, T, x.device)[:, None, None, :]  # (B, 1, 1, T)
        h = self._embed(x, torch.arange(T, device=x.device))  # (B, T, H)
        attends = [partial(attend_plain, causal=self.spec.causal, mask=mask)] * len(self.layers)
        return self._run(h, attends, memory)[0]

    def _embed(self, x: Tensor, position: Tensor) -> Tensor:
        """``x (B, T, D)`` with its places ``position (T,)`` or ``(B, T)``: ``(B, T, H)``."""
        h = self.project(x)  # (B, T, H)
        if self.options.embedding_scale:
            h = h * math.sqrt(self.spec.width)
        if self.positions is not None:
            # A padded step of the last chunk may lie beyond the table; its output is zeroed anyway.
            h = h + self.positions[position.clamp(max=self.spec.train_length - 1)]
        elif self.options.positions == "sinusoidal":
            h = h + self._sines(position, h)
        return self.dropout(h)  # type: ignore[no-any-return]

    def _sines(self, position: Tensor, like: Tensor) -> Tensor:
        return sinusoidal(position, self.spec.width, like)

    def _run(self, h: Tensor, attends: list[Any], memory: Any = None) -> tuple[Tensor, tuple[Cache, ...]]:
        """All layers; ``memory`` is a decoder's: each layer's keys and values, and which steps are valid."""
        crosses, valid_steps = ([None] * len(self.layers), None) if memory is None else memory
        caches = []
        for layer, attend, cross in zip(self.layers, attends, crosses, strict=True):
            h, cache = layer(h, attend, cross, valid_steps)
            caches.append(cache)
        y: Tensor = self.norm(h)
        return y, tuple(caches)

    def initial_state(self, B: int, capacity: int) -> State:
        """Position 0 and an empty cache of ``capacity`` steps."""
        self._refuse_state()
        N, like = self.options.heads, next(self.parameters())
        shape = (B, N, capacity, self.spec.width // N)
        caches = tuple((like.new_zeros(shape), like.new_zeros(shape)) for _ in self.layers)
        return torch.zeros(B, dtype=torch.int64, device=like.device), caches

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step without gradient, ``x_t (B, D)`` to ``y_t (B, H)``; writes into the state's cache."""
        return self._one(x_t, state)

    def _one(self, x_t: Tensor, state: Any, memory: Any = None) -> tuple[Tensor, State]:
        start, caches = state
        C = caches[0][0].shape[2]
        seen = (torch.arange(C, device=start.device) <= start.unsqueeze(1))[:, None, None, :]  # (B, 1, 1, C)
        h = self._embed(x_t.unsqueeze(1), start.unsqueeze(1))  # (B, 1, H)
        h, after = self._run(h, [partial(attend_step, cache=c, start=start, seen=seen) for c in caches], memory)
        return h.squeeze(1), (start + 1, after)  # (B, H)

    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        """Causal: the last valid step, the only one that has seen all. Otherwise the mean of the valid steps."""
        if self.spec.causal:
            return last_valid(y, lengths)
        if lengths is None:
            return y.mean(1)
        return y.sum(1) / lengths.to(y).unsqueeze(1)  # beyond lengths y is 0

    def flops(self, B: int, T: int) -> int:
        """Four projections, two products of attention over all ``T x T`` pairs (masked or not), feed-forward."""
        H = self.spec.width
        hidden = self.options.feed_forward or 4 * H
        layer = 2 * B * T * (4 * H * H + 2 * H * hidden) + 4 * B * T * T * H
        front = 2 * B * T * self.spec.input_size * H if self.spec.input_size != H else 0
        return front + self.spec.layers * layer

    def _refuse_state(self) -> None:
        if not self.spec.causal:
            raise Refused("a bidirectional core has no state: it must read the whole sequence before its first output")


class Decoder(Core):
    """The Transformer's decoder (an ``api.Decoder``): masked self-attention, attention to the memory, feed-forward.

    State: ``((keys and values of each layer, valid (B, 1, 1, S)), own)``, ``own`` as the core's state, or None where
    a whole target is about to be read.
    """

    def start(self, memory: Memory, capacity: int) -> State:
        """The memory's keys and values, computed once; see ``seqbench.api.Decoder``."""
        h = memory.outputs  # (B, S, M)
        lengths = torch.full(h.shape[:1], h.shape[1]) if memory.lengths is None else memory.lengths
        mask = valid(lengths, h.shape[1], h.device)[:, None, None, :]  # (B, 1, 1, S)
        crosses = tuple(layer.cross.remember(h) for layer in self._decoder_layers())
        return (crosses, mask), self.initial_state(h.shape[0], capacity) if capacity else None

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A whole target, or the next chunk of one; see ``seqbench.api.Decoder``."""
        memory, own = state
        if own is None:
            return zero_beyond(self._whole(x, lengths, memory), lengths), None
        y, own = self._chunk(x, own, lengths, memory)
        return y, (memory, own)

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step without gradient, ``x_t (B, D)`` to ``y_t (B, H)``; writes into the state's cache."""
        memory, own = state
        y_t, own = self._one(x_t, own, memory)
        return y_t, (memory, own)

    def explain(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        """``"alignment" (B, U, S)``: the last layer's attention to the memory, averaged over its heads."""
        (crosses, mask), _ = state
        last, inputs = self._decoder_layers()[-1].cross, []
        watch = last.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        try:
            self._whole(x, None, (crosses, mask))
        finally:
            watch.remove()
        return {"alignment": last.weights(inputs[0], crosses[-1], mask)}

    def flops(self, B: int, T: int, S: int = 0) -> int:
        """The core's, and in each layer two projections of the target, two of the memory, two products of attention."""
        H, M = self.spec.width, self.spec.memory_size
        return super().flops(B, T) + self.spec.layers * (4 * B * T * H * H + 4 * B * S * M * H + 4 * B * T * S * H)

    def _decoder_layers(self) -> Any:
        return self.layers


def sinusoidal(position: Tensor, H: int, like: Tensor) -> Tensor:
    """Sines and cosines in turn, of wavelengths ``2 pi`` to ``20000 pi``: ``position (...)`` to ``(..., H)``."""
    rate = torch.exp(torch.arange(0, H, 2, device=like.device, dtype=like.dtype) * (-math.log(10000.0) / H))  # (H/2,)
    angle = position.to(like).unsqueeze(-1) * rate  # (..., H/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (..., H)


def _check_width(spec: CoreSpec, options: Options) -> None:
    multiple = width_multiple(options)
    if spec.width % multiple:
        raise Refused(f"transformer: width {spec.width} is not a multiple of {multiple} (heads={options.heads}, even)")
