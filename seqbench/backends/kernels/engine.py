"""Recurrent layers over time: forward, backward, weight gradients, for any cell, on packed matrices and vectors.

Buffers, all flat (``Hp``: the width ``H`` rounded up to whole vectors; ``S`` slots)::

    x       (T, B, D) or (B, T, D)
    y       for each state (T, B, H) or (B, T, H), as x: the state after each step; the address of each, 0: not wanted
    states  (states, places, B, Hp)   places: T + 1 where all are kept, else 2, used in turns; the first comes in
    gates   (T or a block, B, S * Hp) in training all steps, kept for the backward pass; else scratch
    mid     (T + 1 or 1, B, Hp) what the late slots of a cell have read; the last step is scratch
    W       packed (D, gates * Hp),   U: a packed (H, slots * Hp) for each run of slots
    bias    (S * Hp)

The inputs' product is made for a block of steps at a time, so that the gates are still in the cache when the recurrent
product adds to them. The backward pass overwrites the gates with their gradients.

All arrays being flat, and so of one type, the product is compiled once (numba takes a literal 0 for a type of its own,
hence ``np.int64(0)``). What every step calls is ``merged`` into the loop over steps: one sequence takes a microsecond
or two a step, and calls with so many arrays would be up to a tenth of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from seqbench.backends.kernels.cells import (
    add_states,
    backward,
    backward_between,
    between,
    blocks_of,
    first_runs_of,
    forward,
    load_slots,
    load_states,
    numbers_of,
    store_slots,
    store_states,
)
from seqbench.backends.kernels.gemm import (
    BLOCK,
    add_column_sums,
    aligned,
    lanes_of,
    multiply,
    multiply_blocks,
    multiply_onto,
    pack_block,
)
from seqbench.backends.kernels.jit import compiled, merged
from seqbench.backends.kernels.ownership import array_at, borrowed, keep
from seqbench.backends.kernels.packing import crop, pack_backward, pack_forward, split_bias
from seqbench.backends.kernels.vector import load, number, put, store

BLOCK_ROWS = 64
"""Rows of the gate buffer, steps times sequences, that the input's product fills at a time."""
CHUNK = 1024
"""Columns of the gate buffer that weight gradients pack at a time: ``BLOCK`` rows of them leave room in the L2."""


class Sizes(NamedTuple):
    """Of one pass, in elements.

    Attributes:
        T: steps.
        B: sequences.
        D: input width.
        H: width.
        Dp: input width in whole vectors.
        Hp: width in whole vectors.
        places: of each state in ``states``.
        x_t: stride of the input's steps.
        x_b: stride of its sequences.
    """

    T: int
    B: int
    D: int
    H: int
    Dp: int
    Hp: int
    places: int
    x_t: int
    x_b: int


