"""Functions of vectors and numbers against extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from doors import callable_from_python

from seqbench.backends.kernels import pointwise
from seqbench.backends.kernels.pointwise import (
    erf,
    exp,
    exp_of_negative,
    gelu,
    log,
    positive,
    relu,
    sigmoid,
    tanh,
    zero,
)
from seqbench.backends.kernels.target import HOST
from seqbench.backends.kernels.vector import load, store

DTYPES = [np.float32, np.float64]
PI = np.arccos(np.longdouble(-1))


def exact_erf(x: np.ndarray) -> np.ndarray:
    """By a series of positive terms, ``2 / sqrt(pi) exp(-x^2) sum 2^n x^(2n+1) / (2n+1)!!``; 1 from 7 on."""
    within = np.clip(np.nan_to_num(x), -7, 7)
    term, added = within.copy(), np.zeros_like(within)
    for n in range(250):
        added += term
        term *= 2 * within * within / (2 * n + 3)
    return 2 / np.sqrt(PI) * np.exp(-within * within) * added


def exact_cdf(x: np.ndarray) -> np.ndarray:
    return (1 + exact_erf(x * np.sqrt(np.longdouble(0.5)))) / 2


FUNCTIONS = {
    "exp": np.exp,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "positive": lambda x: (x > 0) * np.ones_like(x),
    "zero": np.zeros_like,
    "erf": exact_erf,
    "mixed": lambda x: 1 / (2 + x * x),
}
CODE = {name: k for k, name in enumerate(FUNCTIONS)}


@callable_from_python
def function_of(x, code):
    if code == 0:
        return exp(x)
    if code == 1:
        return sigmoid(x)
    if code == 2:
        return tanh(x)
    if code == 3:
        return relu(x)
    if code == 4:
        return positive(x)
    if code == 5:
        return zero(x)
    if code == 6:
        return erf(x)
    return 1 / (2 + x * x)


@callable_from_python
def by_vectors(x, y, lanes, code):
    for at in range(0, x.size, lanes):
        store(y, at, function_of(load(x, at), code))


@callable_from_python
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


def exact(name: str, x: np.ndarray) -> np.ndarray:
    if name == "exp":  # cut at what is a normal number
        largest = 87 if x.dtype == np.float32 else 708
        x = np.clip(x, -largest, largest)
    return FUNCTIONS[name](x.astype(np.longdouble))


@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "numbers"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_equals_extended_precision_to_a_few_units_in_the_last_place(name: str, dtype: type, vectors: bool) -> None:
    x = inputs(dtype)
    got = run(name, x, vectors).astype(np.longdouble)
    with np.errstate(all="ignore"):
        want = exact(name, x)
        error = np.abs(got - want) / np.maximum(np.abs(want), 1e-30)  # arguments are cut at what exp can bear
    finite = np.isfinite(want)
    assert error[finite].max() <= 4 * np.finfo(dtype).eps
    assert np.array_equal(got[~finite], want[~finite])


@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "numbers"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["exp", "sigmoid", "tanh", "relu", "erf", "mixed"])
def test_not_a_number_stays_so(name: str, dtype: type, vectors: bool) -> None:
    """A diverged training must be seen."""
    x = np.full(64, np.nan, dtype)
    assert np.isnan(run(name, x, vectors)).all()


# --- functions of attention and of its neighbours -----------------------------------------------------


@callable_from_python
def gelu_by_vectors(x, y, slope, lanes):
    for at in range(0, x.size, lanes):
        value, derivative = gelu(load(x, at))
        store(y, at, value)
        store(slope, at, derivative)


@callable_from_python
def gelu_by_numbers(x, y, slope):
    for at in range(x.size):
        y[at], slope[at] = gelu(x[at])


@pytest.mark.parametrize("vectors", [True, False], ids=["vectors", "numbers"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_and_its_derivative(dtype: type, vectors: bool) -> None:
    """To a few units of the argument's last place: far below 0 what is left of the sum is rounding, in torch too."""
    x = np.linspace(-12, 12, 6400).astype(dtype)
    y, slope = np.empty_like(x), np.empty_like(x)
    if vectors:
        gelu_by_vectors(x, y, slope, HOST.lanes(x.itemsize))
    else:
        gelu_by_numbers(x, y, slope)
    z = x.astype(np.longdouble)
    cdf = exact_cdf(z)
    epsilon = np.finfo(dtype).eps
    assert (np.abs(y - z * cdf) / np.maximum(np.abs(z), 1)).max() <= 2 * epsilon
    assert np.abs(slope - (cdf + z * np.exp(-z * z / 2) / np.sqrt(2 * PI))).max() <= 4 * epsilon


@callable_from_python
def exp_and_log(x, y, lanes, inverse):
    for at in range(0, x.size, lanes):
        store(y, at, log(load(x, at)) if inverse else exp_of_negative(load(x, at)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exp_of_negative_numbers(dtype: type) -> None:
    smallest = -87 if dtype == np.float32 else -708
    x = np.concatenate([np.linspace(smallest, 0, 6396), [-np.inf, 2 * smallest, -0.0, np.nan]]).astype(dtype)
    y = np.empty_like(x)
    exp_and_log(x, y, HOST.lanes(x.itemsize), False)
    want = np.exp(x[:-4].astype(np.longdouble))
    assert (np.abs(y[:-4] - want) / want).max() <= np.finfo(dtype).eps
    np.testing.assert_array_equal(y[-4:], [0, 0, 1, np.nan])


@pytest.mark.parametrize("dtype", DTYPES)
def test_log(dtype: type) -> None:
    """To a unit of the result's last place, or of that of 1 where the result is small."""
    x = np.logspace(-30, 30, 6400).astype(dtype)
    y = np.empty_like(x)
    exp_and_log(x, y, HOST.lanes(x.itemsize), True)
    want = np.log(x.astype(np.longdouble))
    assert (np.abs(y - want) / np.maximum(np.abs(want), 1)).max() <= np.finfo(dtype).eps


def test_each_function_is_tested() -> None:
    own = {name for name, value in vars(pointwise).items() if getattr(value, "__module__", "") == pointwise.__name__}
    assert {name for name in own if not name.startswith("_")} == {*FUNCTIONS, "gelu", "exp_of_negative", "log"} - {
        "mixed"
    }
