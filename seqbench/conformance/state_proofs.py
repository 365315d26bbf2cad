"""The proof that a core can be run in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from seqbench.conformance.comparing import close, equal, same_tree
from seqbench.conformance.subjects import Lengths, Subject
from seqbench.states import leaves, map_leaves


def check_state(subject: Subject) -> None:
    """Whole sequence = chunks = single steps, whatever the lengths of the chunks, row by row."""
    core, x = subject.core(), subject.inputs()
    whole, _ = core(x)
    _check_state_form(subject, core, *x.shape[:2])
    for splits in _splits(*x.shape[:2]):
        _check_chunks(subject, core, x, whole, splits)
    _check_steps(subject, core, x, whole)
    _check_reordering(subject, core, x, whole)


def _splits(B: int, T: int) -> Iterator[list[Lengths]]:
    """Ways to cut ``T`` steps: the lengths of each chunk's rows; even ones first, then each row cut elsewhere."""
    yield [(T,) * B]
    if T > 1:
        yield [(T // 2,) * B, (T - T // 2,) * B]
    if T > 2:
        first = tuple(1 + row % (T - 2) for row in range(B))
        second = tuple(1 + (2 * row) % (T - a - 1) for row, a in enumerate(first))
        yield [first, second, tuple(T - a - b for a, b in zip(first, second, strict=True))]
        middle = tuple(1 + (row + 1) % (T - 2) for row in range(B))
        yield [(1,) * B, middle, tuple(T - 1 - a for a in middle)]


def _check_state_form(subject: Subject, core: Any, B: int, T: int) -> None:
    state = core.initial_state(B, T)
    for leaf in leaves(state):
        equal(subject, "first axis of every leaf of the state", leaf.shape[:1], (B,), "the batch comes first")
    if subject.card.state_is_summary:
        sizes = [[leaf.shape for leaf in leaves(core.initial_state(B, n))] for n in (T, 10 * T)]
        equal(subject, "size of the state for another capacity", sizes[1], sizes[0], "state_is_summary is wrong")


def _check_chunks(subject: Subject, core: Any, x: Tensor, whole: Tensor, splits: Sequence[Lengths]) -> None:
    """Feed each row its own pieces; row ``b`` of chunk ``n`` has ``splits[n][b]`` steps."""
    B = x.shape[0]
    state, done = core.initial_state(B, x.shape[1]), [0] * B
    for lengths in splits:
        T = max(lengths)
        chunk = torch.full((B, T, x.shape[2]), 1e3, dtype=x.dtype)
        for row, n in enumerate(lengths):
            chunk[row, :n] = x[row, done[row] : done[row] + n]
        ragged = min(lengths) < T
        before = map_leaves(Tensor.clone, state)
        y, after = core(chunk, state, torch.tensor(lengths) if ragged else None)
        cause = "a call must leave the state that it is given as it is; only step may consume it"
        same_tree(subject, "the state given to a call, afterwards", state, before, cause)
        for row, n in enumerate(lengths):
            cause = "the state is not carried on, or not from the last valid step of each row"
            what = f"row {row}, steps {done[row]}.. in chunks {list(splits)}, against the whole sequence"
            close(subject, what, y[row, :n], whole[row, done[row] : done[row] + n], cause)
            done[row] += n
        state = after


def _check_steps(subject: Subject, core: Any, x: Tensor, whole: Tensor) -> None:
    """Single steps, from the start and after a chunk."""
    B, T, _ = x.shape
    for chunk in (0, T // 3):
        state = core.initial_state(B, T)
        if chunk:
            _, state = core(x[:, :chunk], state)
        state = map_leaves(Tensor.detach, state)
        for t in range(chunk, T):
            y_t, state = core.step(x[:, t], state)
            what = f"step {t} after a chunk of {chunk}, against the whole sequence"
            close(subject, what, y_t, whole[:, t], "step computes something else, or loses the state")
            equal(subject, "step has a gradient", y_t.requires_grad, False, "decorate step with torch.no_grad()")


def _check_reordering(subject: Subject, core: Any, x: Tensor, whole: Tensor) -> None:
    """Rows of the state can be reordered, as beam search does, with no model code."""
    B, T, _ = x.shape
    order, half = torch.tensor([B - 1, *[0] * (B - 1)]), T // 2
    if not half:
        return
    _, state = core(x[:, :half], core.initial_state(B, T))
    y, _ = core(x[order, half:], map_leaves(lambda leaf: leaf[order], state))
    close(subject, "y after reordering the rows of the state", y, whole[order, half:], "a leaf mixes rows")
