"""One recurrent layer in one direction, from numpy arrays to numpy arrays: the fast kernels and the plain ones.

The buffers are described in ``engine``. Each cell has compiled functions of its own, kept in numba's cache on disk. A
whole pass is one call of one of them: at small sizes the calls and the arrays made in Python would cost more than what
they compute.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from seqbench.backends.kernels import engine, plain
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.ownership import borrowed, keep
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
from seqbench.backends.kernels.sizes import check_input
from seqbench.backends.kernels.workspace import LARGE, Workspace, aligned

Array = Any


@dataclass(frozen=True)
class Compiled:
    """The compiled functions of one cell; their last arguments are described in ``parts``.

    Of the arrays ``packed``, ``y``, ``work``, ``sums`` and ``dx`` (see ``engine``) those that come in empty are made
    there, which takes less time than in Python. With several parts they must not be empty: the parts share them.
    """

    forward: Callable[..., Any]
    backward: Callable[..., Any]


@cache
def fast(cell: Cell) -> Compiled:
    """Of a cell; compiled at their first call, or read from the cache."""
    return Compiled(_fast_forward(cell), _fast_backward(cell))


def _fast_forward(cell: Cell) -> Any:
    @cached(cell.key)
    def forward(
        constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room, fresh, packed, y,
        launch, stage, part, parts,
    ):  # fmt: skip
        size, x_ = engine.sizes_of(x, time_first, U, training), borrowed(x).reshape(-1)
        states, gates, mid = engine.buffers_in(cell, borrowed(room), size, training, parts)
        packed = engine.packed_or_new(cell, size, U, packed)
        W_packed, U_packed, bias = engine.matrices_in(cell, size, U, borrowed(packed))
        y = engine.given_or_new(y, outputs * size.T * size.B * size.H, x)
        result = y.reshape(outputs, x.shape[0], x.shape[1], size.H)
        if stage == WHOLE and fresh:
            engine.pack_for_forward(
                cell, size, borrowed(W), borrowed(U), borrowed(b_x), borrowed(b_h), W_packed, U_packed, bias
            )
        if is_mine(stage, ROWS, parts):
            first, last = bounds_of_rows(size.B, part, parts)
            engine.forward_rows(
                cell, borrowed(constants), size, x_, W_packed, U_packed, bias, borrowed(start).reshape(-1), states,
                gates, mid, borrowed(y), first, last, training,
            )  # fmt: skip
        else:
            in_parts(launch, ROWS, parts, result)
        keep(packed)
        return result

    return forward


def _fast_backward(cell: Cell) -> Any:
    @cached(cell.key)
    def backward(
        constants, x, time_first, W, U, b_h, room, d_y, d_time_first, work, sums, dx, launch, stage, part, parts
    ):
        size, x_ = engine.sizes_of(x, time_first, U, True), borrowed(x).reshape(-1)
        states, gates, mid = engine.buffers_in(cell, borrowed(room), size, True, 1)
        work = engine.work_or_new(cell, size, U, work)
        W_packed, U_packed, d_states = engine.split_back(cell, size, U, borrowed(work))
        sums = engine.sums_or_new(cell, size, U, sums)
        dW, dU, d_bias = engine.split_back(cell, size, U, borrowed(sums))
        dx = engine.given_or_new(dx, x.size, x)
        if stage == WHOLE:
            engine.prepare_backward(cell, size, borrowed(W), borrowed(U), W_packed, U_packed, d_states, dW, dU, d_bias)
        if is_mine(stage, ROWS, parts):
            first, last = bounds_of_rows(size.B, part, parts)
            d_t, d_b = (size.B * size.H, size.H) if d_time_first else (size.H, size.T * size.H)
            engine.backward_rows(
                cell, borrowed(constants), size, W_packed, U_packed, states, gates, mid, borrowed(d_y).reshape(-1),
                d_t, d_b, d_states, borrowed(dx), first, last,
            )  # fmt: skip
        if is_mine(stage, WEIGHTS, parts):
            engine.weight_gradients(cell, size, x_, states, gates, mid, dW, dU, d_bias, part, parts)
        d_x = dx.reshape(x.shape)
        if stage != WHOLE:
            return d_x, engine.no_gradients(sums)
        if parts > 1:
            for each in range(ROWS, WEIGHTS + 1):
                in_parts(launch, each, parts, (d_x, engine.no_gradients(sums)))
        dW, dU, d_bias = engine.split_back(cell, size, U, sums)  # not borrowed: the first two may leave as they are
        found = engine.gradients(cell, size, b_h, d_states, dW, dU, d_bias)
        keep(work)
        return d_x, found

    return backward


@cache
def slow(cell: Cell) -> Compiled:
    """The same in plain loops, which know no parts."""

    @cached(cell.key)
    def forward(
        constants, x, time_first, W, U, b_x, b_h, start, outputs, training, room, fresh, packed, y,
        launch, stage, part, parts,
    ):  # fmt: skip
        return plain.plain_forward(cell, constants, x, time_first, W, U, b_x, b_h, start, outputs, room)

    @cached(cell.key)
    def backward(
        constants, x, time_first, W, U, b_h, room, d_y, d_time_first, work, sums, dx, launch, stage, part, parts
    ):
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
        parts = self.parts(B, threads)
        workspace = Workspace(x.dtype, [(self.room(T, B, p, training, parts),)])
        room = workspace.arrays[0]
        packed = y = room[:0]
        count = outputs * T * B * p.U.shape[1]
        if parts > 1:
            packed = aligned((self.room_for_matrices(p),), x.dtype)
        if parts > 1 or count * x.itemsize >= LARGE:
            y = aligned((count,), x.dtype)
        arguments = (x, time_first, p.W, p.U, p.b_x, p.b_h, start, outputs, training, room, True, packed, y)
        found = self.functions.forward(self.constants[x.dtype], *arguments, *whole_pass(parts))
        return found, Kept(x, time_first, workspace)

    def backward(self, kept: Kept, p: Parameters, d_y: Array, time_first: bool, threads: int = 1) -> Gradients:
        """Every gradient; what was kept is used up.

        Args:
            kept: of ``forward`` with ``training``.
            p: the parameters.
            d_y: ``(n, T, B, H)`` or ``(n, B, T, H)``, contiguous: of the first ``n`` states after each step.
            time_first: which of the two.
            threads: as in ``forward``.
        """
        x, room = kept.x, kept.workspace.arrays[0]
        B = x.shape[1 if kept.time_first else 0]
        parts = self.parts(B, threads)
        work = sums = dx = room[:0]
        if parts > 1:
            of_work, of_sums = self._sizes_back(B, p)
            work, sums = aligned((of_work,), x.dtype), aligned((of_sums,), x.dtype)
        if parts > 1 or x.nbytes >= LARGE:
            dx = aligned((x.size,), x.dtype)
        arguments = (x, kept.time_first, p.W, p.U, p.b_h, room, d_y, time_first, work, sums, dx)
        d_x, found = self.functions.backward(self.constants[x.dtype], *arguments, *whole_pass(parts))
        return Gradients(d_x, found[0], Parameters(*found[1:]))

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
        if self.plain:
            return 0
        cell, H = self.cell, p.U.shape[1]
        return int(engine.packed_of(cell.gates, len(cell.recurrent), cell.slots, p.W.shape[1], H, padded(H, p.U.dtype)))

    def _sizes_back(self, B: int, p: Parameters) -> tuple[int, int]:
        """Elements of ``work`` and ``sums``."""
        cell, Dp, Hp = self.cell, padded(p.W.shape[1], p.U.dtype), padded(p.U.shape[1], p.U.dtype)
        gates, blocks = cell.gates, len(cell.recurrent)
        return (
            int(engine.work_of(gates, blocks, cell.states, B, Dp, Hp)),
            int(engine.sums_of(gates, blocks, cell.slots, Dp, Hp)),
        )

    @property
    def functions(self) -> Compiled:
        """The compiled functions."""
        return slow(self.cell) if self.plain else fast(self.cell)

    def parts(self, B: int, threads: int) -> int:
        """Parts of a batch; plain loops run as one."""
        return 1 if self.plain else parts_of(B, threads)


class Stepper:
    """Single steps of a layer without gradient, one after another, with parameters that do not change.

    At one sequence a step takes a few microseconds, as long as making a few arrays in Python: so the matrices stay
    packed and the buffers in their place from step to step. One thread of Python at a time is in them.
    """

    _lock = threading.Lock()  # of all of them: one that could not be copied would keep a core from being copied

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
        self._kernels.check_sizes(x, start, B, p)
        with self._lock:
            if self._ready_for != (B, threads):
                self._prepare(B, threads)
            y = self._none if self._parts == 1 else aligned((start.size,), start.dtype)
            arguments = (p.W, p.U, p.b_x, p.b_h, start, len(start), False, self._room, self._fresh, self._packed, y)
            found = self._forward(self._constants, x, True, *arguments, *whole_pass(self._parts))
            self._fresh = False
        return found

    def _prepare(self, B: int, threads: int) -> None:
        dtype = self._p.U.dtype
        self._parts = self._kernels.parts(B, threads)
        self._forward, self._constants = self._kernels.functions.forward, self._kernels.constants[dtype]
        self._room = aligned((self._kernels.room(1, B, self._p, False, self._parts),), dtype)
        self._none = self._room[:0]
        self._ready_for = (B, threads)
