"""The same cells in plain loops over single numbers: slow, easy to follow, the reference for the fast kernels.

The buffers are those of the engine without padding (``Hp = H``); the matrices are as torch has them.
"""

from __future__ import annotations

import numpy as np

from seqbench.backends.kernels.cells import (
    backward,
    backward_between,
    between,
    forward,
    numbers_of,
    plus_states,
    read_slots,
    read_states,
    write_slots,
    write_states,
)
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.packing import recurrent_bias


def room_of(cell, T, B, H):
    """Elements of the buffers ``states``, ``gates`` and ``mid`` together; for Python, which takes the room."""
    return (cell.states * (T + 1) + cell.slots * T + T) * B * H


@compiled
def _buffers_in(cell, room, T, B, H):
    """``states (states, T + 1, B, H)``, ``gates (T, B, slots * H)`` and ``mid (T, B, H)``."""
    _, slots, n_states, _, _ = numbers_of(cell)
    first = n_states * (T + 1) * B * H
    second = first + T * B * slots * H
    states = room[:first].reshape(n_states, T + 1, B, H)
    gates = room[first:second].reshape(T, B, slots * H)
    return states, gates, room[second : second + T * B * H].reshape(T, B, H)


@compiled
def plain_forward(cell, constants, x, time_first, W, U, b_x, b_h, start, outputs, room):
    """All steps of all sequences; what the backward pass needs stays in ``room``."""
    x = _by_time(x, time_first)  # (T, B, D)
    T, B, _ = x.shape
    H = U.shape[1]
    n_gates, slots, _, early, runs = numbers_of(cell)
    states, gates, mid = _buffers_in(cell, room, T, B, H)
    states[:, 0] = 0
    if start.size:
        states[:, 0] = start
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
    y = states[:outputs, 1:]  # (outputs, T, B, H)
    return (y if time_first else y.transpose(0, 2, 1, 3)).copy()


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
def plain_backward(cell, constants, x, time_first, W, U, b_h, room, d_y, d_time_first):
    """Every gradient; the gates in ``room`` become the gates' gradients."""
    x_t = _by_time(x, time_first)  # (T, B, D)
    d_y = d_y if d_time_first else d_y.transpose(0, 2, 1, 3).copy()  # (n, T, B, H)
    T, B, _ = x_t.shape
    H = U.shape[1]
    n_gates, _, n_states, early, runs = numbers_of(cell)
    states, gates, mid = _buffers_in(cell, room, T, B, H)
    d_states, d_mid = np.zeros((n_states, B, H), x.dtype), np.zeros(H, x.dtype)
    dx, dW, dU, d_bias = np.zeros_like(x_t), np.zeros_like(W), np.zeros_like(U), np.zeros(gates.shape[2], x.dtype)
    for t in range(T - 1, -1, -1):
        for b in range(B):
            for k in range(d_y.shape[0]):
                for j in range(H):
                    d_states[k, b, j] += d_y[k, t, b, j]
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
            _add_transposed(W, d_a, dx[t, b], whole, H)
            _add_outer(d_a, x_t[t, b], dW, whole, H)
            for r in range(len(runs)):
                _add_outer(d_a, states[0, t, b] if r < early else mid[t, b], dU, runs[r], H)
            d_bias += d_a
    d_bh = recurrent_bias(runs, d_bias, b_h, H, H)
    return _by_time(dx, time_first), (d_states, dW, dU, d_bias[: n_gates * H].copy(), d_bh)


@compiled
def _by_time(x, time_first):
    """``(T, B, D)`` of ``(B, T, D)``, and back."""
    return x if time_first else x.transpose(1, 0, 2).copy()


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
