"""Functions of each number of a vector, or of one number: what gates and activations need.

``exp``, ``sigmoid``, ``tanh``, ``relu``, ``positive``, ``zero``, ``erf`` and ``gelu`` take either, so that one piece of
code serves vectors and plain loops; ``exp_of_negative`` and ``log`` take vectors.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import overload

from seqbench.backends.kernels.jit import compiled, intrinsic
from seqbench.backends.kernels.vector import VectorType, llvm_type, multiply_add, spread


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
