"""What the compiled code on disk goes by, besides its own file.

numba's cache knows of changes in the file of the outermost function only, and of what that function closes over. So
the name of each function that is kept on disk changes with all the source it is compiled from (``jit.cached``).
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import numpy as np


@cache
def kernel_sources() -> str:
    """A digest of all source of this package."""
    texts = (path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()[:16]


def sources_of(function: FunctionType) -> list[str]:
    """What a function comes from: its source, and that of the functions and constants which it names.

    These may be global in its module, in a module that it names, or closed over. Of what belongs to this package, which
    ``kernel_sources`` has, to numpy and to numba, whose version numba's cache knows, the name is enough.
    """
    return list(_sources(function, set()))


def _sources(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    if function in seen:
        return
    seen.add(function)
    yield inspect.getsource(function)
    for name, value in _named_in(function):
        value = getattr(value, "py_func", value)  # of a function that numba has compiled
        if isinstance(value, FunctionType) and not f"{value.__module__}.".startswith(_KNOWN):
            yield from _sources(value, seen)
        else:
            yield f"{name} = {_said(value)}"


_KNOWN = (f"{__package__}.", "numpy.", "numba.")


def _said(value: Any) -> str:
    """The same in every process, and for no two values that compile to different code."""
    if isinstance(value, np.ndarray | np.generic):
        return f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    if callable(value) and hasattr(value, "__qualname__"):  # its repr may have an address
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _named_in(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Global names, those of modules' attributes and those closed over, with what they stand for now."""
    names = inspect.getclosurevars(function)
    for name, value in sorted({**names.globals, **names.nonlocals}.items()):
        if isinstance(value, ModuleType):
            yield from ((f"{name}.{a}", getattr(value, a)) for a in sorted(names.unbound) if hasattr(value, a))
        else:
            yield name, value
