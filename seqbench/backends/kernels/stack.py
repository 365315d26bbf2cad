"""The sublayers of a Transformer, one after another, from numpy arrays to numpy arrays.

The buffers are described in ``transformer``. Parameters come as torch has them; where a width is no whole number of
vectors, copies padded with zeros are used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import transformer
from seqbench.backends.kernels.gemm import BLOCK
from seqbench.backends.kernels.jit import cached, cached_parallel, prange
from seqbench.backends.kernels.layer_norm import normalise, normalise_back
from seqbench.backends.kernels.recurrent import aligned
from seqbench.backends.kernels.sources import kernel_sources
from seqbench.backends.kernels.target import HOST
from seqbench.backends.kernels.transformer import Drops, Kept, Packed, Parameters, Rows, Sizes

Array = Any
Blocks = tuple[int, int, int]
"""An axis in blocks: their number, the size of one, the same padded."""


# --- compiled functions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Kernels:
    """What is called from here; pairs are for one thread and for several."""

    attention: tuple[Callable[..., Any], Callable[..., Any]]
    attention_back: tuple[Callable[..., Any], Callable[..., Any]]
    feed_forward: tuple[Callable[..., Any], Callable[..., Any]]
    feed_forward_back: tuple[Callable[..., Any], Callable[..., Any]]
    normalise: Callable[..., Any]
    normalise_back: Callable[..., Any]


@cache
def kernels() -> Kernels:
    """Compiled at their first call, or read from the cache, which goes by what they close over."""
    digest = kernel_sources()

    @cached
    def attention(sizes, p, packed, rows, x, keys, kept, drops, y, scratch, group):
        _ = digest
        transformer.pack_forward(sizes, p, packed)
        transformer.attention_forward(sizes, p, packed, rows, x, keys, kept, drops, y, scratch[0], group, 0, 1)

    @cached_parallel
    def attention_parallel(sizes, p, packed, rows, x, keys, kept, drops, y, scratch, group):
        _ = digest
        transformer.pack_forward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.attention_forward(
                sizes, p, packed, rows, x, keys, kept, drops, y, scratch[part], group, part, parts
            )

    @cached
    def attention_back(sizes, p, packed, rows, x, keys, kept, drops, dy, dx, d_keys, inner, heads, sums, scratch, group):
        _ = digest
        transformer.pack_backward(sizes, p, packed)
        transformer.attention_backward(
            sizes, p, packed, rows, x, keys, kept, drops, dy, dx, d_keys, inner, heads, sums, scratch[0], group, 0, 1
        )

    @cached_parallel
    def attention_back_parallel(
        sizes, p, packed, rows, x, keys, kept, drops, dy, dx, d_keys, inner, heads, sums, scratch, group
    ):
        _ = digest
        transformer.pack_backward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.attention_backward(
                sizes, p, packed, rows, x, keys, kept, drops, dy, dx, d_keys, inner, heads, sums, scratch[part], group,
                part, parts,
            )  # fmt: skip

    @cached
    def feed_forward(sizes, p, packed, R, x, kept, drops, y, scratch):
        _ = digest
        transformer.pack_forward(sizes, p, packed)
        transformer.feed_forward_forward(sizes, p, packed, R, x, kept, drops, y, scratch[0], 0, 1)

    @cached_parallel
    def feed_forward_parallel(sizes, p, packed, R, x, kept, drops, y, scratch):
        _ = digest
        transformer.pack_forward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.feed_forward_forward(sizes, p, packed, R, x, kept, drops, y, scratch[part], part, parts)

    @cached
    def feed_forward_back(sizes, p, packed, R, x, kept, drops, dy, dx, sums, scratch):
        _ = digest
        transformer.pack_backward(sizes, p, packed)
        transformer.feed_forward_backward(sizes, p, packed, R, x, kept, drops, dy, dx, sums, scratch[0], 0, 1)

    @cached_parallel
    def feed_forward_back_parallel(sizes, p, packed, R, x, kept, drops, dy, dx, sums, scratch):
        _ = digest
        transformer.pack_backward(sizes, p, packed)
        parts = scratch.shape[0]
        for part in prange(parts):
            transformer.feed_forward_backward(
                sizes, p, packed, R, x, kept, drops, dy, dx, sums, scratch[part], part, parts
            )

    @cached
    def norm(x, H, w, b, statistics, y):
        _ = digest
        normalise(x, np.intp(0), x.size // w.size, H, w, b, statistics, np.intp(0), y, np.intp(0))

    @cached
    def norm_back(d, x, H, w, statistics, dx, dw, db):
        _ = digest
        R = x.size // w.size
        for r in range(0, R, BLOCK):
            at, n = r * w.size, min(BLOCK, R - r)
            normalise_back(d, at, x, at, n, H, w, statistics, r, d, at, np.bool_(False), dx, at, dw, db)

    return Kernels(
        (attention, attention_parallel), (attention_back, attention_back_parallel),
        (feed_forward, feed_forward_parallel), (feed_forward_back, feed_forward_back_parallel), norm, norm_back,
    )  # fmt: skip


# --- padding --------------------------------------------------------------------------------------


def lanes(dtype: Any) -> int:
    """Numbers in a vector."""
    return HOST.lanes(np.dtype(dtype).itemsize)


def padded(n: int, dtype: Any) -> int:
    """``n`` rounded up to whole vectors."""
    return -(-n // lanes(dtype)) * lanes(dtype)


def widened(W: Array, rows: Blocks, columns: Blocks = (1, 1, 1)) -> Array:
    """A matrix (or a vector, its blocks being ``rows``) with zeros behind each block, flat."""
    (n, size, full), (m, breadth, whole) = rows, columns
    if size == full and breadth == whole:
        return W.reshape(-1)
    wide = np.zeros((n, full, m, whole), W.dtype)
    wide[:, :size, :, :breadth] = W.reshape(n, size, m, breadth)
    return wide.reshape(-1)


def narrowed(W: Array, rows: Blocks, columns: Blocks = (1, 1, 1)) -> Array:
    """The inverse of ``widened``."""
    (n, size, full), (m, breadth, whole) = rows, columns
    narrow = W.reshape(n, full, m, whole)[:, :size, :, :breadth]
    return narrow.reshape((n * size, m * breadth) if m * breadth > 1 else n * size)


@dataclass(frozen=True)
class Axes:
    """The axes of a sublayer's parameters in blocks.

    Attributes:
        width: ``H``.
        inner: what the first matrix gives.
        outer: what the second one reads.
    """

    width: Blocks
    inner: Blocks
    outer: Blocks

    def of(self) -> tuple[tuple[Blocks, Blocks], ...]:
        """Rows and columns of each parameter, in the order of ``Parameters``."""
        one = (1, 1, 1)
        return (
            (self.width, one), (self.width, one), (self.inner, self.width), (self.inner, one),
            (self.width, self.outer), (self.width, one),
        )  # fmt: skip

    def widened(self, p: Parameters) -> Parameters:
        """With zeros."""
        return Parameters(*(widened(W, *axes) for W, axes in zip(p, self.of(), strict=True)))

    def narrowed(self, p: Parameters) -> Parameters:
        """Without."""
        return Parameters(*(narrowed(W, *axes) for W, axes in zip(p, self.of(), strict=True)))


# --- which rows there are -------------------------------------------------------------------------


class Steps:
    """The valid steps of a padded batch ``(B, T)``, one after another.

    Args:
        B: sequences.
        T: steps.
        lengths: ``(B,)``, or None where every row is full.
    """

    def __init__(self, B: int, T: int, lengths: Array | None) -> None:
        self.B, self.T = B, T
        counts = np.full(B, T) if lengths is None else lengths
        self.counts: Array = counts
        self.first: Array = np.concatenate([[0], np.cumsum(counts)])
        self.R = int(self.first[-1])
        self.inside = None if self.R == B * T else np.arange(T) < counts[:, None]  # (B, T)

    def gathered(self, x: Array, copy: bool = False) -> Array:
        """``(B, T, H)`` to rows ``(R, Hp)``, flat; ``x`` itself where it is that, unless a copy is asked for."""
        H = x.shape[2]
        Hp = padded(H, x.dtype)
        if not copy and self.inside is None and Hp == H and x.flags.c_contiguous:
            return x.reshape(-1)
        rows = aligned((self.R, Hp), x.dtype, zero=Hp != H)
        rows[:, :H] = x.reshape(self.R, H) if self.inside is None else x[self.inside]
        return rows.reshape(-1)

    def scattered(self, rows: Array, H: int) -> Array:
        """Flat rows ``(R, Hp)`` to ``(B, T, H)``, 0 beyond the lengths."""
        if self.inside is None:
            return rows.reshape(self.B, self.T, -1)[:, :, :H]
        x = np.zeros((self.B, self.T, H), rows.dtype)
        x[self.inside] = rows.reshape(self.R, -1)[:, :H]
        return x


class Keys:
    """Flat rows of keys and values ``(S, 2 Np)`` of a memory or a cache ``2 x (B, N, C, d)``, of which each sequence has some.

    Args:
        C: steps that there is room for.
        old: ``(B,)``: how many are there.
        new: ``(B,)``: how many come behind them.
    """

    def __init__(self, C: int, old: Array, new: Array) -> None:
        self.old, self.first = old, np.concatenate([[0], np.cumsum(old + new)])
        place = np.arange(C)  # (C,)
        self._row = self.first[:-1, None] + place  # (B, C)
        self.is_old = place < old[:, None]
        self.is_new = ~self.is_old & (place < (old + new)[:, None])

    def rows(self, pair: tuple[Array, Array], which: Array) -> Array:
        """Those of ``which (B, C)``; the others 0."""
        _, N, _, d = pair[0].shape
        rows = aligned((int(self.first[-1]), 2, N, padded(d, pair[0].dtype)), pair[0].dtype, zero=True)
        for side, part in enumerate(pair):
            rows[self._row[which], side, :, :d] = part.transpose(0, 2, 1, 3)[which]
        return rows.reshape(-1)

    def put(self, rows: Array, pair: tuple[Array, Array], which: Array) -> None:
        """Write those of ``which`` into ``pair``."""
        _, N, _, d = pair[0].shape
        parts = rows.reshape(int(self.first[-1]), 2, N, -1)
        for side, part in enumerate(pair):
            part.transpose(0, 2, 1, 3)[which] = parts[self._row[which], side, :, :d]


# --- the stack ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sublayer:
    """What one sublayer computes with.

    Attributes:
        kind: ``"self"``, ``"memory"`` or ``"feed-forward"``.
        p: its parameters, as torch has them.
        pair: keys and values ``2 x (B, N, C, d)``: of the memory, or of the cache; None: there are none.
        inside: factors of a dropout on the weights ``(B, N, T, C)`` or on f ``(B, T, F)``; None: there is none.
        outside: on what is added, ``(B, T, H)``.
    """

    kind: str
    p: Parameters
    pair: tuple[Array, Array] | None = None
    inside: Array | None = None
    outside: Array | None = None


@dataclass(frozen=True)
class Stage:
    """A sublayer that has been run, and what its backward pass reads."""

    sublayer: Sublayer
    axes: Axes
    sizes: Sizes
    p: Parameters
    rows: Rows
    x: Array
    keys: Array
    kept: Kept
    drops: Drops


@dataclass(frozen=True)
class Call:
    """Of one batch.

    Attributes:
        lengths: ``(B,)``, or None where every row is full.
        start: ``(B,)``: steps that lie in the cache; None: there is no cache.
        memory_lengths: ``(B,)``, of the memory; None: there is none.
        training: keep what the backward pass needs.
        threads: parts of the batch that run at the same time.
    """

    lengths: Array | None = None
    start: Array | None = None
    memory_lengths: Array | None = None
    training: bool = False
    threads: int = 1


@dataclass
class Tape:
    """What a forward pass leaves for the backward pass."""

    steps: Steps
    keys: dict[str, Keys]
    threads: int
    stages: list[Stage] = field(default_factory=list)
    last: Array | None = None
    statistics: Array | None = None


@dataclass(frozen=True)
class Gradients:
    """Of everything that came in.

    Attributes:
        x: ``(B, T, H)``.
        parameters: of each sublayer.
        pairs: of each sublayer's memory or cache, None where it has none.
        norm: of the last normalisation's weight and bias, None without one.
    """

    x: Array
    parameters: list[Parameters]
    pairs: list[tuple[Array, Array] | None]
    norm: tuple[Array, Array] | None


@dataclass(frozen=True)
class Stack:
    """Sublayers of one kind of Transformer.

    Attributes:
        heads: ``N``.
        pre: layer normalisation before each sublayer and after the last, else after each.
        gelu: the function of the feed-forward layers, else the rectifier.
        causal: a step attends to no later step.
    """

    heads: int
    pre: bool
    gelu: bool
    causal: bool

    def forward(
        self, x: Array, sublayers: list[Sublayer], norm: tuple[Array, Array] | None, call: Call
    ) -> tuple[Array, list[tuple[Array, Array]], Tape]:
        """All steps.

        Args:
            x: ``(B, T, H)``.
            sublayers: in order.
            norm: weight and bias of the last normalisation, or None.
            call: see there.

        Returns:
            ``y (B, T, H)``, 0 beyond the lengths, the caches afterwards, and the tape.
        """
        B, T, H = x.shape
        steps = Steps(B, T, call.lengths)
        tape = Tape(steps, _keys_of(sublayers, steps, call), call.threads)
        rows, caches = steps.gathered(x), []
        spare = None
        for sublayer in sublayers:
            stage = self._stage(sublayer, rows, H, tape, call)
            y = aligned(rows.shape, x.dtype) if spare is None else spare
            self._run(stage, tape, y)
            if stage.sizes.append:
                caches.append(_cache_after(stage, tape))
            rows, spare = y, None if call.training else y
            if call.training:
                tape.stages.append(stage)
        if norm is not None:
            rows = self._normalised(rows, norm, H, tape)
        return steps.scattered(rows, H), caches, tape

    def _stage(self, sublayer: Sublayer, x: Array, H: int, tape: Tape, call: Call) -> Stage:
        steps, dtype = tape.steps, x.dtype
        axes = self._axes(sublayer, H, dtype)
        keys = tape.keys.get(sublayer.kind)
        sizes = self._sizes(sublayer, axes, steps, keys is not None, call.training)
        rows = Rows(steps.first, steps.first, np.zeros(steps.B, np.int64))
        key_rows = np.empty(0, dtype)
        if keys is not None and sublayer.pair is not None:
            rows = Rows(steps.first, keys.first, keys.old)
            key_rows = keys.rows(sublayer.pair, keys.is_old)
        drops = _drops(sublayer, steps, dtype)
        kept = self._buffers(sizes, steps, call, bool(drops.inside.size), dtype)
        return Stage(sublayer, axes, sizes, axes.widened(sublayer.p), rows, x, key_rows, kept, drops)

    def _sizes(self, sublayer: Sublayer, axes: Axes, steps: Steps, has_keys: bool, keep: bool) -> Sizes:
        feed, own = sublayer.kind == "feed-forward", sublayer.kind == "self"
        (_, H, Hp), (n, d, full) = axes.width, axes.outer
        room = 2 * lanes(sublayer.p.W_in.dtype)
        T, C = (0, 0) if feed or sublayer.inside is None else sublayer.inside.shape[2:]
        return Sizes(
            H=H, Hp=Hp, inner=axes.inner[0] * axes.inner[2], outer=n * full, F=d if feed else n * full,
            heads=0 if feed else n, d=d, mask_row=C, mask_head=T * C, lse_head=steps.R + steps.B * room,
            pre=self.pre, gelu=self.gelu, causal=self.causal and own, append=own and has_keys, keep=keep,
        )  # fmt: skip

    def _axes(self, sublayer: Sublayer, H: int, dtype: Any) -> Axes:
        width = (1, H, padded(H, dtype))
        if sublayer.kind == "feed-forward":
            F = sublayer.p.W_in.shape[0]
            inner = (1, F, padded(F, dtype))
            return Axes(width, inner, inner)
        d = H // self.heads
        times = 3 if sublayer.kind == "self" else 1
        full = padded(d, dtype)
        return Axes(width, (times * self.heads, d, full), (self.heads, d, full))

    def _buffers(self, sizes: Sizes, steps: Steps, call: Call, dropping: bool, dtype: Any) -> Kept:
        """For all rows in training, else for a group of rows of each part."""
        feed, keep = not sizes.heads, sizes.keep
        parts = _parts(steps, call.threads)
        R = steps.R if keep else parts * (BLOCK if feed else _group(steps, parts))
        counts = (
            R * sizes.inner,
            0 if feed else R * sizes.outer,
            R * sizes.outer if feed and keep and (self.gelu or dropping) else 0,
            2 * R,
            R * sizes.Hp if keep and not self.pre else 0,
            sizes.heads * sizes.lse_head if keep else 0,
        )
        return Kept(*(aligned((count,), dtype) for count in counts))

    def _run(self, stage: Stage, tape: Tape, y: Array) -> None:
        p, sizes, steps, dtype = stage.p, stage.sizes, tape.steps, y.dtype
        parts = _parts(steps, tape.threads)
        packed = _packed(p)
        which = int(parts > 1)
        if sizes.heads:
            scratch = aligned((parts, transformer.attention_scratch(sizes, lanes(dtype))), dtype)
            kernels().attention[which](
                sizes, p, packed, stage.rows, stage.x, stage.keys, stage.kept, stage.drops, y, scratch,
                _group(steps, parts),
            )  # fmt: skip
        else:
            scratch = aligned((parts, transformer.feed_forward_scratch(sizes, lanes(dtype))), dtype)
            kernels().feed_forward[which](sizes, p, packed, steps.R, stage.x, stage.kept, stage.drops, y, scratch)

    def _normalised(self, rows: Array, norm: tuple[Array, Array], H: int, tape: Tape) -> Array:
        w, b = (widened(part, (1, H, padded(H, rows.dtype))) for part in norm)
        y, statistics = aligned(rows.shape, rows.dtype), aligned((2 * tape.steps.R,), rows.dtype)
        kernels().normalise(rows, H, w, b, statistics, y)
        tape.last, tape.statistics = rows, statistics
        return y

    def backward(
        self, tape: Tape, dy: Array, d_caches: list[tuple[Array, Array]], norm: tuple[Array, Array] | None
    ) -> Gradients:
        """All gradients; the tape stays as it is.

        Args:
            tape: of ``forward`` with ``training``.
            dy: ``(B, T, H)``.
            d_caches: of the caches that ``forward`` gave.
            norm: as there.
        """
        H, steps = dy.shape[2], tape.steps
        d = steps.gathered(dy, copy=norm is None)
        d_norm = None
        if norm is not None:
            d, d_norm = self._normalised_back(tape, d, norm, H)
        parameters, pairs = [], []
        caches = list(d_caches)
        for stage in reversed(tape.stages):
            d_keys = self._d_keys(stage, tape, caches)
            g = self._run_back(stage, tape, d, d_keys)
            parameters.append(stage.axes.narrowed(g))
            pairs.append(_pair_gradient(stage, tape, d_keys, caches))
        return Gradients(steps.scattered(d, H), parameters[::-1], pairs[::-1], d_norm)

    def _normalised_back(self, tape: Tape, d: Array, norm: tuple[Array, Array], H: int) -> Any:
        Hp = padded(H, d.dtype)
        w = widened(norm[0], (1, H, Hp))
        dx, dw, db = aligned(d.shape, d.dtype), aligned((Hp,), d.dtype, zero=True), aligned((Hp,), d.dtype, zero=True)
        kernels().normalise_back(d, tape.last, H, w, tape.statistics, dx, dw, db)
        return dx, (dw[:H], db[:H])

    def _d_keys(self, stage: Stage, tape: Tape, d_caches: list[tuple[Array, Array]]) -> Array:
        """Where the gradients of keys and values are added up, beginning with those that caches have from outside."""
        if not stage.keys.size:
            return stage.keys
        if not stage.sizes.append:
            return np.zeros_like(stage.keys)
        keys = tape.keys["self"]
        return keys.rows(d_caches[-1], keys.is_old | keys.is_new)

    def _run_back(self, stage: Stage, tape: Tape, d: Array, d_keys: Array) -> Parameters:
        """``d`` becomes the gradient of what came into the sublayer."""
        p, sizes, steps, dtype = stage.p, stage.sizes, tape.steps, d.dtype
        parts = _parts(steps, tape.threads)
        packed = _packed(p)
        sums = Parameters(*(aligned((parts * W.size,), dtype, zero=True) for W in p))
        which = int(parts > 1)
        if sizes.heads:
            group = _group(steps, parts)
            scratch = aligned((parts, transformer.attention_scratch(sizes, lanes(dtype))), dtype)
            d_inner = aligned((parts * group * sizes.inner,), dtype)
            d_heads = aligned((parts * group * sizes.outer,), dtype)
            kernels().attention_back[which](
                sizes, p, packed, stage.rows, stage.x, stage.keys, stage.kept, stage.drops, d, d, d_keys,
                d_inner, d_heads, sums, scratch, group,
            )  # fmt: skip
        else:
            scratch = aligned((parts, transformer.feed_forward_scratch(sizes, lanes(dtype))), dtype)
            kernels().feed_forward_back[which](
                sizes, p, packed, steps.R, stage.x, stage.kept, stage.drops, d, d, sums, scratch
            )
        return Parameters(*(W if parts == 1 else W.reshape(parts, -1).sum(0) for W in sums))


def _packed(p: Parameters) -> Packed:
    """Room for both matrices."""
    return Packed(aligned((p.W_in.size,), p.W_in.dtype), aligned((p.W_out.size,), p.W_out.dtype))


def _keys_of(sublayers: list[Sublayer], steps: Steps, call: Call) -> dict[str, Keys]:
    """By kind of sublayer."""
    rooms = {s.kind: s.pair[0].shape[2] for s in sublayers if s.pair is not None}
    found = {}
    if call.start is not None:
        found["self"] = Keys(rooms["self"], call.start, steps.counts)
    if call.memory_lengths is not None:
        found["memory"] = Keys(rooms["memory"], call.memory_lengths, np.zeros(steps.B, np.int64))
    return found


def _drops(sublayer: Sublayer, steps: Steps, dtype: Any) -> Drops:
    """The factors as rows; those of attention weights as they are."""
    feed = sublayer.kind == "feed-forward"
    inside, outside = sublayer.inside, sublayer.outside
    if inside is None:
        inside = np.empty(0, dtype)
    elif feed:
        inside = steps.gathered(inside)
    return Drops(inside.reshape(-1), np.empty(0, dtype) if outside is None else steps.gathered(outside))


def _parts(steps: Steps, threads: int) -> int:
    """Parts of a batch: one for each thread, none of less than half a block of rows on average."""
    return max(1, min(threads, steps.B, 2 * steps.R // BLOCK))


def _group(steps: Steps, parts: int) -> int:
    """An upper bound of the rows of a group: less than a block, and a sequence more."""
    return min(BLOCK - 1 + int(steps.counts.max()), steps.R)


def _cache_after(stage: Stage, tape: Tape) -> tuple[Array, Array]:
    """The cache with the new steps' keys and values."""
    assert stage.sublayer.pair is not None
    key, value = (side.copy() for side in stage.sublayer.pair)
    keys = tape.keys["self"]
    keys.put(stage.keys, (key, value), keys.is_new)
    return key, value


