"""A stack of residual blocks, from numpy arrays to numpy arrays: the fast kernels and the plain ones.

The buffers are described in ``convolution``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import convolution, convolution_step, plain_convolution
from seqbench.backends.kernels.engine import steps_of_block
from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.ownership import borrowed
from seqbench.backends.kernels.padding import padded
from seqbench.backends.kernels.parts import (
    ROWS,
    WEIGHTS,
    WHOLE,
    bounds_of_rows,
    in_parts,
    is_mine,
    parts_of,
    whole_pass,
)
from seqbench.backends.kernels.rings import Before, Ring
from seqbench.backends.kernels.sizes import check_input, check_sequences
from seqbench.backends.kernels.sources import kernel_sources
from seqbench.backends.kernels.target import HOST
from seqbench.backends.kernels.workspace import Workspace, aligned

Array = Any
Three = tuple[Array, Array, Array]
"""One for each convolution of a block: the first, the second, the 1x1 convolution beside them."""


@dataclass(frozen=True)
class Block:
    """The parameters of a block; all arrays of the third convolution are empty where the widths are equal.

    Attributes:
        V: ``(H, D, K)``: the filters, or their directions.
        g: ``(H,)``, their norms; empty where ``V`` is the filter.
        b: ``(H,)``, the biases.
        dilation: of the first two.
    """

    V: Three
    g: Three
    b: Three
    dilation: int

    @property
    def sizes(self) -> tuple[int, int]:
        """``(D, H)``."""
        H, D, _ = self.V[0].shape
        return D, H

    @property
    def reach(self) -> int:
        """``P``, how many steps a convolution looks back."""
        return int(self.V[0].shape[2] - 1) * self.dilation


def rings_of(blocks: Sequence[Block]) -> list[tuple[Ring, Ring]]:
    """Where the state has the past of each block's two convolutions."""
    found, at = [], 0
    for block in blocks:
        (D, H), P = block.sizes, block.reach
        found.append((Ring(at, P, D), Ring(at + P * D, P, H)))
        at += P * (D + H)
    return found


@dataclass(frozen=True)
class Kept:
    """What a forward pass leaves.

    Attributes:
        y: ``(T, B, Hp)``, the output.
        after: ``(B, S)``, the rings after each row's last valid step, the oldest input first; None without a state.
        buffers: of each block ``x``, ``h`` and ``f``; in training only.
    """

    y: Array
    after: Array | None
    buffers: list[Workspace]


@dataclass(frozen=True)
class Gradients:
    """Of a stack.

    Attributes:
        x: ``(T, B, D)``.
        blocks: of the parameters of each block.
        past: ``(B, S)``, in the order of the rings; None where no state came in.
    """

    x: Array
    blocks: list[Block]
    past: Array | None


