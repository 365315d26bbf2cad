"""One recurrent layer in one direction, from addresses to addresses: the fast kernels and the plain ones.

The buffers are described in ``engine``. Each cell has compiled functions of its own, kept in numba's cache on disk. A
whole pass is one call of one of them, and what it reads and writes comes as addresses: at small sizes to make arrays
of torch's tensors takes longer than what is computed with them, the more so as Python often runs from cold caches (see
docs/performance.md). Whoever calls answers for what lies there: contiguous, of one dtype, of the sizes said.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np

from seqbench.backends.kernels import engine, plain
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.jit import cached
from seqbench.backends.kernels.ownership import array_at, borrowed, keep
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
from seqbench.backends.kernels.workspace import Room


@dataclass(frozen=True)
class Compiled:
    """The compiled functions of one cell; their last arguments are described in ``parts``.

    ``packed``, ``work`` and ``sums`` (see ``engine``) are made there where their addresses are 0, which takes less time
    than in Python. With several parts they must not be 0: the parts share them.
    """

    forward: Callable[..., None]
    backward: Callable[..., None]


@cache
def fast(cell: Cell) -> Compiled:
    """Of a cell; compiled at their first call, or read from the cache."""
    return Compiled(_fast_forward(cell), _fast_backward(cell))


def _fast_forward(cell: Cell) -> Any:
    @cached(cell.key)
    def forward(
        constants, T, B, D, H, time_first, x, W, U, b_x, b_h, start, training, room, fresh, packed, y,
        launch, stage, part, parts,
    ):  # fmt: skip
        constants = borrowed(constants)
        size = engine.sizes_of(T, B, D, H, time_first, training, constants)
        states, gates, mid = engine.buffers_in(cell, room, size, training, parts, constants)
        matrices = engine.packed_or_new(cell, size, packed, constants)
        W_packed, U_packed, bias = engine.matrices_in(cell, size, borrowed(matrices))
        if stage == WHOLE and fresh:
            W_, U_, b_x_, b_h_ = engine.parameters_at(cell, D, H, W, U, b_x, b_h, constants)
            engine.pack_for_forward(cell, size, W_, U_, b_x_, b_h_, W_packed, U_packed, bias)
        if is_mine(stage, ROWS, parts):
            first, last = bounds_of_rows(B, part, parts)
            engine.forward_rows(
                cell, constants, size, array_at(x, T * B * D, constants), W_packed, U_packed, bias, start, states,
                gates, mid, y, first, last, training,
            )  # fmt: skip
        else:
            in_parts(launch, ROWS, parts, None)
        keep(matrices)

    return forward


def _fast_backward(cell: Cell) -> Any:
    @cached(cell.key)
    def backward(
        constants, T, B, D, H, time_first, x, W, U, room, d_y, d_time_first, work, sums, dx, dW, dU, db_x, db_h,
        d_start, launch, stage, part, parts,
    ):  # fmt: skip
        constants = borrowed(constants)
        size = engine.sizes_of(T, B, D, H, time_first, True, constants)
        states, gates, mid = engine.buffers_in(cell, room, size, True, 1, constants)
        made = engine.work_or_new(cell, size, work, constants), engine.sums_or_new(cell, size, sums, constants)
        own_work, own_sums = borrowed(made)
        W_packed, U_packed, d_states = engine.work_in(cell, size, own_work)
        dW_, dU_, db_x_, db_h_ = engine.parameters_at(cell, D, H, dW, dU, db_x, db_h, constants)
        W_sums, U_sums, d_bias = engine.sums_in(cell, size, own_sums, dW_, dU_)
        if stage == WHOLE:
            W_, U_, _, _ = engine.parameters_at(cell, D, H, W, U, 0, 0, constants)
            engine.prepare_backward(cell, size, W_, U_, W_packed, U_packed, d_states, W_sums, U_sums, d_bias)
        if is_mine(stage, ROWS, parts):
            first, last = bounds_of_rows(B, part, parts)
            d_t, d_b = (B * H, H) if d_time_first else (H, T * H)
            engine.backward_rows(
                cell, constants, size, W_packed, U_packed, states, gates, mid, d_y, d_t, d_b, d_states,
                array_at(dx, T * B * D, constants), first, last,
            )  # fmt: skip
        if is_mine(stage, WEIGHTS, parts):
            x_ = array_at(x, T * B * D, constants)
            engine.weight_gradients(cell, size, x_, states, gates, mid, W_sums, U_sums, d_bias, part, parts)
        if stage == WHOLE:
            if parts > 1:
                for each in range(ROWS, WEIGHTS + 1):
                    in_parts(launch, each, parts, None)
            engine.hand_out(cell, size, d_states, W_sums, U_sums, d_bias, d_start, dW_, dU_, db_x_, db_h_)
        keep(made)

    return backward


@cache
def slow(cell: Cell) -> Compiled:
    """The same in plain loops, which know no parts."""

    @cached(cell.key)
    def forward(
        constants, T, B, D, H, time_first, x, W, U, b_x, b_h, start, training, room, fresh, packed, y,
        launch, stage, part, parts,
    ):  # fmt: skip
        constants = borrowed(constants)
        x_ = array_at(x, T * B * D, constants)
        W_, U_, b_x_, b_h_ = engine.parameters_at(cell, D, H, W, U, b_x, b_h, constants)
        plain.plain_forward(cell, constants, T, B, D, H, time_first, x_, W_, U_, b_x_, b_h_, start, room, y)

    @cached(cell.key)
    def backward(
        constants, T, B, D, H, time_first, x, W, U, room, d_y, d_time_first, work, sums, dx, dW, dU, db_x, db_h,
        d_start, launch, stage, part, parts,
    ):  # fmt: skip
        constants = borrowed(constants)
        x_, dx_ = array_at(x, T * B * D, constants), array_at(dx, T * B * D, constants)
        W_, U_, _, _ = engine.parameters_at(cell, D, H, W, U, 0, 0, constants)
        dW_, dU_, db_x_, db_h_ = engine.parameters_at(cell, D, H, dW, dU, db_x, db_h, constants)
        plain.plain_backward(
            cell, constants, T, B, D, H, time_first, x_, W_, U_, room, d_y, d_time_first, dx_, dW_, dU_, db_x_, db_h_,
            d_start,
        )  # fmt: skip

    return Compiled(forward, backward)


class Shape(NamedTuple):
    """Of a pass.

    Attributes:
        T: steps.
        B: sequences.
        D: numbers a step.
        H: width.
        time_first: ``x`` and the outputs lie ``(T, B, ...)`` in memory, not ``(B, T, ...)``.
    """

    T: int
    B: int
    D: int
    H: int
    time_first: bool


class Addresses(NamedTuple):
    """Of what a layer reads, or of the gradients of that.

    Attributes:
        x: ``(T, B, D)`` or ``(B, T, D)``.
        W: ``(gates * H, D)``.
        U: ``(blocks * H, H)``.
        b_x: ``(gates * H)``.
        b_h: ``(blocks * H)``; 0: there is none.
        start: ``(B, H)`` for each state; 0, for all of them: zeros, or a gradient that nobody wants.
    """

    x: int
    W: int
    U: int
    b_x: int
    b_h: int
    start: tuple[int, ...]


class Kernels:
    """A cell with its constants, run by the fast kernels or the plain ones.

    Args:
        cell: the cell.
        constants: numbers that its functions get.
        plain: run plain loops.

    Attributes:
        nowhere: for each state the address 0.
    """

    def __init__(self, cell: Cell, constants: tuple[float, ...] = (), plain: bool = False) -> None:
        self.cell, self.plain, self.nowhere = cell, plain, (0,) * cell.states
        self._arguments = cell, constants, plain
        self.constants = {np.dtype(t): np.array(constants or (0.0,), t) for t in (np.float32, np.float64)}

    def __reduce__(self) -> Any:
        """A copy finds its compiled functions itself."""
        return Kernels, self._arguments

    def forward(
        self, dtype: Any, shape: Shape, given: Addresses, y: tuple[int, ...], training: bool, threads: int = 1
    ) -> Room:
        """All steps.

        Args:
            dtype: of all numbers.
            shape: of the pass.
            given: what it reads.
            y: for each state the address of ``(T, B, H)`` or ``(B, T, H)``, as ``x``, where it goes after each step;
                0: not wanted, which the first one must not be.
            training: keep what the backward pass needs.
            threads: parts of the batch that run at the same time.

        Returns:
            What was kept: the buffers that ``engine`` describes.
        """
        parts = self.parts(shape.B, threads)
        room = Room(dtype.itemsize * self.room(dtype, shape, training, parts))
        packed = Room(dtype.itemsize * self.room_for_matrices(dtype, shape)) if parts > 1 else None
        self.functions.forward(
            self.constants[dtype], *shape, *given, training, room.address, True, packed.address if packed else 0, y,
            *whole_pass(parts),
        )  # fmt: skip
        return room

    def backward(
        self, dtype: Any, shape: Shape, given: Addresses, room: Room, d_y: tuple[int, ...], d_time_first: bool,
        found: Addresses, threads: int = 1,
    ) -> None:  # fmt: skip
        """Every gradient; what was kept is used up.

        Args:
            dtype: as in ``forward``.
            shape: as in ``forward``.
            given: as in ``forward``.
            room: of ``forward`` with ``training``.
            d_y: for each state the address of ``(T, B, H)`` or ``(B, T, H)``, its gradient after each step; 0: there
                is none, which the first one must not be.
            d_time_first: which of the two.
            found: what it writes; the gradient of ``x`` in the order of ``x``.
            threads: as in ``forward``.
        """
        parts = self.parts(shape.B, threads)
        shared = [Room(dtype.itemsize * count) for count in self._sizes_back(dtype, shape)] if parts > 1 else []
        work, sums = [each.address for each in shared] or (0, 0)
        self.functions.backward(
            self.constants[dtype], *shape, given.x, given.W, given.U, room.address, d_y, d_time_first, work, sums,
            *found, *whole_pass(parts),
        )  # fmt: skip

    def room(self, dtype: Any, shape: Shape, training: bool, parts: int) -> int:
        """Elements of the buffers."""
        if self.plain:
            return int(plain.room_of(self.cell.states, self.cell.slots, shape.T, shape.B, shape.H))
        return int(engine.room_of(self.cell, shape.T, shape.B, padded(shape.H, dtype), training, parts))

    def room_for_matrices(self, dtype: Any, shape: Shape) -> int:
        """Elements of the packed matrices of the fast kernels."""
        cell, H = self.cell, shape.H
        return int(engine.packed_of(cell.gates, len(cell.recurrent), cell.slots, shape.D, H, padded(H, dtype)))

    def _sizes_back(self, dtype: Any, shape: Shape) -> tuple[int, int]:
        """Elements of ``work`` and ``sums``."""
        cell, D, H = self.cell, shape.D, shape.H
        Dp, Hp, gates, blocks = padded(D, dtype), padded(H, dtype), cell.gates, len(cell.recurrent)
        return (
            int(engine.work_of(gates, blocks, cell.states, shape.B, Dp, Hp)),
            int(engine.sums_of(gates, blocks, cell.slots, D, H, Dp, Hp)),
        )

    @cached_property
    def functions(self) -> Compiled:
        """The compiled functions."""
        return slow(self.cell) if self.plain else fast(self.cell)

    def parts(self, B: int, threads: int) -> int:
        """Parts of a batch; plain loops run as one."""
        return 1 if self.plain else parts_of(B, threads)


class Stepper:
    """Single steps of a layer without gradient, one after another, with parameters that do not change.

    At one sequence a step takes a few microseconds, as long as a few calls of Python: so the matrices stay packed and
    the buffers in their place from step to step. One thread of Python at a time is in them.

    Args:
        kernels: of the layer.
        dtype: of all numbers.
        shape: of a step; ``B`` says nothing.
        given: its parameters; the other addresses say nothing.
        owners: whom the addresses belong to.
    """

    _lock = threading.Lock()  # of all of them: one that could not be copied would keep a core from being copied

    def __init__(self, kernels: Kernels, dtype: Any, shape: Shape, given: Addresses, owners: Any) -> None:
        self._kernels, self._dtype, self._shape, self._given, self._owners = kernels, dtype, shape, given, owners
        self._packed, self._fresh = Room(dtype.itemsize * kernels.room_for_matrices(dtype, shape)), True
        self._ready_for: tuple[int, int] | None = None

    def is_for(self, dtype: Any, D: int, H: int) -> bool:
        """Whether it makes steps of such a layer."""
        return bool(self._dtype == dtype and self._shape.D == D and self._shape.H == H)

    def __call__(self, B: int, x: int, start: tuple[int, ...], y: tuple[int, ...], threads: int = 1) -> None:
        """One step.

        Args:
            B: sequences.
            x: address of ``(B, D)``.
            start: address of ``(B, H)`` for each state.
            y: the same of the states after the step.
            threads: as in ``Kernels.forward``.
        """
        shape, (_, W, U, b_x, b_h, _) = self._shape, self._given
        with self._lock:
            if self._ready_for != (B, threads):
                self._prepare(B, threads)
            self._forward(
                self._constants, 1, B, shape.D, shape.H, True, x, W, U, b_x, b_h, start, False, self._room.address,
                self._fresh, self._packed.address, y, *whole_pass(self._parts),
            )  # fmt: skip
            self._fresh = False

    def _prepare(self, B: int, threads: int) -> None:
        kernels, dtype = self._kernels, self._dtype
        self._parts = kernels.parts(B, threads)
        self._forward, self._constants = kernels.functions.forward, kernels.constants[dtype]
        self._room = Room(dtype.itemsize * kernels.room(dtype, self._shape._replace(B=B), False, self._parts))
        self._ready_for = (B, threads)