def _pair_gradient(
    stage: Stage, tape: Tape, d_keys: Array, d_caches: list[tuple[Array, Array]]
) -> tuple[Array, Array] | None:
    """Of a memory, or of a cache before the call: what was overwritten has none."""
    if stage.sublayer.pair is None:
        return None
    keys = tape.keys[stage.sublayer.kind]
    if stage.sizes.append:
        pair = tuple(side.copy() for side in d_caches.pop())
        for side in pair:
            side.transpose(0, 2, 1, 3)[keys.is_new] = 0
    else:
        pair = tuple(np.zeros_like(side) for side in stage.sublayer.pair)
    key, value = pair
    keys.put(d_keys, (key, value), keys.is_old)
    return key, value


def alignment(tape: Tape) -> Array:
    """The weights of the last attention to a memory, averaged over the heads: ``(B, T, S)``."""
    stage = [stage for stage in tape.stages if stage.sublayer.kind == "memory"][-1]
    (N, d, full), keys, steps = stage.axes.outer, tape.keys["memory"], tape.steps
    q = stage.kept.inner.reshape(steps.R, N, full)[:, :, :d]
    k = stage.keys.reshape(-1, 2, N, full)[:, 0, :, :d]
    weights = np.zeros((steps.B, steps.T, keys.is_old.shape[1]), q.dtype)
    for b in range(steps.B):
        rows, of_b = slice(*steps.first[b : b + 2]), slice(*keys.first[b : b + 2])
        scores = np.einsum("tnd,snd->nts", q[rows], k[of_b]) / np.sqrt(d)  # (N, T, S)
        scores = np.exp(scores - scores.max(2, keepdims=True))
        weights[b, : scores.shape[1], : scores.shape[2]] = (scores / scores.sum(2, keepdims=True)).mean(0)
    return weights
