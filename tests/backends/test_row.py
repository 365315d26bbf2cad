"""The product of one row, in floats and in bfloat16, at sizes that end after every number of vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from doors import door_to
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.backends.kernels import row
from seqbench.backends.kernels.row import packed, rounded, widened
from seqbench.backends.kernels.target import HOST

multiply_row = door_to(row.multiply_row)

DTYPES = {np.float32: 2e-5, np.float64: 1e-13}


@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=60, deadline=None)
@given(K=st.integers(0, 40), vectors=st.integers(1, 27), seed=st.integers(0, 99))
def test_adds_the_product_and_says_where_the_next_matrix_begins(dtype: type, K: int, vectors: int, seed: int) -> None:
    rng, N = np.random.default_rng(seed), vectors * HOST.lanes(np.dtype(dtype).itemsize)
    a, B, B2 = (rng.normal(size=shape).astype(dtype) for shape in (K + 3, (K, N), (3, N)))
    both = np.concatenate([packed(B, False), packed(B2, False)])
    c = np.ones(N + 2 * vectors, dtype)  # nothing is written beside
    at = multiply_row(a, 3, K, both, 0, N, c, vectors)
    assert at == B.size
    assert multiply_row(a, 0, 3, both, at, N, c, vectors) == both.size
    want = 1 + a[3:].astype(float) @ B.astype(float) + a[:3].astype(float) @ B2.astype(float)
    np.testing.assert_allclose(c[vectors : vectors + N], want, rtol=0, atol=DTYPES[dtype])
    assert (c[:vectors] == 1).all()
    assert (c[vectors + N :] == 1).all()


@settings(max_examples=60, deadline=None)
@given(K=st.integers(0, 40), vectors=st.integers(1, 27), seed=st.integers(0, 99))
def test_bfloat16_makes_the_same_bits_as_rounded_floats(K: int, vectors: int, seed: int) -> None:
    """To widen is exact."""
    rng, N = np.random.default_rng(seed), vectors * HOST.lanes(4)
    a, B = rng.normal(size=K).astype(np.float32), rng.normal(size=(K, N)).astype(np.float32)
    words = packed(B, True)
    assert words.dtype == np.uint32
    got, want = np.ones(N, np.float32), np.ones(N, np.float32)
    assert multiply_row(a, 0, K, words, 0, N, got, 0) == words.size
    multiply_row(a, 0, K, packed(widened(rounded(B)), False), 0, N, want, 0)
    np.testing.assert_array_equal(got, want)


def test_rounds_to_the_nearest_bfloat16_as_torch_does() -> None:
    rng = np.random.default_rng(0)
    some = rng.integers(0, 2**32, 100_000, dtype=np.uint32)
    between = np.arange(0x3F800000, 0x3F900000, 0x1000, dtype=np.uint32)  # every other one in the middle of two
    x = np.concatenate([some, between]).view(np.float32)
    got = widened(rounded(x))
    np.testing.assert_array_equal(got, torch.from_numpy(x).to(torch.bfloat16).float().numpy())
    assert np.isnan(x).any()
    assert widened(rounded(np.float32([np.inf, -np.inf, 0.0, 3.4e38]))).tolist() == [np.inf, -np.inf, 0.0, np.inf]
