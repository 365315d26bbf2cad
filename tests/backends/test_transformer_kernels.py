"""The Transformer's kernels one by one, against numpy in extended precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from doors import callable_from_python
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.backends.kernels import attention, layer_norm, linear, step
from seqbench.backends.kernels.padding import lanes, narrowed, padded, widened
from seqbench.backends.kernels.rows import Keys, Steps
from seqbench.backends.kernels.workspace import Workspace, aligned

Array = Any
DTYPES = [np.float32, np.float64]
dtypes = pytest.mark.parametrize("dtype", DTYPES)


def random(shape: tuple[int, ...], dtype: type, seed: int = 0, scale: float = 1.0) -> Array:
    found = aligned(shape, dtype)
    found[...] = scale * np.random.default_rng(seed).normal(size=shape)
    return found


def exact(x: Array) -> Array:
    return x.astype(np.longdouble)


def close(got: Array, want: Array, units: float, dtype: type) -> None:
    """Within so many units of the largest value's last place."""
    assert np.isfinite(got).all()
    size = max(1.0, float(np.abs(want).max(initial=0)))
    assert float(np.abs(got - want).max(initial=0)) <= units * np.finfo(dtype).eps * size


# --- products -----------------------------------------------------------------------------------------


@callable_from_python
def run_product(a, a_at, a_row, a_column, M, K, b, b_step, N, c, c_row, way, bias, other, other_row):
    linear.product(a, a_at, a_row, a_column, M, K, b, 0, b_step, N, c, 0, c_row, way, bias, other, 0, other_row)


@callable_from_python
def run_pack(W, N, Kp, K, packed, back):
    if back:
        linear.pack_back(W, Kp, N, packed)
    else:
        linear.pack(W, N, Kp, K, packed)


WAYS = {
    linear.STORE: lambda s, b, o: s,
    linear.ADD: lambda s, b, o: o + s,
    linear.BIAS: lambda s, b, o: s + b,
    linear.RELU: lambda s, b, o: np.maximum(s + b, 0),
    linear.SUM: lambda s, b, o: o + s + b,
    linear.GATE: lambda s, b, o: np.where(o > 0, s, 0),
    linear.TIMES: lambda s, b, o: s * o,
}


@dtypes
@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=30, deadline=None)
@given(
    M=st.integers(1, 21), K=st.integers(1, 40), vectors=st.integers(1, 5), turned=st.booleans(), packed=st.booleans()
)
def test_product_is_finished_in_every_way(
    dtype: type, way: int, M: int, K: int, vectors: int, turned: bool, packed: bool
) -> None:
    """``A`` by rows or by columns, ``B`` as it lies or packed from its transpose, ``C`` wider than it need be."""
    N = vectors * lanes(dtype)
    A, Kp = random((K, M) if turned else (M, K), dtype), padded(K, dtype)
    W, bias, other = random((N, Kp), dtype, 1), random((N,), dtype, 2), random((M, N), dtype, 3)
    B = np.ascontiguousarray(W.T)
    if packed:
        B = np.full(K * N, np.nan, dtype)
        run_pack(W.reshape(-1), N, Kp, K, B, False)
    C = np.full((M, N + 3), 7, dtype)
    strides = (1, M) if turned else (K, 1)
    run_product(
        A.reshape(-1), 0, *strides, M, K, B.reshape(-1), 0 if packed else N, N, C.reshape(-1), N + 3, way, bias,
        other.reshape(-1), N,
    )  # fmt: skip
    a = exact(A.T if turned else A)
    close(C[:, :N], WAYS[way](a @ exact(W[:, :K].T), exact(bias), exact(other)), 4 * K, dtype)
    assert (C[:, N:] == 7).all()


@dtypes
def test_a_rectified_product_that_is_not_a_number_stays_so(dtype: type) -> None:
    N = lanes(dtype)
    C, one = np.zeros(N, dtype), np.ones(N, dtype)
    run_product(np.full(1, np.nan, dtype), 0, 1, 1, 1, 1, one, N, N, C, N, linear.RELU, one, one, 0)
    assert np.isnan(C).all()


