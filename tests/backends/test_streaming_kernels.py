"""Networks step by step in compiled code, against whole sequences of the torch cores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_cells import with_each_cell

from seqbench.api import CoreSpec
from seqbench.backends.kernels.row import rounded, widened
from seqbench.backends.kernels.streaming import Parameters, Stack, Streamer
from seqbench.backends.recurrence import Recurrence
from seqbench.registry import resolve
from seqbench_models import gru


def core_and_stack(card: Any, options: dict[str, Any], spec: CoreSpec, dtype: torch.dtype) -> tuple[Any, Stack]:
    """The torch core, and the same parameters for a streamer."""
    torch.manual_seed(3)
    chosen = card.options(**options)
    core = resolve(card.cores["torch"])(spec, chosen).to(dtype)
    recurrence: Recurrence = resolve(card.recurrence)(chosen)
    return core, Stack(recurrence.cell, recurrence.constants, tuple(map(parameters(recurrence), core.layers)))


def parameters(recurrence: Recurrence) -> Any:
    names = recurrence.names

    def of(layer: torch.nn.Module) -> Parameters:
        found = {name: p.detach().numpy() for name, p in layer.state_dict().items()}
        b_h = found[names.b_h] if names.b_h else np.empty(0, found[names.U].dtype)
        return Parameters(found[names.W], found[names.U], found[names.b_x], b_h)

    return of


def sequence(streamer: Streamer, stack: Stack, x: np.ndarray) -> np.ndarray:
    """All steps of ``x (B, T, D)``, or of one sequence ``(T, D)``: ``(B, T, N)`` or ``(T, N)``."""
    steps = np.ascontiguousarray(x.swapaxes(0, 1) if x.ndim == 3 else x)  # (T, B, D) or (T, D)
    y = np.empty((*steps.shape[:-1], stack.outputs), x.dtype)
    tokens: Any = np.zeros(len(x), np.int64) if x.ndim == 3 else 0
    for x_t, y_t in zip(steps, y, strict=True):
        assert streamer.step(tokens, x_t.ravel(), y_t.reshape(-1))
    return y.swapaxes(0, 1) if x.ndim == 3 else y


@with_each_cell
@settings(max_examples=40, deadline=None)
@given(
    B=st.integers(0, 3), T=st.integers(1, 8), D=st.integers(1, 40), H=st.integers(1, 70), layers=st.integers(1, 3),
    N=st.integers(0, 40),
)  # fmt: skip
def test_equals_torch_in_float64(
    card: Any, options: dict[str, Any], B: int, T: int, D: int, H: int, layers: int, N: int
) -> None:
    """Outputs of all steps, with a head and without, and the states, to 1e-10; ``B`` 0 is one without that axis."""
    core, stack = core_and_stack(card, options, CoreSpec(D, H, layers, train_length=12), torch.float64)
    rng = np.random.default_rng(B + T)
    x = rng.normal(size=(B or 1, T, D))
    want, after = core(torch.from_numpy(x), core.initial_state(B or 1, T))
    want = want.detach().numpy()  # (B, T, H)
    if N:
        W, b = rng.normal(size=(N, H)), rng.normal(size=N)
        stack, want = replace(stack, head=(W, b)), want @ W.T + b
    streamer = Streamer(stack, B or None)
    got = sequence(streamer, stack, x if B else x[0])
    np.testing.assert_allclose(got, want if B else want[0], rtol=0, atol=1e-10 * max(1, np.abs(want).max()))
    for got, layer in zip(streamer.states, after, strict=True):
        leaves = layer if isinstance(layer, tuple) else (layer,)
        for have, leaf in zip(got, leaves, strict=True):
            np.testing.assert_allclose(have, leaf.detach().numpy(), rtol=0, atol=1e-10)


@with_each_cell
def test_loses_little_in_float32(card: Any, options: dict[str, Any]) -> None:
    """1e-5 in the norm over 256 steps."""
    spec, x = CoreSpec(33, 40, 2, train_length=256), np.random.default_rng(0).normal(size=(256, 33))
    core, _ = core_and_stack(card, options, spec, torch.float64)
    want = core(torch.from_numpy(x)[None])[0][0].detach().numpy()
    _, stack = core_and_stack(card, options, spec, torch.float32)  # the same seed makes the same numbers
    got = sequence(Streamer(stack), stack, x.astype(np.float32))
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


@with_each_cell
def test_bfloat16_rounds_the_matrices_and_nothing_else(card: Any, options: dict[str, Any]) -> None:
    """The same bits as float32 with matrices rounded before."""
    _, stack = core_and_stack(card, options, CoreSpec(21, 37, 2, train_length=12), torch.float32)
    rng = np.random.default_rng(0)
    head = rng.normal(size=(11, 37)).astype(np.float32), rng.normal(size=11).astype(np.float32)
    stack = replace(stack, head=head)
    coarse = [replace(p, W=nearest(p.W), U=nearest(p.U)) for p in stack.layers]
    other = replace(stack, layers=tuple(coarse), head=(nearest(head[0]), head[1]))
    x = rng.normal(size=(9, 21)).astype(np.float32)
    got, want = sequence(Streamer(stack, narrow=True), stack, x), sequence(Streamer(other), other, x)
    np.testing.assert_array_equal(got, want)
    assert not np.array_equal(got, sequence(Streamer(stack), stack, x))


def nearest(x: np.ndarray) -> np.ndarray:
    return widened(rounded(x))


def test_a_table_stands_for_the_first_product() -> None:
    """Tokens look up what vectors would have to be multiplied for."""
    _, stack = core_and_stack(gru.card, {}, CoreSpec(5, 19, 2), torch.float64)
    first, E = stack.layers[0], np.random.default_rng(0).normal(size=(7, 5))
    tokens = replace(stack, layers=(replace(first, W=first.W[:, :0]), *stack.layers[1:]), table=E @ first.W.T)
    by_table, by_product, nothing = Streamer(tokens), Streamer(stack), np.empty(0)
    a, b = np.empty(19), np.empty(19)
    for token in (3, 0, 6, 6):
        assert by_table.step(token, nothing, a)
        assert by_product.step(0, E[token].copy(), b)
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def test_wrong_sizes_and_kinds_are_noticed_and_change_nothing() -> None:
    """Compiled code checks no bounds, and compiling in the middle of a stream would take seconds."""
    _, stack = core_and_stack(gru.card, {}, CoreSpec(5, 6), torch.float32)
    streamer, x, out = Streamer(stack), np.ones(5, np.float32), np.empty(6, np.float32)
    assert streamer.step(0, x, out)
    before = streamer.states.copy()
    assert not streamer.step(0, x[:4].copy(), out)
    assert not streamer.step(0, x, out[:5].copy())
    readonly = x.copy()
    readonly.flags.writeable = False
    for wrong in (x.astype(np.float64), np.ones(10, np.float32)[::2], x[None], readonly, [1.0] * 5):
        with pytest.raises(TypeError):
            streamer.step(0, wrong, out)
    with pytest.raises(TypeError):
        streamer.step(0, x, np.empty((1, 6), np.float32))
    np.testing.assert_array_equal(streamer.states, before)
    several = Streamer(stack, 2)
    assert not several.step(np.zeros(3, np.int64), np.ones(15, np.float32), np.empty(18, np.float32))
