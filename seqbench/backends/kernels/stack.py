"""The sublayers of a Transformer, one after another, from numpy arrays to numpy arrays.

The buffers are described in ``transformer``. Parameters come as torch has them; where a width is no whole number of
vectors, copies padded with zeros are used.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from seqbench.backends.kernels.padding import Blocks, lanes, narrowed, padded, widened
from seqbench.backends.kernels.parts import whole_pass
from seqbench.backends.kernels.rows import Keys, Pair, Steps
from seqbench.backends.kernels.transformer import (
    BLOCK,
    Drops,
    Kept,
    Packed,
    Parameters,
    Rows,
    Sizes,
    attention_scratch,
    feed_forward_scratch,
)
from seqbench.backends.kernels.transformer_calls import attention_calls, feed_forward_calls, normalise_calls
from seqbench.backends.kernels.workspace import Workspace, aligned

Array = Any


# --- what comes in and goes out -------------------------------------------------------------------


@dataclass(frozen=True)
class Sublayer:
    """What one sublayer computes with.

    Attributes:
        kind: ``"self"``, ``"memory"`` or ``"feed-forward"``.
        p: its parameters, as torch has them.
        pair: keys and values of the memory, or of the cache; None: there are none.
        inside: factors of a dropout on the weights ``(B, N, T, C)`` or on f ``(B, T, F)``; None: there is none.
        outside: on what is added, ``(B, T, H)``.
    """

    kind: str
    p: Parameters
    pair: Pair | None = None
    inside: Array | None = None
    outside: Array | None = None


@dataclass(frozen=True)
class Call:
    """Of one batch.

    Attributes:
        lengths: ``(B,)``, or None where every row is full.
        start: ``(B,)``: steps that lie in the caches; None: there are none.
        memory_lengths: ``(B,)``, of the memories; None: there are none.
        training: keep what the backward pass needs.
    """

    lengths: Array | None = None
    start: Array | None = None
    memory_lengths: Array | None = None
    training: bool = False


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
    pairs: list[Pair | None]
    norm: tuple[Array, Array] | None


# --- sizes ----------------------------------------------------------------------------------------


class Axes(NamedTuple):
    """The axes of a sublayer's parameters in blocks: the width, what the first matrix gives, what the second reads."""

    width: Blocks
    inner: Blocks
    outer: Blocks

    def of(self) -> tuple[tuple[Blocks, Blocks | None], ...]:
        """Rows and columns of each parameter, in the order of ``Parameters``."""
        return (
            (self.width, None), (self.width, None), (self.inner, self.width), (self.inner, None),
            (self.width, self.outer), (self.width, None),
        )  # fmt: skip

    def widened(self, p: Parameters) -> Parameters:
        """With zeros behind each block; flat."""
        return Parameters(*(widened(W, *axes) for W, axes in zip(p, self.of(), strict=True)))

    def narrowed(self, p: Parameters) -> Parameters:
        """The inverse."""
        return Parameters(*(narrowed(W, *axes) for W, axes in zip(p, self.of(), strict=True)))


@cache
def axes_of(kind: str, heads: int, H: int, F: int, dtype: Any) -> Axes:
    """Of one kind of sublayer; ``F`` is the width of a feed-forward layer."""
    width = (1, H, padded(H, dtype))
    if kind == "feed-forward":
        inner = (1, F, padded(F, dtype))
        return Axes(width, inner, inner)
    d = H // heads
    full = padded(d, dtype)
    return Axes(width, ((3 if kind == "self" else 1) * heads, d, full), (heads, d, full))


@dataclass
class Stage:
    """A sublayer that is run: all that its backward pass reads; ``x`` and ``kept`` are there once it has been run."""

    sublayer: Sublayer
    axes: Axes
    sizes: Sizes
    p: Parameters
    rows: Rows
    keys: Array
    drops: Drops
    x: Array = None
    kept: Kept | None = None

    def buffers(self, R: int) -> list[int]:
        """Elements of the buffers of ``Kept``, for so many rows."""
        s = self.sizes
        slope = s.keep and not s.heads and (s.gelu or self.drops.inside.size > 0)
        sums = s.keep and not s.pre
        return [
            R * s.inner, R * s.outer * (s.heads > 0), R * s.outer * slope, 2 * R, R * s.Hp * sums,
            s.heads * s.lse_head * s.keep,
        ]  # fmt: skip