@dtypes
@settings(max_examples=20, deadline=None)
@given(N=st.integers(1, 40), columns=st.integers(1, 5))
def test_a_matrix_packed_for_the_way_back(dtype: type, N: int, columns: int) -> None:
    """Rows of which some are padding, which is left out."""
    Kp, M = columns * lanes(dtype), 5
    W, A = random((padded(N, dtype), Kp), dtype), random((M, N), dtype, 1)
    B, C = np.full(N * Kp, np.nan, dtype), np.zeros((M, Kp), dtype)
    run_pack(W.reshape(-1), N, Kp, 0, B, True)
    run_product(A.reshape(-1), 0, N, 1, M, N, B, 0, Kp, C.reshape(-1), Kp, linear.STORE, B, B, 0)
    close(C, exact(A) @ exact(W[:N]), 4 * N, dtype)


@callable_from_python
def run_sums(d, rows, total):
    linear.add_column_sums(d, 0, total.size, rows, total)


@dtypes
def test_column_sums_are_added(dtype: type) -> None:
    d, total = random((9, 3 * lanes(dtype)), dtype), np.ones(3 * lanes(dtype), dtype)
    run_sums(d.reshape(-1), 9, total)
    close(total, 1 + exact(d).sum(0), 10, dtype)


@callable_from_python
def run_dense(x, K, M, W, b, y):
    step.dense(x, K, M, W, b, y)


@dtypes
@settings(max_examples=60, deadline=None)
@given(M=st.integers(1, 11), N=st.integers(1, 21), K=st.integers(1, 50))
def test_vectors_times_a_matrix_as_it_lies(dtype: type, M: int, N: int, K: int) -> None:
    x, W, b, y = random((M, K), dtype), random((N, K), dtype, 1), random((N,), dtype, 2), np.full((M, N), 9, dtype)
    run_dense(x.reshape(-1), K, M, W.reshape(-1), b, y.reshape(-1))
    close(y, exact(x) @ exact(W).T + exact(b), 4 * K, dtype)


# --- layer normalisation --------------------------------------------------------------------------------


@callable_from_python
def run_normalise(x, rows, H, w, b, statistics, y, again):
    layer_norm.normalise(x, 0, rows, H, w, b, statistics, 0, y, 0)
    layer_norm.normalise_again(x, 0, rows, w, b, statistics, 0, again, 0)


@callable_from_python
def run_normalise_back(d, x, rows, H, w, statistics, other, add, dx, dw, db):
    layer_norm.normalise_back(d, 0, x, 0, rows, H, w, statistics, 0, other, 0, add, dx, 0, dw, db)


def normalised(x: Array) -> tuple[Array, Array]:
    """Rows in extended precision, and 1 / deviation."""
    away = exact(x) - exact(x).mean(1, keepdims=True)
    inverse = 1 / np.sqrt((away**2).mean(1, keepdims=True) + np.longdouble(1e-5))
    return away * inverse, inverse


@dtypes
@pytest.mark.parametrize("shift", [0.0, 100.0], ids=["centred", "far from zero"])
@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 9), H=st.integers(2, 70), add=st.booleans())
def test_layer_norm_and_its_derivative(dtype: type, shift: float, rows: int, H: int, add: bool) -> None:
    """Far from zero too, where a variance from the sum of squares would be lost."""
    Hp = padded(H, dtype)

    def wide(part: Array) -> Array:
        found = aligned((len(part), Hp), dtype, zero=True)
        found[:, :H] = part
        return found

    x, d, other = (random((rows, H), dtype, n) for n in range(3))
    x += dtype(shift)
    w, b = wide(1 + random((1, H), dtype, 3, 0.3))[0], wide(random((1, H), dtype, 4))[0]
    y, again, dx = (np.full((rows, Hp), 9, dtype) for _ in range(3))
    statistics, dw, db = np.empty(2 * rows, dtype), np.ones(Hp, dtype), np.ones(Hp, dtype)
    run_normalise(wide(x).reshape(-1), rows, H, w, b, statistics, y.reshape(-1), again.reshape(-1))
    n, inverse = normalised(x)
    slack = 20 * (1 + shift)  # the input itself is that uncertain
    close(y[:, :H], n * w[:H] + b[:H], slack, dtype)
    assert not y[:, H:].any()
    close(again, y, 4, dtype)
    run_normalise_back(
        wide(d).reshape(-1), wide(x).reshape(-1), rows, H, w, statistics, wide(other).reshape(-1), add, dx.reshape(-1),
        dw, db,
    )  # fmt: skip
    g = exact(d) * w[:H]
    want = (g - g.mean(1, keepdims=True) - n * (g * n).mean(1, keepdims=True)) * inverse
    close(dx[:, :H], want + other * add, slack * float(np.maximum(inverse.max(), 1)) ** 2, dtype)
    close(dw[:H], 1 + (exact(d) * n).sum(0), slack * rows, dtype)
    close(db[:H], 1 + exact(d).sum(0), 4 * rows, dtype)


