"""A vector of floats as a numba type, as wide as the machine's registers, with the functions that gates need.

numba leaves vectorising to LLVM, which gives up on loops over many arrays with transcendental functions: a rational
tanh took 2.1 ns an element in such a loop and 0.24 ns in vectors. So a cell computes on vectors outright::

    a = load(gates, at)                  as many numbers as fit into a register
    store(gates, at, (1 - z) * tanh(a))

Arithmetic works between vectors and with numbers. ``exp``, ``sigmoid``, ``tanh``, ``relu``, ``positive``, ``zero``,
``erf`` and ``gelu`` work on numbers too, so that one piece of code serves vectors and plain loops.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import models, overload, register_model

from seqbench.backends.kernels.jit import compiled, intrinsic
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


# --- functions of gates ---------------------------------------------------------------------------


def exp(x: Any) -> Any:
    """``exp(x)``, of a number or of each lane, cut to normal numbers: it is neither 0 nor infinite."""
    return math.exp(min(max(x, -708.0), 708.0))


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


def erf(x: Any) -> Any:
    """The error function, of a number or of each lane."""
    return math.erf(x)


def gelu(x: Any) -> Any:
    """``x Phi(x)`` and its derivative, ``Phi`` the normal distribution, of a number or of each lane."""
    cdf = 0.5 * (1.0 + math.erf(x * math.sqrt(0.5)))
    return x * cdf, cdf + x * math.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


@overload(exp)
def _exp_of(x):
    if isinstance(x, VectorType):
        return lambda x: _exp(x)
    largest = _Exponential.SIZES[32 if x == types.float32 else 64][-1]

    def numbers(x):
        within = -largest if x < -largest else largest if x > largest else x  # not a number stays so
        return math.exp(within)

    return numbers


@overload(operator.neg)
def _negative(x):
    if isinstance(x, VectorType):
        return lambda x: 0.0 - x
    return None


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


@overload(erf)
def _erf(x):
    if isinstance(x, VectorType):
        return lambda x: _erf_and_bell(x)[0]
    return lambda x: math.erf(x)


@overload(gelu)
def _gelu(x):
    half, density = math.sqrt(0.5), 1 / math.sqrt(2 * math.pi)
    if isinstance(x, VectorType):

        def vectors(x):
            error, bell = _erf_and_bell(x * half)
            cdf = 0.5 + 0.5 * error
            return x * cdf, cdf + x * bell * density

        return vectors

    def numbers(x):
        cdf = 0.5 * (1.0 + math.erf(x * half))
        return x * cdf, cdf + x * math.exp(-0.5 * x * x) * density

    return numbers


@compiled
def _erf_and_bell(x):
    """``erf(x)`` and ``exp(-x^2)`` of each lane.

    Up to 1, ``x`` times a polynomial in ``x^2``; beyond, ``1 - exp(-x^2) q(x)``, ``q`` a polynomial for ``1 .. 6``,
    where ``erf`` is 1 in every type.
    """
    size = _select_positive(x, x, 0.0 - x)
    square = size * size
    bell = exp_of_negative(0.0 - square)
    near = x * _erf_near(2.0 * square - 1.0)
    beyond = _select_positive(size - 6.0, spread(x, 6.0), size)
    far = 1.0 - bell * _erf_far(0.4 * beyond - 1.4)
    far = _select_positive(x, far, 0.0 - far)
    return _select_positive(1.0 - size, near, far), bell


def _polynomial(coefficients: dict[int, tuple[float, ...]]) -> Any:
    """An intrinsic: a polynomial, its coefficients by the bits of a lane, the constant one first."""

    @intrinsic
    def polynomial(_typing: Any, x: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            *rest, highest = coefficients[x.element.bitwidth]
            value = _constant(x, highest)
            for coefficient in reversed(rest):
                value = multiply_add(builder, value, arguments[0], _constant(x, coefficient))
            return value

        return x(x), generate

    return polynomial


def _constant(vector: VectorType, value: float) -> Any:
    """LLVM: a vector of one value."""
    return ir.Constant(llvm_type(vector), [value] * vector.lanes)


# Least squares at Chebyshev nodes in 50 digits: ``erf(x) / x`` in ``2 x^2 - 1`` for ``x`` in 0 .. 1, and
# ``exp(x^2) erfc(x)``, weighted by ``exp(-x^2)``, in ``(x - 3.5) / 2.5`` for 1 .. 6. Both to a tenth of a unit.
_erf_near = _polynomial({
    32: (
        0.9654687386, -0.1405360973, 0.01985249772, -0.002285419529, 0.0002175119898, -1.766908081e-5, 1.231640173e-6,
    ),
    64: (
        0.965468738669867308, -0.140536089022717119, 0.0198524966889837072, -0.00228548556114411321,
        0.000217517156041601072, -0.0000175371694411248254, 1.22338273835240096e-6, -7.51156928660088963e-8,
        4.11580059766495944e-9, -2.03522840489946704e-10, 9.1676067460694449e-12, -3.80788273952634126e-13,
        1.45481707596067901e-14,
    ),
})  # fmt: skip
_erf_far = _polynomial({
    32: (
        0.1557953944, -0.09294784134, 0.1489422092, 0.3033826311, 0.8834386709, 1.302421269, 1.247983149, 0.6585543574,
        0.1628345622,
    ),
    64: (
        0.155293655609083351, -0.103308944569738545, 0.0666320825791328117, -0.0417667890175587153,
        0.0254955418931826915, -0.0151825840366480345, 0.00883357101286550597, -0.00502594194553722394,
        0.00280935480111259214, -0.00153475157162967803, 0.000768155337776834629, -0.000561831668096790061,
        0.0001725931979672902, 0.000236782684584662956, 0.000879212610344128286, 0.000647994787783491662,
        -0.000288198104167998596, -0.0013233682968100173, -0.00147735167952485927, -0.000903666440360067395,
        -0.000304691423686179136, -0.0000465502477099120259,
    ),
})  # fmt: skip


@intrinsic
def _select_positive(_typing: Any, x: Any, _yes: Any, _no: Any) -> Any:
    """``yes`` in the lanes where ``x > 0``, else ``no``."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        x_, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", x_, ir.Constant(x_.type, [0.0] * x.lanes)), yes, no)

    return x(x, x, x), generate