@merged
def sizes_of(T, B, D, H, time_first, training, like):
    """Of ``x (T, B, D)`` or ``(B, T, D)`` and a layer as wide as ``H``, in numbers of ``like``'s type."""
    lanes = lanes_of(like)
    x_t, x_b = (B * D, D) if time_first else (D, T * D)
    return Sizes(T, B, D, H, -(-D // lanes) * lanes, -(-H // lanes) * lanes, T + 1 if training else 2, x_t, x_b)


def steps_of_block(rows):
    """How many steps of so many sequences the input's product fills at a time."""
    return max(1, BLOCK_ROWS // max(1, rows))


block_steps = compiled(steps_of_block)


# --- a whole pass ---------------------------------------------------------------------------------


def room_of(cell, T, B, Hp, training, parts):
    """Elements of the buffers ``states``, ``gates`` and ``mid`` together; for Python, which takes the room."""
    steps, places = (T, T + 1) if training else (min(T, steps_of_block(B // parts)), 2)
    late = (T + 1 if training else 1) if cell.late else 0
    return (cell.states * places + cell.slots * steps + late) * B * Hp


@merged
def buffers_in(cell, room, size, training, parts, like):
    """``states``, ``gates`` and ``mid``, one after another from the address ``room`` on."""
    _, slots, n_states, early, runs = numbers_of(cell)
    steps = size.T if training else min(size.T, block_steps(size.B // parts))
    late = (size.T + 1 if training else 1) if early < len(runs) else 0
    first = n_states * size.places * size.B * size.Hp
    second = first + steps * size.B * slots * size.Hp
    third = second + late * size.B * size.Hp
    array = array_at(room, third, like)
    return array[:first], array[first:second], array[second:third]


@merged
def given_or_new(address, count, like):
    """``count`` elements of ``like``'s type at an address; if that is 0, a new array."""
    array = array_at(address, count, like)
    if not address:
        array = aligned(count, like.dtype)
    return array


@merged
def packed_or_new(cell, size, packed, like):
    """The packed matrices and the bias of a forward pass, at an address; if that is 0, a new array."""
    gates, slots, _, _, _ = numbers_of(cell)
    return given_or_new(packed, _packed_size(gates, blocks_of(cell), slots, size.D, size.H, size.Hp), like)


@merged
def matrices_in(cell, size, packed):
    """The packed matrices and the bias of a forward pass, one after another in ``packed``."""
    gates, _, _, _, _ = numbers_of(cell)
    first = size.D * gates * size.Hp
    second = first + size.H * blocks_of(cell) * size.Hp
    return packed[:first], packed[first:second], packed[second:]


@merged
def parameters_at(cell, D, H, W, U, b_x, b_h, like):
    """``W (gates * H, D)``, ``U (blocks * H, H)`` and both biases, flat, at their addresses.

    Empty where there is no second bias.
    """
    gates, _, _, _, _ = numbers_of(cell)
    blocks = blocks_of(cell)
    return (
        array_at(W, gates * H * D, like), array_at(U, blocks * H * H, like), array_at(b_x, gates * H, like),
        array_at(b_h, blocks * H if b_h else 0, like),
    )  # fmt: skip


@compiled
def pack_for_forward(cell, size, W, U, b_x, b_h, W_packed, U_packed, bias):
    """Pack the matrices and the bias."""
    gates, _, _, _, runs = numbers_of(cell)
    pack_forward(runs, gates, W, U, b_x, b_h, size.D, size.H, size.Hp, W_packed, U_packed, bias)


@merged
def work_or_new(cell, size, work, like):
    """The packed matrices and ``d_states`` of a backward pass, at an address; if that is 0, a new array."""
    gates, _, n_states, _, _ = numbers_of(cell)
    return given_or_new(work, _work_size(gates, blocks_of(cell), n_states, size.B, size.Dp, size.Hp), like)


@merged
def work_in(cell, size, work):
    """The packed matrices and ``d_states``, one after another in ``work``."""
    gates, _, _, _, _ = numbers_of(cell)
    first = gates * size.Hp * size.Dp
    second = first + blocks_of(cell) * size.Hp * size.Hp
    return work[:first], work[first:second], work[second:]


@merged
def sums_or_new(cell, size, sums, like):
    """See ``sums_of``; at an address; if that is 0, a new array."""
    gates, slots, _, _, _ = numbers_of(cell)
    count = _sums_size(gates, blocks_of(cell), slots, size.D, size.H, size.Dp, size.Hp)
    return given_or_new(sums, count, like)


@merged
def sums_in(cell, size, sums, dW, dU):
    """Where the gradients of both matrices and of every slot's bias are summed up: in ``sums``, or in their places."""
    _, slots, _, _, _ = numbers_of(cell)
    first = len(sums) - slots * size.Hp
    second = first - (blocks_of(cell) * size.Hp * size.Hp if size.Hp > size.H else 0)
    W_sums, U_sums = sums[:second], sums[second:first]
    if not second:
        W_sums = dW
    if first == second:
        U_sums = dU
    return W_sums, U_sums, sums[first:]


@compiled
def prepare_backward(cell, size, W, U, W_packed, U_packed, d_states, dW, dU, d_bias):
    """Pack the matrices; zeros where the gradients are summed up."""
    gates, _, _, _, runs = numbers_of(cell)
    pack_backward(runs, gates, W, U, size.D, size.H, size.Hp, W_packed, U_packed)
    d_states[:], dW[:], dU[:], d_bias[:] = 0, 0, 0, 0


def packed_of(gates, blocks, slots, D, H, Hp):
    """Elements of the packed matrices and the bias of a forward pass."""
    return (gates * D + blocks * H + slots) * Hp


def work_of(gates, blocks, states, B, Dp, Hp):
    """Elements of the packed matrices and ``d_states`` of a backward pass."""
    return (gates * Dp + blocks * Hp + states * B) * Hp


def sums_of(gates, blocks, slots, D, H, Dp, Hp):
    """Elements of the gradients of every slot's bias, and of those matrices that are padded."""
    W, U = gates * Dp if Dp > D or Hp > H else 0, blocks * Hp if Hp > H else 0
    return (W + U + slots) * Hp


_packed_size, _work_size, _sums_size = compiled(packed_of), compiled(work_of), compiled(sums_of)


# --- forward --------------------------------------------------------------------------------------


@compiled
def forward_rows(cell, constants, size, x, W, U, bias, start, states, gates, mid, y, first, last, training):
    """All steps of the sequences ``first .. last``.

    From ``start``, the addresses of ``(B, H)`` for each state, or, if they are 0, from zeros.
    """
    T, B, D, H, Hp = size.T, size.B, size.D, size.H, size.Hp
    n_gates, slots, n_states, _, _ = numbers_of(cell)
    for k in range(n_states):
        given = array_at(start[k], B * H if start[k] else 0, states)
        for b in range(first, last):
            to = (k * size.places * B + b) * Hp
            states[to : to + Hp] = 0
            for j in range(H if given.size else 0):
                states[to + j] = given[b * H + j]
    out = array_at(y[0], T * B * H, states)
    row = slots * Hp
    rows = last - first
    steps = block_steps(rows)
    y_t, y_b = size.x_t // D * H, size.x_b // D * H
    copied = 1 if Hp == H else 0  # the first output that is copied row by row
    for t0 in range(0, T, steps):
        t1 = min(T, t0 + steps)
        g0 = ((t0 if training else 0) * B + first) * row
        x_at = t0 * size.x_t + first * size.x_b
        n, zero = t1 - t0, np.int64(0)
        multiply_onto(
            x, x_at, size.x_t, size.x_b, n, rows, 1, D, W, zero, n_gates * Hp, gates, g0, B * row, row,
            bias, zero, zero, zero,
        )  # fmt: skip
        for t in range(t0, t1):
            g = g0 + (t - t0) * B * row
            y_at = t * y_t + first * y_b
            _one_step(cell, constants, size, U, bias, states, gates, mid, out, y_at, y_b, t, g, first, rows, training)
            for k in range(copied, n_states):
                if y[k]:
                    s = ((k * size.places + (t + 1) % size.places) * B + first) * Hp
                    _copy_rows(states, s, Hp, array_at(y[k], T * B * H, states), y_at, y_b, rows, H)


@merged
def _one_step(cell, constants, size, U, bias, states, gates, mid, y, y_at, y_b, t, g, first, rows, training):
    """Step ``t``, the inputs' part of the gates being at ``g``.

    The output goes to ``y_at`` if its rows are whole vectors: then it is written between two vectors' arithmetic,
    which hides that its memory is seldom in a cache.
    """
    _, slots, _, early, runs = numbers_of(cell)
    B, H, Hp = size.B, size.H, size.Hp
    lanes, row = lanes_of(states), slots * Hp
    s, s_after = (t % size.places * B + first) * Hp, ((t + 1) % size.places * B + first) * Hp
    apart = size.places * B * Hp
    read, from_ = states, s
    for r in range(len(runs)):
        if r == early:
            read, from_ = mid, ((t if training else 0) * B + first) * Hp
            for b in range(rows):
                for o in range(0, Hp, lanes):
                    a = load_slots(cell, gates, g + b * row + o, Hp)
                    before = load_states(cell, states, s + b * Hp + o, apart)
                    store(mid, from_ + b * Hp + o, between(cell, a, before, constants))
        slot, count, block = runs[r]
        to = g + slot * Hp
        base, base_at, base_row = gates, to, row
        if first_runs_of(cell)[r]:
            base, base_at, base_row = bias, slot * Hp, np.int64(0)
        multiply_onto(
            read, from_, Hp, Hp, np.int64(1), rows, 1, H, U, block * H * Hp, count * Hp, gates, to, row, row,
            base, base_at, base_row, base_row,
        )  # fmt: skip
    for b in range(rows):
        for o in range(0, Hp, lanes):
            a = load_slots(cell, gates, g + b * row + o, Hp)
            before = load_states(cell, states, s + b * Hp + o, apart)
            after, kept = forward(cell, a, before, constants)
            store_states(cell, states, s_after + b * Hp + o, apart, after)
            if Hp == H:
                store(y, y_at + b * y_b + o, after[0])
            if training:
                store_slots(cell, gates, g + b * row + o, Hp, kept)


@compiled
def copy(source, at, target, to, n):
    """``target[to:to + n] = source[at:at + n]``, whole vectors."""
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(source, at + o))


@compiled
def _copy_rows(source, at, source_row, target, to, target_row, rows, n):
    """``n`` elements of each row, and not one more."""
    whole = n // lanes_of(target) * lanes_of(target)
    for b in range(rows):
        i, j = at + b * source_row, to + b * target_row
        copy(source, i, target, j, whole)
        for k in range(whole, n):
            put(target, j + k, number(source, i + k))


@compiled
def _add_rows(source, at, source_row, target, to, target_row, rows, n):
    """The same, added to what is there."""
    whole = n // lanes_of(target) * lanes_of(target)
    for b in range(rows):
        i, j = at + b * source_row, to + b * target_row
        add(source, i, target, j, whole)
        for k in range(whole, n):
            put(target, j + k, number(target, j + k) + number(source, i + k))


@compiled
def add(source, at, target, to, n):
    """``target[to:to + n] += source[at:at + n]``, whole vectors."""
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(target, to + o) + load(source, at + o))


# --- backward -------------------------------------------------------------------------------------


@compiled
def backward_rows(cell, constants, size, W, U, states, gates, mid, d_y, d_t, d_b, d_states, dx, first, last):
    """The gradients of the gates (in place), of the input and of the states before the first step.

    Args:
        cell: the cell.
        constants: its numbers.
        size: of the pass.
        W: packed for the backward pass.
        U: packed for the backward pass.
        states: as the forward pass left them, all steps.
        gates: what it kept; afterwards the gates' gradients.
        mid: what late slots have read.
        d_y: for each state the address of ``(T, B, H)`` or ``(B, T, H)``, its gradient after each step; 0: there is
            none, which the first one must not be.
        d_t: stride of its steps.
        d_b: stride of its sequences.
        d_states: ``(states, B, Hp)``: zeros; afterwards of the first states.
        dx: as ``x``: the input's gradient.
        first: sequence.
        last: the one after the last sequence.
    """
    n_gates, slots, n_states, _, _ = numbers_of(cell)
    T, B, D, H, Dp, Hp = size.T, size.B, size.D, size.H, size.Dp, size.Hp
    row = slots * Hp
    rows = last - first
    steps = block_steps(rows)
    copied = 1 if Hp == H else 0  # the first output whose gradient is added row by row
    scratch = aligned(Dp, dx.dtype), aligned(0 if Dp == D else min(T, steps) * rows * Dp, dx.dtype)
    zeros, padded = borrowed(scratch)  # padded: a product writes whole vectors
    zeros[:] = 0
    d_output = array_at(d_y[0], T * B * H, dx)
    t1 = T
    while t1 > 0:
        t0 = max(0, t1 - steps)
        for t in range(t1 - 1, t0 - 1, -1):
            d_at = t * d_t + first * d_b
            for k in range(copied, n_states):
                if d_y[k]:
                    given = array_at(d_y[k], T * B * H, dx)
                    _add_rows(given, d_at, d_b, d_states, (k * B + first) * Hp, Hp, rows, H)
            _one_step_back(cell, constants, size, U, states, gates, mid, d_output, d_at, d_b, d_states, t, first, rows)
        g = (t0 * B + first) * row
        n, zero = t1 - t0, np.int64(0)
        target, to, to_t, to_b = dx, t0 * size.x_t + first * size.x_b, size.x_t, size.x_b
        if Dp > D:
            target, to, to_t, to_b = padded, zero, rows * Dp, Dp
        multiply_onto(
            gates, g, B * row, row, n, rows, 1, n_gates * Hp, W, zero, Dp, target, to, to_t, to_b,
            zeros, zero, zero, zero,
        )  # fmt: skip
        for t in range(t0, t1 if Dp > D else t0):
            to = t * size.x_t + first * size.x_b
            _copy_rows(padded, (t - t0) * rows * Dp, Dp, dx, to, size.x_b, rows, D)
        t1 = t0
    keep(scratch)


@merged
def _one_step_back(cell, constants, size, U, states, gates, mid, d_y, d_at, d_b, d_states, t, first, rows):
    """From the gradients of the states after step ``t`` to those before it; the late product's comes first.

    The output's gradient, at ``d_at``, is added if its rows are whole vectors, for the reason that ``_one_step`` has.
    """
    _, slots, _, early, runs = numbers_of(cell)
    B, Hp = size.B, size.Hp
    lanes, row = lanes_of(states), slots * Hp
    apart, d_apart = size.places * B * Hp, B * Hp
    s, g, d = (t * B + first) * Hp, (t * B + first) * row, first * Hp
    for b in range(rows):
        for o in range(0, Hp, lanes):
            here, to, slot_0 = s + b * Hp + o, d + b * Hp + o, g + b * row + o
            if Hp == size.H:
                store(d_states, to, load(d_states, to) + load(d_y, d_at + b * d_b + o))
            kept = load_slots(cell, gates, slot_0, Hp)
            before = load_states(cell, states, here, apart)
            after = load_states(cell, states, here + B * Hp, apart)
            d_after = load_states(cell, d_states, to, d_apart)
            d_a, d_before = backward(cell, kept, before, after, d_after, constants)
            store_slots(cell, gates, slot_0, Hp, d_a)
            store_states(cell, d_states, to, d_apart, d_before)
    m = (size.T * B + first) * Hp  # one step more than the sequence has is scratch
    for r in range(len(runs) - 1, -1, -1):
        slot, count, block = runs[r]
        target, to = d_states, d
        if r >= early:
            target, to = mid, m
            if r == len(runs) - 1:
                mid[m : m + rows * Hp] = 0
        at = block * Hp * Hp
        multiply(gates, g + slot * Hp, row, row, np.int64(1), rows, 1, count * Hp, U, at, Hp, target, to, Hp, Hp)
        if r == early:
            _late_back(cell, constants, size, states, gates, mid, d_states, t, first, rows)


@merged
def _late_back(cell, constants, size, states, gates, mid, d_states, t, first, rows):
    """From what the late slots have read to the other slots and the states before."""
    _, slots, _, _, _ = numbers_of(cell)
    B, Hp = size.B, size.Hp
    lanes, row = lanes_of(states), slots * Hp
    apart, d_apart = size.places * B * Hp, B * Hp
    s, g, d = (t * B + first) * Hp, (t * B + first) * row, first * Hp
    m = (size.T * B + first) * Hp
    for b in range(rows):
        for o in range(0, Hp, lanes):
            slot_0 = g + b * row + o
            left = load_slots(cell, gates, slot_0, Hp)
            before = load_states(cell, states, s + b * Hp + o, apart)
            d_a, more = backward_between(cell, left, before, load(mid, m + b * Hp + o), constants)
            store_slots(cell, gates, slot_0, Hp, d_a)
            add_states(cell, d_states, d + b * Hp + o, d_apart, more)


# --- weight gradients -----------------------------------------------------------------------------


@compiled
def weight_gradients(cell, size, x, states, gates, mid, dW, dU, d_bias, part, parts):
    """``dW (gates * Hp, Dp)``, ``dU (slots * Hp, Hp)`` and ``d_bias (slots * Hp)`` from the gates' gradients.

    One part of ``parts`` of the rows: so each sum is made by one thread in one order. The gates are packed once for all
    products, and what is packed is what the bias's sum reads.
    """
    _, slots, _, _, _ = numbers_of(cell)
    row, lanes, all_rows = slots * size.Hp, lanes_of(dW), size.T * size.B
    first, last = bounds_of(row, lanes, part, parts)
    blocks = aligned(BLOCK * min(CHUNK, last - first), x.dtype), aligned(BLOCK * max(size.Dp, size.Hp), x.dtype)
    gate_block, other_block = borrowed(blocks)
    for low in range(first, last, CHUNK):
        high = min(last, low + CHUNK)
        for start in range(0, all_rows, BLOCK):
            R = min(BLOCK, all_rows - start)
            pack_block(gates, low, row, row, all_rows, start, R, high - low, gate_block)
            add_column_sums(gate_block, R, high - low, d_bias, low)
            _add_products(cell, size, gate_block, low, high, x, states, mid, other_block, start, R, dW, dU)
    keep(blocks)


@merged
def _add_products(cell, size, gate_block, low, high, x, states, mid, other_block, start, R, dW, dU):
    """The rows ``start .. start + R`` of gates, columns ``low .. high``, with what their products had read.

    That is the input (turn 0), the state before the step, or what late slots have read.
    """
    n_gates, _, _, early, runs = numbers_of(cell)
    B, D, Dp, Hp = size.B, size.D, size.Dp, size.Hp
    for turn in range(len(runs) + 1):
        slot, count, block = (0, n_gates, 0) if turn == 0 else runs[turn - 1]
        if turn == 0:
            pack_block(x, np.int64(0), size.x_t, size.x_b, B, start, R, D, other_block)
        elif turn == 1 or turn == early + 1:
            pack_block(states if turn <= early else mid, np.int64(0), B * Hp, Hp, B, start, R, Hp, other_block)
        target, N, row = (dW, D, Dp) if turn == 0 else (dU, Hp, Hp)
        first, last = max(low, slot * Hp), min(high, (slot + count) * Hp)
        if first < last:
            to = ((block - slot) * Hp + first) * row
            multiply_blocks(gate_block, high - low, first - low, last - low, other_block, N, R, target, to, row)


@compiled
def bounds_of(n, lanes, part, parts):
    """Bounds of one of ``parts`` parts of ``n`` rows, at multiples of a vector, which ``n`` is too."""
    vectors = n // lanes
    return vectors * part // parts * lanes, vectors * (part + 1) // parts * lanes


# --- what goes out --------------------------------------------------------------------------------


@compiled
def hand_out(cell, size, d_states, W_sums, U_sums, d_bias, d_start, dW, dU, db_x, db_h):
    """The gradients to where they belong, without padding.

    ``d_start``: the addresses of ``(B, H)`` for each state, 0: not wanted; ``db_h``: empty if there is no such bias.
    """
    gates, _, n_states, _, runs = numbers_of(cell)
    B, D, H, Dp, Hp, zero = size.B, size.D, size.H, size.Dp, size.Hp, np.int64(0)
    for k in range(n_states):
        if d_start[k]:
            _copy_rows(d_states, k * B * Hp, Hp, array_at(d_start[k], B * H, d_states), zero, H, B, H)
    if Dp > D or Hp > H:
        crop(W_sums, gates, H, Hp, D, Dp, dW)
    if Hp > H:
        crop(U_sums, blocks_of(cell), H, Hp, H, Hp, dU)
    split_bias(runs, gates, d_bias, H, Hp, db_x, db_h)
