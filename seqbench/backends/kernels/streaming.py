"""One step of a whole recurrent network in one compiled call: all layers, and the head, on matrices packed once.

A step of one sequence does nothing but read its matrices, and to call compiled code with a dozen arrays takes as long
as a small network computes. So all that can be done is done when the network is packed, and a step gets two arrays
besides its input and its output.

``weights``, as ``row`` packs them: for each layer ``W (D, gates * Hp)``, then ``U``, an ``(H, slots * Hp)`` for each
run of slots; then the head's ``W (H, Np)``. ``memory``, in numbers, each part from a cache line on (``Hp``: the width
rounded up to whole vectors; ``S`` slots)::

    layout  ten int64: D, H, N, Np, L, B, and where biases, states, gates and start begin
    constants
    biases  (L - 1, S * Hp)          what the gates of the layers above the first begin with
    head    (Np,)                    the head's bias
    states  (L, states, B, Hp)
    gates   (S * Hp,)                scratch
    mid     (Hp,)                    scratch
    y       (Np,)                    scratch
    start   (V or 1, S * Hp)         what the first layer's gates begin with: a row for each token, or the bias alone
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from seqbench.backends.kernels import padding
from seqbench.backends.kernels.cells import (
    Cell,
    between,
    forward,
    load_slots,
    load_states,
    numbers_of,
    store_states,
)
from seqbench.backends.kernels.gemm import lanes_of
from seqbench.backends.kernels.jit import cached, compiled
from seqbench.backends.kernels.ownership import borrowed
from seqbench.backends.kernels.row import multiply_row, packed
from seqbench.backends.kernels.vector import load, number, put, store
from seqbench.backends.kernels.workspace import LINE, aligned

Array = Any

LAYOUT_BYTES = 2 * LINE
"""Of the layout at the beginning of the memory."""

# --- in compiled code -----------------------------------------------------------------------------


@compiled
def network_step(cell, weights, memory, token, b, x, out):
    """A step of sequence ``b``: its ``D`` numbers of ``x`` and row ``token`` of ``start``, to its ``N`` of ``out``."""
    D, H, N, Np, L, B, biases, states, gates, start = layout_of(memory)
    _, slots, n_states, _, _ = numbers_of(cell)
    Hp = padded(memory, H)
    S, apart = slots * Hp, B * Hp
    h = states + b * Hp
    copy(memory, start + token * S, memory, gates, S)
    at = layer_step(cell, memory, H, x, b * D, D, weights, 0, h, apart, gates)
    for layer in range(1, L):
        copy(memory, biases + (layer - 1) * S, memory, gates, S)
        h += n_states * apart
        at = layer_step(cell, memory, H, memory, h - n_states * apart, H, weights, at, h, apart, gates)
    if Np:
        y = gates + S + Hp
        copy(memory, biases + (L - 1) * S, memory, y, Np)
        multiply_row(memory, h, H, weights, at, Np, memory, y)
        h = y
    whole = N // lanes_of(memory) * lanes_of(memory)
    copy(memory, h, out, b * N, whole)
    for n in range(whole, N):
        put(out, b * N + n, number(memory, h + n))


@compiled
def layer_step(cell, memory, H, x, x_at, D, weights, at, h, apart, gates):
    """One step of one sequence in one layer, whose matrices begin at ``at``; gives where the next ones begin.

    The gates hold what they begin with. The states, the first one at ``h``, the others ``apart``, are overwritten.
    """
    n_gates, slots, _, early, runs = numbers_of(cell)
    Hp, lanes = padded(memory, H), lanes_of(memory)
    mid, constants = gates + slots * Hp, memory[LAYOUT_BYTES // memory.itemsize :]
    at = multiply_row(x, x_at, D, weights, at, n_gates * Hp, memory, gates)
    for r in range(len(runs)):
        slot, count, _ = runs[r]
        if r == early:
            for o in range(0, Hp, lanes):
                before = load_states(cell, memory, h + o, apart)
                a = load_slots(cell, memory, gates + o, Hp)
                store(memory, mid + o, between(cell, a, before, constants))
        source = h if r < early else mid
        at = multiply_row(memory, source, H, weights, at, count * Hp, memory, gates + slot * Hp)
    for o in range(0, Hp, lanes):
        before = load_states(cell, memory, h + o, apart)
        after, _ = forward(cell, load_slots(cell, memory, gates + o, Hp), before, constants)
        store_states(cell, memory, h + o, apart, after)
    return at


@compiled
def padded(memory, n):
    """``n`` rounded up to whole vectors."""
    lanes = lanes_of(memory)
    return -(-n // lanes) * lanes


@compiled
def copy(source, at, target, to, n):
    """``n`` elements, whole vectors."""
    for o in range(0, n, lanes_of(target)):
        store(target, to + o, load(source, at + o))


@compiled
def layout_of(memory):
    """``D, H, N, Np, L, B, biases, states, gates, start``."""
    a = memory.view(np.int64)
    return a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]


@dataclass(frozen=True)
class Compiled:
    """What networks of one cell run; compiled at their first call, or read from the cache.

    Attributes:
        step: of one sequence: ``step(weights, memory, token, x (D,), out (N,))``; False where a size is wrong.
        steps: of several: ``steps(weights, memory, tokens (B,), x (B * D,), out (B * N,))``, the same.
    """

    step: Callable[..., Any]
    steps: Callable[..., Any]


@cache
def compiled_for(cell: Cell) -> Compiled:
    """The functions of a cell."""

    @cached(cell.key)
    def step(weights, memory, token, x, out):
        weights, memory, x, out = borrowed((weights, memory, x, out))
        layout = layout_of(memory)
        if x.size != layout[0] or out.size != layout[2]:
            return False
        network_step(cell, weights, memory, token, 0, x, out)
        return True

    @cached(cell.key)
    def steps(weights, memory, tokens, x, out):
        weights, memory, tokens, x, out = borrowed((weights, memory, tokens, x, out))
        layout, B = layout_of(memory), tokens.size
        if layout[5] != B or x.size != B * layout[0] or out.size != B * layout[2]:
            return False
        for b in range(B):
            network_step(cell, weights, memory, tokens[b], b, x, out)
        return True

    return Compiled(step, steps)


# --- packing --------------------------------------------------------------------------------------


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
class Stack:
    """A network to be streamed; all arrays contiguous and of one dtype, in which it computes.

    Attributes:
        cell: of every layer.
        constants: numbers that its functions get.
        layers: their parameters, the lowest first; where there is a ``table``, the first one's ``W`` has no columns.
        table: ``(V, gates * H)``, what each token gives to the first layer's gates; None where vectors come in.
        head: ``W (N, H)`` and ``b (N,)``, or None: the output is the last layer's.
    """

    cell: Cell
    constants: tuple[float, ...]
    layers: tuple[Parameters, ...]
    table: Array | None = None
    head: tuple[Array, Array] | None = None

    @property
    def width(self) -> int:
        """``H``."""
        return int(self.layers[0].U.shape[1])

    @property
    def inputs(self) -> int:
        """``D``; 0 where tokens come in."""
        return int(self.layers[0].W.shape[1])

    @property
    def tokens(self) -> int:
        """``V``; 0 where vectors come in."""
        return 0 if self.table is None else len(self.table)

    @property
    def outputs(self) -> int:
        """``N``, or ``H``."""
        return self.width if self.head is None else len(self.head[1])

    @property
    def dtype(self) -> Any:
        """Of all arrays."""
        return self.layers[0].U.dtype

    def padded(self, n: int) -> int:
        """``n`` rounded up to whole vectors."""
        return padding.padded(n, self.dtype)


def pack_weights(stack: Stack, narrow: bool) -> Array:
    """``weights`` of the module."""
    cell, Hp, parts = stack.cell, stack.padded(stack.width), []
    for p in stack.layers:
        parts.append(_columns(p.W, cell.gates, Hp))  # (D, gates * Hp)
        U = _columns(p.U, len(cell.recurrent), Hp)  # (H, blocks * Hp)
        parts += [U[:, block * Hp : (block + count) * Hp] for _, count, block in cell.runs]
    if stack.head is not None:
        parts.append(_columns(stack.head[0], 1, stack.padded(stack.outputs)))  # (H, Np)
    return _in_line([np.concatenate([packed(part, narrow) for part in parts])])[0]


def _columns(matrix: Array, blocks: int, Hp: int) -> Array:
    """``(blocks * H, K)`` as ``(K, blocks * Hp)``, zero beyond ``H``."""
    K, H = matrix.shape[1], len(matrix) // blocks
    columns = np.zeros((K, blocks, Hp), matrix.dtype)
    columns[:, :, :H] = matrix.T.reshape(K, blocks, H)
    return columns.reshape(K, blocks * Hp)


def pack_memory(stack: Stack, batch: int) -> tuple[Array, Array]:
    """``memory`` of the module, the states zero, and these as a view ``(L, states, B, H)``."""
    cell, H, L = stack.cell, stack.width, len(stack.layers)
    Hp, Np = stack.padded(H), 0 if stack.head is None else stack.padded(stack.outputs)
    head = np.zeros(Np, stack.dtype)
    if stack.head is not None:
        head[: stack.outputs] = stack.head[1]
    layers = [_bias(cell, p, H, Hp) for p in stack.layers]
    states = np.zeros((L, cell.states, batch, Hp), stack.dtype)
    memory, places = _in_line([
        np.zeros(LAYOUT_BYTES // stack.dtype.itemsize, stack.dtype),
        np.array(stack.constants, stack.dtype),
        np.concatenate([*layers[1:], head]),
        states.ravel(),
        np.zeros((cell.slots + 1) * Hp + Np, stack.dtype),
        _start(stack, layers[0], Hp).ravel(),
    ])  # fmt: skip
    memory.view(np.int64)[:10] = [stack.inputs, H, stack.outputs, Np, L, batch, *places[2:]]
    return memory, memory[places[3] : places[3] + states.size].reshape(states.shape)[..., :H]


def _bias(cell: Cell, p: Parameters, H: int, Hp: int) -> Array:
    """What a layer's gates begin with, ``(S * Hp,)``."""
    bias = np.zeros((cell.slots, Hp), p.U.dtype)
    bias[: cell.gates, :H] = p.b_x.reshape(cell.gates, H)
    if p.b_h.size:
        bias[list(cell.recurrent), :H] += p.b_h.reshape(-1, H)
    return bias.ravel()


