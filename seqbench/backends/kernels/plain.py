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


@compiled
def plain_forward(cell, constants, x, W, U, b_x, b_h, states, gates, mid):
    """All steps of all sequences; ``gates (T, B, slots * H)`` keeps what the backward pass needs."""
    T, B, D = x.shape
    H = U.shape[1]
    n_gates, slots, _, early, runs = numbers_of(cell)
    apart = states.shape[1] * B * H
    for t in range(T):
        for b in range(B):
            a = gates[t, b]  # (slots * H,)
            a[:] = 0
            for n in range(n_gates * H):
                a[n] = b_x[n]
                for k in range(D):
                    a[n] += W[n, k] * x[t, b, k]
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


@compiled
def _add_product(U, b_h, source, a, run, H):
    """``a += U source + b_h`` in the slots of a run."""
    slot, count, block = run
    for n in range(count * H):
        if b_h.size:
            a[slot * H + n] += b_h[block * H + n]
        for k in range(H):
            a[slot * H + n] += U[block * H + n, k] * source[k]


@compiled
def plain_backward(cell, constants, x, W, U, states, gates, mid, d_y, d_states, dx, dW, dU, d_bias):
    """Every gradient; ``gates`` becomes the gates' gradients, ``d_states`` that of the states before the first step."""
    T, B, _ = x.shape
    H = U.shape[1]
    n_gates, _, _, early, runs = numbers_of(cell)
    d_mid = np.zeros(H, x.dtype)
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
            _add_outer(d_a, x[t, b], dW, whole, H)
            for r in range(len(runs)):
                _add_outer(d_a, states[0, t, b] if r < early else mid[t, b], dU, runs[r], H)
            d_bias += d_a


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
