"""Recurrent layers over time: forward, backward, weight gradients, for any cell, on packed matrices and vectors.

Buffers, in elements (``Hp``: the width ``H`` rounded up to whole vectors; ``S`` slots)::

    x       (T, B, D)            any strides, the last axis contiguous
    states  (states, T + 1, B, Hp)    [:, 0] comes in; [0, 1:] is the output
    gates   (T or a block, B, S * Hp) in training all steps, kept for the backward pass; else scratch
    W       packed (D, gates * Hp),   U: a packed (H, slots * Hp) for each run of slots
    bias    (S * Hp)

The inputs' product is made for a block of steps at a time, so that the gates are still in the cache when the recurrent
product adds to them. The backward pass overwrites the gates with their gradients.
"""

from __future__ import annotations

import numpy as np

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
from seqbench.backends.kernels.gemm import BLOCK, lanes_of, multiply, multiply_transposed
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.vector import load, spread, store

BLOCK_ROWS = 64
"""Rows of the gate buffer, steps times sequences, that the input's product fills at a time."""


@compiled
def block_steps(rows):
    """Steps of a block with so many sequences."""
    return max(1, BLOCK_ROWS // rows)


# --- packing --------------------------------------------------------------------------------------


@compiled
def pack_rows(matrix, first_row, blocks, H, Hp, K, packed, at):
    """Pack ``blocks`` blocks of ``H`` rows of ``matrix (rows, K)`` as the columns of ``(K, blocks * Hp)``."""
    lanes = lanes_of(packed)
    N = blocks * Hp
    for first in range(0, N, 2 * lanes):
        width = min(2 * lanes, N - first)
        for n in range(width):
            block, j = (first + n) // Hp, (first + n) % Hp
            row = first_row + block * H + j
            for k in range(K):
                packed[at + k * width + n] = matrix[row, k] if j < H else 0
        at += K * width


@compiled
def pack_columns(matrix, first_row, blocks, H, Hp, N, packed, at):
    """Pack ``blocks`` blocks of ``H`` rows of ``matrix (rows, N)`` as ``(blocks * Hp, N)``: the transposed use."""
    lanes = lanes_of(packed)
    K = blocks * Hp
    for first in range(0, N, 2 * lanes):
        width = min(2 * lanes, -(-(N - first) // lanes) * lanes)
        valid = min(width, N - first)
        for block in range(blocks):
            for j in range(Hp):
                target = at + (block * Hp + j) * width
                for n in range(width):
                    inside = j < H and n < valid
                    packed[target + n] = matrix[first_row + block * H + j, first + n] if inside else 0
        at += K * width


@compiled
def pack_forward(cell, W, U, b_x, b_h, H, Hp, W_packed, U_packed, bias):
    """Both matrices for the forward pass, ``U`` a run of slots at a time, and the bias of every slot.

    ``b_x (gates * H)`` belongs to the input's product, ``b_h`` to the recurrent one; it may be empty.
    """
    gates, _, _, _, runs = numbers_of(cell)
    bias[:] = 0
    for gate in range(gates):
        for j in range(H):
            bias[gate * Hp + j] = b_x[gate * H + j]
    for slot, slots, block in runs:
        for j in range(slots * H if b_h.size else 0):
            bias[(slot + j // H) * Hp + j % H] += b_h[block * H + j]
    pack_rows(W, 0, gates, H, Hp, W.shape[1], W_packed, 0)
    at = 0
    for _, slots, block in runs:
        pack_rows(U, block * H, slots, H, Hp, H, U_packed, at)
        at += H * slots * Hp


@compiled
def pack_backward(cell, W, U, H, Hp, W_packed, U_packed):
    """Both matrices for the backward pass."""
    gates, _, _, _, runs = numbers_of(cell)
    pack_columns(W, 0, gates, H, Hp, W.shape[1], W_packed, 0)
    at = 0
    for _, slots, block in runs:
        pack_columns(U, block * H, slots, H, Hp, H, U_packed, at)
        at += slots * Hp * Hp


# --- forward --------------------------------------------------------------------------------------


@compiled
def forward_rows(cell, constants, x, W, U, bias, states, gates, mid, first, last, H, training):
    """All steps of the sequences ``first .. last``."""
    T, B, D = x.shape
    Hp = states.shape[3]
    n_gates, slots, _, _, _ = numbers_of(cell)
    row = slots * Hp
    x_t, x_b = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    rows = last - first
    steps = block_steps(rows)
    for t0 in range(0, T, steps):
        t1 = min(T, t0 + steps)
        g0 = ((t0 if training else 0) * B + first) * row
        for t in range(t1 - t0):
            for b in range(rows):
                copy(bias, 0, gates, g0 + (t * B + b) * row, row)
        x_at = t0 * x_t + first * x_b
        multiply(x, x_at, x_t, x_b, t1 - t0, rows, 1, D, W, 0, n_gates * Hp, gates, g0, B * row, row)
        for t in range(t0, t1):
            _one_step(cell, constants, U, states, gates, mid, t, g0 + (t - t0) * B * row, first, rows, H, training)


@compiled
def _one_step(cell, constants, U, states, gates, mid, t, g, first, rows, H, training):
    """Step ``t``, the inputs' part of the gates being at ``g``."""
    _, slots, _, early, runs = numbers_of(cell)
    B, Hp = states.shape[2], states.shape[3]
    lanes, row = lanes_of(states), slots * Hp
    s = (t * B + first) * Hp
    apart = states.shape[1] * B * Hp
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
            here = s + b * Hp + o
            a = load_slots(cell, gates, g + b * row + o, Hp)
            after, kept = forward(cell, a, load_states(cell, states, here, apart), constants)
            store_states(cell, states, here + B * Hp, apart, after)
            if training:
                store_slots(cell, gates, g + b * row + o, Hp, kept)


@compiled
def copy(source, at, target, to, n):
    """``target[to:to + n] = source[at:at + n]``, whole vectors."""
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(source, at + o))


# --- backward -------------------------------------------------------------------------------------


@compiled
def backward_rows(cell, constants, W, U, states, gates, mid, d_y, d_states, dx, first, last, H):
    """The gradients of the gates (in place), of the input and of the states before the first step.

    Args:
        cell: the cell.
        constants: its numbers.
        W: packed for the backward pass.
        U: packed for the backward pass.
        states: as the forward pass left them.
        gates: what it kept; afterwards the gates' gradients.
        mid: what late slots have read, ``(T + 1, B, Hp)``; the last step is scratch.
        d_y: ``(n, T, B, Hp)``, the gradient of the first ``n`` states after each step, zero beyond ``H``.
        d_states: ``(states, B, Hp)``: of the last states; afterwards of the first.
        dx: ``(T, B, Dp)``, zeros; afterwards the input's gradient.
        first: sequence.
        last: the one after the last sequence.
        H: the width.
    """
    n_gates, slots, _, _, _ = numbers_of(cell)
    T, B, Hp = states.shape[1] - 1, states.shape[2], states.shape[3]
    row, Dp = slots * Hp, dx.shape[2]
    rows = last - first
    steps = block_steps(rows)
    t1 = T
    while t1 > 0:
        t0 = max(0, t1 - steps)
        for t in range(t1 - 1, t0 - 1, -1):
            _one_step_back(cell, constants, U, states, gates, mid, d_y, d_states, t, first, rows, H)
        g, to = (t0 * B + first) * row, (t0 * B + first) * Dp
        multiply(gates, g, B * row, row, t1 - t0, rows, 1, n_gates * Hp, W, 0, Dp, dx, to, B * Dp, Dp)
        t1 = t0


@compiled
def _one_step_back(cell, constants, U, states, gates, mid, d_y, d_states, t, first, rows, H):
    _, slots, _, early, runs = numbers_of(cell)
    B, Hp = states.shape[2], states.shape[3]
    lanes, row = lanes_of(states), slots * Hp
    apart, d_apart, y_apart = states.shape[1] * B * Hp, B * Hp, d_y.shape[1] * B * Hp
    s, g, d = (t * B + first) * Hp, (t * B + first) * row, first * Hp
    for b in range(rows):
        for o in range(0, Hp, lanes):
            here, to, slot_0 = s + b * Hp + o, d + b * Hp + o, g + b * row + o
            for k in range(d_y.shape[0]):
                place = k * d_apart + to
                store(d_states, place, load(d_states, place) + load(d_y, k * y_apart + here))
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
    scratch = mid.shape[0] - 1  # one step more than the sequence has
    m = (scratch * B + first) * Hp
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
def weight_gradients(cell, x, states, gates, mid, dW, dU, part, parts):
    """``dW (gates * Hp, Dp)`` and ``dU (slots * Hp, Hp)`` from the gates' gradients; the rows of one part of ``parts``.

    Split by rows, each sum is made by one thread in one order.
    """
    n_gates, slots, _, early, runs = numbers_of(cell)
    T, B, D = x.shape
    Hp = states.shape[3]
    row, Dp, lanes = slots * Hp, dW.shape[1], lanes_of(dW)
    a_block = np.empty(BLOCK * 2 * lanes_of(dW), x.dtype)
    b_block = np.empty(BLOCK * max(Dp, Hp), x.dtype)
    x_t, x_b = x.strides[0] // x.itemsize, x.strides[1] // x.itemsize
    first, last = bounds_of(n_gates * Hp, lanes, part, parts)
    multiply_transposed(gates, 0, row, first, last, x, x_t, x_b, T, B, D, dW, Dp, a_block, b_block)
    for r in range(len(runs)):
        slot, count, block = runs[r]
        first, last = bounds_of(count * Hp, lanes, part, parts)
        to = dU[block * Hp :]
        if r < early:
            multiply_transposed(
                gates, slot * Hp, row, first, last, states, B * Hp, Hp, T, B, Hp, to, Hp, a_block, b_block
            )
        else:
            multiply_transposed(gates, slot * Hp, row, first, last, mid, B * Hp, Hp, T, B, Hp, to, Hp, a_block, b_block)


@compiled
def bounds_of(n, lanes, part, parts):
    """Bounds of one of ``parts`` parts of ``n`` rows, at multiples of a vector, which ``n`` is too."""
    vectors = n // lanes
    return vectors * part // parts * lanes, vectors * (part + 1) // parts * lanes


@compiled
def bias_gradient(gates, d_bias):
    """``d_bias (slots * Hp)``: the gates' gradients summed over all steps of all sequences, in blocks of rows.

    A sum of sums loses less than one long sum.
    """
    row = d_bias.size
    block = np.empty_like(d_bias)
    for start in range(0, gates.size, BLOCK * row):
        copy(gates, start, block, 0, row)
        for at in range(start + row, min(start + BLOCK * row, gates.size), row):
            _add(gates, at, block, 0, row)
        _add(block, 0, d_bias, 0, row)


@compiled
def _add(source, at, target, to, n):
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(target, to + o) + load(source, at + o))
