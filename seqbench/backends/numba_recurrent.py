"""Recurrent layers whose time loop runs in the numba kernels, inside torch's autograd.

A layer is a torch layer of the same model, with its parameters, their names and their initial values; only what
computes is exchanged. Arrays go between torch and numba without copies.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from seqbench.api import CoreSpec
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.recurrent import Kept, Kernels, Parameters, Stepper
from seqbench.backends.numba_arrays import refuse_others, refuse_second_derivative
from seqbench.backends.numba_threads import numba_threads
from seqbench.backends.recurrence import Recurrence
from seqbench.backends.torch_derived import Derived
from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, uniform_
from seqbench.backends.torch_sequence import last_valid


class KernelLayer(RecurrentLayer):
    """Put in front of a torch layer among the bases of a class, runs its sequences and steps in numba.

    Attributes:
        plain: run the plain loops instead of the fast kernels.
    """

    plain = False

    @property
    @abstractmethod
    def kernel_cell(self) -> Cell:
        """The cell, its slots in the order of the matrices' rows."""

    def run_plain(self, plain: bool) -> RecurrentLayer:
        """Choose the plain loops, or the fast kernels."""
        self.plain = plain
        return self

    @property
    def constants(self) -> tuple[float, ...]:
        """Numbers that the cell's functions get."""
        return ()

    @abstractmethod
    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """``W (gates * H, D)``, ``U``, the bias of the input's product and that of the recurrent one, if there is."""

    @cached_property
    def kernels(self) -> Kernels:
        """What runs the layer."""
        return Kernels(self.kernel_cell, self.constants, self.plain)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        y, _ = self.forward(x, None if h0 is None else self.initial_state(x.shape[0]))
        return y

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """``y (B, T, H)``, unspecified beyond ``lengths``, and the state there if one came in."""
        outputs = run_sequence(self.kernels, x, self.matrices(), _leaves(state), every_state=state is not None)
        if state is None:
            return outputs[0], None
        after = tuple(last_valid(output, lengths) for output in outputs)
        return outputs[0], after if isinstance(state, tuple) else after[0]

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step without gradient: ``x_t (B, D)`` to ``y_t (B, H)``."""
        matrices, leaves, threads = self.matrices(), _leaves(state), torch.get_num_threads()
        refuse_others(x_t, matrices[0], *leaves)
        # Views are made by numpy, which takes a third of torch's time for one.
        x, start = _array(x_t)[None], _start(leaves)  # (1, B, D), (n, B, H)
        with numba_threads(threads):
            y = self._stepper(matrices)(x, start, threads)[:, 0]  # (n, B, H)
        if isinstance(state, tuple):
            after = tuple(torch.from_numpy(new) for new in y)
            return after[0], after
        y_t = torch.from_numpy(y[0])
        return y_t, y_t

    @cached_property
    def _derived(self) -> Derived:
        return Derived()

    def _stepper(self, matrices: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> Stepper:
        """For the parameters as they are; made anew when one has changed; at every step in training."""
        if self.training:
            self._derived.forget()
        there = [matrix for matrix in matrices if matrix is not None]
        made: Stepper = self._derived.get(there, lambda: Stepper(self.kernels, _parameters(matrices)))
        return made

    def train(self, mode: bool = True) -> Self:
        """Forget the packed matrices on every change of mode."""
        self._derived.forget()
        return super().train(mode)


class CellLayer(KernelLayer):
    """A layer of a cell for which there is no torch layer; one bias.

    Parameters: ``W (gates * H, D)``, ``U (blocks * H, H)``, ``b (gates * H)``, uniform as torch's recurrent modules.
    """

    def __init__(
        self, input_size: int, width: int, cell: Cell, plain: bool = False, constants: tuple[float, ...] = ()
    ) -> None:
        super().__init__(input_size, width)
        self._cell, self._constants, self.plain, self.gates = cell, constants, plain, cell.gates
        self.W = nn.Parameter(torch.empty(cell.gates * width, input_size))
        self.U = nn.Parameter(torch.empty(len(cell.recurrent) * width, width))
        self.b = nn.Parameter(torch.empty(cell.gates * width))
        uniform_(self, width)

    @property
    def kernel_cell(self) -> Cell:
        """As given."""
        return self._cell

    @property
    def constants(self) -> tuple[float, ...]:
        """As given."""
        return self._constants

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The bias belongs to the input's product."""
        return self.W, self.U, self.b, None

    def initial_state(self, B: int) -> Any:
        """Zeros, one tensor for each state."""
        zeros = tuple(self.zeros(B) for _ in range(self._cell.states))
        return zeros if len(zeros) > 1 else zeros[0]


class CellCore(RecurrentCore):
    """A core of such layers, for a model that is nothing but its recurrence."""

    def __init__(self, spec: CoreSpec, options: Any, recurrence: Recurrence, plain: bool = False) -> None:
        self._recurrence, self._plain = recurrence, plain  # before the layers are made
        super().__init__(spec, options)

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        cell, constants = self._recurrence.cell, self._recurrence.constants
        return CellLayer(input_size, self.spec.width, cell, self._plain, constants)


def _leaves(state: Any) -> tuple[Tensor, ...]:
    if state is None:
        return ()
    return state if isinstance(state, tuple) else (state,)


def _array(x: Tensor) -> Any:
    """Contiguous, without a copy if it can be."""
    return (x.detach() if x.requires_grad else x).contiguous().numpy()


