"""A vector of floats as a numba type, as wide as the machine's registers: memory and arithmetic.

numba leaves vectorising to LLVM, which gives up on loops over many arrays with transcendental functions: a rational
tanh took 2.1 ns an element in such a loop and 0.24 ns in vectors. So a cell computes on vectors outright::

    a = load(gates, at)                  as many numbers as fit into a register
    store(gates, at, (1 - z) * tanh(a))

Arithmetic works between vectors and with numbers. Functions like ``tanh`` are in ``pointwise``.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, overload, register_model

from seqbench.backends.kernels.jit import intrinsic
from seqbench.backends.kernels.target import HOST


class VectorType(types.Type):
    """``lanes`` floats of one type, in one register."""

    def __init__(self, element: types.Float) -> None:
        self.element = element
        self.lanes = HOST.lanes(element.bitwidth // 8)
        super().__init__(name=f"vector({element} x {self.lanes})")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, vector: VectorType) -> None:
        super().__init__(manager, vector, llvm_type(vector))


def llvm_type(vector: VectorType) -> ir.VectorType:
    """The vector in LLVM's language."""
    return ir.VectorType(_llvm_element(vector), vector.lanes)


def _llvm_element(vector: VectorType) -> ir.Type:
    return ir.FloatType() if vector.element == types.float32 else ir.DoubleType()


def _is_number(t: types.Type) -> bool:
    return isinstance(t, types.Number | types.Boolean)


# --- memory ---------------------------------------------------------------------------------------


def address(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, to: ir.Type) -> Any:
    """LLVM: where element ``offset`` of an array's data lies, as a pointer to ``to``."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), to.as_pointer())


@intrinsic
def load(_typing: Any, array: Any, offset: Any) -> Any:
    """The vector at element ``offset`` of an array's data."""
    vector = VectorType(array.dtype)

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _load(context, builder, array, arguments[0], arguments[1], vector)

    return vector(array, types.intp), generate


