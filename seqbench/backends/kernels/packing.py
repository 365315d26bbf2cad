"""A recurrent layer's matrices in the order in which the kernels read them, and their gradients back."""

from __future__ import annotations

import numpy as np

from seqbench.backends.kernels.gemm import lanes_of, pack_row
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.vector import number, transpose


@compiled
def pack_rows(matrix, first_row, blocks, H, Hp, K, packed, at):
    """Pack ``blocks`` blocks of ``H`` rows of ``matrix (rows, K)`` as the columns of ``(K, blocks * Hp)``."""
    lanes = lanes_of(packed)
    N = blocks * Hp
    for column in range(0, N, lanes):  # a vector of columns, all of one block
        panel = column // (2 * lanes) * 2 * lanes
        width = min(2 * lanes, N - panel)
        target = at + panel * K + column - panel
        j = column % Hp
        source = (first_row + column // Hp * H + j) * K
        whole = K // lanes * lanes if j + lanes <= H else 0
        for k in range(0, whole, lanes):
            transpose(matrix, source + k, K, packed, target + k * width, width)
        for k in range(whole, K):
            for n in range(lanes):
                packed[target + k * width + n] = number(matrix, source + n * K + k) if j + n < H else 0


@compiled
def pack_columns(matrix, first_row, blocks, H, Hp, N, packed, at):
    """Pack ``blocks`` blocks of ``H`` rows of ``matrix (rows, N)`` as ``(blocks * Hp, N)``: the transposed use."""
    K = blocks * Hp
    for block in range(blocks):
        for j in range(Hp):
            row = first_row + block * H + j
            pack_row(matrix, row * N, N if j < H else 0, N, packed, at, block * Hp + j, K, row * N)


@compiled
def pack_forward(runs, gates, W, U, b_x, b_h, D, H, Hp, W_packed, U_packed, bias):
    """Both matrices for the forward pass, ``U`` a run of slots at a time, and the bias of every slot.

    ``b_x (gates * H)`` belongs to the input's product, ``b_h`` to the recurrent one; it may be empty.
    """
    bias[:] = 0
    for gate in range(gates):
        for j in range(H):
            bias[gate * Hp + j] = b_x[gate * H + j]
    for slot, slots, block in runs:
        for j in range(slots * H if b_h.size else 0):
            bias[(slot + j // H) * Hp + j % H] += b_h[block * H + j]
    pack_rows(W, np.int64(0), gates, H, Hp, D, W_packed, np.int64(0))
    for _, slots, block in runs:
        pack_rows(U, block * H, slots, H, Hp, H, U_packed, block * H * Hp)


@compiled
def pack_backward(runs, gates, W, U, D, H, Hp, W_packed, U_packed):
    """Both matrices for the backward pass."""
    pack_columns(W, np.int64(0), gates, H, Hp, D, W_packed, np.int64(0))
    for _, slots, block in runs:
        pack_columns(U, block * H, slots, H, Hp, H, U_packed, block * Hp * Hp)


@compiled
def crop(matrix, blocks, H, Hp, N, Np, target):
    """``target (blocks * H, N)`` out of a flat ``(blocks, Hp, Np)``."""
    for m in range(blocks * H):
        at = (m // H * Hp + m % H) * Np
        for n in range(N):
            target[m * N + n] = matrix[at + n]


@compiled
def split_bias(runs, gates, d_bias, H, Hp, db_x, db_h):
    """The gradients of both biases out of that of every slot; ``db_h`` is empty where there is one bias."""
    for n in range(gates * H):
        db_x[n] = d_bias[n // H * Hp + n % H]
    for slot, count, block in runs:
        for n in range(count * H if db_h.size else 0):
            db_h[block * H + n] = d_bias[(slot + n // H) * Hp + n % H]