# --- compiled functions ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Compiled:
    """The functions that run one block; their last arguments are described in ``parts``."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@cache
def fast() -> Compiled:
    """The fast kernels; compiled at their first call, or read from the cache."""
    return Compiled(_fast_forward(), _fast_backward())


def _fast_forward() -> Any:
    @cached(kernel_sources())
    def forward(V, g, b, x, h, f, y, T, masks, dilation, packed, training, launch, stage, part, parts):
        V, g, b, x, h, f, y, masks, packed = borrowed((V, g, b, x, h, f, y, masks, packed))
        weights, biases = convolution.filters_in(V, packed)
        if stage == WHOLE:
            convolution.pack_forward(V, g, b, weights, biases)
        if is_mine(stage, ROWS, parts):
            first, last = bounds_of_rows(x.shape[1], part, parts)
            convolution.forward_rows(x, h, f, y, T, V, weights, biases, masks, dilation, first, last, training)
        else:
            in_parts(launch, ROWS, parts, None)

    return forward


def _fast_backward() -> Any:
    @cached(kernel_sources())
    def backward(
        V, g, x, h, f, y, T, d_y, d_h, d_x, scale, dilation, packed, fresh, d_taps, d_V, d_g, d_b,
        launch, stage, part, parts,
    ):  # fmt: skip
        V, g, x, h, f, y, packed = borrowed((V, g, x, h, f, y, packed))
        d_y, d_h, d_x, d_taps, d_V, d_g, d_b = borrowed((d_y, d_h, d_x, d_taps, d_V, d_g, d_b))
        weights = convolution.filters_back_in(V, packed)
        if stage == WHOLE:
            convolution.pack_backward(V, g, weights)
        if is_mine(stage, ROWS, parts):
            first, last = bounds_of_rows(x.shape[1], part, parts)
            convolution.backward_rows(h, f, y, T, d_y, d_h, d_x, V, weights, scale, dilation, first, last, fresh)
        elif stage == WHOLE:
            in_parts(launch, ROWS, parts, None)
        if is_mine(stage, WEIGHTS, parts):
            convolution.weight_gradients(x, h, f, T, d_y, d_h, V, dilation, d_taps, part, parts)
        elif stage == WHOLE:
            in_parts(launch, WEIGHTS, parts, None)
        if stage == WHOLE:
            convolution.parameter_gradients(f, T, d_y, d_h, V, g, d_taps, d_V, d_g, d_b)

    return backward


@cache
def slow() -> Compiled:
    """Plain loops, which know no parts."""

    @cached(kernel_sources())
    def forward(V, g, b, x, h, f, y, T, masks, dilation, packed, training, launch, stage, part, parts):
        plain_convolution.plain_forward(V, g, b, x, h, f, y, T, masks, dilation)

    @cached(kernel_sources())
    def backward(
        V, g, x, h, f, y, T, d_y, d_h, d_x, scale, dilation, packed, fresh, d_taps, d_V, d_g, d_b,
        launch, stage, part, parts,
    ):  # fmt: skip
        plain_convolution.plain_backward(V, g, x, h, f, y, T, d_y, d_h, d_x, scale, dilation, fresh, d_V, d_g, d_b)

    return Compiled(forward, backward)


@cache
def stepping() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Packing of the tape, and one step."""

    @cached(kernel_sources())
    def pack(V, g, b, tape):
        convolution_step.pack_tape(V, g, b, tape)

    @cached(kernel_sources())
    def step(x, past, position, sizes, dilations, K, tape, scratch, y):
        x, past, position, tape, scratch, y = borrowed((x, past, position, tape, scratch, y))
        convolution_step.step(x, past, position, sizes, dilations, K, tape, scratch, y)

    return pack, step