# --- attention ------------------------------------------------------------------------------------------


@callable_from_python
def run_attend(q, k, row, T, S, start, d, v_at, mask, y, lse, scratch):
    attention.attend(q, 0, row, T, k, 0, v_at, 2 * row, S, start, d, mask, 0, S, y, 0, row, lse, 0, scratch)


@callable_from_python
def run_attend_back(q, k, row, T, S, start, d, v_at, mask, y, lse, dy, dq, dk, scratch):
    attention.attend_back(
        q,
        0,
        row,
        T,
        k,
        0,
        v_at,
        2 * row,
        S,
        start,
        d,
        mask,
        0,
        S,
        y,
        0,
        row,
        lse,
        0,
        dy,
        0,
        dq,
        0,
        dk,
        0,
        v_at,
        scratch,
    )


def head(dtype: type, T: int, S: int, d: int, start: int, mask: Array, scale: float = 1.0) -> tuple[Array, ...]:
    """``q``, ``k`` with ``v`` beside it, ``dy``, and what the kernel makes of them: ``y``, ``dq``, ``dk``."""
    row, W = padded(d, dtype), 2 * lanes(dtype)
    q, dy = (aligned((T, row), dtype, zero=True) for _ in range(2))
    k = aligned((max(S, 1), 2, row), dtype, zero=True)
    q[:, :d], dy[:, :d], k[..., :d] = (
        random((T, d), dtype, 1, scale),
        random((T, d), dtype, 2),
        random((len(k), 2, d), dtype, 3),
    )
    y, lse = np.full_like(q, 9), np.empty(padded(T, dtype) + W, dtype)
    scratch = aligned((attention.scratch_of(row, lanes(dtype)),), dtype)
    scratch[:] = np.nan
    sizes = (row, T, S, start, d, row, mask.reshape(-1))
    run_attend(q.reshape(-1), k.reshape(-1), *sizes, y.reshape(-1), lse, scratch)
    dq, dk = np.zeros_like(q), np.zeros_like(k)
    run_attend_back(
        q.reshape(-1),
        k.reshape(-1),
        *sizes,
        y.reshape(-1),
        lse,
        dy.reshape(-1),
        dq.reshape(-1),
        dk.reshape(-1),
        scratch,
    )
    assert not y[:, d:].any()
    return q[:, :d], k[:S, :, :d], dy[:, :d], y[:, :d], dq[:, :d], dk[:S, :, :d]


