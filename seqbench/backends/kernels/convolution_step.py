"""One step of a stack of residual blocks: for each convolution the taps that count, from a ring of inputs, in one row.

Channels ``sizes (L + 1)``, the input's first; state as in ``rings``. All filters and biases lie in one array, the
tape; of each block, packed, conv_1 as ``(K * D, Hp)`` and its bias ``(Hp)``, conv_2 as ``(K * H, Hp)`` and its bias,
and where the widths differ the 1x1 convolution as ``(D, Hp)`` and its bias.
"""

from __future__ import annotations

import numpy as np

from seqbench.backends.kernels.convolution import pack_bias, pack_filter, padded
from seqbench.backends.kernels.gemm import lanes_of, multiply_onto
from seqbench.backends.kernels.jit import compiled, merged
from seqbench.backends.kernels.pointwise import relu
from seqbench.backends.kernels.vector import load, store


def tape_size(V, Hp):
    """Of one block with these filters."""
    return sum(v.size // v.shape[0] * Hp + Hp for v in V if v.size)


@merged
def pack_tape(V, g, b, tape):
    """Of one block."""
    at, H = 0, V[0].shape[0]
    Hp = padded(H, tape)
    for i in range(3):
        if V[i].size:
            size = V[i].size // H * Hp
            pack_filter(V[i], g[i], True, tape[at : at + size])
            pack_bias(b[i], tape[at + size : at + size + Hp])
            at += size + Hp


@merged
def step(x, past, position, sizes, dilations, K, tape, scratch, y):
    """``x (B, D)`` to ``y (B, C)``; every ring gets its input, in the place of the oldest, and ``position`` goes on.

    ``scratch`` has room for ``K + 4`` rows of the widest layer, padded, of every sequence.
    """
    B = x.shape[0]
    room = scratch.size // (K + 4)
    taps, h, f = scratch[4 * room :], scratch[:room], scratch[room : 2 * room]
    incoming, outgoing = scratch[2 * room : 3 * room], scratch[3 * room : 4 * room]
    for b in range(B):
        for c in range(sizes[0]):
            incoming[b * padded(sizes[0], tape) + c] = x[b, c]
    ring, at = np.intp(0), np.intp(0)  # no literals, for which numba would compile functions once more
    for n in range(dilations.size):
        D, H, P = sizes[n], sizes[n + 1], (K - 1) * dilations[n]
        Dp, Hp = padded(D, tape), padded(H, tape)
        _turn(incoming, Dp, past, ring, position, K, dilations[n], D, taps)
        at = _product(taps, K * D, K * D, tape, at, B, Hp, h)
        _rectify(h, B * Hp)
        _turn(h, Hp, past, ring + P * D, position, K, dilations[n], H, taps)
        at = _product(taps, K * H, K * H, tape, at, B, Hp, f)
        _rectify(f, B * Hp)
        if D != H:
            at = _product(incoming, Dp, D, tape, at, B, Hp, outgoing)
            incoming, outgoing = outgoing, incoming
        _join(f, incoming, B * Hp)
        ring += P * (D + H)
    for b in range(B):
        position[b] += 1
        for c in range(y.shape[1]):
            y[b, c] = incoming[b * padded(y.shape[1], tape) + c]


@compiled
def _turn(x, row, past, at, position, K, dilation, C, taps):
    """The taps of every sequence next to one another, oldest first; the current input takes the oldest one's place."""
    P = (K - 1) * dilation
    for b in range(position.size):
        for k in range(K - 1):
            source, to = at + (position[b] + k * dilation) % P * C, (b * K + k) * C
            for c in range(C):
                taps[to + c] = past[b, source + c]
        target, to = at + position[b] % P * C, (b * K + K - 1) * C
        for c in range(C):
            taps[to + c] = x[b * row + c]
            past[b, target + c] = x[b * row + c]


@compiled
def _product(a, row, C, tape, at, B, Hp, c):
    """``c (B, Hp)``: a product with the next filter on the tape, and its bias; returns where the one after begins."""
    zero, one = np.intp(0), np.intp(1)
    multiply_onto(a, zero, zero, row, one, B, 1, C, tape, at, Hp, c, zero, zero, Hp, tape, at + C * Hp, zero, zero)
    return at + (C + 1) * Hp


@compiled
def _rectify(c, n):
    for o in range(0, n, lanes_of(c)):
        store(c, o, relu(load(c, o)))


@compiled
def _join(f, x, n):
    """``x = relu(f + x)``."""
    for o in range(0, n, lanes_of(x)):
        store(x, o, relu(load(f, o) + load(x, o)))
