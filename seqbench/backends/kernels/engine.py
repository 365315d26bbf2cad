"""Recurrent layers over time: forward, backward, weight gradients, for any cell, on packed matrices and vectors.

Buffers, in elements (``Hp``: the width ``H`` rounded up to whole vectors; ``S`` slots)::

    x       (T, B, D) or (B, T, D), contiguous
    y       (n, T, B, H) or (n, B, T, H): the first ``n`` states after each step, in the order of x
    states  (states, places, B, Hp)   places: T + 1 where all are kept, else 2, used in turns; [:, 0] comes in
    gates   (T or a block, B, S * Hp) in training all steps, kept for the backward pass; else scratch
    mid     (T + 1 or 1, B, Hp) what the late slots of a cell have read
    W       packed (D, gates * Hp),   U: a packed (H, slots * Hp) for each run of slots
    bias    (S * Hp)

The inputs' product is made for a block of steps at a time, so that the gates are still in the cache when the recurrent
product adds to them. The backward pass overwrites the gates with their gradients.
"""

from __future__ import annotations

from seqbench.backends.kernels.cells import (
    add_states,
    backward,
    backward_between,
    between,
    forward,
    load_slots,
    load_states,
    numbers_of,
    store_slots,
    store_states,
)
from seqbench.backends.kernels.gemm import BLOCK, CHUNK, aligned, lanes_of, multiply, multiply_blocks, pack_block
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.packing import pack_backward, pack_forward
from seqbench.backends.kernels.vector import load, number, put, spread, store

BLOCK_ROWS = 64
"""Rows of the gate buffer, steps times sequences, that the input's product fills at a time."""


