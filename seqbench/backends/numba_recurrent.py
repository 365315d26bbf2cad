"""Recurrent layers whose time loop runs in the numba kernels, inside torch's autograd.

A layer is a torch layer of the same model, with its parameters, their names and their initial values; only what
computes is exchanged. Arrays go between torch and numba without copies.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Self

import numba
import torch
from torch import Tensor, nn

from seqbench.api import CoreSpec, Refused
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.recurrent import Kept, Kernels, Packed, Parameters
from seqbench.backends.recurrence import Recurrence
from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, uniform_
from seqbench.backends.torch_sequence import last_valid


class KernelLayer(RecurrentLayer):
    """Put in front of a torch layer among the bases of a class, runs its sequences and steps in numba.

    Attributes:
        plain: run the plain loops instead of the fast kernels.
    """

    plain = False
    _packed: Packed | None = None
    _packed_from: Sequence[tuple[Tensor, int]] = ()

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
        if self.plain:
            sequences = run_sequence(self.kernels, x_t.unsqueeze(1), self.matrices(), _leaves(state), every_state=True)
            after = tuple(sequence.squeeze(1) for sequence in sequences)
        else:
            after = self._fast_step(x_t, _leaves(state))
        return after[0], after if isinstance(state, tuple) else after[0]

    def _fast_step(self, x_t: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        check_input(x_t)
        threads, start = torch.get_num_threads(), [leaf.numpy() for leaf in state]
        kernels, x = self.kernels, _contiguous(x_t).numpy()
        states = _with_threads(threads, kernels.step, x, self._packed_matrices(kernels), start)
        return torch.from_numpy(states).unbind(0)

    def _packed_matrices(self, kernels: Kernels) -> Packed:
        """The matrices as the kernels read them, made anew only when one has changed since."""
        matrices = self.matrices()
        now = [(tensor, tensor._version) for tensor in matrices if tensor is not None]  # noqa: SLF001 - in-place changes
        same = len(now) == len(self._packed_from) and all(
            a is b and m == n for (a, m), (b, n) in zip(now, self._packed_from, strict=True)
        )
        if self._packed is None or self.training or not same:
            self._packed, self._packed_from = kernels.pack(_parameters(_with_empty(matrices))), now
        return self._packed

    def train(self, mode: bool = True) -> Self:
        """Forget the packed matrices on every change of mode: writes through ``.data`` leave no other trace."""
        self._packed = None
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
    check_input(x)
    return _Sequence.apply(kernels, every_state, x, *_with_empty(matrices), *start)  # type: ignore[no-any-return, no-untyped-call]


def check_input(x: Tensor) -> None:
    """Whether the kernels can read ``x``.

    Raises:
        Refused: it is not on the CPU, or not of float32 or float64.
    """
    if x.device.type != "cpu":
        raise Refused(
            f"the numba backend runs on the CPU, not on {x.device.type}: use --device cpu, or --backend torch"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise Refused(f"the numba backend computes in float32 or float64, not in {x.dtype}")


def _with_empty(matrices: tuple[Tensor, Tensor, Tensor, Tensor | None]) -> tuple[Tensor, ...]:
    """An empty tensor in the place of a bias that is not there."""
    W, U, b_x, b_h = matrices
    return W, U, b_x, b_x.new_empty(0) if b_h is None else b_h


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
        if torch.is_grad_enabled():
            raise Refused("this core's derivative is written by hand and has none itself: leave out create_graph=True")
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
    x = _contiguous(x)
    start = [state.detach().numpy() for state in tensors[4:]]
    rows = x.detach().transpose(0, 1).numpy()
    kept: Kept = _with_threads(threads, kernels.forward, rows, _parameters(tensors), start, training)
    return kept


def _contiguous(x: Tensor) -> Tensor:
    """``x``, or a copy whose last axis is contiguous."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _parameters(tensors: Any) -> Parameters:
    return Parameters(*(tensor.detach().contiguous().numpy() for tensor in tensors[:4]))


def _with_threads(threads: int, function: Any, *arguments: Any) -> Any:
    """Call with that many threads of numba; its threading layer sets torch's number too, which is put back."""
    if threads == 1:
        return function(*arguments)
    most: Any = numba.config
    numba.set_num_threads(min(threads, most.NUMBA_NUM_THREADS))
    try:
        return function(*arguments, threads=threads)
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