def _start(stack: Stack, bias: Array, Hp: int) -> Array:
    """``(V, S * Hp)``: for each token what it gives to the gates, with the bias; without a table the bias alone."""
    if stack.table is None:
        return bias[None]
    V, gates, H = len(stack.table), stack.cell.gates, stack.width
    start = np.tile(bias, (V, 1)).reshape(V, stack.cell.slots, Hp)
    start[:, :gates, :H] += stack.table.reshape(V, gates, H)
    return start.reshape(V, -1)


def _in_line(parts: list[Array]) -> tuple[Array, list[int]]:
    """Flat arrays one after the other, each from the beginning of a cache line, and where each begins."""
    line = LINE // parts[0].itemsize
    ends = np.cumsum([-(-part.size // line) * line for part in parts])
    places = [0, *ends[:-1].tolist()]
    joined = aligned((int(ends[-1]),), parts[0].dtype)
    joined[:] = 0
    for part, place in zip(parts, places, strict=True):
        joined[place : place + part.size] = part
    return joined, places


# --- running --------------------------------------------------------------------------------------


class Streamer:
    """A network that keeps its state from step to step.

    Args:
        stack: the network.
        batch: ``B``, sequences side by side; None: one.
        narrow: keep the matrices in bfloat16; float32 only.

    Attributes:
        states: ``(L, states, B, H)``, what the next step starts from; a view to read and write.
        step: ``step(token, x (D,), out (N,))``, or with ``batch`` ``step(tokens (B,), x (B * D,), out (B * N,))``: a
            step with tokens, or with zeros and vectors, to ``out``. Arrays are contiguous, of int64 and of the
            network's dtype. False where a size is wrong, TypeError where an array is of another kind; that a token is
            in the vocabulary is not checked.
    """

    def __init__(self, stack: Stack, batch: int | None = None, narrow: bool = False) -> None:
        memory, self.states = pack_memory(stack, batch or 1)
        functions = compiled_for(stack.cell)
        function: Any = functions.step if batch is None else functions.steps
        self.step = partial(function, pack_weights(stack, narrow), memory)
        # Compiled now, and from then on for no other types: an array of another kind must not halt a stream for long.
        tokens: Any = 0 if batch is None else np.zeros(batch, np.int64)
        B = batch or 1
        function.disable_compile(False)
        self.step(tokens, np.zeros(B * stack.inputs, stack.dtype), np.empty(B * stack.outputs, stack.dtype))
        function.disable_compile()
        self.states[...] = 0
