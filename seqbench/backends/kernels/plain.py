"""The same cells in plain loops over single numbers: slow, easy to follow, the reference for the fast kernels.

The buffers are those of the engine without padding (``Hp = H``); the matrices are as torch has them.
"""

from __future__ import annotations

import numpy as np

from seqbench.backends.kernels.cells import (
    backward,
    backward_between,
    between,
    blocks_of,
    forward,
    numbers_of,
    plus_states,
    read_slots,
    read_states,
    write_slots,
    write_states,
)
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.ownership import array_at
from seqbench.backends.kernels.packing import split_bias


def room_of(states, slots, T, B, H):
    """Elements of the buffers ``states``, ``gates`` and ``mid`` together."""
    return (states * (T + 1) + slots * T + T) * B * H


_room_size = compiled(room_of)


@compiled
def _buffers_in(cell, address, T, B, H, like):
    """``states (states, T + 1, B, H)``, ``gates (T, B, slots * H)`` and ``mid (T, B, H)``."""
    _, slots, n_states, _, _ = numbers_of(cell)
    room = array_at(address, _room_size(n_states, slots, T, B, H), like)
    first = n_states * (T + 1) * B * H
    second = first + T * B * slots * H
    states = room[:first].reshape(n_states, T + 1, B, H)
    gates = room[first:second].reshape(T, B, slots * H)
    return states, gates, room[second : second + T * B * H].reshape(T, B, H)


@compiled
def plain_forward(cell, constants, T, B, D, H, time_first, x, W, U, b_x, b_h, start, room, y):
    """All steps of all sequences; what the backward pass needs stays in ``room``.

    ``x`` to ``b_h`` are flat arrays, ``start``, ``room`` and ``y`` addresses, as in the engine.
    """
    x = _by_time(x, T, B, D, time_first)
    n_gates, slots, n_states, early, runs = numbers_of(cell)
    W, U = W.reshape(n_gates * H, D), U.reshape(blocks_of(cell) * H, H)
    states, gates, mid = _buffers_in(cell, room, T, B, H, x)
    _read_states(start, states)
    apart = states.shape[1] * B * H
    for t in range(T):
        for b in range(B):
            a = gates[t, b]  # (slots * H,)
            a[:] = 0
            _add_product(W, b_x, x[t, b], a, (0, n_gates, 0), H)
            g, s = (t * B + b) * slots * H, (t * B + b) * H
            for r in range(early):
                _add_product(U, b_h, states[0, t, b], a, runs[r], H)
            if early < len(runs):
                for j in range(H):
                    before = read_states(cell, states, s + j, apart)
                    mid[t, b, j] = between(cell, read_slots(cell, gates, g + j, H), before, constants)
            for r in range(early, len(runs)):
                _add_product(U, b_h, mid[t, b], a, runs[r], H)
            for j in range(H):
                before = read_states(cell, states, s + j, apart)
                after, kept = forward(cell, read_slots(cell, gates, g + j, H), before, constants)
                write_states(cell, states, s + B * H + j, apart, after)
                write_slots(cell, gates, g + j, H, kept)
    for k in range(n_states):
        if y[k]:
            _write(states[k, 1:], time_first, array_at(y[k], T * B * H, x))


@compiled
def _read_states(start, states):
    """Those before the first step, from the address of each, or zeros."""
    n_states, _, B, H = states.shape
    states[:, 0] = 0
    for k in range(n_states):
        if start[k]:
            states[k, 0] = array_at(start[k], B * H, states).reshape(B, H)


@compiled
def _add_product(U, bias, source, a, run, H):
    """``a += U source + bias`` in the slots of a run; the bias may be empty."""
    slot, count, block = run
    for n in range(count * H):
        if bias.size:
            a[slot * H + n] += bias[block * H + n]
        for k in range(source.size):
            a[slot * H + n] += U[block * H + n, k] * source[k]


