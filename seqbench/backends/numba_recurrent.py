"""Recurrent layers whose time loop runs in the numba kernels, inside torch's autograd.

A layer is a torch layer of the same model, with its parameters, their names and their initial values; only what
computes is exchanged. Arrays go between torch and numba without copies.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.recurrent import Kept, Kernels, Parameters
from seqbench.backends.numba_arrays import refuse_others, refuse_second_derivative
from seqbench.backends.numba_threads import numba_threads
from seqbench.backends.torch_recurrent import RecurrentLayer, uniform_
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

    @property
    def kernels(self) -> Kernels:
        """What runs the layer."""
        return Kernels(self.kernel_cell, self.constants, self.plain)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        y, _ = self.forward(x, None if h0 is None else self.initial_state(x.shape[0]))
        return y

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        """``y (B, T, H)``, unspecified beyond ``lengths``, and the state there if one came in."""
        start = _leaves(state) or (x.new_zeros(x.shape[0], self.width),) * self.kernel_cell.states
        outputs = run_sequence(self.kernels, x, self.matrices(), start, every_state=state is not None)
        if state is None:
            return outputs[0], None
        after = tuple(last_valid(output, lengths) for output in outputs)
        return outputs[0], after if isinstance(state, tuple) else after[0]

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step: ``x_t (B, D)`` to ``y_t (B, H)``."""
        outputs = run_sequence(self.kernels, x_t.unsqueeze(1), self.matrices(), _leaves(state), every_state=True)
        after = tuple(output.squeeze(1) for output in outputs)
        return after[0], after if isinstance(state, tuple) else after[0]


class CellLayer(KernelLayer):
    """A layer of a cell for which there is no torch layer; one bias.

    Parameters: ``W (gates * H, D)``, ``U (blocks * H, H)``, ``b (gates * H)``, uniform as torch's recurrent modules.
    """

    def __init__(self, input_size: int, width: int, cell: Cell, plain: bool = False) -> None:
        super().__init__(input_size, width)
        self._cell, self.plain, self.gates = cell, plain, cell.gates
        self.W = nn.Parameter(torch.empty(cell.gates * width, input_size))
        self.U = nn.Parameter(torch.empty(len(cell.recurrent) * width, width))
        self.b = nn.Parameter(torch.empty(cell.gates * width))
        uniform_(self, width)

    @property
    def kernel_cell(self) -> Cell:
        """As given."""
        return self._cell

    def matrices(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """The bias belongs to the input's product."""
        return self.W, self.U, self.b, None

    def initial_state(self, B: int) -> Any:
        """Zeros, one tensor for each state."""
        zeros = tuple(self.zeros(B) for _ in range(self._cell.states))
        return zeros if len(zeros) > 1 else zeros[0]


def _leaves(state: Any) -> tuple[Tensor, ...]:
    if state is None:
        return ()
    return state if isinstance(state, tuple) else (state,)


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
        start: ``(B, H)`` for each state.
        every_state: give all states' values, not the first one's alone.

    Returns:
        ``(B, T, H)`` each.

    Raises:
        Refused: a tensor is not on the CPU, or not of float32 or float64.
    """
    refuse_others(x)
    W, U, b_x, b_h = matrices
    b_h = x.new_empty(0) if b_h is None else b_h
    return _Sequence.apply(kernels, every_state, x, W, U, b_x, b_h, *start)  # type: ignore[no-any-return, no-untyped-call]


class _Sequence(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, every_state: bool, x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See ``run_sequence``."""
        training, threads = any(ctx.needs_input_grad), torch.get_num_threads()
        kept = _forward(kernels, x, tensors, training, threads)
        ctx.kernels, ctx.threads = kernels, threads
        if training:
            ctx.save_for_backward(x, *tensors)
            ctx.kept = kept
        H, n = tensors[1].shape[1], kernels.cell.states if every_state else 1
        return tuple(torch.from_numpy(kept.states[k, 1:, :, :H]).transpose(0, 1) for k in range(n))

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients.

        Raises:
            Refused: under ``create_graph=True``.
        """
        refuse_second_derivative()
        x, *tensors = ctx.saved_tensors
        # The backward pass uses up what the forward pass kept: a second one over the same graph makes it anew.
        kept: Kept = ctx.kept or _forward(ctx.kernels, x, tensors, True, ctx.threads)
        ctx.kept = None
        d_y = [None if d is None else d.transpose(0, 1).numpy() for d in d_outputs]
        d_y += [None] * (ctx.kernels.cell.states - len(d_y))
        found = _with_threads(ctx.threads, ctx.kernels.backward, kept, _parameters(tensors), d_y)
        p = found.parameters
        gradients = [torch.from_numpy(g) for g in (p.W, p.U, p.b_x, p.b_h, *found.states)]
        return None, None, torch.from_numpy(found.x).transpose(0, 1), *gradients


def _forward(kernels: Kernels, x: Tensor, tensors: Any, training: bool, threads: int) -> Kept:
    x = x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
    start = [state.detach().numpy() for state in tensors[4:]]
    rows = x.detach().transpose(0, 1).numpy()
    kept: Kept = _with_threads(threads, kernels.forward, rows, _parameters(tensors), start, training)
    return kept


def _parameters(tensors: Any) -> Parameters:
    return Parameters(*(tensor.detach().contiguous().numpy() for tensor in tensors[:4]))


def _with_threads(threads: int, function: Any, *arguments: Any) -> Any:
    with numba_threads(threads):
        return function(*arguments, threads=threads)
