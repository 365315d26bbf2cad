"""A pass over a batch in parts that run at the same time, by a compiled function that calls itself for each part.

A function that numba makes parallel is compiled four times, and one thread would need a fifth copy. Here each pass is
compiled once, for any number of threads. Its last arguments are::

    launch  who runs the parts: ``launcher()``; 0 where there is one part
    stage   what to do: WHOLE, or of a part its ROWS or its WEIGHTS
    part    whose turn it is; 0 in a whole pass
    parts   how many there are

Python calls with ``WHOLE``. That call does what is done once for the batch. The stages of the parts it does itself
(``is_mine``) if there is one part; else ``in_parts`` calls the function again for every part, with the arguments that
it came with, except the last three. What the function has made, or bound to an argument's name anew, the parts do not
see. Other threads of Python run meanwhile.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from seqbench.backends.kernels.jit import intrinsic, merged, named, parallel
from seqbench.backends.kernels.sources import kernel_sources

WHOLE = 0
"""Stage of a pass: all of it."""
ROWS = 1
"""All steps of a part's sequences."""
WEIGHTS = 2
"""A part of the weights' gradients, each of them over all sequences."""

_WORD = ir.IntType(64)
_CALL = ir.FunctionType(ir.VoidType(), [_WORD, _WORD, _WORD])
_ALONE = 0, WHOLE, 0, 1


def parts_of(B: int, threads: int) -> int:
    """Parts of a batch: one for each thread, none of fewer than 8 sequences, which would not fill the tiles."""
    return max(1, min(threads, B // 8))


def whole_pass(parts: int) -> tuple[int, int, int, int]:
    """The last arguments of a call from Python."""
    return (launcher(), WHOLE, 0, parts) if parts > 1 else _ALONE


@merged
def is_mine(stage, asked, parts):
    """Whether this call does a part's stage ``asked``: it is called for that, or there is one part."""
    return stage == asked or parts == 1


@merged
def bounds_of_rows(B, part, parts):
    """Bounds of one of ``parts`` parts of ``B`` sequences."""
    return B * part // parts, B * (part + 1) // parts


@merged
def in_parts(launch, stage, parts, result):
    """Do a stage of all parts at the same time; in a function that Python calls, or merged into one.

    Args:
        launch: who runs them.
        stage: the stage.
        parts: their number.
        result: what the calling function returns, or something of the same type.

    Raises:
        MemoryError: a part failed, which nothing but a lack of memory should bring about.
    """
    if _call_again(launch, stage, parts, result):
        raise MemoryError("no memory for a part of the batch")


@intrinsic
def _call_again(_typing: Any, launch: Any, stage: Any, parts: Any, result: Any) -> Any:
    """Have the function that this is written in called for each part; 1 if a call failed, else 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        launch, stage, parts, _ = arguments
        function, result = builder.function, signature.args[-1]
        # It takes (returned, error, *arguments, stage, part, parts), each of the arguments in pieces.
        assert [value.type for value in function.args[-3:]] == [_WORD] * 3, "stage, part, parts come last"
        assert function.args[0].type.pointee == context.get_return_type(result), "not what the function returns"
        shared = [*function.args[2:-3], stage]
        fields = [_WORD, *(value.type for value in shared)]  # whether a call failed, and what all calls are given
        with builder.goto_entry_block():
            there = builder.alloca(ir.LiteralStructType(fields))
        for n, value in enumerate([_WORD(0), *shared]):
            builder.store(value, cgutils.gep_inbounds(builder, there, 0, n))
        entry = _entry(context, builder, there.type, len(shared), result)
        run = builder.inttoptr(launch, _CALL.as_pointer())
        builder.call(run, [builder.ptrtoint(entry, _WORD), builder.ptrtoint(there, _WORD), parts])
        return builder.load(cgutils.gep_inbounds(builder, there, 0, 0))

    index = types.intp
    return index(index, index, index, result), generate


def _entry(context: Any, builder: Any, kind: Any, count: int, result: Any) -> Any:
    """A function ``(address of what is shared, part, parts)`` that makes a part's call and drops what it returns."""
    function = builder.function
    name = builder.module.get_unique_name(f"{function.name}.part")
    entry = ir.Function(builder.module, _CALL, name)
    entry.linkage = "internal"
    inside = ir.IRBuilder(entry.append_basic_block())
    address, part, parts = entry.args
    there = inside.inttoptr(address, kind)
    shared = [inside.load(cgutils.gep_inbounds(inside, there, 0, n + 1)) for n in range(count)]
    returned, error = (inside.alloca(pointer.type.pointee) for pointer in function.args[:2])
    code = inside.call(function, [returned, error, *shared, part, parts])
    code.attributes.add("noinline")
    good = inside.icmp_signed("==", code, code.type(0))  # numba's code for a value
    with inside.if_else(good) as (returns, fails):
        with returns:
            value = context.get_returned_value(inside, result, inside.load(returned))
            context.nrt.decref(inside, result, value)
        with fails:
            inside.store(_WORD(1), cgutils.gep_inbounds(inside, there, 0, 0))
    inside.ret_void()
    return entry


@intrinsic
def _call_part(_typing: Any, entry: Any, there: Any, part: Any, parts: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        builder.call(builder.inttoptr(arguments[0], _CALL.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    index = types.intp
    return types.void(index, index, index, index), generate


@parallel
def _launch(entry, there, parts):
    for part in numba.prange(parts):
        _call_part(entry, there, np.intp(part), parts)


def launcher() -> int:
    """The address of what calls ``entry(there, part, parts)`` for all parts, on the threads of numba.

    Compiled once for all kernels, or read from the cache. If those threads are OpenMP's, they are the same that torch
    has; threads of our own would share their cores with torch's, which wait busily, and took twice as long.
    """
    return int(_launcher().address)


@cache
def _launcher() -> Any:
    numba.get_num_threads()  # starts them: a process that reads the compiled code from the cache has not done so

    def launch(entry, there, parts):
        _launch(entry, there, parts)

    types_of_it = types.void(types.intp, types.intp, types.intp)
    return numba.cfunc(types_of_it, cache=True)(named(launch, kernel_sources()))
