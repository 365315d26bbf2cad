"""One recurrent layer in one direction, from numpy arrays to numpy arrays: the fast kernels and the plain ones.

The buffers are described in ``engine``. Each cell has compiled functions of its own, kept in numba's cache on disk. A
whole pass is one call of one of them: at small sizes the calls and the arrays made in Python would cost more than what
they compute.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import engine, plain
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.jit import cached, cached_parallel, prange
from seqbench.backends.kernels.rooms import Rooms
from seqbench.backends.kernels.target import HOST

Array = Any
_ROOMS = Rooms()


@dataclass(frozen=True)
class Compiled:
    """The compiled functions of one cell; the parallel ones take the number of parts last."""

    forward: Callable[..., Any]
    forward_parallel: Callable[..., Any]
    backward: Callable[..., Any]
    backward_parallel: Callable[..., Any]


@cache
def fast(cell: Cell) -> Compiled:
    """Of a cell; compiled at their first call, or read from the cache."""

    @cached
    def forward(constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room):
        size, x_ = engine.sizes_of(x, time_first, U, training), x.reshape(-1)
        states, gates, mid = engine.buffers_in(cell, room, size, training, 1)
        W_packed, U_packed, bias, y = engine.begin_forward(
            cell, size, x_, W.reshape(-1), U.reshape(-1), b_x, b_h, start.reshape(-1), states, outputs
        )
        engine.forward_rows(
            cell, constants, size, x_, W_packed, U_packed, bias, states, gates, mid, y, 0, size.B, training
        )
        return y.reshape(outputs, x.shape[0], x.shape[1], size.H)

    @cached_parallel
    def forward_parallel(constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room, parts):
        size, x_ = engine.sizes_of(x, time_first, U, training), x.reshape(-1)
        states, gates, mid = engine.buffers_in(cell, room, size, training, parts)
        W_packed, U_packed, bias, y = engine.begin_forward(
            cell, size, x_, W.reshape(-1), U.reshape(-1), b_x, b_h, start.reshape(-1), states, outputs
        )
        for part in prange(parts):
            first, last = size.B * part // parts, size.B * (part + 1) // parts
            engine.forward_rows(
                cell, constants, size, x_, W_packed, U_packed, bias, states, gates, mid, y, first, last, training
            )
        return y.reshape(outputs, x.shape[0], x.shape[1], size.H)

    @cached
    def backward(constants, x, time_first, W, U, b_h, room, d_y, d_time_first):
        size, x_, d_y_ = engine.sizes_of(x, time_first, U, True), x.reshape(-1), d_y.reshape(-1)
        d_t, d_b = (size.B * size.H, size.H) if d_time_first else (size.H, size.T * size.H)
        states, gates, mid = engine.buffers_in(cell, room, size, True, 1)
        W_packed, U_packed, d_states, dx, dW, dU, d_bias = engine.begin_backward(
            cell, size, x_, W.reshape(-1), U.reshape(-1)
        )
        engine.backward_rows(
            cell, constants, size, W_packed, U_packed, states, gates, mid, d_y_, d_t, d_b, d_states, dx, 0, size.B
        )
        engine.weight_gradients(cell, size, x_, states, gates, mid, dW, dU, 0, 1)
        return dx.reshape(x.shape), engine.gradients(cell, size, gates, b_h, d_states, dW, dU, d_bias)

    @cached_parallel
    def backward_parallel(constants, x, time_first, W, U, b_h, room, d_y, d_time_first, parts):
        size, x_, d_y_ = engine.sizes_of(x, time_first, U, True), x.reshape(-1), d_y.reshape(-1)
        d_t, d_b = (size.B * size.H, size.H) if d_time_first else (size.H, size.T * size.H)
        states, gates, mid = engine.buffers_in(cell, room, size, True, 1)
        W_packed, U_packed, d_states, dx, dW, dU, d_bias = engine.begin_backward(
            cell, size, x_, W.reshape(-1), U.reshape(-1)
        )
        for part in prange(parts):
            first, last = size.B * part // parts, size.B * (part + 1) // parts
            engine.backward_rows(
                cell, constants, size, W_packed, U_packed, states, gates, mid, d_y_, d_t, d_b, d_states, dx, first,
                last,
            )  # fmt: skip
        for part in prange(parts):
            engine.weight_gradients(cell, size, x_, states, gates, mid, dW, dU, part, parts)
        return dx.reshape(x.shape), engine.gradients(cell, size, gates, b_h, d_states, dW, dU, d_bias)

    return Compiled(forward, forward_parallel, backward, backward_parallel)


@cache
def slow(cell: Cell) -> Compiled:
    """The same in plain loops, which know no threads."""

    @cached
    def forward(constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room):
        return plain.plain_forward(cell, constants, x, time_first, W, U, b_x, b_h, start, outputs, room)

    @cached
    def backward(constants, x, time_first, W, U, b_h, room, d_y, d_time_first):
        return plain.plain_backward(cell, constants, x, time_first, W, U, b_h, room, d_y, d_time_first)

    return Compiled(forward, forward, backward, backward)


@dataclass(frozen=True)
class Parameters:
    """Of a layer: ``W (gates * H, D)``, ``U (blocks * H, H)``, ``b_x (gates * H)``, ``b_h (blocks * H)`` or empty.

    Contiguous, of one dtype.
    """

    W: Array
    U: Array
    b_x: Array
    b_h: Array


@dataclass(frozen=True)
class Kept:
    """What a forward pass leaves for the backward pass; ``room`` holds the buffers that ``engine`` describes."""

    x: Array
    time_first: bool
    room: Array


@dataclass(frozen=True)
class Gradients:
    """Of a layer.

    Attributes:
        x: as the input.
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
        self._constants = {np.dtype(t): np.array(constants or (0.0,), t) for t in (np.float32, np.float64)}

    def forward(
        self, x: Array, time_first: bool, p: Parameters, start: Array, outputs: int, training: bool, threads: int = 1
    ) -> tuple[Array, Kept]:
        """All steps.

        Args:
            x: ``(T, B, D)`` or ``(B, T, D)``, contiguous.
            time_first: which of the two.
            p: the parameters.
            start: ``(states, B, H)``, contiguous; empty, but with three axes, for zeros.
            outputs: of how many states, from the first on, the values after each step are wanted.
            training: keep what the backward pass needs.
            threads: parts of the batch that run at the same time.

        Returns:
            ``(outputs, T, B, H)`` or ``(outputs, B, T, H)``, as ``x``, and what was kept.
        """
        T, B = x.shape[:2] if time_first else (x.shape[1], x.shape[0])
        functions, parts = self._functions(B, threads)
        room = _ROOMS.take(self._room(T, B, p.U.shape[1], x, training, parts), x.dtype)
        arguments = (x, time_first, p.W, p.U, p.b_x, p.b_h, start, outputs, training, room)
        if parts == 1:
            y = functions.forward(self._constants[x.dtype], *arguments)
        else:
            y = functions.forward_parallel(self._constants[x.dtype], *arguments, parts)
        if not training:
            _ROOMS.give(room)
        return y, Kept(x, time_first, room)

    def backward(self, kept: Kept, p: Parameters, d_y: Array, time_first: bool, threads: int = 1) -> Gradients:
        """Every gradient; what was kept is used up.

        Args:
            kept: of ``forward`` with ``training``.
            p: the parameters.
            d_y: ``(n, T, B, H)`` or ``(n, B, T, H)``, contiguous: of the first ``n`` states after each step.
            time_first: which of the two.
            threads: as in ``forward``.
        """
        x = kept.x
        functions, parts = self._functions(x.shape[1 if kept.time_first else 0], threads)
        arguments = (x, kept.time_first, p.W, p.U, p.b_h, kept.room, d_y, time_first)
        if parts == 1:
            dx, found = functions.backward(self._constants[x.dtype], *arguments)
        else:
            dx, found = functions.backward_parallel(self._constants[x.dtype], *arguments, parts)
        _ROOMS.give(kept.room)
        return Gradients(dx, found[0], Parameters(*found[1:]))

    def _room(self, T: int, B: int, H: int, x: Array, training: bool, parts: int) -> int:
        if self.plain:
            return int(plain.room_of(self.cell, T, B, H))
        lanes = HOST.lanes(x.itemsize)
        return int(engine.room_of(self.cell, T, B, -(-H // lanes) * lanes, training, parts))

    def _functions(self, B: int, threads: int) -> tuple[Compiled, int]:
        """The compiled functions and the parts of the batch: none of fewer than 8 sequences would fill the tiles."""
        return (slow(self.cell), 1) if self.plain else (fast(self.cell), max(1, min(threads, B // 8)))