def _start(leaves: tuple[Tensor, ...]) -> Any:
    """``(n, B, H)`` of the states, contiguous, as an array."""
    if len(leaves) == 1:
        return _array(leaves[0])[None]
    try:
        return np.concatenate([_array(leaf)[None] for leaf in leaves])
    except ValueError:
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in leaves)
        raise ValueError(f"the states of a layer have different shapes: {shapes}") from None


def run_sequence(
    kernels: Kernels,
    x: Tensor,
    matrices: tuple[Tensor, Tensor, Tensor, Tensor | None],
    start: tuple[Tensor, ...],
    every_state: bool = False,
) -> tuple[Tensor, ...]:
    """All steps of a layer, differentiable once in ``x``, the matrices and ``start``.

    Args:
        kernels: of the cell.
        x: ``(B, T, D)``.
        matrices: as ``KernelLayer.matrices``.
        start: ``(B, H)`` for each state; empty: zeros.
        every_state: give all states' values, not the first one's alone.

    Returns:
        ``(B, T, H)`` each.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64, or they differ in that.
    """
    refuse_others(x, matrices[0], *start)
    outputs = kernels.cell.states if every_state else 1
    # Inside the function all of this is known no more: there ``needs_input_grad`` stays true under ``no_grad``.
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, *matrices, *start))
    found = _Sequence.apply(kernels, outputs, learns, x, *matrices, *start)  # type: ignore[no-untyped-call]
    return (found,) if outputs == 1 else found


class _Sequence(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own.

    Its cost counts at small sizes: the kernels have just filled the caches with data of their own, so every line of
    Python here runs from memory. Hence one pass over few objects.
    """

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, outputs: int, learns: bool, x: Tensor, W: Tensor, U: Tensor, b_x: Tensor,
        b_h: Tensor | None, *start: Tensor,
    ) -> Tensor | tuple[Tensor, ...]:  # fmt: skip
        """See ``run_sequence``."""
        ctx.kernels, ctx.outputs, ctx.threads = kernels, outputs, torch.get_num_threads()
        ctx.parameters = _parameters((W, U, b_x, b_h))
        y, kept = _forward(ctx, learns, x, start)  # (outputs, T, B, H) or (outputs, B, T, H)
        if learns:
            ctx.save_for_backward(x, W, U, b_x, b_h, *start)
            ctx.kept = kept
        found = [torch.from_numpy(state) for state in y]
        if kept.time_first:
            found = [state.transpose(0, 1) for state in found]  # (B, T, H) each
        return found[0] if outputs == 1 else tuple(found)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients.

        Raises:
            Refused: under ``create_graph=True``.
        """
        refuse_second_derivative()
        x, _, _, _, b_h, *start = ctx.saved_tensors  # an error, if one of them has been written to since
        # The backward pass uses up what the forward pass kept: a second one over the same graph makes it anew.
        kept: Kept = ctx.kept or _forward(ctx, True, x, tuple(start))[1]
        ctx.kept = None
        d_y, time_first = _in_memory_order(_stacked(d_outputs))
        with numba_threads(ctx.threads):
            found = ctx.kernels.backward(kept, ctx.parameters, d_y, time_first, ctx.threads)
        dx, p = torch.from_numpy(found.x), found.parameters
        return (
            None,
            None,
            None,
            dx.transpose(0, 1) if kept.time_first else dx,
            torch.from_numpy(p.W),
            torch.from_numpy(p.U),
            torch.from_numpy(p.b_x),
            None if b_h is None else torch.from_numpy(p.b_h),
            *(torch.from_numpy(d) for d in found.states[: len(start)]),
        )


def _forward(ctx: Any, training: bool, x: Tensor, start: tuple[Tensor, ...]) -> tuple[Any, Kept]:
    rows, time_first = _in_memory_order(x)
    first = _start(start) if start else _NO_START[x.dtype]
    arguments = (rows, time_first, ctx.parameters, first, ctx.outputs, training)
    with numba_threads(ctx.threads):
        return ctx.kernels.forward(*arguments, threads=ctx.threads)  # type: ignore[no-any-return]


_DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
_NO_START = {dtype: np.empty((0, 0, 0), same) for dtype, same in _DTYPES.items()}
_NO_BIAS = {dtype: np.empty(0, same) for dtype, same in _DTYPES.items()}


def _parameters(matrices: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> Parameters:
    none = _NO_BIAS[matrices[0].dtype]
    return Parameters(*(none if p is None else _array(p) for p in matrices))


def _in_memory_order(x: Tensor) -> tuple[Any, bool]:
    """``(..., B, T, H)`` as a contiguous array, and whether it is ``(..., T, B, H)``, as it may lie in memory."""
    x = x.detach()
    if x.is_contiguous():
        return x.numpy(), False
    swapped = x.transpose(-3, -2)
    return (swapped.numpy(), True) if swapped.is_contiguous() else (x.contiguous().numpy(), False)


def _stacked(d_outputs: tuple[Tensor | None, ...]) -> Tensor:
    """``(n, B, T, H)`` of the outputs up to the last that has a gradient."""
    if len(d_outputs) == 1:
        assert d_outputs[0] is not None
        return d_outputs[0].unsqueeze(0)
    n = max(k + 1 for k, d in enumerate(d_outputs) if d is not None)
    known = next(d for d in d_outputs if d is not None)
    return torch.stack([torch.zeros_like(known) if d is None else d for d in d_outputs[:n]])
