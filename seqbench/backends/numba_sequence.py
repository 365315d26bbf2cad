"""One recurrent layer over whole sequences in the numba kernels, inside torch's autograd, and step by step.

The kernels read and write torch's memory by addresses, which say nothing of what lies there: so all that comes in is
checked here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from seqbench.api import Refused
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.recurrent import Addresses, Kernels, Shape, Stepper
from seqbench.backends.kernels.sizes import check_input
from seqbench.backends.kernels.workspace import Room
from seqbench.backends.numba_arrays import (
    NUMPY_TYPES,
    address_of,
    contiguous,
    empty_rows,
    in_memory_order,
    refuse_others,
    refuse_second_derivative,
)
from seqbench.backends.numba_threads import numba_threads

Matrices = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""``W (gates * H, D)``, ``U (blocks * H, H)``, the bias of the input's product and that of the recurrent one."""


def check_parameters(cell: Cell, matrices: Matrices) -> None:
    """Whether they fit the cell and one another: the kernels would read, and write, what lies behind them.

    Raises:
        Refused: they are not on the CPU, or not of float32 or float64, or differ in that.
        ValueError: they do not fit.
    """
    W, U, b_x, b_h = matrices
    refuse_others(*matrices)
    D, H, gates, blocks = W.shape[1:], U.shape[-1], cell.gates, len(cell.recurrent)
    fit = W.shape == (gates * H, *D) and U.shape == (blocks * H, H) and b_x.shape == (gates * H,)
    if not fit or len(D) != 1 or (b_h is not None and b_h.shape != (blocks * H,)):
        found = ", ".join(str(tuple(p.shape)) for p in matrices if p is not None)
        raise ValueError(f"parameters of {found}; expected {gates} and {blocks} blocks of {H} rows")


def check_input_and_states(
    cell: Cell, x: Tensor, axes: tuple[str, ...], matrices: Matrices, start: Sequence[Tensor]
) -> None:  # fmt: skip
    """Whether they fit parameters that fit one another.

    Args:
        cell: of the layer.
        x: the input.
        axes: that it should have: ``B`` first, ``D`` last.
        matrices: as ``KernelLayer.matrices``.
        start: ``(B, H)`` for each state; empty: zeros.

    Raises:
        Refused: they are not on the CPU, or not of the parameters' type.
        ValueError: they are of another size.
    """
    W, U, _, _ = matrices
    refuse_others(x, W, *start)
    sizes = x.shape
    if len(sizes) != len(axes):
        raise ValueError(f"the input has shape {tuple(sizes)}; expected ({', '.join(axes)})")
    check_input(sizes[-1], W.shape[1])
    if not start:
        return
    shape = start[0].shape
    if len(start) > 1 and any(leaf.shape != shape for leaf in start):
        shapes = ", ".join(str(tuple(leaf.shape)) for leaf in start)
        raise ValueError(f"the states of a layer have different shapes: {shapes}")
    expected = cell.states, sizes[0], U.shape[1]
    if (len(start), *shape) != expected:
        raise ValueError(f"the state has shape {(len(start), *shape)}; expected {expected}: states, sequences, width")


# --- whole sequences --------------------------------------------------------------------------------


