"""How functions are compiled: no fast-math flags, which would undo what the vector functions do on purpose."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numba.extending

_njit: Any = numba.njit

compiled: Any = numba.njit(error_model="numpy")
"""Compiled as a part of what calls it."""

inner: Any = _njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""The same, but compiled functions alone can call it; the door for Python, left out, takes as long to compile."""

inlined: Any = numba.njit(error_model="numpy", inline="always")
"""Put into what calls it, before types are known."""

cached: Any = numba.njit(error_model="numpy", cache=True)
"""Called from Python: kept on disk, next to the source, or in the user's cache where that cannot be written."""

cached_parallel: Any = numba.njit(error_model="numpy", cache=True, parallel=True)
"""The same, with loops whose turns run at the same time."""

prange: Any = numba.prange

intrinsic: Any = numba.extending.intrinsic
"""A function that writes its own LLVM code."""


@cache
def source_digest() -> int:
    """A digest of all source of this package.

    numba's cache on disk knows of changes in the file of the outermost function only; but it looks at what a function
    closes over. So a cached function is made inside another one and holds this number; see ``made_from``.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes() + b"\0")
    return int.from_bytes(digest.digest()[:7], "big")


@compiled
def made_from(version):
    """Nothing: called with ``source_digest()`` by a cached function, so that it closes over that number."""
