"""The bridge: any causal core as a decoder, joined to an encoder by its state or summary and by attention.

At each target step ``i`` the core puts out ``s_i``; with ``h_j`` the memory's step ``j``::

    dot          align(s_i, h_j) = s_i . P h_j                     P a linear map where the widths differ, else left out
    scaled-dot   align(s_i, h_j) = s_i . P h_j / sqrt(H)
    additive     align(s_i, h_j) = v . tanh(W_s s_i + W_h h_j)
    a_ij = softmax over j of align(s_i, h_j)                       only over the source's valid steps
    c_i  = sum_j a_ij h_j
    y_i  = tanh(W [s_i; c_i] + b)                                  with attention "none": y_i = s_i

The scores are those of Luong, Pham and Manning (2015, arXiv:1508.04025), Vaswani et al. (2017, arXiv:1706.03762) and
Bahdanau, Cho and Bengio (2015, arXiv:1409.0473). The attention never feeds the recurrence, so reading a whole target is
one call of the core.

How the core starts:

- ``state``: from the encoder's own last state, where it is a summary of the past and the encoder is causal;
- ``map``: from linear maps of the encoder's summary, one for each part of the state, where the encoder reads both ways;
- ``prefix``: from nothing, but the summary, through a linear map, is a step before the first: for all other cores.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from seqbench.api import Core, Memory, State
from seqbench.network import within
from seqbench.states import leaves, map_leaves

Start = Literal["state", "map", "prefix"]


class Attention(nn.Module):
    """Scores, softmax and context; the keys, ``(B, S, A)``, are computed once a source.

    Attributes:
        key_size: ``A``.
    """

    key_size: int

    def keys(self, memory: Tensor) -> Tensor:
        """``memory (B, S, M)`` to ``(B, S, A)``."""
        raise NotImplementedError

    def scores(self, s: Tensor, keys: Tensor) -> Tensor:
        """``s (B, U, H)`` against ``keys (B, S, A)``: ``(B, U, S)``."""
        raise NotImplementedError

    def weights(self, s: Tensor, keys: Tensor, valid: Tensor) -> Tensor:
        """Softmax over the valid source steps, ``valid (B, 1, S)``: ``(B, U, S)``."""
        return self.scores(s, keys).masked_fill(~valid, -torch.inf).softmax(-1)

    def flops(self, B: int, U: int, S: int) -> int:
        """Of keys and scores."""
        raise NotImplementedError


class Dot(Attention):
    """``s_i . P h_j``, and over ``sqrt(H)`` if scaled."""

    def __init__(self, width: int, memory_size: int, scale: float = 1.0) -> None:
        super().__init__()
        self.key_size, self.memory_size, self.scale = width, memory_size, scale
        self.project = nn.Linear(memory_size, width, bias=False) if memory_size != width else nn.Identity()

    def keys(self, memory: Tensor) -> Tensor:
        """``P h``."""
        return self.project(memory)  # type: ignore[no-any-return]

    def scores(self, s: Tensor, keys: Tensor) -> Tensor:
        """Inner products."""
        return s * self.scale @ keys.transpose(1, 2)  # (B, U, H) @ (B, H, S) to (B, U, S)

    def flops(self, B: int, U: int, S: int) -> int:
        """Of the projection, if there is one, and of the inner products."""
        projected = 2 * B * S * self.memory_size * self.key_size if self.memory_size != self.key_size else 0
        return projected + 2 * B * U * S * self.key_size


class Additive(Attention):
    """``v . tanh(W_s s_i + W_h h_j)``."""

    def __init__(self, width: int, memory_size: int) -> None:
        super().__init__()
        self.key_size, self.width, self.memory_size = width, width, memory_size
        self.of_memory = nn.Linear(memory_size, width)
        self.of_output = nn.Linear(width, width, bias=False)
        self.v = nn.Linear(width, 1, bias=False)

    def keys(self, memory: Tensor) -> Tensor:
        """``W_h h``, with the one bias."""
        return self.of_memory(memory)  # type: ignore[no-any-return]

    def scores(self, s: Tensor, keys: Tensor) -> Tensor:
        """Through the hidden layer of each pair of steps."""
        hidden = torch.tanh(self.of_output(s).unsqueeze(2) + keys.unsqueeze(1))  # (B, U, S, A)
        return self.v(hidden).squeeze(-1)  # type: ignore[no-any-return]  # (B, U, S)

    def flops(self, B: int, U: int, S: int) -> int:
        """Of the three matrices."""
        A = self.key_size
        return 2 * B * A * (S * self.memory_size + U * self.width + U * S)


def make_attention(kind: str, width: int, memory_size: int) -> Attention | None:
    """The attention of that name; None for ``"none"``."""
    if kind == "none":
        return None
    if kind == "additive":
        return Additive(width, memory_size)
    return Dot(width, memory_size, 1 / math.sqrt(width) if kind == "scaled-dot" else 1.0)


class Bridge(nn.Module):
    """A causal core as a decoder (an ``api.Decoder``); see the module.

    State: ``((keys, memory, valid), (first, core state))``. ``first (B, D)`` is the prefix step where a whole target is
    about to be read (capacity 0), else None. Without attention the memory part is empty.

    Attributes:
        start_from: how the core starts.
    """

    def __init__(self, core: nn.Module, input_size: int, memory_size: int, attention: str, start_from: Start) -> None:
        super().__init__()
        self.core, self.start_from = core, start_from
        self.input_size, self.memory_size = input_size, memory_size
        width = self._core.output_size
        self.attention = make_attention(attention, width, memory_size)
        self.combine = nn.Linear(width + memory_size, width) if self.attention else None
        self._start_widths = self._start_sizes()
        self.maps = nn.ModuleList(nn.Linear(memory_size, n) for n in self._start_widths)
        self.output_size = width
        longest = self._core.max_length
        self.max_length = longest if longest is None else longest - self._prefixed

    @property
    def _core(self) -> Core:
        return cast("Core", self.core)

    @property
    def _prefixed(self) -> bool:
        return self.start_from == "prefix"

    def _start_sizes(self) -> list[int]:
        """The widths of what the summary is mapped to."""
        if self.start_from == "map":
            return [math.prod(leaf.shape[1:]) for leaf in leaves(self._core.initial_state(1, 1)) if _is_float(leaf)]
        return [self.input_size] if self._prefixed else []

    def start(self, memory: Memory, capacity: int) -> State:
        """The state before the first step; see ``seqbench.api.Decoder``."""
        return self._memory_part(memory), self._own_part(memory, capacity)

    def _memory_part(self, memory: Memory) -> State:
        if self.attention is None:
            return ()
        h = memory.outputs  # (B, S, M)
        lengths = torch.full(h.shape[:1], h.shape[1]) if memory.lengths is None else memory.lengths
        return self.attention.keys(h), h, within(lengths, h).transpose(1, 2)  # (B, S, A), (B, S, M), (B, 1, S)

    def _own_part(self, memory: Memory, capacity: int) -> State:
        if self.start_from == "state":
            return None, memory.state
        if self.start_from == "map":
            return None, self._mapped(memory.summary, capacity)
        first = self.maps[0](memory.summary)  # (B, M) to (B, D)
        if capacity == 0:
            return first, None
        empty = self._core.initial_state(len(first), capacity + 1)
        return None, self._core(first.unsqueeze(1), empty)[1]

    def _mapped(self, summary: Tensor, capacity: int) -> State:
        """The core's state, each float leaf a linear map of ``summary (B, M)``."""
        maps = iter(self.maps)

        def fill(leaf: Tensor) -> Tensor:
            return next(maps)(summary).view_as(leaf) if _is_float(leaf) else leaf

        filled: State = map_leaves(fill, self._core.initial_state(len(summary), max(capacity, 1)))
        return filled

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """A whole target ``x (B, U, D)``, or the next chunk of one; see ``seqbench.api.Decoder``."""
        memory, own = state
        s, after = self._recur(x, own, lengths)  # (B, U, H)
        y = self._attend(s, memory)
        if lengths is not None:
            y = y.masked_fill(~within(lengths, y), 0.0)
        return y, None if after is None else (memory, (None, after))

    def _recur(self, x: Tensor, own: Any, lengths: Tensor | None) -> tuple[Tensor, State]:
        first, inner = own
        if first is None:
            return self._core(x, inner, lengths)
        longer = torch.cat([first.unsqueeze(1), x], dim=1)  # (B, 1 + U, D)
        s, _ = self._core(longer, None, None if lengths is None else lengths + 1)
        return s[:, 1:], None

    def _attend(self, s: Tensor, memory: Any) -> Tensor:
        """``s (B, U, H)`` to ``y (B, U, H)``."""
        if self.attention is None or self.combine is None:
            return s
        keys, h, valid = memory
        context = self.attention.weights(s, keys, valid) @ h  # (B, U, S) @ (B, S, M) to (B, U, M)
        return torch.tanh(self.combine(torch.cat([s, context], dim=-1)))  # (B, U, H + M) to (B, U, H)

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, State]:
        """One step without gradient: ``x_t (B, D)`` to ``y_t (B, H)``."""
        memory, (_, inner) = state
        s, after = self._core.step(x_t, inner)  # (B, H)
        return self._attend(s.unsqueeze(1), memory).squeeze(1), (memory, (None, after))

    def explain(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        """``"alignment" (B, U, S)`` where there is attention; see ``seqbench.api.Decoder``."""
        if self.attention is None:
            return {}
        (keys, _, valid), own = state
        return {"alignment": self.attention.weights(self._recur(x, own, None)[0], keys, valid)}

    def flops(self, B: int, T: int, S: int = 0) -> int:
        """Of the core, the start, the scores, the context and what combines it."""
        H, M = self.output_size, self.memory_size
        starts = sum(2 * B * M * size for size in self._start_widths)
        total = self._core.flops(B, T + self._prefixed) + starts
        if self.attention:
            total += self.attention.flops(B, T, S) + 2 * B * T * S * M + 2 * B * T * (H + M) * H
        return total


def _is_float(leaf: Tensor) -> bool:
    return leaf.is_floating_point()
