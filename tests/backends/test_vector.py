"""Vector functions against extended precision, and the choice of the vector's width."""

from __future__ import annotations

import numpy as np
import pytest

from seqbench.backends.kernels import vector
from seqbench.backends.kernels.jit import compiled
from seqbench.backends.kernels.target import HOST, target_of
from seqbench.backends.kernels.vector import load, positive, relu, sigmoid, store, tanh, zero

DTYPES = [np.float32, np.float64]
FUNCTIONS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "positive": lambda x: (x > 0) * np.ones_like(x),
    "zero": np.zeros_like,
    "mixed": lambda x: 1 / (2 + x * x),
}
CODE = {name: k for k, name in enumerate(FUNCTIONS)}


@compiled
def function_of(x, code):
    if code == 0:
        return sigmoid(x)
    if code == 1:
        return tanh(x)
    if code == 2:
        return relu(x)
    if code == 3:
        return positive(x)
    if code == 4:
        return zero(x)
    return 1 / (2 + x * x)


@compiled
def by_vectors(x, y, lanes, code):
    for at in range(0, x.size, lanes):
        store(y, at, function_of(load(x, at), code))


@compiled
def by_numbers(x, y, code):
    for at in range(x.size):
        y[at] = function_of(x[at], code)


def inputs(dtype: type) -> np.ndarray:
    ends = [0, 200, -200, 1e4, -1e4, np.inf, -np.inf, 1e-30]
    tiny = np.logspace(-20, 1, 1000)
    x = np.concatenate([np.linspace(-40, 40, 20_000), tiny, -tiny, ends]).astype(dtype)
    return np.resize(x, -(-x.size // 64) * 64)


def run(name: str, x: np.ndarray, vectors: bool) -> np.ndarray:
    y = np.empty_like(x)
    if vectors:
        by_vectors(x, y, HOST.lanes(x.itemsize), CODE[name])
    else:
        by_numbers(x, y, CODE[name])
    return y


@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "numbers"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_extended_precision_to_a_few_units_in_the_last_place(name: str, dtype: type, vectors: bool) -> None:
    x = inputs(dtype)
    got = run(name, x, vectors).astype(np.longdouble)
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(np.longdouble))
        error = np.abs(got - want) / np.maximum(np.abs(want), 1e-30)  # arguments are cut at what exp can bear
    finite = np.isfinite(want)
    assert error[finite].max() <= 4 * np.finfo(dtype).eps
    assert np.array_equal(got[~finite], want[~finite])


@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "numbers"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["sigmoid", "tanh", "relu", "mixed"])
def test_not_a_number_stays_so(name: str, dtype: type, vectors: bool) -> None:
    """A diverged training must be seen."""
    x = np.full(64, np.nan, dtype)
    assert np.isnan(run(name, x, vectors)).all()


@pytest.mark.parametrize(
    ("features", "machine", "size", "rows"),
    [
        ("+sse2,+avx,+avx2,+fma,+avx512f", "x86_64-unknown-linux-gnu", 64, 8),
        ("+sse2,+avx,+avx2,+fma,-avx512f", "x86_64-unknown-linux-gnu", 32, 6),
        ("+sse2,+avx,-avx2", "x86_64-unknown-linux-gnu", 16, 6),
        ("", "x86_64-pc-windows-msvc", 16, 6),
        ("+neon", "aarch64-unknown-linux-gnu", 16, 8),
    ],
)
def test_the_width_follows_from_the_processor(features: str, machine: str, size: int, rows: int) -> None:
    target = target_of(features, machine)
    assert (target.vector_bytes, target.tile_rows[0], target.tile_rows[-1]) == (size, rows, 1)
    registers = 32 if size == 64 or machine.startswith("aarch64") else 16
    assert rows * 2 + 2 + 1 <= registers


def test_there_is_a_test_for_each_function() -> None:
    public = {name for name in ("sigmoid", "tanh", "relu", "positive", "zero") if hasattr(vector, name)}
    assert public <= set(FUNCTIONS)
