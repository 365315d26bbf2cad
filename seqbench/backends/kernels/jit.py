"""How functions are compiled: no fast-math flags, which would undo what the vector functions do on purpose."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba
import numba.extending
from numba.core.dispatcher import Dispatcher

from seqbench.backends.kernels.linking import LinkedCompiler

_njit: Any = numba.njit  # its type stubs leave out two of its options

_linked: Any = _njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True, pipeline_class=LinkedCompiler)


def compiled(function: Any) -> Any:
    """Compiled as a part of what calls it, which compiled functions alone may do: a call from Python is a TypeError.

    A door for Python would take as long to compile as many a function. ``merged`` and ``cached`` functions have one.
    What an exception of it says must be constant: numba makes the rest with what only a function with a door has.

    Raises:
        TypeError: the function closes over something, so that others of its name may differ: see ``compiled_as``.
    """
    if function.__closure__:
        raise TypeError(f"{function.__qualname__} is made anew for what it closes over: use compiled_as")
    return _linked(function)


merged: Any = _njit(error_model="numpy", inline="always")
"""Its code becomes part of its caller's before anything is compiled: no call, in exchange for more of numba's time.

For what is small, or called in every step of time. The large parts of the recurrent engine compile sooner as calls and
run as fast; those of convolution and Transformer compile hardly sooner, and the Transformer's ran up to 7 % slower.
"""

parallel: Any = _njit(error_model="numpy", parallel=True)
"""Its loops over ``numba.prange`` run on several threads; ``parts`` says why there should be little of it."""

_kept: Any = _njit(error_model="numpy", cache=True, no_cfunc_wrapper=True)


def cached(key: str) -> Callable[[Any], Any]:
    """Called from Python: kept on disk, next to the source, or in the user's cache where that cannot be written.

    Args:
        key: what the code depends on besides the function's own file and types; see ``named``.

    Raises:
        TypeError: of the function: it closes over compiled ones, so that what is kept would never be found again.
    """
    return lambda function: _kept(_found_again(named(function, key)))


def compiled_as(key: str) -> Callable[[Any], Any]:
    """``compiled``, for a function that is made anew for each key."""
    return lambda function: _linked(named(function, key))


def named(function: Any, key: str) -> Any:
    """The function under a name with ``key``, by which numba names its code in memory and its file on disk.

    Otherwise two functions made by one piece of source have one name in memory, once each was compiled in a process
    of its own and a third loads both from disk; then a call of one of them fails ("'descr' is NULL"). On disk numba
    sees changes in the file of the outermost function only, so the key has to change with what else it is made from.
    """
    copy = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__qualname__ = f"{function.__qualname__}.{re.sub(r'[^0-9A-Za-z_-]', '_', key)}"
    copy.__module__, copy.__doc__ = function.__module__, function.__doc__
    return copy


def _found_again(function: Any) -> Any:
    """The function, if another process can find it on disk.

    numba looks for it by what it closes over, and a compiled function has another identity in each process.
    """
    for name, value in inspect.getclosurevars(function).nonlocals.items():
        if isinstance(value, Dispatcher):
            raise TypeError(f"{function.__name__} closes over {name}, a compiled function: make that a global one")
    return function


intrinsic: Any = numba.extending.intrinsic
"""A function that writes its own LLVM code."""
