"""Matrix products against numpy, at sizes that end within a tile, a vector and a panel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.backends.kernels.gemm import BLOCK, multiply, multiply_transposed
from seqbench.backends.kernels.packing import pack_columns, pack_rows
from seqbench.backends.kernels.target import HOST

DTYPES = {np.float32: 2e-5, np.float64: 1e-13}


def padded(n: int, dtype: type) -> int:
    lanes = HOST.lanes(np.dtype(dtype).itemsize)
    return -(-n // lanes) * lanes


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(
    outer=st.integers(1, 11), inner=st.integers(1, 19), K=st.integers(1, 40), H=st.integers(1, 37),
    blocks=st.integers(1, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_adds_the_product_with_packed_rows(
    dtype: type, outer: int, inner: int, K: int, H: int, blocks: int, seed: int
) -> None:
    """``C += A W'`` with the gates' rows packed apart, the batch and the time in either order."""
    rng, Hp = np.random.default_rng(seed), padded(H, dtype)
    A = rng.normal(size=(inner, outer, K)).astype(dtype).transpose(1, 0, 2)  # strides in the other order
    W = rng.normal(size=(blocks * H, K)).astype(dtype)
    N = blocks * Hp
    packed = np.full(K * N, np.nan, dtype)
    pack_rows(W, 0, blocks, H, Hp, K, packed, 0)
    C = np.ones((outer, inner, N), dtype)
    strides = (A.strides[0] // A.itemsize, A.strides[1] // A.itemsize)
    multiply(A, 0, *strides, outer, inner, 1, K, packed, 0, N, C.reshape(-1), 0, inner * N, N)
    want = np.ones((outer, inner, blocks, Hp))
    want[..., :H] += (A.astype(float) @ W.T.astype(float)).reshape(outer, inner, blocks, H)
    np.testing.assert_allclose(C, want.reshape(C.shape), rtol=0, atol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 19), N=st.integers(1, 70), H=st.integers(1, 37), blocks=st.integers(1, 3))
def test_adds_the_product_with_packed_columns(dtype: type, rows: int, N: int, H: int, blocks: int) -> None:
    """``C += A W``: what the backward pass multiplies by; the gates' padding in ``A`` may hold anything finite."""
    rng, Hp, Np = np.random.default_rng(N), padded(H, dtype), padded(N, dtype)
    A = rng.normal(size=(rows, blocks, Hp)).astype(dtype)
    W = rng.normal(size=(blocks * H, N)).astype(dtype)
    packed = np.full(blocks * Hp * Np, np.nan, dtype)
    pack_columns(W, 0, blocks, H, Hp, N, packed, 0)
    C = np.zeros((rows, Np), dtype)
    K = blocks * Hp
    multiply(A.reshape(-1), 0, 0, K, 1, rows, 1, K, packed, 0, Np, C.reshape(-1), 0, 0, Np)
    want = A[:, :, :H].reshape(rows, -1).astype(float) @ W.astype(float)
    np.testing.assert_allclose(C[:, :N], want, rtol=0, atol=DTYPES[dtype])
    assert not C[:, N:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (7, 5), (BLOCK + 1, 2), (3, BLOCK)])
@pytest.mark.parametrize("N", [1, 16, 33, 70])
def test_adds_the_transposed_product(dtype: type, parts: int, outer: int, inner: int, N: int) -> None:
    """``C += A' B`` over more rows than a block has, in parts that make the same bits as the whole."""
    rng, lanes, Np = np.random.default_rng(N), HOST.lanes(np.dtype(dtype).itemsize), padded(N, dtype)
    M = 3 * lanes
    A = rng.normal(size=(outer * inner, M + 2 * lanes)).astype(dtype)  # the gates beside are not touched
    B = rng.normal(size=(inner, outer, N)).astype(dtype).transpose(1, 0, 2)
    C = np.ones((M, Np), dtype)
    b_strides = (B.strides[0] // B.itemsize, B.strides[1] // B.itemsize)
    for part in range(parts):
        first, last = (M // lanes * p // parts * lanes for p in (part, part + 1))
        multiply_transposed(A, lanes, M + 2 * lanes, first, last, B, *b_strides, outer, inner, N, C.reshape(-1), Np)
    want = 1 + A[:, lanes : lanes + M].T.astype(float) @ B.reshape(-1, N).astype(float)
    np.testing.assert_allclose(C[:, :N], want, rtol=0, atol=DTYPES[dtype] * (outer * inner) ** 0.5)
    np.testing.assert_array_equal(C[:, N:], 1)
