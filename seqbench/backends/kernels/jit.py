"""How functions are compiled: no fast-math flags, which would undo what the vector functions do on purpose."""

from __future__ import annotations

from typing import Any

import numba
import numba.extending

_njit: Any = numba.njit  # its type stubs leave out two of its options

compiled: Any = _njit(error_model="numpy")
"""Compiled as a part of what calls it."""

inner: Any = _njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""The same, but compiled functions alone can call it; the door for Python, left out, takes as long to compile."""

merged: Any = numba.njit(error_model="numpy", inline="always")
"""The same, but its code becomes part of its caller's before anything is compiled."""

cached: Any = _njit(error_model="numpy", cache=True, no_cfunc_wrapper=True)
"""Called from Python: kept on disk, next to the source, or in the user's cache where that cannot be written."""

_NOT_BY_ITSELF = ("comprehension", "reduction", "inplace_binop", "setitem", "numpy", "stencil", "fusion")

cached_parallel: Any = _njit(
    error_model="numpy",
    cache=True,
    parallel=dict.fromkeys(_NOT_BY_ITSELF, False) | {"prange": True},
    no_cfunc_wrapper=True,
)
"""The same, with loops over ``prange`` whose turns run at the same time; nothing else becomes parallel."""

prange: Any = numba.prange

intrinsic: Any = numba.extending.intrinsic
"""A function that writes its own LLVM code."""
