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

cached: Any = _njit(error_model="numpy", cache=True, no_cfunc_wrapper=True)
"""Called from Python: kept on disk, next to the source, or in the user's cache where that cannot be written."""

cached_parallel: Any = _njit(error_model="numpy", cache=True, parallel=True, no_cfunc_wrapper=True)
"""The same, with loops whose turns run at the same time."""

prange: Any = numba.prange

intrinsic: Any = numba.extending.intrinsic
"""A function that writes its own LLVM code."""
