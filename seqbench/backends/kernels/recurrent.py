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
from seqbench.backends.kernels.jit import cached, cached_parallel, compiled, prange
from seqbench.backends.kernels.padding import padded
from seqbench.backends.kernels.sizes import check_input
from seqbench.backends.kernels.workspace import Workspace, aligned

Array = Any


@dataclass(frozen=True)
class Compiled:
    """The compiled functions of one cell; the parallel ones take the number of parts last."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@cache
def fast(cell: Cell) -> Compiled:
    """Of a cell; compiled at their first call, or read from the cache."""

    @cached(cell.key)
    def forward(constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room, packed, fresh):
        size, x_ = engine.sizes_of(x, time_first, U, training), x.reshape(-1)
        states, gates, mid = engine.buffers_in(cell, room, size, training, 1)
        W_packed, U_packed, bias, y = engine.begin_forward(
            cell, size, x_, W.reshape(-1), U.reshape(-1), b_x, b_h, start.reshape(-1), states, outputs, packed, fresh
        )
        engine.forward_rows(
            cell, constants, size, x_, W_packed, U_packed, bias, states, gates, mid, y, 0, size.B, training
        )
        return y.reshape(outputs, x.shape[0], x.shape[1], size.H)

    @cached(cell.key)
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
        engine.weight_gradients(cell, size, x_, states, gates, mid, dW, dU, d_bias, 0, 1)
        return dx.reshape(x.shape), engine.gradients(cell, size, b_h, d_states, dW, dU, d_bias)

    return Compiled(forward, backward)


@compiled
def _some_rows(cell, constants, size, x_, W_packed, U_packed, bias, states, gates, mid, y, first, last, training):
    engine.forward_rows(
        cell, constants, size, x_, W_packed, U_packed, bias, states, gates, mid, y, first, last, training
    )


@compiled
def _some_rows_back(
    cell, constants, size, W_packed, U_packed, states, gates, mid, d_y_, d_t, d_b, d_states, dx, first, last
):
    engine.backward_rows(
        cell, constants, size, W_packed, U_packed, states, gates, mid, d_y_, d_t, d_b, d_states, dx, first, last
    )


@compiled
def _some_gradients(cell, size, x_, states, gates, mid, dW, dU, d_bias, part, parts):
    engine.weight_gradients(cell, size, x_, states, gates, mid, dW, dU, d_bias, part, parts)


@cache
def parallel(cell: Cell) -> Compiled:
    """The same for a batch in parts that run at the same time.

    A parallel loop calls functions of their own: numba moves allocations out of such a loop, where turns share them.
    Its counter is unsigned; passed on as it is, it would have what it is passed to compiled once more.
    """

    @cached_parallel(cell.key)
    def forward(constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room, packed, fresh, parts):
        size, x_ = engine.sizes_of(x, time_first, U, training), x.reshape(-1)
        states, gates, mid = engine.buffers_in(cell, room, size, training, parts)
        W_packed, U_packed, bias, y = engine.begin_forward(
            cell, size, x_, W.reshape(-1), U.reshape(-1), b_x, b_h, start.reshape(-1), states, outputs, packed, fresh
        )
        for part in prange(parts):
            first, last = size.B * part // parts, size.B * (part + 1) // parts
            _some_rows(
                cell, constants, size, x_, W_packed, U_packed, bias, states, gates, mid, y, first, last, training
            )
        return y.reshape(outputs, x.shape[0], x.shape[1], size.H)

    @cached_parallel(cell.key)
    def backward(constants, x, time_first, W, U, b_h, room, d_y, d_time_first, parts):
        size, x_, d_y_ = engine.sizes_of(x, time_first, U, True), x.reshape(-1), d_y.reshape(-1)
        d_t, d_b = (size.B * size.H, size.H) if d_time_first else (size.H, size.T * size.H)
        states, gates, mid = engine.buffers_in(cell, room, size, True, 1)
        W_packed, U_packed, d_states, dx, dW, dU, d_bias = engine.begin_backward(
            cell, size, x_, W.reshape(-1), U.reshape(-1)
        )
        for part in prange(parts):
            first, last = size.B * part // parts, size.B * (part + 1) // parts
            _some_rows_back(
                cell, constants, size, W_packed, U_packed, states, gates, mid, d_y_, d_t, d_b, d_states, dx, first, last
            )
        for part in prange(parts):
            _some_gradients(cell, size, x_, states, gates, mid, dW, dU, d_bias, np.int64(part), parts)
        return dx.reshape(x.shape), engine.gradients(cell, size, b_h, d_states, dW, dU, d_bias)

    return Compiled(forward, backward)


@cache
def slow(cell: Cell) -> Compiled:
    """The same in plain loops, which know no threads."""

    @cached(cell.key)
    def forward(constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room, packed, fresh):
        return plain.plain_forward(cell, constants, x, time_first, W, U, b_x, b_h, start, outputs, room)

    @cached(cell.key)
    def backward(constants, x, time_first, W, U, b_h, room, d_y, d_time_first):
        return plain.plain_backward(cell, constants, x, time_first, W, U, b_h, room, d_y, d_time_first)

    return Compiled(forward, backward)


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
    """What a forward pass leaves for the backward pass; ``workspace`` holds the buffers that ``engine`` describes."""

    x: Array
    time_first: bool
    workspace: Workspace


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
        self.constants = {np.dtype(t): np.array(constants or (0.0,), t) for t in (np.float32, np.float64)}

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

        Raises:
            ValueError: ``x`` or ``start`` has another shape.
        """
        T, B = x.shape[:2] if time_first else (x.shape[1], x.shape[0])
        self.check_sizes(x, start, B, p)
        functions, parts, more = self.functions(B, threads)
        workspace = Workspace(x.dtype, [(self.room(T, B, p, training, parts),)])
        room = workspace.arrays[0]
        arguments = (x, time_first, p.W, p.U, p.b_x, p.b_h, start, outputs, training, room, room[:0], True)
        y = functions.forward(self.constants[x.dtype], *arguments, *more)
        return y, Kept(x, time_first, workspace)

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
        functions, _, more = self.functions(x.shape[1 if kept.time_first else 0], threads)
        arguments = (x, kept.time_first, p.W, p.U, p.b_h, kept.workspace.arrays[0], d_y, time_first)
        dx, found = functions.backward(self.constants[x.dtype], *arguments, *more)
        return Gradients(dx, found[0], Parameters(*found[1:]))

    def check_sizes(self, x: Array, start: Array, B: int, p: Parameters) -> None:
        """Whether input and states fit the parameters and one another.

        Raises:
            ValueError: they do not.
        """
        check_input(x.shape[2], p.W.shape[1])
        expected = self.cell.states, B, p.U.shape[1]
        if start.size and start.shape != expected:
            raise ValueError(f"the state has shape {start.shape}; expected {expected}: states, sequences, width")

    def room(self, T: int, B: int, p: Parameters, training: bool, parts: int) -> int:
        """Elements of the buffers."""
        H = p.U.shape[1]
        if self.plain:
            return int(plain.room_of(self.cell, T, B, H))
        return int(engine.room_of(self.cell, T, B, padded(H, p.U.dtype), training, parts))

    def room_for_matrices(self, p: Parameters) -> int:
        """Elements of the packed matrices; the plain loops need none."""
        H = p.U.shape[1]
        return 0 if self.plain else engine.packed_of(self.cell, p.W.shape[1], H, padded(H, p.U.dtype))

    def functions(self, B: int, threads: int) -> tuple[Compiled, int, tuple[int, ...]]:
        """The compiled functions, the parts of the batch, and what they take last.

        One part runs without a pool of threads.
        """
        parts = 1 if self.plain else parts_of(B, threads)
        if parts > 1:
            return parallel(self.cell), parts, (parts,)
        return slow(self.cell) if self.plain else fast(self.cell), 1, ()