@intrinsic
def store(_typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a vector to element ``offset`` of an array's data."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        _store(context, builder, array, *arguments)
        return context.get_dummy_value()

    return types.void(array, types.intp, VectorType(array.dtype)), generate


@intrinsic
def number(_typing: Any, array: Any, offset: Any) -> Any:
    """Element ``offset`` of an array's data, whatever its axes."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer = address(
            context, builder, array, arguments[0], arguments[1], llvm_type(VectorType(array.dtype)).element
        )
        return builder.load(pointer, align=array.dtype.bitwidth // 8)

    return array.dtype(array, types.intp), generate


@intrinsic
def put(_typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write a number to element ``offset`` of an array's data, whatever its axes."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data, place, new = arguments
        pointer = address(context, builder, array, data, place, llvm_type(VectorType(array.dtype)).element)
        builder.store(context.cast(builder, new, signature.args[2], array.dtype), pointer)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@intrinsic
def fetch(_typing: Any, array: Any, offset: Any) -> Any:
    """Have the cache line of element ``offset`` of an array's data fetched for a later ``load``; it may lie outside."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        prefetch(builder, address(context, builder, array, arguments[0], arguments[1], ir.IntType(8)), write=False)
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


def prefetch(builder: Any, pointer: Any, write: bool) -> None:
    """LLVM: have the cache line fetched while the program goes on; an address that is nobody's does no harm."""
    byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
    kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    all_levels, data = number(3), number(1)
    builder.call(function, [builder.bitcast(pointer, byte), number(int(write)), all_levels, data])


def _load(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, vector: VectorType) -> Any:
    pointer = address(context, builder, array_type, array, offset, llvm_type(vector))
    return builder.load(pointer, align=vector.element.bitwidth // 8)


def _store(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, value: Any) -> None:
    pointer = address(context, builder, array_type, array, offset, value.type)
    builder.store(value, pointer, align=array_type.dtype.bitwidth // 8)


@intrinsic
def transpose(_typing: Any, source: Any, at: Any, row: Any, target: Any, to: Any, step: Any) -> Any:
    """Copy a square of as many rows as a vector has lanes, rows becoming columns.

    The rows are at ``at``, ``row`` elements apart; in ``target`` they go to ``to``, ``step`` apart.
    """
    vector, index = VectorType(source.dtype), types.intp

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        source_, at_, row_, target_, to_, step_ = arguments
        lines = [
            _load(context, builder, source, source_, _nth(builder, at_, row_, n), vector) for n in range(vector.lanes)
        ]
        for n, line in enumerate(_transposed(builder, lines)):
            _store(context, builder, target, target_, _nth(builder, to_, step_, n), line)
        return context.get_dummy_value()

    return types.void(source, index, index, target, index, index), generate


def _nth(builder: Any, at: Any, stride: Any, n: int) -> Any:
    return builder.add(at, builder.mul(stride, ir.Constant(ir.IntType(64), n)))


def _transposed(builder: Any, lines: list[Any]) -> list[Any]:
    """Exchange the two off-diagonal halves, then those within each half, and so on: a bit of both indices at a time."""
    lanes, distance = len(lines), 1
    integers = ir.VectorType(ir.IntType(32), lanes)
    while distance < lanes:
        low = [n if not n & distance else lanes + n - distance for n in range(lanes)]
        high = [n + distance if not n & distance else lanes + n for n in range(lanes)]
        for first in (n for n in range(lanes) if not n & distance):
            pair = lines[first], lines[first + distance]
            for place, order in ((first, low), (first + distance, high)):
                lines[place] = builder.shuffle_vector(*pair, ir.Constant(integers, order))
        distance *= 2
    return lines


def _shuffled(builder: Any, x: Any, y: Any, order: list[int]) -> Any:
    """LLVM: lanes of ``x`` and ``y``, counted through both."""
    return builder.shuffle_vector(x, y, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))


# --- arithmetic -----------------------------------------------------------------------------------


def splat(builder: Any, number: Any, vector: ir.VectorType) -> Any:
    """LLVM: a number in every lane."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), zeros)


def multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """LLVM: ``x * y + z``, one instruction where the machine has one, else two (never a library call)."""
    bits = 32 if x.type.element == ir.FloatType() else 64
    name = f"llvm.fmuladd.v{x.type.count}f{bits}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(x.type, [x.type] * 3), name)
    return builder.call(function, [x, y, z])


@intrinsic
def spread(_typing: Any, like: Any, number: Any) -> Any:
    """A number in every lane of a vector like ``like``."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _everywhere(context, builder, like, arguments[1], number)

    return like(like, number), generate


def _binary(instruction: str) -> Callable[..., Any]:
    @intrinsic
    def operation(_typing: Any, x: Any, _y: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return getattr(builder, instruction)(*arguments, flags=("contract",))

        return x(x, x), generate

    return operation  # type: ignore[no-any-return]


def _overload_operator(symbol: Callable[..., Any], instruction: str) -> None:
    operation = _binary(instruction)

    @overload(symbol)
    def implementation(x, y):
        if isinstance(x, VectorType) and x == y:
            return lambda x, y: operation(x, y)
        if isinstance(x, VectorType) and _is_number(y):
            return lambda x, y: operation(x, spread(x, y))
        if _is_number(x) and isinstance(y, VectorType):
            return lambda x, y: operation(spread(y, x), y)
        return None


for _symbol, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _overload_operator(_symbol, _instruction)


@overload(operator.neg)
def _negative(x):
    if isinstance(x, VectorType):
        return lambda x: 0.0 - x
    return None


def totals(builder: Any, vectors: list[Any]) -> list[Any]:
    """LLVM: the sum over the lanes of each of some vectors, a power of two of them and no more than lanes.

    A pair of vectors becomes one whose segments, one for each vector so far, are half as long, their halves added;
    when one vector is left, its segments shrink to a lane each.
    """
    lanes, count = vectors[0].type.count, len(vectors)
    half = lanes // 2
    while len(vectors) > 1:
        low = [lane for lane in range(2 * lanes) if lane // half % 2 == 0]
        orders = low, [lane + half for lane in low]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.fadd(*(_shuffled(builder, *pair, order) for order in orders)) for pair in pairs]
        half //= 2
    (value,) = vectors
    while half:
        value = builder.fadd(value, _shuffled(builder, value, value, [min(n + half, lanes - 1) for n in range(lanes)]))
        half //= 2
    places = [ir.Constant(ir.IntType(32), n * (lanes // count)) for n in range(count)]
    return [builder.extract_element(value, place) for place in places]


@intrinsic
def total(_typing: Any, x: Any) -> Any:
    """The sum over all lanes, halves first."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return totals(builder, [arguments[0]])[0]

    return x.element(x), generate


@intrinsic
def first_lanes(_typing: Any, x: Any, count: Any, other: Any) -> Any:
    """``x`` in the lanes before ``count``, which may be any number, and ``other`` in the rest."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, bound, rest = arguments
        return builder.select(lanes_before(builder, x, bound), value, _everywhere(context, builder, x, rest, other))

    return x(x, types.int64, other), generate


@intrinsic
def from_lane(_typing: Any, x: Any, first: Any, other: Any) -> Any:
    """``x`` in the lanes from ``first`` on, which may be any number, and ``other`` in those before."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        value, bound, rest = arguments
        return builder.select(lanes_before(builder, x, bound), _everywhere(context, builder, x, rest, other), value)

    return x(x, types.int64, other), generate


def lanes_before(builder: Any, vector: VectorType, bound: Any) -> Any:
    """LLVM: which lanes have a number below ``bound``."""
    numbers = ir.VectorType(ir.IntType(64), vector.lanes)
    return builder.icmp_signed("<", ir.Constant(numbers, list(range(vector.lanes))), splat(builder, bound, numbers))


def _everywhere(context: Any, builder: Any, vector: VectorType, number: Any, type_: Any) -> Any:
    """LLVM: a number of some type in every lane."""
    return splat(builder, context.cast(builder, number, type_, vector.element), llvm_type(vector))


@intrinsic
def maximum(_typing: Any, x: Any, _y: Any) -> Any:
    """The larger of each lane; ``y`` where one of them is not a number."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return x(x, x), generate
