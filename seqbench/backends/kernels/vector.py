"""A vector of floats as a numba type, as wide as the machine's registers, with the functions that gates need.

numba leaves vectorising to LLVM, which gives up on loops over many arrays with transcendental functions: a rational
tanh took 2.1 ns an element in such a loop and 0.24 ns in vectors. So a cell computes on vectors outright::

    a = load(gates, at)                  as many numbers as fit into a register
    store(gates, at, (1 - z) * tanh(a))

Arithmetic works between vectors and with numbers. ``sigmoid``, ``tanh``, ``relu``, ``positive`` and ``zero`` work on
numbers too, so that one cell serves vectors and plain loops.
"""

from __future__ import annotations

import math
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
        element = context.cast(builder, arguments[1], number, like.element)
        return splat(builder, element, llvm_type(like))

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


# --- functions of gates ---------------------------------------------------------------------------


def sigmoid(x: Any) -> Any:
    """``1 / (1 + exp(-x))``, of a number or of each lane."""
    return 1.0 / (1.0 + math.exp(-x))


def tanh(x: Any) -> Any:
    """The hyperbolic tangent, of a number or of each lane."""
    return math.tanh(x)


def relu(x: Any) -> Any:
    """``max(x, 0)``, of a number or of each lane; not a number stays what it is."""
    return 0.0 if x < 0 else x


def positive(x: Any) -> Any:
    """1 where ``x > 0``, else 0: the derivative of ``relu``."""
    return 1.0 if x > 0 else 0.0


def zero(x: Any) -> Any:
    """0 of the type of ``x``."""
    return 0.0


@overload(sigmoid)
def _sigmoid(x):
    if isinstance(x, VectorType):
        return lambda x: 1.0 / (1.0 + _exp(0.0 - x))
    return lambda x: 1.0 / (1.0 + math.exp(-x))


@overload(tanh)
def _tanh(x):
    if isinstance(x, VectorType):

        def vectors(x):
            e = _expm1(x + x)  # exp(2x) - 1, exact near 0
            return e / (e + 2.0)

        return vectors
    return lambda x: math.tanh(x)


@overload(relu)
def _relu(x):
    if isinstance(x, VectorType):
        return lambda x: _select_positive(0.0 - x, spread(x, 0.0), x)
    return lambda x: 0.0 if x < 0 else x


@overload(positive)
def _positive(x):
    if isinstance(x, VectorType):
        return lambda x: _select_positive(x, spread(x, 1.0), spread(x, 0.0))
    return lambda x: 1.0 if x > 0 else 0.0


@overload(zero)
def _zero(x):
    if isinstance(x, VectorType):
        return lambda x: spread(x, 0.0)
    return lambda x: 0.0


@intrinsic
def _select_positive(_typing: Any, x: Any, _yes: Any, _no: Any) -> Any:
    """``yes`` in the lanes where ``x > 0``, else ``no``."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x_, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", x_, ir.Constant(x_.type, [0.0] * x.lanes)), yes, no)

    return x(x, x, x), generate


@intrinsic
def _exp(_typing: Any, x: Any) -> Any:
    """``exp(x)`` of each lane: the same series, its sum not rounded to 1 before small things are added to it."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _Exponential(builder, x).whole(arguments[0])

    return x(x), generate


@intrinsic
def _expm1(_typing: Any, x: Any) -> Any:
    """``exp(x) - 1`` of each lane, to about one unit in the last place; not a number stays what it is.

    With ``x = n ln 2 + r``, ``|r| <= ln 2 / 2``, and ``p = exp(r) - 1`` from its Taylor series:
    ``exp(x) - 1 = 2^n p + (2^n - 1)``. Both are exact near 0, where tanh needs it. ``n`` is rounded by adding a number
    so large that no bits are left behind the point; its low bits then are ``n``, and shifted they are ``2^n``.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _Exponential(builder, x).minus_one(arguments[0])

    return x(x), generate


class _Exponential:
    """The parts of ``_exp`` and ``_expm1`` for one type of vector.

    Attributes (by type): bits behind the point; terms of the series, enough for half a unit in the last place at
    ``ln 2 / 2``; the exponent's bias; the largest argument whose power of two is a normal number.
    """

    SIZES = {32: (23, 7, 127, 87.0), 64: (52, 13, 1023, 708.0)}  # noqa: RUF012 - constant
    LN2_HIGH = {32: 0.693359375, 64: 0.6931471803691238}  # noqa: RUF012 - few bits, so that n times it is exact
    LN2_LOW = {32: -2.12194440054690581e-4, 64: 1.9082149292705877e-10}  # noqa: RUF012 - ln 2 less the former

    def __init__(self, builder: Any, vector: VectorType) -> None:
        self.builder, self.type = builder, llvm_type(vector)
        self.width = vector.element.bitwidth
        self.mantissa, self.terms, self.bias, self.largest = self.SIZES[self.width]

    def constant(self, value: float) -> Any:
        """A vector of one value."""
        return ir.Constant(self.type, [value] * self.type.count)

    def clamped(self, x: Any) -> Any:
        """``x`` between the smallest and the largest argument; comparisons that keep what is not a number."""
        for sign, limit in ((">", self.largest), ("<", -self.largest)):
            beyond = self.builder.fcmp_ordered(sign, x, self.constant(limit))
            x = self.builder.select(beyond, self.constant(limit), x)
        return x

    def whole(self, x: Any) -> Any:
        """``exp(x) = 2^n p + 2^n``."""
        power, p = self._parts(x)
        return multiply_add(self.builder, power, p, power)

    def minus_one(self, x: Any) -> Any:
        """``exp(x) - 1 = 2^n p + (2^n - 1)``."""
        power, p = self._parts(x)
        return multiply_add(self.builder, power, p, self.builder.fsub(power, self.constant(1.0)))

    def _parts(self, x: Any) -> tuple[Any, Any]:
        """``2^n`` and ``p = exp(r) - 1``."""
        builder, x = self.builder, self.clamped(x)
        magic = self.constant(1.5 * 2.0**self.mantissa)
        shifted = multiply_add(builder, x, self.constant(1 / math.log(2)), magic)
        n = builder.fsub(shifted, magic)
        r = multiply_add(builder, n, self.constant(-self.LN2_HIGH[self.width]), x)
        r = multiply_add(builder, n, self.constant(-self.LN2_LOW[self.width]), r)
        return self._power_of_two(shifted), self._series(r)

    def _power_of_two(self, shifted: Any) -> Any:
        integers = ir.VectorType(ir.IntType(self.width), self.type.count)
        count = self.type.count

        def all_(value: int) -> Any:
            return ir.Constant(integers, [value] * count)

        raised = self.builder.shl(self.builder.bitcast(shifted, integers), all_(self.mantissa))
        return self.builder.bitcast(self.builder.add(raised, all_(self.bias << self.mantissa)), self.type)

    def _series(self, r: Any) -> Any:
        """``r + r^2/2! + r^3/3! + ...``."""
        total = self.constant(1 / math.factorial(self.terms))
        for k in range(self.terms - 1, 0, -1):
            total = multiply_add(self.builder, total, r, self.constant(1 / math.factorial(k)))
        return self.builder.fmul(total, r)