class Stepper:
    """Single steps of a layer without gradient, one after another, with parameters that do not change.

    At one sequence a step takes a few microseconds, as long as making a few arrays in Python: so the matrices stay
    packed and the buffers in their place from step to step. Compiled functions hold the interpreter's lock, so two
    threads cannot be in the same buffers.
    """

    def __init__(self, kernels: Kernels, p: Parameters) -> None:
        self._kernels, self._p = kernels, p
        self._packed, self._fresh = aligned((kernels.room_for_matrices(p),), p.U.dtype), True
        self._ready_for: tuple[int, int] | None = None

    def __call__(self, x: Array, start: Array, threads: int = 1) -> Array:
        """One step.

        Args:
            x: ``(1, B, D)``, contiguous.
            start: ``(states, B, H)``, contiguous.
            threads: as in ``Kernels.forward``.

        Returns:
            ``(states, 1, B, H)``.

        Raises:
            ValueError: ``x`` or ``start`` has another shape.
        """
        B, p = x.shape[1], self._p
        if self._ready_for != (B, threads):
            self._prepare(B, threads)
        self._kernels.check_sizes(x, start, B, p)
        arguments = (p.W, p.U, p.b_x, p.b_h, start, len(start), False, self._room, self._packed, self._fresh)
        y = self._forward(self._constants, x, True, *arguments, *self._more)
        self._fresh = False
        return y

    def _prepare(self, B: int, threads: int) -> None:
        functions, parts, self._more = self._kernels.functions(B, threads)
        dtype = self._p.U.dtype
        self._forward, self._constants = functions.forward, self._kernels.constants[dtype]
        self._room = aligned((self._kernels.room(1, B, self._p, False, parts),), dtype)
        self._ready_for = (B, threads)


def parts_of(B: int, threads: int) -> int:
    """Parts of a batch: one for each thread, none of fewer than 8 sequences, which would not fill the tiles."""
    return max(1, min(threads, B // 8))
