"""Arrays without an owner, for the kernels' inner loops.

numba counts the references to an array by atomic operations, some of them in each call of a function and in each turn
of a loop: a few nanoseconds each, and a hundred where two threads count the same array.
"""

from __future__ import annotations

from typing import Any

from numba.core import cgutils, types
from numba.np.arrayobj import populate_array

from seqbench.backends.kernels.jit import intrinsic


@intrinsic
def borrowed(_typing: Any, array: Any) -> Any:
    """The same array, or arrays of a tuple, whose references nobody counts, nor those of what is sliced from them.

    Their owner must outlive them: of an argument that is the caller; of an array made in the function see ``keep``.
    They must not leave the function, as Python would get an array without memory of its own.
    """

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _without_owner(context, builder, array, arguments[0])

    return array(array), generate


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.BaseTuple):
        kinds: Any = kind
        members = [_without_owner(context, builder, k, builder.extract_value(value, n)) for n, k in enumerate(kinds)]
        return context.make_tuple(builder, kind, members)
    if not isinstance(kind, types.Array):
        assert not context.data_model_manager[kind].contains_nrt_meminfo(), f"{kind} would be let go of too often"
        return value
    array = context.make_array(kind)(context, builder, value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    array.parent = cgutils.get_null_value(array.parent.type)
    return array._getvalue()  # noqa: SLF001 - numba has no other way


@intrinsic
def array_at(_typing: Any, address: Any, count: Any, like: Any) -> Any:
    """``count`` elements of ``like``'s type that lie at an address; the rules are those of ``borrowed``."""
    found, index = types.Array(like.dtype, 1, "C"), types.intp

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        address, count, _ = arguments
        element = context.get_data_type(found.dtype)
        itemsize = context.get_constant(index, context.get_abi_sizeof(element))
        array = context.make_array(found)(context, builder)
        data = builder.inttoptr(address, element.as_pointer())
        populate_array(array, data=data, shape=[count], strides=[itemsize], itemsize=itemsize, meminfo=None)
        return array._getvalue()  # noqa: SLF001 - numba has no other way

    return found(index, index, like), generate


@intrinsic
def keep(_typing: Any, array: Any) -> Any:
    """Called after the last use of what was borrowed of an array, or of a tuple's, made in the same function.

    numba lets go of a variable after the last statement that names it.
    """

    def generate(context: Any, _builder: Any, _signature: Any, _arguments: Any) -> Any:
        return context.get_dummy_value()

    return types.void(array), generate