@dataclass
class Tape:
    """What a forward pass leaves for the backward pass.

    Attributes:
        steps: which rows there are.
        keys: of memories and caches, by kind of sublayer.
        stages: in order.
        room: the memory of their buffers.
        last: what was normalised last, and its statistics.
    """

    steps: Steps
    keys: dict[str, Keys]
    stages: list[Stage] = field(default_factory=list)
    room: Workspace | None = None
    last: tuple[Array, Array] | None = None


# --- the stack ------------------------------------------------------------------------------------


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
        self, x: Array, sublayers: list[Sublayer], norm: tuple[Array, Array] | None, call: Call, threads: int = 1
    ) -> tuple[Array, list[Pair], Tape]:
        """All steps.

        Args:
            x: ``(B, T, H)``.
            sublayers: in order.
            norm: weight and bias of the last normalisation, or None.
            call: see there.
            threads: parts of the batch that run at the same time.

        Returns:
            ``y (B, T, H)``, 0 beyond the lengths, the caches afterwards, and the tape.
        """
        B, T, H = x.shape
        steps = Steps(B, T, call.lengths)
        tape = Tape(steps, _keys_of(sublayers, steps, call))
        tape.stages = [self._stage(sublayer, H, tape, call.training) for sublayer in sublayers]
        rows = self._run(tape, steps.gathered(x), norm is None, parts_of(steps, threads))
        caches = [_cache_after(stage, tape) for stage in tape.stages if stage.sizes.append]
        if norm is not None:
            rows = _normalised(tape, rows, norm, H)
        return steps.scattered(rows, H), caches, tape

    def _stage(self, sublayer: Sublayer, H: int, tape: Tape, keep: bool) -> Stage:
        p, steps, keys = sublayer.p, tape.steps, tape.keys.get(sublayer.kind)
        dtype = p.W_in.dtype
        axes = axes_of(sublayer.kind, self.heads, H, p.W_in.shape[0], dtype)
        rows, key_rows = Rows(steps.first, steps.first, steps.counts), np.empty(0, dtype)
        if keys is not None and sublayer.pair is not None:
            rows, key_rows = Rows(steps.first, keys.first, keys.old), keys.rows(sublayer.pair, keys.is_old)
        sizes = self._sizes(sublayer, axes, steps, keys is not None, keep)
        return Stage(sublayer, axes, sizes, axes.widened(p), rows, key_rows, _drops(sublayer, steps, dtype))

    def _sizes(self, sublayer: Sublayer, axes: Axes, steps: Steps, has_keys: bool, keep: bool) -> Sizes:
        feed, own = sublayer.kind == "feed-forward", sublayer.kind == "self"
        (_, H, Hp), (n, d, full) = axes.width, axes.outer
        T, C = (0, 0) if feed or sublayer.inside is None else sublayer.inside.shape[2:]
        panel, inner = 2 * lanes(sublayer.p.W_in.dtype), axes.inner[0] * axes.inner[2]
        return Sizes(
            H=H, Hp=Hp, inner=inner, outer=n * full, F=d if feed else n * full,
            heads=0 if feed else n, d=d, mask_row=C, mask_head=T * C,
            lse_head=steps.R + steps.B * panel,
            pre=self.pre, gelu=self.gelu, causal=self.causal and own, append=own and has_keys, keep=keep,
        )  # fmt: skip

    def _run(self, tape: Tape, x: Array, output_is_last: bool, parts: int) -> Array:
        """All stages; what the last one gives is in memory of its own if it leaves as it is."""
        steps, dtype = tape.steps, x.dtype
        keep, group = tape.stages[0].sizes.keep, group_of(steps)
        counts = []
        for stage in tape.stages:
            counts += stage.buffers(steps.R if keep else parts * (group if stage.sizes.heads else BLOCK))
        counts += [x.size] * (len(tape.stages) if keep else 1)  # between stages
        tape.room = Workspace(dtype, [(count,) for count in counts])
        buffers = iter(tape.room.arrays)
        kept = [Kept(*(next(buffers) for _ in Kept._fields)) for _ in tape.stages]
        outputs = list(buffers) * (1 if keep else len(tape.stages))
        if output_is_last:
            outputs[-1] = aligned((x.size,), dtype)
        room = _room_of(tape.stages, parts, group, backward=False)
        for stage, stage.kept, y in zip(tape.stages, kept, outputs, strict=True):
            stage.x = x
            _run_stage(stage, steps, y, room)
            x = y
        return x

    def backward(
        self, tape: Tape, dy: Array, d_caches: list[Pair], norm: tuple[Array, Array] | None, threads: int = 1
    ) -> Gradients:
        """All gradients; the tape stays as it is.

        Args:
            tape: of ``forward`` with ``training``.
            dy: ``(B, T, H)``.
            d_caches: of the caches that ``forward`` gave.
            norm: as there.
            threads: as there.
        """
        H, steps, parts = dy.shape[2], tape.steps, parts_of(tape.steps, threads)
        d, d_norm = steps.gathered(dy, copy=norm is None), None
        if norm is not None:
            d, d_norm = _normalised_back(tape, d, norm, H)
        parameters, pairs, caches = [], [], list(d_caches)
        room = _room_of(tape.stages, parts, group_of(steps), backward=True)
        for stage in reversed(tape.stages):
            d_cache = caches.pop() if stage.sizes.append else None
            d_keys = _d_keys(stage, tape, d_cache)
            parameters.append(stage.axes.narrowed(_run_stage_back(stage, steps, d, d_keys, room)))
            pairs.append(_pair_gradient(stage, tape, d_keys, d_cache))
        return Gradients(steps.scattered(d, H), parameters[::-1], pairs[::-1], d_norm)


