"""The convolution kernels against numpy, at sizes that end within a tile, a vector and a panel; the memory they use."""

from __future__ import annotations

import numpy as np
import pytest
from doors import callable_from_python
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.backends.kernels.convolution import (
    convolve,
    filter_gradients,
    pack_filter,
    pack_transposed,
    padded,
    sum_rows,
)
from seqbench.backends.kernels.target import HOST

DTYPES = {np.float32: 2e-5, np.float64: 1e-12}


@callable_from_python
def forward(a, a0, V, g, c, c0, c1, offset, step, first, rows):
    H, D, K = V.shape
    packed = np.full(K * D * padded(H, a), np.nan, a.dtype)
    pack_filter(V, g, False, packed)
    convolve(a, a0, packed, K, D, c, c0, c1, offset, step, first, rows)


@callable_from_python
def backward(a, a0, V, g, c, c0, c1, offset, step, first, rows):
    H, D, K = V.shape
    packed = np.full(K * H * padded(D, a), np.nan, a.dtype)
    pack_transposed(V, g, packed)
    convolve(a, a0, packed, K, H, c, c0, c1, offset, step, first, rows)


@callable_from_python
def taps_together(a, V, g, c):
    H, D, K = V.shape
    packed = np.full(K * D * padded(H, a), np.nan, a.dtype)
    pack_filter(V, g, True, packed)
    one = np.intp(1)
    convolve(a, 0, packed, one, K * D, c, 0, a.shape[0], 0, 0, 0, a.shape[1])


@callable_from_python
def gradients(V, g, d_taps, d_V, d_g):
    filter_gradients(V, g, d_taps, d_V, d_g)


@callable_from_python
def sums(d_c, first, d_b):
    sum_rows(d_c, first, d_b)


def whole(n: int, dtype: type) -> int:
    lanes = HOST.lanes(np.dtype(dtype).itemsize)
    return -(-n // lanes) * lanes


def random_filter(rng: np.random.Generator, shape: tuple[int, int, int], normed: bool, dtype: type) -> tuple:
    """``V``, ``g`` and the filter they stand for, ``W = g V / |V|``."""
    V = rng.normal(size=shape).astype(dtype)
    g = rng.normal(size=shape[0] if normed else 0).astype(dtype)
    W = V.astype(float)
    if normed:
        W = g.astype(float)[:, None, None] * W / np.linalg.norm(W, axis=(1, 2), keepdims=True)
    return V, g, W


sizes = {
    "B": st.integers(1, 19), "D": st.integers(1, 40), "H": st.integers(1, 40), "K": st.integers(1, 4),
    "normed": st.booleans(), "seed": st.integers(0, 99), "data": st.data(),
}  # fmt: skip


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(**sizes)
def test_adds_every_tap_that_has_an_input(
    dtype: type, transposed: bool, B: int, D: int, H: int, K: int, normed: bool, seed: int, data: st.DataObject
) -> None:
    """For some of the steps and of the sequences; everything else stays as it is."""
    rng = np.random.default_rng(seed)
    steps, more = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    a0, c0, c1 = (data.draw(st.integers(0, n)) for n in (steps, more, more))
    offset, step = data.draw(st.integers(-12, 12)), data.draw(st.integers(-4, 4))
    first = data.draw(st.integers(0, B - 1))
    rows = data.draw(st.integers(1, B - first))
    V, g, W = random_filter(rng, (H, D, K), normed, dtype)
    inputs, outputs = (H, D) if transposed else (D, H)
    a = rng.normal(size=(steps, B, whole(inputs, dtype))).astype(dtype)  # what is beyond its channels is not read
    c = np.ones((more, B, whole(outputs, dtype)), dtype)
    (backward if transposed else forward)(a, a0, V, g, c, c0, c1, offset, step, first, rows)
    want, some = np.ones(c.shape), slice(first, first + rows)
    for i in range(c0, c1):
        for k in range(K):
            if a0 <= i + offset + k * step < steps:
                matrix = W[:, :, k].T if transposed else W[:, :, k]
                want[i, some, :outputs] += a[i + offset + k * step, some, :inputs].astype(float) @ matrix.T
    np.testing.assert_allclose(c, want, rtol=0, atol=DTYPES[dtype] * 10)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=30, deadline=None)
@given(**sizes)
def test_the_taps_together_are_one_matrix(
    dtype: type, B: int, D: int, H: int, K: int, normed: bool, seed: int, data: st.DataObject
) -> None:
    """As single steps read them: the taps' inputs next to one another, the oldest first."""
    rng = np.random.default_rng(seed)
    V, g, W = random_filter(rng, (H, D, K), normed, dtype)
    a = rng.normal(size=(1, B, K * D)).astype(dtype)
    c = np.zeros((1, B, whole(H, dtype)), dtype)
    taps_together(a, V, g, c)
    want = np.einsum("bkd,hdk->bh", a[0].reshape(B, K, D).astype(float), W)
    np.testing.assert_allclose(c[0, :, :H], want, rtol=0, atol=DTYPES[dtype] * 10)
    assert not c[0, :, H:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 2), (17, 20, 3), (33, 16, 4)])
def test_gradients_of_norm_and_direction(dtype: type, normed: bool, shape: tuple[int, int, int]) -> None:
    """Against differences of ``sum(d_W W(V, g))`` in extended precision."""
    rng, (H, D, K) = np.random.default_rng(1), shape
    V, g, _ = random_filter(rng, shape, normed, dtype)
    d_taps = rng.normal(size=(K, whole(H, dtype), whole(D, dtype))).astype(dtype)
    d_V, d_g = np.full_like(V, np.nan), np.full_like(g, np.nan)
    gradients(V, g, d_taps, d_V, d_g)
    d_W, long = d_taps[:, :H, :D].transpose(1, 2, 0).astype(np.longdouble), np.longdouble

    def loss(V: np.ndarray, g: np.ndarray) -> np.longdouble:
        W = g[:, None, None] * V / np.sqrt((V**2).sum((1, 2), keepdims=True)) if normed else V
        return (d_W * W).sum()

    for array, got in ((V, d_V), (g, d_g)):
        for index in list(np.ndindex(array.shape))[:: max(1, array.size // 20)]:
            ends = []
            for sign in (1, -1):
                moved = {id(V): V.astype(long), id(g): g.astype(long)}
                moved[id(array)][index] += sign * long(1e-6)
                ends.append(loss(moved[id(V)], moved[id(g)]))
            assert float((ends[0] - ends[1]) / 2e-6) == pytest.approx(got[index], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("steps", "first", "B"), [(1, 0, 1), (9, 2, 3), (70, 0, 5)])
def test_sums_over_all_rows(dtype: type, steps: int, first: int, B: int) -> None:
    C = 2 * HOST.lanes(np.dtype(dtype).itemsize)
    d_c = np.random.default_rng(2).normal(size=(steps, B, C)).astype(dtype)
    d_b = np.full(C, np.nan, dtype)
    sums(d_c, first, d_b)
    np.testing.assert_allclose(d_b, d_c[first:].astype(float).sum((0, 1)), rtol=0, atol=DTYPES[dtype] * 10)