@intrinsic
def _exp(_typing: Any, x: Any) -> Any:
    """``exp(x)`` of each lane, cut to normal numbers.

    The series of ``_expm1``, its sum not rounded to 1 before small things are added to it.
    """

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _Exponential(builder, x).whole(arguments[0])

    return x(x), generate


@intrinsic
def exp_of_negative(_typing: Any, x: Any) -> Any:
    """``exp(x)`` of each lane, ``x <= 0``; 0 where that is below every normal number; cheaper than ``_exp``."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _Exponential(builder, x).whole_of_negative(arguments[0])

    return x(x), generate


@intrinsic
def log(_typing: Any, x: Any) -> Any:
    """The natural logarithm of each lane, positive and normal."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _Exponential(builder, x).inverse(arguments[0])

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
        power, p = self._parts(self.clamped(x))
        return multiply_add(self.builder, power, p, power)

    def whole_of_negative(self, x: Any) -> Any:
        """``exp(x)`` of ``x <= 0``, cut to 0 below the smallest normal number instead of at it."""
        power, p = self._parts(x)
        below = self.builder.fcmp_ordered("<", x, self.constant(-self.largest))
        return self.builder.select(below, self.constant(0.0), multiply_add(self.builder, power, p, power))

    def inverse(self, x: Any) -> Any:
        """``y`` with ``exp(y) = x``: from the bits of ``x``, to 0.06, each round of Halley's method cubes the error."""
        builder = self.builder
        bits = builder.sitofp(builder.bitcast(x, self._integers), self.type)
        log2 = builder.fsub(builder.fmul(bits, self.constant(2.0**-self.mantissa)), self.constant(float(self.bias)))
        y = builder.fmul(log2, self.constant(math.log(2)))
        for _ in range(2 if self.width == 32 else 3):
            e = self.whole(y)
            error = builder.fdiv(builder.fsub(x, e), builder.fadd(x, e))
            y = multiply_add(builder, self.constant(2.0), error, y)
        return y

    def minus_one(self, x: Any) -> Any:
        """``exp(x) - 1 = 2^n p + (2^n - 1)``."""
        power, p = self._parts(self.clamped(x))
        return multiply_add(self.builder, power, p, self.builder.fsub(power, self.constant(1.0)))

    def _parts(self, x: Any) -> tuple[Any, Any]:
        """``2^n`` and ``p = exp(r) - 1``."""
        builder = self.builder
        magic = self.constant(1.5 * 2.0**self.mantissa)
        shifted = multiply_add(builder, x, self.constant(1 / math.log(2)), magic)
        n = builder.fsub(shifted, magic)
        r = multiply_add(builder, n, self.constant(-self.LN2_HIGH[self.width]), x)
        r = multiply_add(builder, n, self.constant(-self.LN2_LOW[self.width]), r)
        return self._power_of_two(shifted), self._series(r)

    @property
    def _integers(self) -> ir.VectorType:
        return ir.VectorType(ir.IntType(self.width), self.type.count)

    def _power_of_two(self, shifted: Any) -> Any:
        def all_(value: int) -> Any:
            return ir.Constant(self._integers, [value] * self.type.count)

        raised = self.builder.shl(self.builder.bitcast(shifted, self._integers), all_(self.mantissa))
        return self.builder.bitcast(self.builder.add(raised, all_(self.bias << self.mantissa)), self.type)

    def _series(self, r: Any) -> Any:
        """``r + r^2/2! + r^3/3! + ...``."""
        total = self.constant(1 / math.factorial(self.terms))
        for k in range(self.terms - 1, 0, -1):
            total = multiply_add(self.builder, total, r, self.constant(1 / math.factorial(k)))
        return self.builder.fmul(total, r)
