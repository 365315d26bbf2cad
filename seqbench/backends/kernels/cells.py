"""What a recurrent cell is to the kernels: the pointwise part of one step and its derivative, for vectors and numbers.

A cell says what becomes of the gates once the matrix products are done. The engine does the rest: packing, products,
time, batch, threads, weight gradients. The LSTM, whole::

    def forward(a, before, constants):
        a_i, a_f, a_g, a_o = a
        _, c = before
        i, f, g, o = sigmoid(a_i), sigmoid(a_f), tanh(a_g), sigmoid(a_o)
        c = f * c + i * g
        return (o * tanh(c), c), (i, f, g, o)

    def backward(kept, before, after, d, constants):
        ...
        return d_a, d_before

Slots are the columns of the gate buffer, each as wide as the state. The input's product fills slots ``0 .. gates - 1``,
the recurrent product those that ``recurrent`` names, and each adds to what is there; so a slot that both fill is a sum
(the LSTM's four), and one that only the state fills is a term of its own (the GRU's ``U_n h + b'_n``). One that neither
fills holds anything until ``forward`` has kept something there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FunctionType
from typing import Any

from numba.core import cgutils, errors, types
from numba.core.imputils import lower_constant
from numba.extending import models, overload, register_model, typeof_impl

from seqbench.backends.kernels.jit import compiled_as, intrinsic
from seqbench.backends.kernels.sources import kernel_sources, sources_of
from seqbench.backends.kernels.vector import VectorType, address, llvm_type

_CELLS: dict[str, Cell] = {}


@dataclass(frozen=True)
class Cell:
    """A recurrent cell.

    ``forward(a, before, constants) -> (after, kept)`` and ``backward(kept, before, after, d, constants) -> (d_a,
    d_before)`` are compiled by numba; they see vectors or numbers and must not care which. ``a``, ``kept`` and ``d_a``
    are tuples of ``slots``; ``before``, ``after``, ``d`` and ``d_before`` of ``states``. ``d_before`` is what reaches
    the states pointwise; the engine adds what comes through the recurrent product. ``kept`` is whatever ``backward``
    needs.

    A cell whose candidate reads something other than the state (``U (r * h)``) has ``late`` slots: ``between(a, before,
    constants)`` gives what they read, from the other slots. Then ``backward`` gives ``d_a`` of the late slots, and in
    the others leaves what it likes for ``backward_between(left, before, d_between, constants) -> (d_a, d_before)``,
    which gives all of ``d_a`` and what is to be added to ``d_before``.

    Attributes:
        name: unique; what error messages say.
        gates: matrix products with the input.
        forward: see above.
        backward: see above.
        states: of what passes from step to step; the first one is the output ``h``, which the recurrent product reads.
        slots: columns of the gate buffer; 0: as many as ``gates``.
        recurrent: the slot of each block of rows of ``U``, in order; empty: the same as the input's.
        late: how many of them, at the end, read ``between`` instead of ``h``.
        between: see above.
        backward_between: see above.
    """

    name: str
    gates: int
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    states: int = 1
    slots: int = 0
    recurrent: tuple[int, ...] = ()
    late: int = 0
    between: Callable[..., Any] | None = None
    backward_between: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        """Fill in the defaults and remember the cell, for numba's types know it by its key alone.

        Raises:
            TypeError: one of the functions is no plain one.
        """
        for what, function in self._functions.items():
            if not isinstance(function, FunctionType):
                kind = type(function).__name__
                raise TypeError(f"cell {self.name}: {what} is a {kind}; expected a plain function, compiled here")
        object.__setattr__(self, "slots", self.slots or self.gates)
        object.__setattr__(self, "recurrent", self.recurrent or tuple(range(self.gates)))
        _CELLS[self.key] = self

    @property
    def _functions(self) -> dict[str, Any]:
        """Those that it has, by name."""
        names = ("forward", "backward", "between", "backward_between")
        return {name: function for name in names if (function := getattr(self, name)) is not None}

    @cached_property
    def key(self) -> str:
        """Name and a digest of all source that the compiled code comes from: what the compiled code is named by."""
        sources = [text for function in self._functions.values() for text in sources_of(function)]
        numbers = f"{self.gates} {self.states} {self.slots} {self.recurrent} {self.late}"
        digest = hashlib.sha256("\0".join([kernel_sources(), numbers, *sources]).encode())
        return f"{self.name}-{digest.hexdigest()[:16]}"

    def __reduce__(self) -> Any:
        """By key: the compiled code's cache must find the same bytes in every process."""
        return _cell_of, (self.key,)

    @property
    def runs(self) -> tuple[tuple[int, int, int], ...]:
        """Blocks of ``U`` that fill neighbouring slots: ``(first slot, slots, first block)``, the late ones last."""
        return tuple(run for run, _ in self._runs)

    @property
    def first_runs(self) -> tuple[bool, ...]:
        """Of each run, whether nothing fills its slots before: neither the input nor an earlier run."""
        return tuple(first for _, first in self._runs)

    @cached_property
    def _runs(self) -> list[tuple[tuple[int, int, int], bool]]:
        found: list[tuple[tuple[int, int, int], bool]] = []
        early, filled = len(self.recurrent) - self.late, set(range(self.gates))
        for block, slot in enumerate(self.recurrent):
            first = slot not in filled
            filled.add(slot)
            (begin, count, start), as_last = found[-1] if found else ((slot, 0, block), None)
            if first == as_last and begin + count == slot and block != early:
                found[-1] = (begin, count + 1, start), first
            else:
                found.append(((slot, 1, block), first))
        return found

    @property
    def early_runs(self) -> int:
        """How many of ``runs`` read ``h``."""
        return sum(block < len(self.recurrent) - self.late for _, _, block in self.runs)