@compiled
def plain_backward(
    cell, constants, T, B, D, H, time_first, x, W, U, room, d_y, d_time_first, dx, dW, dU, db_x, db_h, d_start
):
    """Every gradient; the gates in ``room`` become the gates' gradients.

    ``room``, ``d_y`` and ``d_start`` are addresses, as in the engine, all else flat arrays.
    """
    n_gates, _, n_states, early, runs = numbers_of(cell)
    x_t = _by_time(x, T, B, D, time_first)
    W, U = W.reshape(n_gates * H, D), U.reshape(blocks_of(cell) * H, H)
    states, gates, mid = _buffers_in(cell, room, T, B, H, x)
    d_states, d_mid = np.zeros((n_states, B, H), x.dtype), np.zeros(H, x.dtype)
    d_after = _gradients_by_time(d_y, n_states, T, B, H, d_time_first, x)
    d_input, d_bias = np.zeros_like(x_t), np.zeros(gates.shape[2], x.dtype)
    dW[:], dU[:] = 0, 0
    dW, dU = dW.reshape(n_gates * H, D), dU.reshape(blocks_of(cell) * H, H)
    for t in range(T - 1, -1, -1):
        for b in range(B):
            d_states[:, b] += d_after[:, t, b]
            _pointwise_back(cell, constants, states, gates, d_states, t, b, H)
            d_a = gates[t, b]  # (slots * H,)
            if early < len(runs):
                d_mid[:] = 0
                for r in range(early, len(runs)):
                    _add_transposed(U, d_a, d_mid, runs[r], H)
                _late_back(cell, constants, states, gates, d_states, d_mid, t, b, H)
            for r in range(early):
                _add_transposed(U, d_a, d_states[0, b], runs[r], H)
            whole = (0, n_gates, 0)  # the input's product fills the first slots
            _add_transposed(W, d_a, d_input[t, b], whole, H)
            _add_outer(d_a, x_t[t, b], dW, whole, H)
            for r in range(len(runs)):
                _add_outer(d_a, states[0, t, b] if r < early else mid[t, b], dU, runs[r], H)
            d_bias += d_a
    _write(d_input, time_first, dx)
    split_bias(runs, n_gates, d_bias, H, H, db_x, db_h)
    _write_states(d_states, d_start)


@compiled
def _write_states(d_states, d_start):
    """To the address of each that is wanted."""
    n_states, B, H = d_states.shape
    for k in range(n_states):
        if d_start[k]:
            array_at(d_start[k], B * H, d_states)[:] = d_states[k].reshape(-1)


@compiled
def _gradients_by_time(d_y, n_states, T, B, H, time_first, like):
    """``(states, T, B, H)``, zeros where there is none."""
    found = np.zeros((n_states, T, B, H), like.dtype)
    for k in range(n_states):
        if d_y[k]:
            found[k] = _by_time(array_at(d_y[k], T * B * H, like), T, B, H, time_first)
    return found


@compiled
def _by_time(x, T, B, D, time_first):
    """``(T, B, D)`` of a flat ``(T, B, D)`` or ``(B, T, D)``."""
    return x.reshape(T, B, D) if time_first else x.reshape(B, T, D).transpose(1, 0, 2).copy()


@compiled
def _write(by_time, time_first, target):
    """The inverse."""
    T, B, D = by_time.shape
    for t in range(T):
        for b in range(B):
            at = (t * B + b if time_first else b * T + t) * D
            target[at : at + D] = by_time[t, b]


@compiled
def _pointwise_back(cell, constants, states, gates, d_states, t, b, H):
    """From the states after a step to its gates and the states before."""
    B, row = states.shape[2], gates.shape[2]
    apart, d_apart = states.shape[1] * B * H, B * H
    for j in range(H):
        g, s, d = (t * B + b) * row + j, (t * B + b) * H + j, b * H + j
        kept = read_slots(cell, gates, g, H)
        before, after = read_states(cell, states, s, apart), read_states(cell, states, s + B * H, apart)
        d_after = read_states(cell, d_states, d, d_apart)
        d_a, d_before = backward(cell, kept, before, after, d_after, constants)
        write_slots(cell, gates, g, H, d_a)
        write_states(cell, d_states, d, d_apart, d_before)


@compiled
def _late_back(cell, constants, states, gates, d_states, d_mid, t, b, H):
    """From what the late slots have read to the other slots and the states before."""
    B, row = states.shape[2], gates.shape[2]
    for j in range(H):
        g, s = (t * B + b) * row + j, (t * B + b) * H + j
        before = read_states(cell, states, s, states.shape[1] * B * H)
        d_a, more = backward_between(cell, read_slots(cell, gates, g, H), before, d_mid[j], constants)
        write_slots(cell, gates, g, H, d_a)
        plus_states(cell, d_states, b * H + j, B * H, more)


@compiled
def _add_transposed(U, d_a, d_source, run, H):
    """``d_source += U' d_a`` of the slots of a run."""
    slot, count, block = run
    for n in range(count * H):
        for k in range(d_source.size):
            d_source[k] += d_a[slot * H + n] * U[block * H + n, k]


@compiled
def _add_outer(d_a, source, dU, run, H):
    """``dU += d_a source'`` of the slots of a run."""
    slot, count, block = run
    for n in range(count * H):
        for k in range(source.size):
            dU[block * H + n, k] += d_a[slot * H + n] * source[k]
