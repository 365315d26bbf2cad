"""One recurrent layer in one direction, from numpy arrays to numpy arrays: the fast kernels and the plain ones.

The buffers are described in ``engine``. Each cell has compiled functions of its own, kept in numba's cache on disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import engine, plain
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.jit import cached, cached_parallel, prange
from seqbench.backends.kernels.target import HOST

Array = Any


def aligned(shape: tuple[int, ...], dtype: Any, zero: bool = False) -> Array:
    """An array whose data begin at a multiple of a cache line, so that no vector lies across two."""
    count, itemsize = math.prod(shape), np.dtype(dtype).itemsize
    room = (np.zeros if zero else np.empty)(count + 64 // itemsize, dtype)
    start = -room.ctypes.data % 64 // itemsize
    return room[start : start + count].reshape(shape)


@dataclass(frozen=True)
class Fast:
    """The compiled functions of one cell."""

    pack_forward: Callable[..., Any]
    pack_backward: Callable[..., Any]
    forward: Callable[..., Any]
    forward_parallel: Callable[..., Any]
    backward: Callable[..., Any]
    backward_parallel: Callable[..., Any]


@cache
def fast(cell: Cell) -> Fast:
    """Of a cell; compiled at their first call, or read from the cache."""

    @cached
    def pack_forward(W, U, b_x, b_h, H, Hp, W_packed, U_packed, bias):
        engine.pack_forward(cell, W, U, b_x, b_h, H, Hp, W_packed, U_packed, bias)

    @cached
    def pack_backward(W, U, H, Hp, W_packed, U_packed):
        engine.pack_backward(cell, W, U, H, Hp, W_packed, U_packed)

    @cached
    def forward(constants, x, W, U, bias, states, gates, mid, H, training):
        engine.forward_rows(cell, constants, x, W, U, bias, states, gates, mid, 0, x.shape[1], H, training)

    @cached_parallel
    def forward_parallel(constants, x, W, U, bias, states, gates, mid, H, training, parts):
        for part in prange(parts):
            B = x.shape[1]
            first, last = B * part // parts, B * (part + 1) // parts
            engine.forward_rows(cell, constants, x, W, U, bias, states, gates, mid, first, last, H, training)

    @cached
    def backward(constants, x, W, U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias, H):
        B = x.shape[1]
        engine.backward_rows(cell, constants, W, U, states, gates, mid, d_y, d_states, dx, 0, B, H)
        engine.weight_gradients(cell, x, states, gates, mid, dW, dU, 0, 1)
        engine.bias_gradient(gates, d_bias)

    @cached_parallel
    def backward_parallel(constants, x, W, U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias, H, parts):
        for part in prange(parts):
            B = x.shape[1]
            first, last = B * part // parts, B * (part + 1) // parts
            engine.backward_rows(cell, constants, W, U, states, gates, mid, d_y, d_states, dx, first, last, H)
        for part in prange(parts):
            engine.weight_gradients(cell, x, states, gates, mid, dW, dU, part, parts)
        engine.bias_gradient(gates, d_bias)

    return Fast(pack_forward, pack_backward, forward, forward_parallel, backward, backward_parallel)


@cache
def slow(cell: Cell) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Forward and backward of a cell in plain loops."""

    @cached
    def forward(constants, x, W, U, b_x, b_h, states, gates, mid):
        plain.plain_forward(cell, constants, x, W, U, b_x, b_h, states, gates, mid)

    @cached
    def backward(constants, x, W, U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias):
        plain.plain_backward(cell, constants, x, W, U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias)

    return forward, backward


@dataclass(frozen=True)
class Parameters:
    """Of a layer: ``W (gates * H, D)``, ``U (blocks * H, H)``, ``b_x (gates * H)``, ``b_h (blocks * H)`` or empty."""

    W: Array
    U: Array
    b_x: Array
    b_h: Array


@dataclass(frozen=True)
class Kept:
    """What a forward pass leaves for the backward pass.

    Attributes:
        x: ``(T, B, D)``.
        states: ``(states, T + 1, B, Hp)``.
        gates: ``(T, B, slots * Hp)``.
        mid: ``(T + 1, B, Hp)``; of a cell without late slots ``(1, 1, 1)``.
    """

    x: Array
    states: Array
    gates: Array
    mid: Array


@dataclass(frozen=True)
class Gradients:
    """Of a layer.

    Attributes:
        x: ``(T, B, D)``.
        states: ``(states, B, H)``, of the states before the first step.
        parameters: of every parameter.
    """

    x: Array
    states: Array
    parameters: Parameters