def _cell_of(key: str) -> Cell:
    return _CELLS[key]


# --- a cell as a numba type -----------------------------------------------------------------------


class CellType(types.Opaque):
    """One cell: a type of its own, so that what it does is known when a kernel is compiled."""

    def __init__(self, key: str) -> None:
        self.key_ = key
        super().__init__(name=f"cell({key})")

    @property
    def cell(self) -> Cell:
        """The cell."""
        return _CELLS[self.key_]


register_model(CellType)(models.OpaqueModel)


@typeof_impl.register(Cell)
def _typeof(cell: Cell, _context: Any) -> CellType:
    return CellType(cell.key)


@lower_constant(CellType)
def _constant(context: Any, _builder: Any, _type: Any, _value: Any) -> Any:
    return context.get_dummy_value()


# --- its functions in compiled code ---------------------------------------------------------------


def forward(cell: Cell, a: Any, before: Any, constants: Any) -> Any:
    """``cell.forward``."""
    return cell.forward(a, before, constants)


def backward(cell: Cell, kept: Any, before: Any, after: Any, d: Any, constants: Any) -> Any:
    """``cell.backward``."""
    return cell.backward(kept, before, after, d, constants)


def between(cell: Cell, a: Any, before: Any, constants: Any) -> Any:
    """``cell.between``; of a cell without late slots, zeros."""


def backward_between(cell: Cell, kept: Any, before: Any, d_between: Any, constants: Any) -> Any:
    """``cell.backward_between``; of a cell without late slots, zeros."""


def numbers_of(cell: Cell) -> Any:
    """``gates, slots, states, early runs, runs`` of a cell."""


def blocks_of(cell: Cell) -> Any:
    """How many blocks of rows ``U`` has."""


def first_runs_of(cell: Cell) -> Any:
    """``cell.first_runs``."""


@overload(forward)
def _forward(cell, a, before, constants):
    function = compiled_as(cell.cell.key)(cell.cell.forward)
    return lambda cell, a, before, constants: function(a, before, constants)