# --- the stack ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Frame:
    """The sizes of a call.

    Attributes:
        T: steps.
        B: sequences.
        dtype: of all numbers.
        lanes: channels are rounded up to a multiple of this.
        has_past: a state came in.
        parts: of the batch, that run at the same time.
    """

    T: int
    B: int
    dtype: Any
    lanes: int
    has_past: bool
    parts: int

    def padded(self, n: int) -> int:
        """``n`` rounded up to whole vectors."""
        return -(-n // self.lanes) * self.lanes

    def steps(self, C: int, block: Block | None = None) -> tuple[int, int, int]:
        """Shape of all steps of ``C`` channels, behind what the convolutions of a block look back at."""
        past = block.reach if block is not None and self.has_past else 0
        return past + self.T, self.B, self.padded(C)

    def packed(self, block: Block) -> int:
        """Numbers of the filters and biases for the forward pass."""
        _, H = block.sizes
        return (sum(int(V.size) // H for V in block.V) + 3) * self.padded(H)

    def packed_back(self, block: Block) -> int:
        """Numbers of the filters for the backward pass."""
        return sum(int(V.size) // V.shape[1] * self.padded(V.shape[1]) for V in block.V if V.size)


class Kernels:
    """A stack of blocks, run by the fast kernels or the plain ones.

    Args:
        plain: run plain loops.
    """

    def __init__(self, plain: bool = False) -> None:
        self.plain = plain
        self._run = slow() if plain else fast()

    def _frame(self, x: Array, before: Before | None, threads: int) -> Frame:
        lanes = 1 if self.plain else HOST.lanes(x.itemsize)
        parts = 1 if self.plain else parts_of(x.shape[1], threads)
        return Frame(x.shape[0], x.shape[1], x.dtype, lanes, before is not None, parts)

    # --- forward ----------------------------------------------------------------------------------

    def forward(
        self, x: Array, blocks: Sequence[Block], masks: Sequence[Array], before: Before | None, training: bool,
        threads: int = 1,
    ) -> Kept:  # fmt: skip
        """All steps.

        Args:
            x: ``(T, B, D)``.
            blocks: their parameters, contiguous, of the same dtype.
            masks: two a block, ``(T, B, H)``, 0 or ``1 / (1 - p)``; empty: no dropout.
            before: a state, or None: nothing before the first step.
            training: keep what the backward pass needs.
            threads: parts of the batch that run at the same time.

        Raises:
            ValueError: ``x`` is of another width than the parameters.
        """
        check_input(x.shape[2], blocks[0].sizes[0])
        frame, rings = self._frame(x, before, threads), rings_of(blocks)
        after = None if before is None else np.empty_like(before.past)
        kept: list[Workspace] = []
        buffers = self._buffers(frame, blocks[0], training)
        _put(x, buffers.arrays[0])
        for n, block in enumerate(blocks):
            last = n + 1 == len(blocks)
            following = None if last else self._buffers(frame, blocks[n + 1], training)
            y = following.arrays[0] if following else aligned(frame.steps(block.sizes[1]), x.dtype)
            if before is not None:
                before.enter(rings[n], buffers.arrays)
            self._run_forward(frame, block, buffers.arrays, y, masks[2 * n : 2 * n + 2], training)
            if before is not None:
                before.leave(rings[n], buffers.arrays, after)
            kept += [buffers] if training else []
            buffers = following or buffers
        return Kept(y, after, kept)

    def _buffers(self, frame: Frame, block: Block, training: bool) -> Workspace:
        """``x``, ``h`` and ``f`` of a block."""
        D, H = block.sizes
        steps, B, Hp = frame.steps(H)
        if not (training or self.plain):
            steps = min(steps, steps_of_block(B // frame.parts))
        return Workspace(frame.dtype, [frame.steps(D, block), frame.steps(H, block), (steps, B, Hp)])

    def _run_forward(
        self, frame: Frame, block: Block, buffers: Sequence[Array], y: Array, masks: Sequence[Array], training: bool
    ) -> None:
        shape = frame.steps(block.sizes[1]) if masks else (0, 0, 0)
        scratch = Workspace(frame.dtype, [(frame.packed(block),), shape, shape])
        packed, *drops = scratch.arrays
        for mask, drop in zip(masks, drops, strict=False):
            _put(mask, drop)
        arguments = (block.V, block.g, block.b, *buffers, y, frame.T, tuple(drops), block.dilation, packed, training)
        self._run.forward(*arguments, *whole_pass(frame.parts))

    # --- backward ---------------------------------------------------------------------------------

    def backward(
        self, kept: Kept, blocks: Sequence[Block], d_y: Array, scale: float, before: Before | None,
        d_after: Array | None, threads: int = 1,
    ) -> Gradients:  # fmt: skip
        """Every gradient; what was kept is used up.

        Args:
            kept: of ``forward`` with ``training``.
            blocks: their parameters.
            d_y: ``(T, B, H)``.
            scale: ``1 / (1 - p)`` of the dropout.
            before: as in ``forward``.
            d_after: the gradient of ``kept.after``, or None for zeros.
            threads: as in ``forward``.
        """
        frame, rings = self._frame(d_y, before, threads), rings_of(blocks)
        d_past = None if before is None else np.empty_like(before.past)
        found, y = [], kept.y
        incoming = Workspace(frame.dtype, [y.shape])
        _put(d_y, incoming.arrays[0])
        d_out = incoming.arrays[0]
        for n in range(len(blocks) - 1, -1, -1):
            x, h, f = kept.buffers[n].arrays
            outgoing = Workspace(frame.dtype, [h.shape, x.shape if n else (0,)])
            d_h, d_x = outgoing.arrays
            d_x = d_x if n else aligned(x.shape, frame.dtype)  # the last one leaves
            if before is not None:
                before.leave_back(rings[n], (d_x, d_h), d_after)
            found.append(self._run_backward(frame, blocks[n], (x, h, f, y), (d_out, d_h, d_x), scale))
            if before is not None:
                before.enter_back(rings[n], (d_x, d_h), d_past)
            y, d_out, incoming = x, d_x, outgoing
        past = d_out.shape[0] - frame.T
        return Gradients(d_out[past:, :, : blocks[0].sizes[0]], found[::-1], d_past)

    def _run_backward(self, frame: Frame, block: Block, buffers: tuple[Array, ...], d: Three, scale: float) -> Block:
        shapes = [(V.shape[2], frame.padded(V.shape[0]), frame.padded(V.shape[1])) for V in block.V]
        scratch = Workspace(frame.dtype, [(frame.packed_back(block),), *shapes])
        packed, *d_taps = scratch.arrays
        d_V, d_g = _three(map(np.empty_like, block.V)), _three(map(np.empty_like, block.g))
        d_b = _three(np.empty(frame.padded(b.size), frame.dtype) for b in block.b)
        arguments = (
            block.V, block.g, *buffers, frame.T, *d, frame.dtype.type(scale), block.dilation, packed,
            not frame.has_past, tuple(d_taps), d_V, d_g, d_b,
        )  # fmt: skip
        self._run.backward(*arguments, *whole_pass(frame.parts))
        return Block(d_V, d_g, _three(d[: b.size] for d, b in zip(d_b, block.b, strict=True)), block.dilation)


def _three(arrays: Iterable[Array]) -> Three:
    first, second, beside = arrays
    return first, second, beside


def _put(values: Array, buffer: Array) -> None:
    """Into the last steps of a buffer, with zeros in the channels beyond."""
    T, _, C = values.shape
    inside = buffer[buffer.shape[0] - T :]
    inside[:, :, :C] = values
    inside[:, :, C:] = 0


class Stepper:
    """Single steps of a stack on the fast kernels, its parameters packed once.

    Args:
        blocks: the parameters.
    """

    def __init__(self, blocks: Sequence[Block]) -> None:
        dtype = blocks[0].V[0].dtype
        channels = [blocks[0].sizes[0]] + [block.sizes[1] for block in blocks]
        rounded = [padded(C, dtype) for C in channels]
        sizes = [convolution_step.tape_size(block.V, Hp) for block, Hp in zip(blocks, rounded[1:], strict=True)]
        pack, self._step = stepping()
        self._tape, at = aligned((sum(sizes),), dtype), 0
        for block, size in zip(blocks, sizes, strict=True):
            pack(block.V, block.g, block.b, self._tape[at : at + size])
            at += size
        self._sizes, self._inputs, self._outputs = np.array(channels), channels[0], channels[-1]
        self._dilations = np.array([block.dilation for block in blocks])
        self._K = blocks[0].V[0].shape[2]
        self._scratch = (self._K + 4) * max(rounded)

    def __call__(self, x: Array, past: Array, position: Array) -> Array:
        """``x (B, D)`` to ``y (B, C)``; ``past`` and ``position`` go on, in place.

        Raises:
            ValueError: ``x`` is of another width than the parameters, or of other sequences than the past.
        """
        B, dtype = x.shape[0], x.dtype
        check_input(x.shape[1], self._inputs)
        check_sequences(len(past), B)
        y, scratch = np.empty((B, self._outputs), dtype), np.empty(B * self._scratch, dtype)
        self._step(x, past, position, self._sizes, self._dilations, self._K, self._tape, scratch, y)
        return y