def run_sequence(
    kernels: Kernels, x: Tensor, matrices: Matrices, start: tuple[Tensor, ...], every_state: bool = False
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
        ValueError: input, parameters and states do not fit one another.
    """
    check_parameters(kernels.cell, matrices)
    check_input_and_states(kernels.cell, x, ("B", "T", "D"), matrices, start)
    x, time_first = in_memory_order(x)
    given = x, *_contiguous(matrices), *[contiguous(leaf) for leaf in start]
    # Inside the function all of this is known no more: there ``needs_input_grad`` stays true under ``no_grad``.
    learns = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    outputs = kernels.cell.states if every_state else 1
    found = _Sequence.apply(kernels, outputs, time_first, learns, *given)  # type: ignore[no-untyped-call]
    return (found,) if outputs == 1 else found


class _Sequence(torch.autograd.Function):
    """The kernels under autograd; tuples lose their gradients there, so every tensor is an argument of its own.

    Its cost counts at small sizes. Python and torch often run from cold caches here, as after some milliseconds in a
    kernel other programs have had them, and then each function of torch that is called first costs ten microseconds
    and more. So tensors are made as they are to leave, and none is made to be read.
    """

    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, outputs: int, time_first: bool, learns: bool, *tensors: Tensor | None
    ) -> Tensor | tuple[Tensor, ...]:
        """See ``run_sequence``; the tensors lie in memory as the kernels read them."""
        x, _, U, *_ = tensors
        assert x is not None
        assert U is not None
        (B, T, D), H = x.shape, U.shape[1]
        ctx.kernels, ctx.shape, ctx.threads = kernels, Shape(T, B, D, H, time_first), torch.get_num_threads()
        ctx.dtype = NUMPY_TYPES[x.dtype]
        y = [empty_rows(B, T, H, time_first, x.dtype) for _ in range(outputs)]
        room = _run(ctx, tensors, y, learns)
        if learns:
            ctx.save_for_backward(*tensors)
            ctx.set_materialize_grads(False)
            ctx.room = room
        return y[0] if outputs == 1 else tuple(y)

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> tuple[Tensor | None, ...]:
        """All gradients.

        Raises:
            Refused: under ``create_graph=True``.
        """
        refuse_second_derivative()
        tensors, kernels, shape = ctx.saved_tensors, ctx.kernels, ctx.shape  # an error, if one was written to since
        if all(d is None for d in d_outputs):
            return (None,) * (4 + len(tensors))
        T, B, D, H, time_first = shape
        x, others = _as_saved(ctx, tensors)
        # The backward pass uses up what the forward pass kept: a second one over the same graph makes it anew.
        room = ctx.room or _run(ctx, (x, *others), [empty_rows(B, T, H, time_first, x.dtype)], True)
        ctx.room = None
        d_y, d_time_first = _in_one_order(d_outputs)
        found = [None if t is None else torch.empty_like(t) for t in others]
        dx = empty_rows(B, T, D, time_first, x.dtype)
        with numba_threads(ctx.threads):
            kernels.backward(
                ctx.dtype, shape, _addresses(kernels, (x, *others)), room, _of_states(kernels, d_y), d_time_first,
                _addresses(kernels, (dx, *found)), ctx.threads,
            )  # fmt: skip
        return None, None, None, None, dx, *found


def _run(ctx: Any, tensors: Sequence[Tensor | None], y: Sequence[Tensor], training: bool) -> Room:
    kernels = ctx.kernels
    given, outputs = _addresses(kernels, tensors), _of_states(kernels, y)
    with numba_threads(ctx.threads):
        return kernels.forward(ctx.dtype, ctx.shape, given, outputs, training, ctx.threads)  # type: ignore[no-any-return]


def _as_saved(ctx: Any, tensors: Sequence[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
    """The tensors of a forward pass in the order of memory that they had then.

    Hooks on saved tensors may give them back in another one, or changed. A parameter is saved as itself, with the
    memory that it has by now.

    Raises:
        RuntimeError: they have another size or type.
    """
    x, *others = tensors
    T, B, D, H, time_first = ctx.shape
    assert x is not None
    try:
        cell, (W, U, b_x, b_h, *start) = ctx.kernels.cell, others
        check_parameters(cell, (W, U, b_x, b_h))  # type: ignore[arg-type]
        check_input_and_states(cell, x, ("B", "T", "D"), (W, U, b_x, b_h), start)  # type: ignore[arg-type]
        same = x.shape == (B, T, D) and U.shape[1] == H and NUMPY_TYPES[x.dtype] == ctx.dtype  # type: ignore[union-attr]
    except (Refused, ValueError) as error:
        raise RuntimeError(f"input, parameters or states are others than in the forward pass: {error}") from None
    if not same:
        raise RuntimeError("input, parameters and states have other sizes or types than in the forward pass")
    return _in_order(x, time_first), [None if t is None else contiguous(t) for t in others]


def _in_one_order(d_outputs: tuple[Tensor | None, ...]) -> tuple[list[Tensor | None], bool]:
    """Of outputs ``(B, T, H)``, in one order of memory, and whether that is time first; of the first one at least."""
    first, *others = d_outputs
    if first is None:
        first = torch.zeros_like(next(d for d in others if d is not None))
    first, time_first = in_memory_order(first)
    return [first, *(None if d is None else _in_order(d, time_first) for d in others)], time_first


def _in_order(x: Tensor, time_first: bool) -> Tensor:
    """The numbers of ``x (B, T, D)`` in one order of memory: the tensor itself, if it lies so."""
    found, order = in_memory_order(x)
    if order == time_first:
        return found
    return contiguous(x.transpose(0, 1) if time_first else x)


# --- step by step -----------------------------------------------------------------------------------


def run_step(
    kernels: Kernels, stepper_for: Callable[[Matrices], Stepper], x_t: Tensor, matrices: Matrices,
    start: tuple[Tensor, ...],
) -> tuple[Tensor, ...]:  # fmt: skip
    """One step of a layer, without gradient.

    Args:
        kernels: of the cell.
        stepper_for: gives what makes it: ``new_stepper``, or one that still ``fits``.
        x_t: ``(B, D)``.
        matrices: as ``KernelLayer.matrices``.
        start: ``(B, H)`` for each state.

    Returns:
        The states after it.

    Raises:
        Refused: as ``run_sequence``.
        ValueError: as ``run_sequence``; or there is no state.
    """
    if not start:
        raise ValueError("a step goes on from a state, and there is none: begin with that of initial_state")
    threads, stepper = torch.get_num_threads(), stepper_for(matrices)
    check_input_and_states(kernels.cell, x_t, ("B", "D"), matrices, start)
    x_t, before = contiguous(x_t), [contiguous(leaf) for leaf in start]
    after = tuple([torch.empty_like(leaf) for leaf in before])
    arguments = (address_of(x_t), tuple(map(address_of, before)), tuple(map(address_of, after)), threads)
    with numba_threads(threads):
        stepper(x_t.shape[0], *arguments)
    return after


def new_stepper(kernels: Kernels, matrices: Matrices) -> Stepper:
    """For parameters that are checked here.

    Raises:
        Refused: as ``check_parameters``.
        ValueError: as ``check_parameters``.
    """
    check_parameters(kernels.cell, matrices)
    matrices = _contiguous(matrices)
    # A parameter may be given other memory, without a trace; detached, a tensor keeps the memory that it has.
    owners = [None if matrix is None else matrix.detach() for matrix in matrices]
    dtype, D, H = _kind_of(matrices)
    return Stepper(kernels, dtype, Shape(1, 0, D, H, True), _addresses(kernels, (None, *owners)), owners)


def fits(stepper: Stepper, matrices: Matrices) -> bool:
    """Whether it is for parameters of that size and type."""
    return stepper.is_for(*_kind_of(matrices))


def _kind_of(matrices: Matrices) -> tuple[Any, int, int]:
    """Type of the numbers, ``D`` and ``H``."""
    W, U, _, _ = matrices
    return NUMPY_TYPES[W.dtype], W.shape[1], U.shape[1]


# --- addresses --------------------------------------------------------------------------------------


def _contiguous(matrices: Matrices) -> Matrices:
    W, U, b_x, b_h = matrices
    return contiguous(W), contiguous(U), contiguous(b_x), None if b_h is None else contiguous(b_h)


def _addresses(kernels: Kernels, tensors: Sequence[Tensor | None]) -> Addresses:
    """Of ``x``, the matrices and the states, or of their gradients."""
    x, W, U, b_x, b_h, *start = map(address_of, tensors)
    return Addresses(x, W, U, b_x, b_h, tuple(start) or kernels.nowhere)


def _of_states(kernels: Kernels, of_states: Sequence[Tensor | None]) -> tuple[int, ...]:
    """Of a tensor for each of the first states; 0 for the others."""
    found = tuple(map(address_of, of_states))
    return found + kernels.nowhere[len(found) :]
