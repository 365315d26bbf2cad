"""Single steps of a Transformer from numpy arrays to numpy arrays: its parameters, ready for one after another."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from seqbench.backends.kernels import step
from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.ownership import borrowed
from seqbench.backends.kernels.padding import lanes
from seqbench.backends.kernels.rows import Pair
from seqbench.backends.kernels.sizes import check_input, check_sequences
from seqbench.backends.kernels.sources import kernel_sources
from seqbench.backends.kernels.stack import Stack
from seqbench.backends.kernels.transformer import Parameters
from seqbench.backends.kernels.workspace import aligned

Array = Any


class Calls(NamedTuple):
    """The compiled functions."""

    embed: Callable[..., Any]
    attention: Callable[..., Any]
    feed_forward: Callable[..., Any]
    normalise: Callable[..., Any]


@cache
def calls() -> Calls:
    """Compiled at their first call, or read from the cache, which goes by what they close over."""

    @cached(kernel_sources())
    def embed(x, B, D, W, b, scale, table, turning, start, h):
        x, W, b, table, start, h = borrowed((x, W, b, table, start, h))
        step.embed(x, B, D, W, b, scale, table, turning, start, h)

    @cached(kernel_sources())
    def attention(pre, N, d, C, append, p, h, counts, keys, values, normal, inside, heads, scores):
        p, h, counts, keys, values = borrowed((p, h, counts, keys, values))
        normal, inside, heads, scores = borrowed((normal, inside, heads, scores))
        step.step_attention(pre, N, d, C, append, p, h, counts, keys, values, normal, inside, heads, scores)

    @cached(kernel_sources())
    def feed_forward(pre, smooth, B, H, p, h, normal, inside, scratch):
        p, h, normal, inside, scratch = borrowed((p, h, normal, inside, scratch))
        step.step_feed_forward(pre, smooth, B, H, p, h, normal, inside, scratch)

    @cached(kernel_sources())
    def normalise(B, H, w, b, h, scratch):
        w, b, h, scratch = borrowed((w, b, h, scratch))
        step.normalise_rows(h, B, H, w, b, h, scratch)

    return Calls(embed, attention, feed_forward, normalise)


class Front(NamedTuple):
    """What comes before the sublayers.

    Attributes:
        W: ``(H, D)`` of the input projection; empty: there is none.
        b: its bias.
        scale: a factor of the input.
        table: ``(P, H)`` of positions; empty: there is none.
        turning: positions are sines and cosines.
    """

    W: Array
    b: Array
    scale: float
    table: Array
    turning: bool


class Stepper:
    """A stack and all its parameters.

    Args:
        stack: its kind.
        front: what comes before the sublayers.
        sublayers: kind and parameters of each.
        norm: weight and bias of the last normalisation, or None.
    """

    def __init__(
        self, stack: Stack, front: Front, sublayers: list[tuple[str, Parameters]], norm: tuple[Array, Array] | None
    ) -> None:
        self.stack, self.norm = stack, norm
        self._inputs = front.W.shape[1] if front.W.size else sublayers[0][1].norm_w.size
        self.front = front._replace(W=front.W.reshape(-1), table=front.table.reshape(-1))
        self.sublayers = [(kind, Parameters(*(W.reshape(-1) for W in p))) for kind, p in sublayers]
        self._room: tuple[int, int] = (0, 0)
        self._scratch: list[Array] = []

    def step(
        self, x: Array, caches: list[Pair], start: Array, memories: list[Pair] | None = None, seen: Array | None = None
    ) -> Array:
        """One step of each sequence; its keys and values go into the caches.

        Args:
            x: ``(B, D)``, contiguous.
            caches: of each layer, contiguous.
            start: ``(B,)``: the steps in the caches.
            memories: of each layer.
            seen: ``(B,)``: the steps of the memories.

        Returns:
            ``y (B, H)``.

        Raises:
            ValueError: ``x`` is of another width than the parameters, or of other sequences than caches and memories,
                or a cache is full.
        """
        (B, D), H, stack, run = x.shape, self.sublayers[0][1].norm_w.size, self.stack, calls()
        pairs = {"self": iter(caches), "memory": iter(memories or ())}
        read = [*caches[:1], *(memories or [])[:1]]
        longest = max(keys.shape[2] for keys, _ in read)
        check_input(D, self._inputs)
        for found in (start, *(keys for keys, _ in read)):
            check_sequences(len(found), B)
        if caches and start.max() >= caches[0][0].shape[2]:
            raise ValueError(f"the cache is full: it was made for {caches[0][0].shape[2]} steps")
        h = np.empty(B * H, x.dtype)
        normal, inside, heads, scratch = self._room_for(B, H, longest, x.dtype)
        run.embed(x.reshape(-1), B, D, *self.front, start, h)
        for kind, p in self.sublayers:
            if kind == "feed-forward":
                run.feed_forward(stack.pre, stack.gelu, B, H, p, h, normal, inside, scratch)
                continue
            own, (keys, values) = kind == "self", next(pairs[kind])
            run.attention(
                stack.pre, stack.heads, H // stack.heads, keys.shape[2], own, p, h, start if own else seen,
                keys.reshape(-1), values.reshape(-1), normal, inside, heads, scratch,
            )  # fmt: skip
        if self.norm is not None:
            run.normalise(B, H, *self.norm, h, scratch)
        return h.reshape(B, H)

    def _room_for(self, B: int, H: int, C: int, dtype: Any) -> list[Array]:
        """Scratch, made anew for another size."""
        if self._room != (B, C):
            widest, spare = max(p.b_in.size for _, p in self.sublayers), lanes(dtype)
            sizes = (B * H, B * widest, B * H, max(C, 2 * B))
            self._room, self._scratch = (B, C), [aligned((n + spare,), dtype) for n in sizes]
        return self._scratch