def by_definition(q: Array, k: Array, dy: Array, start: int, factors: Array | float) -> tuple[Array, Array, Array]:
    """``y``, ``dq`` and ``dk`` (with ``dv`` beside) in extended precision."""
    (T, d), S = q.shape, len(k)
    q, keys, values, dy = exact(q), exact(k[:, 0]), exact(k[:, 1]), exact(dy)
    seen = np.arange(S) <= start + np.arange(T)[:, None] if start != attention.ALL else np.ones((T, S), bool)
    scores = np.where(seen, q @ keys.T / np.sqrt(np.longdouble(d)), -np.inf)
    p = np.exp(scores - scores.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    dp = (dy @ values.T) * factors
    ds = p * (dp - (p * dp).sum(1, keepdims=True)) / np.sqrt(np.longdouble(d))
    return (p * factors) @ values, ds @ keys, np.stack([ds.T @ q, (p * factors).T @ dy], 1)


@dtypes
@settings(max_examples=40, deadline=None)
@given(
    T=st.integers(1, 80), more=st.integers(0, 150), d=st.integers(1, 40), causal=st.booleans(), dropping=st.booleans()
)
def test_attention_and_its_derivative(dtype: type, T: int, more: int, d: int, causal: bool, dropping: bool) -> None:
    """Over more keys than a block has; behind a cache where it is causal."""
    S, start = T + more, more if causal else attention.ALL
    mask = 2.0 * np.random.default_rng(4).integers(0, 2, (T, S) if dropping else 0).astype(dtype)
    q, k, dy, *got = head(dtype, T, S, d, start, mask)
    for mine, want in zip(got, by_definition(q, k, dy, start, exact(mask) if dropping else 1.0), strict=True):
        close(mine, want, 16 * (d + 10), dtype)


@dtypes
def test_large_scores_do_not_overflow(dtype: type) -> None:
    """Scores in the thousands whose maximum grows from block to block; exp of one alone is infinite."""
    T, S, d = 5, 3 * attention.KEYS, 3
    q, k, dy, y, dq, dk = head(dtype, T, S, d, attention.ALL, np.empty(0, dtype), scale=3e3)
    assert np.abs(q @ k[:, 0].T).max() > 5e3
    wants = by_definition(q, k, dy, attention.ALL, 1.0)
    for mine, want in zip((y, dq, dk), wants, strict=True):
        close(mine, want, 2e4, dtype)


@dtypes
def test_without_keys_the_output_is_zero(dtype: type) -> None:
    """As in torch, where all keys are masked."""
    _, _, _, y, dq, dk = head(dtype, 3, 0, 4, attention.ALL, np.empty(0, dtype))
    assert not y.any()
    assert not dq.any()
    assert not dk.size


# --- rows and memory --------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(1, 20))
def test_steps_are_gathered_and_scattered(lengths: list[int], H: int) -> None:
    B, T = len(lengths), max(lengths)
    x, steps = random((B, T, H), np.float32), Steps(B, T, np.array(lengths))
    rows = steps.gathered(x).reshape(steps.R, -1)
    inside = np.arange(T) < np.array(lengths)[:, None]
    np.testing.assert_array_equal(rows[:, :H], x[inside])
    assert not rows[:, H:].any()
    np.testing.assert_array_equal(steps.scattered(rows.reshape(-1), H), np.where(inside[..., None], x, 0))


def test_full_batches_are_not_copied() -> None:
    H = lanes(np.float32)
    x = random((2, 3, H), np.float32)
    assert np.shares_memory(Steps(2, 3, None).gathered(x), x)
    assert np.shares_memory(Steps(2, 3, np.array([3, 3])).gathered(x), x)
    assert not np.shares_memory(Steps(2, 3, None).gathered(x, copy=True), x)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), min_size=1, max_size=5), st.integers(1, 20))
def test_keys_of_caches(counts: list[tuple[int, int]], d: int) -> None:
    """Old ones are read, new ones put behind them, nothing else is touched."""
    B, N, C = len(counts), 2, 8
    old, new = (np.array(part) for part in zip(*counts, strict=True))
    keys, pair = Keys(C, old, new), (random((B, N, C, d), np.float64), random((B, N, C, d), np.float64, 1))
    if not (old + new).sum():
        return
    rows = keys.rows(pair, keys.is_old).reshape(-1, 2, N, padded(d, np.float64))
    after = tuple(side.copy() for side in pair)
    rows[..., :d] += 100
    keys.put(rows.reshape(-1), after, keys.is_old | keys.is_new)
    for side, (before, got) in enumerate(zip(pair, after, strict=True)):
        for b in range(B):
            first = keys.first[b]
            want = before[b].copy()
            want[:, : old[b]] += 100
            want[:, old[b] : old[b] + new[b]] = 100
            np.testing.assert_array_equal(got[b], want)
            np.testing.assert_array_equal(
                rows[first : first + old[b], side, :, :d], want[:, : old[b]].transpose(1, 0, 2)
            )


@pytest.mark.parametrize("rows", [(3, 5, 8), (2, 8, 8)])
@pytest.mark.parametrize("columns", [(1, 6, 16), (4, 4, 4), None])
def test_padding_and_back(rows: tuple[int, int, int], columns: tuple[int, int, int] | None) -> None:
    shape = (rows[0] * rows[1], columns[0] * columns[1]) if columns else (rows[0] * rows[1],)
    W = random(shape, np.float64)
    wide = widened(W, rows, columns)
    assert wide.size == rows[0] * rows[2] * (columns[0] * columns[2] if columns else 1)
    assert np.isclose(wide.sum(), W.sum())
    np.testing.assert_array_equal(narrowed(wide, rows, columns), W)


def test_arrays_begin_at_cache_lines() -> None:
    room = Workspace(np.dtype(np.float32), [(3,), (5, 2), (0,), (1,)])
    for array in (*room.arrays[:2], room.arrays[3], aligned((3, 5), np.float64)):
        assert array.ctypes.data % 64 == 0
