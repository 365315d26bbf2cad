"""Compiled functions for Python to call; a call of one of the kernels' own would kill the interpreter."""

from __future__ import annotations

from typing import Any

import numba

callable_from_python: Any = numba.njit(error_model="numpy")
"""Compiles a test's own function."""


def door_to(function: Any) -> Any:
    """One of the kernels' functions, called with what the door is called with."""

    @callable_from_python
    def door(*arguments):
        return function(*arguments)

    return door
