"""Transformer on torch: whole sequences without a cache, chunks and single steps with cached keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from seqbench.api import CoreSpec, Refused, State
from seqbench.backends.torch_sequence import last_valid, valid, zero_beyond
from seqbench_models.transformer import Options, width_multiple

Cache = tuple[Tensor, Tensor] | None
Attend = Callable[[Tensor, Tensor, Tensor, float], tuple[Tensor, Cache]]
"""``attend(q, k, v, dropout)``: each ``(B, N, T, d)`` to the heads ``(B, N, T, d)`` and the cache after."""


def attend_plain(q: Tensor, k: Tensor, v: Tensor, dropout: float, causal: bool, mask: Tensor | None) -> Any:
    """Attention within one sequence: causal, or everywhere that ``mask (B, 1, 1, T)`` allows."""
    return scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=causal), None


def attend_chunk(
    q: Tensor, k: Tensor, v: Tensor, dropout: float, cache: Any, start: Tensor, lengths: Tensor | None
) -> Any:
    """Attention of the next ``T`` steps, row ``b`` from position ``start[b]`` on, to themselves and to the cache."""
    T = q.shape[2]
    count = torch.full_like(start, T) if lengths is None else lengths.to(start.device)
    keys, values = (write(old, new, start, count) for old, new in zip(cache, (k, v), strict=True))  # (B, N, C, d)
    position = start.unsqueeze(1) + torch.arange(T, device=q.device)  # (B, T)
    seen = torch.arange(keys.shape[2], device=q.device) <= position.unsqueeze(2)  # (B, T, C)
    heads = scaled_dot_product_attention(q, keys, values, seen.unsqueeze(1), dropout)
    return heads, (keys, values)


def write(cache: Tensor, new: Tensor, start: Tensor, count: Tensor) -> Tensor:
    """``cache (B, N, C, d)`` with the first ``count[b]`` steps of ``new (B, N, T, d)`` at ``start[b]``.

    Reads from ``new`` rather than writes to the cache: padding then has no place to go to, and gradients flow.
    """
    step = torch.arange(cache.shape[2], device=cache.device) - start.unsqueeze(1)  # (B, C): which new step lies there
    fresh = (step >= 0) & (step < count.unsqueeze(1))
    index = step.clamp(0, new.shape[2] - 1)[:, None, :, None].expand_as(cache)
    return torch.where(fresh[:, None, :, None], new.gather(2, index), cache)


def attend_step(q: Tensor, k: Tensor, v: Tensor, dropout: float, cache: Any, start: Tensor, seen: Tensor) -> Any:
    """Attention of one step to the cache, which it overwrites in place: ``q (B, N, 1, d)``, ``seen (B, 1, 1, C)``."""
    keys, values = cache
    rows = torch.arange(q.shape[0], device=q.device)
    keys[rows, :, start] = k[:, :, 0]
    values[rows, :, start] = v[:, :, 0]
    return scaled_dot_product_attention(q, keys, values, seen, dropout), cache


class Layer(nn.Module):
    """Self-attention and feed-forward, each with a residual and a layer normalisation before or after."""

    def __init__(self, spec: CoreSpec, options: Options) -> None:
        super().__init__()
        H = spec.width
        hidden = options.feed_forward or 4 * H
        self.heads, self.pre = options.heads, options.norm == "pre"
        self.qkv, self.out = nn.Linear(H, 3 * H), nn.Linear(H, H)
        self.hidden, self.back = nn.Linear(H, hidden), nn.Linear(hidden, H)
        self.norm_attention, self.norm_feed_forward = nn.LayerNorm(H), nn.LayerNorm(H)
        self.dropout = nn.Dropout(spec.dropout)
        self.activation = nn.ReLU() if options.activation == "relu" else nn.GELU()
        self._initialise()

    def _initialise(self) -> None:
        """As ``nn.MultiheadAttention`` does; the rest keeps the initialisation of ``nn.Linear``."""
        nn.init.xavier_uniform_(self.qkv.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, attend: Attend) -> tuple[Tensor, Cache]:
        """``x (B, T, H)`` to the same shape, and what ``attend`` keeps."""
        if self.pre:
            mixed, cache = self._attention(self.norm_attention(x), attend)
            x = x + self.dropout(mixed)
            return x + self.dropout(self._feed_forward(self.norm_feed_forward(x))), cache
        mixed, cache = self._attention(x, attend)
        x = self.norm_attention(x + self.dropout(mixed))
        return self.norm_feed_forward(x + self.dropout(self._feed_forward(x))), cache

    def _attention(self, x: Tensor, attend: Attend) -> tuple[Tensor, Cache]:
        B, T, H = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.heads, H // self.heads)  # (B, T, 3, N, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # 3 x (B, N, T, d)
        heads, cache = attend(q, k, v, self.dropout.p if self.training else 0.0)
        return self.out(heads.transpose(1, 2).reshape(B, T, H)), cache  # (B, T, H)

    def _feed_forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.back(self.dropout(self.activation(self.hidden(x))))  # (B, T, 4H) to (B, T, H)
        return y


class Core(nn.Module):
    """The Transformer; see the card for its equations.

    State: ``(positions (B,), ((keys, values) of each layer))``, keys and values ``(B, N, capacity, H / N)``.
    """

    def __init__(self, spec: CoreSpec, options: Options) -> None:
        super().__init__()
        _check_width(spec, options)
        H = spec.width
        self.spec, self.options, self.output_size = spec, options, H
        learned = options.positions == "learned"
        self.max_length: int | None = spec.train_length if learned else None
        self.project = nn.Linear(spec.input_size, H) if spec.input_size != H else nn.Identity()
        self.positions = nn.Parameter(torch.randn(spec.train_length, H) / math.sqrt(2)) if learned else None
        self.dropout = nn.Dropout(spec.dropout)
        self.layers = nn.ModuleList(Layer(spec, options) for _ in range(spec.layers))
        self.norm = nn.LayerNorm(H) if options.norm == "pre" else nn.Identity()

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A whole sequence or the next chunk of one; see ``seqbench.api.Core``."""
        if state is None:
            return zero_beyond(self._whole(x, lengths), lengths), None
        self._refuse_state()
        start, caches = state
        T = x.shape[1]
        h = self._embed(x, start.unsqueeze(1) + torch.arange(T, device=x.device))  # (B, T, H)
        h, after = self._run(h, [partial(attend_chunk, cache=c, start=start, lengths=lengths) for c in caches])
        return zero_beyond(h, lengths), (start + (T if lengths is None else lengths.to(start.device)), after)

    def _whole(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Causal attention needs no padding mask: padded keys lie in the future of every valid step."""
        T, mask = x.shape[1], None
        if lengths is not None and not self.spec.causal:
            mask = valid(lengths, T, x.device)[:, None, None, :]  # (B, 1, 1, T)
        h = self._embed(x, torch.arange(T, device=x.device))  # (B, T, H)
        return self._run(h, [partial(attend_plain, causal=self.spec.causal, mask=mask)] * len(self.layers))[0]

    def _embed(self, x: Tensor, position: Tensor) -> Tensor:
        """``x (B, T, D)`` with its places ``position (T,)`` or ``(B, T)``: ``(B, T, H)``."""
        h = self.project(x)  # (B, T, H)
        if self.options.embedding_scale:
            h = h * math.sqrt(self.spec.width)
        if self.positions is not None:
            # A padded step of the last chunk may lie beyond the table; its output is zeroed anyway.
            h = h + self.positions[position.clamp(max=self.spec.train_length - 1)]
        elif self.options.positions == "sinusoidal":
            h = h + sinusoidal(position, self.spec.width, h)
        return self.dropout(h)  # type: ignore[no-any-return]

    def _run(self, h: Tensor, attends: list[Any]) -> tuple[Tensor, tuple[Cache, ...]]:
        caches = []
        for layer, attend in zip(self.layers, attends, strict=True):
            h, cache = layer(h, attend)
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
        start, caches = state
        C = caches[0][0].shape[2]
        seen = (torch.arange(C, device=start.device) <= start.unsqueeze(1))[:, None, None, :]  # (B, 1, 1, C)
        h = self._embed(x_t.unsqueeze(1), start.unsqueeze(1))  # (B, 1, H)
        h, after = self._run(h, [partial(attend_step, cache=c, start=start, seen=seen) for c in caches])
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


def sinusoidal(position: Tensor, H: int, like: Tensor) -> Tensor:
    """Sines and cosines in turn, of wavelengths ``2 pi`` to ``20000 pi``: ``position (...)`` to ``(..., H)``."""
    rate = torch.exp(torch.arange(0, H, 2, device=like.device, dtype=like.dtype) * (-math.log(10000.0) / H))  # (H/2,)
    angle = position.to(like).unsqueeze(-1) * rate  # (..., H/2)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)  # (..., H)


def _check_width(spec: CoreSpec, options: Options) -> None:
    multiple = width_multiple(options)
    if spec.width % multiple:
        raise Refused(f"transformer: width {spec.width} is not a multiple of {multiple} (heads={options.heads}, even)")