@overload(backward)
def _backward(cell, kept, before, after, d, constants):
    function = compiled_as(cell.cell.key)(cell.cell.backward)
    return lambda cell, kept, before, after, d, constants: function(kept, before, after, d, constants)


@overload(between)
def _between(cell, a, before, constants):
    if cell.cell.between is None:
        return lambda cell, a, before, constants: before[0]
    function = compiled_as(cell.cell.key)(cell.cell.between)
    return lambda cell, a, before, constants: function(a, before, constants)


@overload(backward_between)
def _backward_between(cell, kept, before, d_between, constants):
    if cell.cell.backward_between is None:
        return lambda cell, kept, before, d_between, constants: (kept, before)
    function = compiled_as(cell.cell.key)(cell.cell.backward_between)
    return lambda cell, kept, before, d_between, constants: function(kept, before, d_between, constants)


@overload(numbers_of)
def _numbers_of(cell):
    c = cell.cell
    found = (c.gates, c.slots, c.states, c.early_runs, c.runs)
    return lambda cell: found


@overload(blocks_of)
def _blocks_of(cell):
    found = len(cell.cell.recurrent)
    return lambda cell: found


@overload(first_runs_of)
def _first_runs_of(cell):
    found = cell.cell.first_runs
    return lambda cell: found


# --- groups of vectors or numbers -----------------------------------------------------------------


def _group(kind: str, count: Callable[[Cell], int]) -> tuple[Any, Any, Any]:
    """Intrinsics that read, write and add to a tuple of values ``stride`` elements apart: vectors or numbers."""
    return _reader(kind, count), _writer(kind, count, add=False), _writer(kind, count, add=True)


def _places(context: Any, builder: Any, array: Any, arguments: Any, kind: str, n: int) -> list[Any]:
    """LLVM: pointers to the values of a group."""
    vector = llvm_type(VectorType(array.dtype))
    to = vector if kind == "vector" else vector.element
    _, data, at, stride, *_ = arguments
    offsets = [builder.add(at, builder.mul(stride, context.get_constant(types.intp, k))) for k in range(n)]
    return [address(context, builder, array, data, offset, to) for offset in offsets]


def _reader(kind: str, count: Callable[[Cell], int]) -> Any:
    @intrinsic
    def read(_typing: Any, cell: Any, array: Any, at: Any, stride: Any) -> Any:
        value = VectorType(array.dtype) if kind == "vector" else array.dtype
        group = types.UniTuple(value, count(cell.cell))

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointers = _places(context, builder, array, arguments, kind, len(group))
            align = array.dtype.bitwidth // 8
            return context.make_tuple(builder, group, [builder.load(pointer, align=align) for pointer in pointers])

        return group(cell, array, types.intp, types.intp), generate

    return read


def _writer(kind: str, count: Callable[[Cell], int], add: bool) -> Any:
    @intrinsic
    def write(_typing: Any, cell: Any, array: Any, at: Any, stride: Any, values: Any) -> Any:
        if len(values) != count(cell.cell):
            raise errors.TypingError(f"cell {cell.cell.name}: {len(values)} values where there are {count(cell.cell)}")

        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            pointers = _places(context, builder, array, arguments, kind, len(values))
            align = array.dtype.bitwidth // 8
            for n, value in enumerate(cgutils.unpack_tuple(builder, arguments[4], len(values))):
                new = value if kind == "vector" else context.cast(builder, value, values[n], array.dtype)
                if add:
                    new = builder.fadd(builder.load(pointers[n], align=align), new)
                builder.store(new, pointers[n], align=align)
            return context.get_dummy_value()

        return types.void(cell, array, types.intp, types.intp, values), generate

    return write


load_slots, store_slots, _ = _group("vector", lambda cell: cell.slots)
load_states, store_states, add_states = _group("vector", lambda cell: cell.states)
read_slots, write_slots, _ = _group("number", lambda cell: cell.slots)
read_states, write_states, plus_states = _group("number", lambda cell: cell.states)