class Kernels:
    """A cell with its constants, run by the fast kernels or the plain ones.

    Args:
        cell: the cell.
        constants: numbers that its functions get.
        plain: run plain loops.
    """

    def __init__(self, cell: Cell, constants: tuple[float, ...] = (), plain: bool = False) -> None:
        self.cell, self.plain = cell, plain
        self._constants = constants or (0.0,)

    def padded(self, n: int, dtype: Any) -> int:
        """``n`` rounded up to whole vectors; plain loops need no padding."""
        lanes = 1 if self.plain else HOST.lanes(np.dtype(dtype).itemsize)
        return -(-n // lanes) * lanes

    def forward(self, x: Array, p: Parameters, start: list[Array], training: bool, threads: int = 1) -> Kept:
        """All steps.

        Args:
            x: ``(T, B, D)``, any strides, the last axis contiguous.
            p: the parameters, contiguous, of the same dtype.
            start: ``(B, H)`` for each state.
            training: keep what the backward pass needs.
            threads: parts of the batch that run at the same time.
        """
        T, B, _ = x.shape
        H, dtype = p.U.shape[1], x.dtype
        Hp = self.padded(H, dtype)
        states = aligned((self.cell.states, T + 1, B, Hp), dtype)
        for state, first in zip(states, start, strict=True):
            state[0, :, :H] = first
            state[0, :, H:] = 0
        parts = parts_of(B, threads)
        keep = training or self.plain
        steps = T if keep else min(T, int(engine.block_steps(B // parts)))
        gates = aligned((steps, B, self.cell.slots * Hp), dtype)
        mid = aligned(((T + 1 if keep else 1), B, Hp) if self.cell.late else (1, 1, 1), dtype, zero=True)
        self._run_forward(x, p, states, gates, mid, training, parts)
        return Kept(x, states, gates, mid)

    def _run_forward(
        self, x: Array, p: Parameters, states: Array, gates: Array, mid: Array, training: bool, parts: int
    ) -> None:
        constants = np.array(self._constants, x.dtype)
        if self.plain:
            slow(self.cell)[0](constants, x, p.W, p.U, p.b_x, p.b_h, states, gates, mid)
            return
        run, H, Hp = fast(self.cell), p.U.shape[1], states.shape[3]
        W = aligned((p.W.shape[1] * self.cell.gates * Hp,), x.dtype)
        U = aligned((H * len(self.cell.recurrent) * Hp,), x.dtype)
        bias = aligned((self.cell.slots * Hp,), x.dtype)
        run.pack_forward(p.W, p.U, p.b_x, p.b_h, H, Hp, W, U, bias)
        if parts == 1:
            run.forward(constants, x, W, U, bias, states, gates, mid, H, training)
        else:
            run.forward_parallel(constants, x, W, U, bias, states, gates, mid, H, training, parts)

    def backward(self, kept: Kept, p: Parameters, d_y: list[Array | None], threads: int = 1) -> Gradients:
        """Every gradient; what was kept is used up.

        Args:
            kept: of ``forward`` with ``training``.
            p: the parameters.
            d_y: for each state the gradient ``(T, B, H)`` of its values after each step, or None for zeros.
            threads: as in ``forward``.
        """
        x, cell = kept.x, self.cell
        T, B, D = x.shape
        H, Hp, Dp = p.U.shape[1], kept.states.shape[3], self.padded(D, x.dtype)
        blocks = len(cell.recurrent)
        d = self._output_gradients(d_y, (T, B, H), Hp, x.dtype)
        d_states = aligned((cell.states, B, Hp), x.dtype, zero=True)
        dx = aligned((T, B, Dp), x.dtype, zero=True)
        dW = aligned((cell.gates * Hp, Dp), x.dtype, zero=True)
        dU = aligned((blocks * Hp, Hp), x.dtype, zero=True)
        d_bias = aligned((cell.slots * Hp,), x.dtype, zero=True)
        self._run_backward(kept, p, d, d_states, dx, dW, dU, d_bias, parts_of(B, threads))
        bias = d_bias.reshape(cell.slots, Hp)[:, :H]
        parameters = Parameters(
            dW.reshape(cell.gates, Hp, Dp)[:, :H, :D].reshape(cell.gates * H, D),
            dU.reshape(blocks, Hp, Hp)[:, :H, :H].reshape(blocks * H, H),
            bias[: cell.gates].reshape(-1),
            bias[list(cell.recurrent)].reshape(-1) if p.b_h.size else p.b_h,
        )
        return Gradients(dx[:, :, :D], d_states[:, :, :H], parameters)

    def _output_gradients(self, d_y: list[Array | None], shape: tuple[int, ...], Hp: int, dtype: Any) -> Array:
        """``(n, T, B, Hp)`` of the first states, up to the last that has one; zero beyond ``H``."""
        n = max((k + 1 for k, d in enumerate(d_y) if d is not None), default=1)
        T, B, H = shape
        if n == 1 and d_y[0] is not None and Hp == H and d_y[0].flags.c_contiguous:
            return d_y[0][None]
        together = aligned((n, T, B, Hp), dtype, zero=True)
        for k, d in enumerate(d_y):
            if d is not None:
                together[k, :, :, :H] = d
        return together

    def _run_backward(
        self, kept: Kept, p: Parameters, d_y: Array, d_states: Array, dx: Array, dW: Array, dU: Array, d_bias: Array,
        parts: int,
    ) -> None:  # fmt: skip
        x, states, gates, mid = kept.x, kept.states, kept.gates, kept.mid
        constants = np.array(self._constants, x.dtype)
        if self.plain:
            slow(self.cell)[1](constants, x, p.W, p.U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias)
            return
        run, H, Hp, Dp = fast(self.cell), p.U.shape[1], states.shape[3], dx.shape[2]
        W = aligned((self.cell.gates * Hp * Dp,), x.dtype)
        U = aligned((len(self.cell.recurrent) * Hp * Hp,), x.dtype)
        run.pack_backward(p.W, p.U, H, Hp, W, U)
        arguments = (constants, x, W, U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias, H)
        if parts == 1:
            run.backward(*arguments)
        else:
            run.backward_parallel(*arguments, parts)


def parts_of(B: int, threads: int) -> int:
    """Parts of a batch: one for each thread, none of fewer than 8 sequences, which would waste the tiles."""
    return max(1, min(threads, B // 8))
