"""A compiler for functions that only compiled code calls: they become part of its code, and nothing on their own.

numba optimises every function and makes machine code of it, though what calls it takes in its LLVM code and optimises
that anew. A fifth of the time to compile a model went into machine code that never runs.
"""

from __future__ import annotations

import ctypes
from typing import Any

from numba._dynfunc import make_function
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.compiler_machinery import register_pass
from numba.core.typed_passes import NativeLowering

_REFUSES = ctypes.cast(ctypes.pythonapi.PyErr_BadArgument, ctypes.c_void_p).value
"""What a call from Python runs: it raises TypeError, whatever it is called with. At address 0 Python would crash."""


class LinkedLibrary(JITCodeLibrary):
    """The code of a function and of all that it calls, to be linked into its callers."""

    def _optimize_functions(self, ll_module: Any) -> None:
        """Left to who links it, but for what linking needs."""
        ll_module.data_layout = self._codegen._data_layout  # noqa: SLF001 - as numba's own does

    def _optimize_final_module(self) -> None:
        """Left to who links it."""

    def _finalize_final_module(self) -> None:
        """Never given to the engine that would make machine code of it."""
        self._finalized = True


@register_pass(mutates_CFG=True, analysis_only=False)
class LinkedLowering(NativeLowering):
    """Numba's lowering, into such a library."""

    _name = "linked_lowering"

    def run_pass(self, state: Any) -> bool:
        """See numba."""
        library = state.library = LinkedLibrary(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_compile = True
        super().run_pass(state)
        lowered = state["cr"]
        fndesc, name = lowered.fndesc, state.func_id.func_name
        door = make_function(fndesc.lookup_module(), name, "", _REFUSES, lowered.env, (library,))
        state.targetctx.insert_user_function(door, fndesc, [library])  # callers know the function by its door
        state["cr"] = lowered._replace(cfunc=door)
        return True


class LinkedCompiler(Compiler):
    """Numba's own, but for that pass."""

    def define_pipelines(self) -> list[Any]:
        """See numba."""
        managers: list[Any] = super().define_pipelines()
        for manager in managers:
            passes = [(LinkedLowering if one is NativeLowering else one, what) for one, what in manager.passes]
            manager.passes = passes
            manager.finalize()
        return managers