def parts_of(steps: Steps, threads: int) -> int:
    """Parts of a batch: one for each thread, none of less than half a block of rows on average."""
    return max(1, min(threads, steps.B, 2 * steps.R // BLOCK))


def group_of(steps: Steps) -> int:
    """An upper bound of the rows of a group: less than a block, and a sequence more."""
    return min(BLOCK - 1 + int(steps.counts.max()), steps.R)


# --- one stage ------------------------------------------------------------------------------------


def _drops(sublayer: Sublayer, steps: Steps, dtype: Any) -> Drops:
    """The factors as rows; those of attention weights as they are."""
    inside, outside = sublayer.inside, sublayer.outside
    if inside is None:
        inside = np.empty(0, dtype)
    elif sublayer.kind == "feed-forward":
        inside = steps.gathered(inside)
    return Drops(inside.reshape(-1), np.empty(0, dtype) if outside is None else steps.gathered(outside))


def _room_of(stages: list[Stage], parts: int, group: int, backward: bool) -> Workspace:
    """Scratch for one stage after another: both packed matrices, and for each part its own; backward more of it."""
    scratch = max(_scratch_size(stage) for stage in stages)
    W_in, W_out = max(stage.p.W_in.size for stage in stages), max(stage.p.W_out.size for stage in stages)
    rows, attentions = parts * group if backward else 0, [stage.sizes for stage in stages if stage.sizes.heads]
    inner, outer = max((s.inner for s in attentions), default=0), max((s.outer for s in attentions), default=0)
    shapes = [(W_in,), (W_out,), (parts, scratch), (rows * inner,), (rows * outer,)]
    return Workspace(stages[0].p.W_in.dtype, shapes)


def _scratch_size(stage: Stage) -> int:
    sizes = stage.sizes
    return int(attention_scratch(sizes, lanes(stage.p.W_in.dtype)) if sizes.heads else feed_forward_scratch(sizes))


def _run_stage(stage: Stage, steps: Steps, y: Array, room: Workspace) -> None:
    W_in, W_out, scratch, *_ = room.arrays
    both, last = (stage.sizes, stage.p, Packed(W_in, W_out)), whole_pass(len(scratch))
    rest = stage.kept, stage.drops, y, scratch
    if stage.sizes.heads:
        attention_calls()[0](*both, stage.rows, stage.x, stage.keys, *rest, group_of(steps), *last)
    else:
        feed_forward_calls()[0](*both, steps.R, stage.x, *rest, *last)


def _run_stage_back(stage: Stage, steps: Steps, d: Array, d_keys: Array, room: Workspace) -> Parameters:
    """``d`` becomes the gradient of what came into the sublayer; returns those of the parameters."""
    W_in, W_out, scratch, d_inner, d_heads = room.arrays
    both, parts = (stage.sizes, stage.p, Packed(W_in, W_out)), len(scratch)
    ends = list(accumulate(W.size for W in stage.p))
    sums = aligned((parts, ends[-1]), d.dtype, zero=True)
    if stage.sizes.heads:
        attention_calls()[1](
            *both, stage.rows, stage.x, stage.keys, stage.kept, stage.drops, d, d_keys, d_inner, d_heads,
            sums.reshape(-1), scratch, group_of(steps), *whole_pass(parts),
        )  # fmt: skip
    else:
        feed_forward_calls()[1](
            *both, steps.R, stage.x, stage.kept, stage.drops, d, sums.reshape(-1), scratch, *whole_pass(parts)
        )  # fmt: skip
    total = sums[0] if parts == 1 else sums.sum(0)
    return Parameters(*(total[end - W.size : end] for W, end in zip(stage.p, ends, strict=True)))


# --- the last normalisation -----------------------------------------------------------------------


def _normalised(tape: Tape, rows: Array, norm: tuple[Array, Array], H: int) -> Array:
    w, b = (widened(part, (1, H, padded(H, rows.dtype))) for part in norm)
    y, statistics = aligned(rows.shape, rows.dtype), aligned((2 * tape.steps.R,), rows.dtype)
    normalise_calls()[0](rows, H, w, b, statistics, y)
    tape.last = rows, statistics
    return y


def _normalised_back(tape: Tape, d: Array, norm: tuple[Array, Array], H: int) -> Any:
    assert tape.last is not None
    (rows, statistics), Hp = tape.last, padded(H, d.dtype)
    dx, dw, db = aligned(d.shape, d.dtype), aligned((Hp,), d.dtype, zero=True), aligned((Hp,), d.dtype, zero=True)
    normalise_calls()[1](d, rows, H, widened(norm[0], (1, H, Hp)), statistics, dx, dw, db)
    return dx, (dw[:H], db[:H])


# --- caches and memories --------------------------------------------------------------------------


def _keys_of(sublayers: list[Sublayer], steps: Steps, call: Call) -> dict[str, Keys]:
    """By kind of sublayer."""
    rooms = {s.kind: s.pair[0].shape[2] for s in sublayers if s.pair is not None}
    found = {}
    if call.start is not None:
        found["self"] = Keys(rooms["self"], call.start, steps.counts)
    if call.memory_lengths is not None:
        found["memory"] = Keys(rooms["memory"], call.memory_lengths, np.zeros(steps.B, np.int64))
    return found


def _cache_after(stage: Stage, tape: Tape) -> Pair:
    """The cache with the new steps' keys and values."""
    assert stage.sublayer.pair is not None
    key, value = (side.copy() for side in stage.sublayer.pair)
    keys = tape.keys["self"]
    keys.put(stage.keys, (key, value), keys.is_new)
    return key, value


def _d_keys(stage: Stage, tape: Tape, d_cache: Pair | None) -> Array:
    """Where the gradients of keys and values are added up, beginning with those that a cache has from outside."""
    if d_cache is None:
        return np.zeros_like(stage.keys)
    keys = tape.keys["self"]
    return keys.rows(d_cache, keys.is_old | keys.is_new)


def _pair_gradient(stage: Stage, tape: Tape, d_keys: Array, d_cache: Pair | None) -> Pair | None:
    """Of a memory, or of a cache before the call: what was overwritten has none."""
    if stage.sublayer.pair is None:
        return None
    keys = tape.keys[stage.sublayer.kind]
    if d_cache is None:
        key, value = (np.zeros_like(side) for side in stage.sublayer.pair)
    else:
        key, value = (side.copy() for side in d_cache)
        for side in (key, value):
            side.transpose(0, 2, 1, 3)[keys.is_new] = 0
    keys.put(d_keys, (key, value), keys.is_old)
    return key, value


def alignment(tape: Tape) -> Array:
    """The weights of the last attention to a memory, averaged over the heads: ``(B, T, S)``."""
    stage = [stage for stage in tape.stages if stage.sublayer.kind == "memory"][-1]
    (N, d, full), keys, steps = stage.axes.outer, tape.keys["memory"], tape.steps
    assert stage.kept is not None
    q = stage.kept.inner.reshape(steps.R, N, full)[:, :, :d]
    k = stage.keys.reshape(-1, 2, N, full)[:, 0, :, :d]
    weights = np.zeros((steps.B, steps.T, keys.is_old.shape[1]), q.dtype)
    for b in range(steps.B):
        rows, of_b = slice(*steps.first[b : b + 2]), slice(*keys.first[b : b + 2])
        scores = np.einsum("tnd,snd->nts", q[rows], k[of_b]) / np.sqrt(d)  # (N, T, S)
        scores = np.exp(scores - scores.max(2, keepdims=True))
        weights[b, : scores.shape[1], : scores.shape[2]] = (scores / scores.sum(2, keepdims=True)).mean(0)
    return weights
