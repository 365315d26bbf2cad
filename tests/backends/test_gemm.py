"""Matrix products against numpy, at sizes that end within a tile, a vector and a panel."""

from __future__ import annotations

import numpy as np
import pytest
from doors import door_to
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.backends.kernels import gemm, packing
from seqbench.backends.kernels.gemm import BLOCK
from seqbench.backends.kernels.target import HOST

multiply_onto, multiply_blocks = map(door_to, (gemm.multiply_onto, gemm.multiply_blocks))
add_column_sums, multiply_columns = map(door_to, (gemm.add_column_sums, gemm.multiply_columns))
pack_block, pack_columns, pack_rows = map(door_to, (gemm.pack_block, packing.pack_columns, packing.pack_rows))

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
    """``C += A W'`` with the gates' rows packed apart, the batch and the time in either order.

    And ``C = base + A W'``, where the base is one row for all, or rows in an order of their own.
    """
    rng, Hp = np.random.default_rng(seed), padded(H, dtype)
    A = rng.normal(size=(inner, outer, K)).astype(dtype).transpose(1, 0, 2)  # strides in the other order
    W = rng.normal(size=(blocks * H, K)).astype(dtype)
    N = blocks * Hp
    packed = np.full(K * N, np.nan, dtype)
    pack_rows(W, 0, blocks, H, Hp, K, packed, 0)
    C = np.ones((outer, inner, N), dtype)
    strides = (A.strides[0] // A.itemsize, A.strides[1] // A.itemsize)
    gemm.multiply(A, 0, *strides, outer, inner, 1, K, packed, 0, N, C.reshape(-1), 0, inner * N, N)
    product = np.zeros((outer, inner, blocks, Hp))
    product[..., :H] = (A.astype(float) @ W.T.astype(float)).reshape(outer, inner, blocks, H)
    product = product.reshape(C.shape)
    np.testing.assert_allclose(C, 1 + product, rtol=0, atol=DTYPES[dtype])
    bias, many = rng.normal(size=N).astype(dtype), rng.normal(size=(inner, outer, N)).astype(dtype)
    for base, apart in ((bias, (0, 0)), (many, (N, outer * N))):
        C[...] = np.nan
        multiply_onto(
            A,
            0,
            *strides,
            outer,
            inner,
            1,
            K,
            packed,
            0,
            N,
            C.reshape(-1),
            0,
            inner * N,
            N,
            base.reshape(-1),
            0,
            *apart,
        )
        want = product + (base if base is bias else base.transpose(1, 0, 2))
        np.testing.assert_allclose(C, want, rtol=0, atol=DTYPES[dtype])


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
    gemm.multiply(A.reshape(-1), 0, 0, K, 1, rows, 1, K, packed, 0, Np, C.reshape(-1), 0, 0, Np)
    want = A[:, :, :H].reshape(rows, -1).astype(float) @ W.astype(float)
    np.testing.assert_allclose(C[:, :N], want, rtol=0, atol=DTYPES[dtype])
    assert not C[:, N:].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("rows", [1, 7, BLOCK + 5])
@pytest.mark.parametrize("vectors", [1, 2, 5])
def test_adds_the_transposed_product_of_what_lies_in_rows(dtype: type, parts: int, rows: int, vectors: int) -> None:
    """``C += A' B``, neither packed, in parts that make the same bits as the whole."""
    rng, lanes = np.random.default_rng(rows), HOST.lanes(np.dtype(dtype).itemsize)
    M, N = 3 * lanes, vectors * lanes
    A, B = rng.normal(size=(rows, M + lanes)).astype(dtype), rng.normal(size=(rows + 2, N)).astype(dtype)
    C = np.ones((M + lanes, N), dtype)
    for part in range(parts):
        first, last = (M // lanes * p // parts * lanes for p in (part, part + 1))
        multiply_columns(A, 0, M + lanes, first, last, B, 2 * N, N, rows, N, C, 0, N)
    want = 1 + A[:, :M].T.astype(float) @ B[2:].astype(float)
    np.testing.assert_allclose(C[:M], want, rtol=0, atol=DTYPES[dtype] * rows**0.5)
    np.testing.assert_array_equal(C[M:], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("N", [21, 70])  # 70: the widest tiles, too
@pytest.mark.parametrize(("first", "last"), [(0, 5), (1, 4), (3, 5), (4, 5), (1, 2)])
def test_a_block_multiplies_some_of_its_columns(dtype: type, first: int, last: int, N: int) -> None:
    """``first`` and ``last`` in vectors, within a panel of two and at its ends."""
    rng, lanes, R = np.random.default_rng(0), HOST.lanes(np.dtype(dtype).itemsize), 7
    M, Np = 5 * lanes, padded(N, dtype)
    A, B = rng.normal(size=(R, M)).astype(dtype), rng.normal(size=(R, N)).astype(dtype)
    a, b = np.full(R * M, np.nan, dtype), np.full(R * Np, np.nan, dtype)
    pack_block(A, 0, M, M, R, 0, R, M, a)
    pack_block(B, 0, N, N, R, 0, R, N, b)
    C = np.ones(((last - first) * lanes + 1, Np), dtype)
    multiply_blocks(a, M, first * lanes, last * lanes, b, N, R, C.reshape(-1), 0, Np)
    want = 1 + A[:, first * lanes : last * lanes].T.astype(float) @ B.astype(float)
    np.testing.assert_allclose(C[:-1, :N], want, rtol=0, atol=DTYPES[dtype])
    np.testing.assert_array_equal(C[-1], 1)
    np.testing.assert_array_equal(C[:, N:], 1)


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=40, deadline=None)
@given(R=st.integers(1, BLOCK), vectors=st.integers(1, 5), at=st.integers(0, 3))
def test_adds_the_sums_of_a_packed_block(dtype: type, R: int, vectors: int, at: int) -> None:
    """Of an odd number of rows, and a last panel of one vector, too."""
    N = vectors * HOST.lanes(np.dtype(dtype).itemsize)
    B = np.random.default_rng(R).normal(size=(R, N)).astype(dtype)
    packed, sums = np.full(R * N, np.nan, dtype), np.ones(at + N + 1, dtype)
    pack_block(B, 0, N, N, R, 0, R, N, packed)
    add_column_sums(packed, R, N, sums, at)
    want = np.ones(at + N + 1)
    want[at : at + N] += B.astype(float).sum(0)
    np.testing.assert_allclose(sums, want, rtol=0, atol=DTYPES[dtype])