@compiled
def whole_vectors(n, like):
    """``n`` rounded up to whole vectors of an array's type."""
    return -(-n // lanes_of(like)) * lanes_of(like)


@compiled
def block_steps(rows):
    """Steps of a block with so many sequences."""
    return max(1, BLOCK_ROWS // rows)


# --- a whole pass ---------------------------------------------------------------------------------


@compiled
def strides_of(x, time_first):
    """Strides of time and batch of ``(T, B, D)`` or ``(B, T, D)``, and both sizes: ``(x_t, x_b, T, B)``."""
    first, second, D = x.shape[-3:]
    if time_first:
        return second * D, D, first, second
    return D, second * D, second, first


def room_of(cell, T, B, Hp, training, parts):
    """Elements of the buffers ``states``, ``gates`` and ``mid`` together; for Python, which takes the room."""
    steps, places = (T, T + 1) if training else (min(T, block_steps(B // parts)), 2)
    late = (T + 1 if training else 1) if cell.late else 0
    return (cell.states * places + cell.slots * steps + late) * B * Hp


@compiled
def buffers_in(cell, room, x, time_first, H, training, parts):
    """``states (states, places, B, Hp)``, ``gates (steps, B, S * Hp)`` and ``mid``, one after another in ``room``."""
    _, _, T, B = strides_of(x, time_first)
    _, slots, n_states, _, _ = numbers_of(cell)
    Hp = whole_vectors(H, x)
    places, steps = (T + 1, T) if training else (2, min(T, block_steps(B // parts)))
    first = n_states * places * B * Hp
    second = first + steps * B * slots * Hp
    states = room[:first].reshape(n_states, places, B, Hp)
    return states, room[first:second].reshape(steps, B, slots * Hp), room[second:]


@compiled
def begin_forward(cell, x, W, U, b_x, b_h, start, states, outputs):
    """Packed matrices, the bias and the output; the first states, ``start (states, B, H)`` or zeros, in their place."""
    gates, slots, _, _, _ = numbers_of(cell)
    H, Hp = U.shape[1], states.shape[3]
    W_packed = aligned(x.shape[2] * gates * Hp, x.dtype)
    U_packed = aligned(U.shape[0] * Hp, x.dtype)
    bias = aligned(slots * Hp, x.dtype)
    pack_forward(cell, W, U, b_x, b_h, H, Hp, W_packed, U_packed, bias)
    states[:, 0] = 0
    if start.size:
        states[:, 0, :, :H] = start
    y = aligned(outputs * x.shape[0] * x.shape[1] * H, x.dtype).reshape(outputs, x.shape[0], x.shape[1], H)
    return W_packed, U_packed, bias, y


@compiled
def begin_backward(cell, x, W, U, states):
    """Packed matrices and buffers of the backward pass: ``W, U, d_states, dx, dW, dU, d_bias``."""
    gates, slots, n_states, _, _ = numbers_of(cell)
    H, B, Hp, Dp = U.shape[1], states.shape[2], states.shape[3], whole_vectors(x.shape[2], x)
    blocks = U.shape[0] // H
    W_packed = aligned(gates * Hp * Dp, x.dtype)
    U_packed = aligned(blocks * Hp * Hp, x.dtype)
    pack_backward(cell, W, U, H, Hp, W_packed, U_packed)
    d_states = aligned(n_states * B * Hp, x.dtype).reshape(n_states, B, Hp)
    dx = aligned(x.size, x.dtype).reshape(x.shape)
    dW = aligned(gates * Hp * Dp, x.dtype).reshape(gates * Hp, Dp)
    dU = aligned(blocks * Hp * Hp, x.dtype).reshape(blocks * Hp, Hp)
    d_bias = aligned(slots * Hp, x.dtype)
    d_states[:], dW[:], dU[:], d_bias[:] = 0, 0, 0, 0
    return W_packed, U_packed, d_states, dx, dW, dU, d_bias


# --- forward --------------------------------------------------------------------------------------


@compiled
def forward_rows(cell, constants, x, x_t, x_b, D, W, U, bias, states, gates, mid, y, T, first, last, H, training):
    """All steps of the sequences ``first .. last``; ``x_t`` and ``x_b`` are the strides of time and batch."""
    B, Hp = states.shape[2], states.shape[3]
    n_gates, slots, _, _, _ = numbers_of(cell)
    row = slots * Hp
    rows = last - first
    steps = block_steps(rows)
    y_t, y_b = x_t // D * H, x_b // D * H
    for t0 in range(0, T, steps):
        t1 = min(T, t0 + steps)
        g0 = ((t0 if training else 0) * B + first) * row
        for t in range(t1 - t0):
            for b in range(rows):
                _copy(bias, 0, gates, g0 + (t * B + b) * row, row)
        x_at = t0 * x_t + first * x_b
        multiply(x, x_at, x_t, x_b, t1 - t0, rows, 1, D, W, 0, n_gates * Hp, gates, g0, B * row, row)
        for t in range(t0, t1):
            _one_step(cell, constants, U, states, gates, mid, t, g0 + (t - t0) * B * row, first, rows, H, training)
            for k in range(y.shape[0]):
                s = ((k * states.shape[1] + (t + 1) % states.shape[1]) * B + first) * Hp
                _copy_rows(states, s, Hp, y, k * T * B * H + t * y_t + first * y_b, y_b, rows, H)


@compiled
def _one_step(cell, constants, U, states, gates, mid, t, g, first, rows, H, training):
    """Step ``t``, the inputs' part of the gates being at ``g``."""
    _, slots, _, early, runs = numbers_of(cell)
    places, B, Hp = states.shape[1], states.shape[2], states.shape[3]
    lanes, row = lanes_of(states), slots * Hp
    s, s_after = (t % places * B + first) * Hp, ((t + 1) % places * B + first) * Hp
    apart = places * B * Hp
    at = 0
    for r in range(early):
        slot, count, _ = runs[r]
        multiply(states, s, 0, Hp, 1, rows, 1, H, U, at, count * Hp, gates, g + slot * Hp, 0, row)
        at += H * count * Hp
    if early < len(runs):
        m = (t * B + first) * Hp if training else first * Hp
        for b in range(rows):
            for o in range(0, Hp, lanes):
                a = load_slots(cell, gates, g + b * row + o, Hp)
                before = load_states(cell, states, s + b * Hp + o, apart)
                store(mid, m + b * Hp + o, between(cell, a, before, constants))
        for r in range(early, len(runs)):
            slot, count, _ = runs[r]
            multiply(mid, m, 0, Hp, 1, rows, 1, H, U, at, count * Hp, gates, g + slot * Hp, 0, row)
            at += H * count * Hp
    for b in range(rows):
        for o in range(0, Hp, lanes):
            a = load_slots(cell, gates, g + b * row + o, Hp)
            before = load_states(cell, states, s + b * Hp + o, apart)
            after, kept = forward(cell, a, before, constants)
            store_states(cell, states, s_after + b * Hp + o, apart, after)
            if training:
                store_slots(cell, gates, g + b * row + o, Hp, kept)


@compiled
def _copy(source, at, target, to, n):
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(source, at + o))


@compiled
def _copy_rows(source, at, source_row, target, to, target_row, rows, n):
    """``n`` elements of each row, and not one more."""
    whole = n // lanes_of(target) * lanes_of(target)
    for b in range(rows):
        i, j = at + b * source_row, to + b * target_row
        _copy(source, i, target, j, whole)
        for k in range(whole, n):
            put(target, j + k, number(source, i + k))


@compiled
def _add_rows(source, at, source_row, target, to, target_row, rows, n):
    """The same, added to what is there."""
    whole = n // lanes_of(target) * lanes_of(target)
    for b in range(rows):
        i, j = at + b * source_row, to + b * target_row
        _add(source, i, target, j, whole)
        for k in range(whole, n):
            put(target, j + k, number(target, j + k) + number(source, i + k))


@compiled
def _add(source, at, target, to, n):
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(target, to + o) + load(source, at + o))


# --- backward -------------------------------------------------------------------------------------


@compiled
def backward_rows(cell, constants, W, U, states, gates, mid, d_y, d_t, d_b, d_states, dx, x_t, x_b, D, first, last, H):
    """The gradients of the gates (in place), of the input and of the states before the first step.

    Args:
        cell: the cell.
        constants: its numbers.
        W: packed for the backward pass.
        U: packed for the backward pass.
        states: as the forward pass left them, all steps.
        gates: what it kept; afterwards the gates' gradients.
        mid: what late slots have read, ``(T + 1, B, Hp)``; the last step is scratch.
        d_y: ``(n, T, B, H)`` or ``(n, B, T, H)``, the gradient of the first ``n`` states after each step.
        d_t: stride of its steps.
        d_b: stride of its sequences.
        d_states: ``(states, B, Hp)``: zeros; afterwards of the first states.
        dx: as ``x``: the input's gradient.
        x_t: stride of its steps.
        x_b: stride of its sequences.
        D: its width.
        first: sequence.
        last: the one after the last sequence.
        H: the width.
    """
    n_gates, slots, _, _, _ = numbers_of(cell)
    T, B, Hp = states.shape[1] - 1, states.shape[2], states.shape[3]
    row, Dp = slots * Hp, whole_vectors(D, dx)
    rows = last - first
    steps = block_steps(rows)
    dx_rows = aligned(min(T, steps) * rows * Dp, dx.dtype)  # padded, so that whole vectors can be added
    t1 = T
    while t1 > 0:
        t0 = max(0, t1 - steps)
        for t in range(t1 - 1, t0 - 1, -1):
            for k in range(d_y.shape[0]):
                source = k * T * B * H + t * d_t + first * d_b
                _add_rows(d_y, source, d_b, d_states, (k * B + first) * Hp, Hp, rows, H)
            _one_step_back(cell, constants, U, states, gates, mid, d_states, t, first, rows)
        g = (t0 * B + first) * row
        dx_rows[: (t1 - t0) * rows * Dp] = 0
        multiply(gates, g, B * row, row, t1 - t0, rows, 1, n_gates * Hp, W, 0, Dp, dx_rows, 0, rows * Dp, Dp)
        for t in range(t0, t1):
            _copy_rows(dx_rows, (t - t0) * rows * Dp, Dp, dx, t * x_t + first * x_b, x_b, rows, D)
        t1 = t0


@compiled
def _one_step_back(cell, constants, U, states, gates, mid, d_states, t, first, rows):
    _, slots, _, early, runs = numbers_of(cell)
    B, Hp = states.shape[2], states.shape[3]
    lanes, row = lanes_of(states), slots * Hp
    apart, d_apart = states.shape[1] * B * Hp, B * Hp
    s, g, d = (t * B + first) * Hp, (t * B + first) * row, first * Hp
    for b in range(rows):
        for o in range(0, Hp, lanes):
            here, to, slot_0 = s + b * Hp + o, d + b * Hp + o, g + b * row + o
            kept = load_slots(cell, gates, slot_0, Hp)
            before = load_states(cell, states, here, apart)
            after = load_states(cell, states, here + B * Hp, apart)
            d_after = load_states(cell, d_states, to, d_apart)
            d_a, d_before = backward(cell, kept, before, after, d_after, constants)
            store_slots(cell, gates, slot_0, Hp, d_a)
            store_states(cell, d_states, to, d_apart, d_before)
    if early < len(runs):
        _late_back(cell, constants, U, states, gates, mid, d_states, t, first, rows)
    at = 0
    for r in range(early):
        slot, count, _ = runs[r]
        multiply(gates, g + slot * Hp, 0, row, 1, rows, 1, count * Hp, U, at, Hp, d_states, d, 0, Hp)
        at += count * Hp * Hp


@compiled
def _late_back(cell, constants, U, states, gates, mid, d_states, t, first, rows):
    """Through the late product to what it has read, and from there to the other slots; ``mid`` is scratch here."""
    _, slots, _, early, runs = numbers_of(cell)
    B, Hp = states.shape[2], states.shape[3]
    lanes, row = lanes_of(states), slots * Hp
    s, g, d = (t * B + first) * Hp, (t * B + first) * row, first * Hp
    apart, d_apart = states.shape[1] * B * Hp, B * Hp
    m = ((states.shape[1] - 1) * B + first) * Hp  # one step more than the sequence has is scratch
    for o in range(0, rows * Hp, lanes):
        store(mid, m + o, spread(load(mid, m + o), 0))
    at = 0
    for r in range(len(runs)):
        slot, count, _ = runs[r]
        if r >= early:
            multiply(gates, g + slot * Hp, 0, row, 1, rows, 1, count * Hp, U, at, Hp, mid, m, 0, Hp)
        at += count * Hp * Hp
    for b in range(rows):
        for o in range(0, Hp, lanes):
            here, to, slot_0 = s + b * Hp + o, d + b * Hp + o, g + b * row + o
            left = load_slots(cell, gates, slot_0, Hp)
            before = load_states(cell, states, here, apart)
            d_a, more = backward_between(cell, left, before, load(mid, m + b * Hp + o), constants)
            store_slots(cell, gates, slot_0, Hp, d_a)
            add_states(cell, d_states, to, d_apart, more)


# --- weight gradients -----------------------------------------------------------------------------


@compiled
def weight_gradients(cell, x, x_t, x_b, D, states, gates, mid, dW, dU, part, parts):
    """``dW (gates * Hp, Dp)`` and ``dU (slots * Hp, Hp)`` from the gates' gradients; one part of ``parts`` of the rows.

    Split by rows, each sum is made by one thread in one order. The gates are packed once for all products.
    """
    _, slots, _, _, _ = numbers_of(cell)
    T, B, Hp = states.shape[1] - 1, states.shape[2], states.shape[3]
    row, lanes = slots * Hp, lanes_of(dW)
    first, last = row // lanes * part // parts * lanes, row // lanes * (part + 1) // parts * lanes
    gate_block = aligned(BLOCK * min(CHUNK, last - first), x.dtype)
    other_block = aligned(BLOCK * max(dW.shape[1], Hp), x.dtype)
    for low in range(first, last, CHUNK):
        high = min(last, low + CHUNK)
        for start in range(0, T * B, BLOCK):
            R = min(BLOCK, T * B - start)
            pack_block(gates, low, 0, row, T * B, start, R, high - low, gate_block)
            pack_block(x, 0, x_t, x_b, B, start, R, D, other_block)
            _input_gradient(cell, gate_block, low, high, other_block, R, D, dW)
            _recurrent_gradients(cell, gate_block, low, high, states, mid, other_block, start, R, dU)


@compiled
def _input_gradient(cell, gate_block, low, high, x_block, R, D, dW):
    """Add the rows ``start .. start + R`` to ``dW``; the block of gates holds the columns ``low .. high``."""
    n_gates, _, _, _, _ = numbers_of(cell)
    last = min(high, n_gates * (dW.shape[0] // n_gates))
    if low < last:
        multiply_blocks(gate_block, high - low, 0, last - low, x_block, D, R, dW, low * dW.shape[1], dW.shape[1])


@compiled
def _recurrent_gradients(cell, gate_block, low, high, states, mid, other_block, start, R, dU):
    """Add the rows ``start .. start + R`` to ``dU``: the states before each step, or what late slots have read."""
    _, _, _, early, runs = numbers_of(cell)
    B, Hp = states.shape[2], states.shape[3]
    for r in range(len(runs)):
        slot, count, block = runs[r]
        if r == 0 and early > 0:
            pack_block(states, 0, B * Hp, Hp, B, start, R, Hp, other_block)
        if r == early:
            pack_block(mid, 0, B * Hp, Hp, B, start, R, Hp, other_block)
        first, last = max(low, slot * Hp), min(high, (slot + count) * Hp)
        if first < last:
            to = ((block - slot) * Hp + first) * Hp
            multiply_blocks(gate_block, high - low, first - low, last - low, other_block, Hp, R, dU, to, Hp)


@compiled
def bias_gradient(gates, d_bias):
    """``d_bias (slots * Hp)``: the gates' gradients summed over all steps of all sequences, in blocks of rows.

    A sum of sums loses less than one long sum.
    """
    row = d_bias.size
    block = aligned(row, d_bias.dtype)
    for start in range(0, gates.size, BLOCK * row):
        _copy(gates, start, block, 0, row)
        for at in range(start + row, min(start + BLOCK * row, gates.size), row):
            _add(gates, at, block, 0, row)
        _add(block, 0, d_bias, 0, row)
