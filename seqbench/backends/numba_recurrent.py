"""Recurrent layers whose time loop runs in the numba kernels, inside torch's autograd.

A layer is a torch layer of the same model, with its parameters, their names and their initial values; only what
computes is exchanged.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor, nn

from seqbench.api import CoreSpec
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.recurrent import Kernels, Stepper
from seqbench.backends.numba_sequence import Matrices, fits, new_stepper, run_sequence, run_step
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
    def matrices(self) -> Matrices:
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
        after = run_step(self.kernels, self._stepper, x_t, self.matrices(), _leaves(state))
        return after[0], after if isinstance(state, tuple) else after[0]

    @cached_property
    def _derived(self) -> Derived:
        return Derived()

    def _stepper(self, matrices: Matrices) -> Stepper:
        """For the parameters as they are; made anew when one has changed; at every step in training."""
        if self.training:
            self._derived.forget()
        there = [matrix for matrix in matrices if matrix is not None]
        made: Stepper = self._derived.get(there, lambda: new_stepper(self.kernels, matrices))
        if not fits(made, matrices):  # ``.data`` of the same memory in another shape or type
            self._derived.forget()
            made = self._derived.get(there, lambda: new_stepper(self.kernels, matrices))
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

    def matrices(self) -> Matrices:
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
