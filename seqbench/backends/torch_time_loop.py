"""The loop over time for recurrent layers that torch has no fused kernel for, with its derivative by hand.

Autograd records every small operation of every step; here the forward loop records nothing, the derivative's factors
are computed for all steps at once, and the gradient of the recurrent matrix is one product over all ``T * B`` rows.
The products with the inputs are done before (``gx``), for all steps at once, under autograd as usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqbench.api import Refused
from seqbench.backends.torch_recurrent import RecurrentLayer, uniform_

Tensors = tuple[Tensor, ...]


class Cell(Protocol):
    """One step ``h_t = cell(gx_t, h_{t-1}; U)`` and its derivative; ``G`` is the number of gates.

    Attributes:
        kept: how many ``(B, H)`` tensors of each step the derivative needs.
    """

    kept: int

    def forward(self, gx_t: Tensor, h: Tensor, U_t: Tensor, slots: Sequence[Any], out: Any) -> Tensor:
        """``gx_t (B, G*H)``, ``h (B, H)``, ``U_t (H, G*H)`` to the next ``h``.

        The result goes to ``out`` and what the derivative needs to ``slots``; None means a new tensor.
        """

    def factors(self, h_prev: Tensor, kept: Tensors) -> Tensors:
        """What the derivative is multiplied from, for all steps at once: each ``(T, B, ...)``."""

    def backward(self, dh: Tensor, factors_t: Sequence[Tensor], U: Tensor, da_t: Tensor) -> Tensor:
        """From ``dh (B, H)`` fill ``da_t (B, G*H)``, the gradient of ``gx_t``; return the gradient of ``h_{t-1}``."""

    def recurrent_gradient(self, da: Tensor, h_prev: Tensor, kept: Tensors) -> Tensor:
        """The gradient of ``U`` from all steps: ``da (T, B, G*H)``, ``h_prev (T, B, H)`` to ``(G*H, H)``."""


class TimeLoop(torch.autograd.Function):
    """``h = time_loop(cell, gx (T, B, G*H), U (G*H, H), h0 (B, H))`` with ``h (T, B, H)``.

    All arguments are plain tensors: a Function silently loses the gradient of tensors inside tuples.
    """

    @staticmethod
    def forward(ctx: Any, cell: Cell, gx: Tensor, U: Tensor, h0: Tensor) -> Tensor:
        """Run the cell over all steps."""
        T, B, H = gx.shape[0], *h0.shape
        learns = any(ctx.needs_input_grad)
        y = gx.new_empty(T, B, H)
        kept = gx.new_empty(cell.kept, T if learns else 1, B, H)  # without gradients one slot serves all steps
        slots = zip(*(one.expand(T, B, H).unbind(0) for one in kept), strict=True)
        h, U_t = h0, U.t()
        for gx_t, y_t, slots_t in zip(gx.unbind(0), y.unbind(0), slots, strict=True):
            h = cell.forward(gx_t, h, U_t, slots_t, y_t)
        if learns:
            ctx.cell = cell
            ctx.save_for_backward(U, h0, y, *kept)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, Tensor, Tensor]:
        """Run the cell's derivative over all steps, last first.

        Raises:
            Refused: under ``create_graph=True``. (torch's ``once_differentiable`` objects only where ``dy`` itself
                depends on something, and gives wrong second derivatives where it does not.)
        """
        if torch.is_grad_enabled():
            raise Refused("this core's derivative is written by hand and has none itself: leave out create_graph=True")
        cell: Cell = ctx.cell
        U, h0, y, *kept = ctx.saved_tensors
        h_prev = torch.cat([h0.unsqueeze(0), y[:-1]])  # (T, B, H)
        factors = cell.factors(h_prev, tuple(kept))
        da = dy.new_empty(*dy.shape[:2], U.shape[0])  # (T, B, G*H)
        steps = list(zip(dy.unbind(0), da.unbind(0), *(f.unbind(0) for f in factors), strict=True))
        dh = torch.zeros_like(h0)
        for dy_t, da_t, *factors_t in reversed(steps):
            dh = cell.backward(dh + dy_t, factors_t, U, da_t)
        return None, da, cell.recurrent_gradient(da, h_prev, tuple(kept)), dh


def time_loop(cell: Cell, gx: Tensor, U: Tensor, h0: Tensor) -> Tensor:
    """All steps of ``cell`` from ``h0 (B, H)``: ``gx (T, B, G*H)`` to ``h (T, B, H)``; differentiable once."""
    return TimeLoop.apply(cell, gx, U, h0)  # type: ignore[no-any-return,no-untyped-call]


def single_step(cell: Cell, gx_t: Tensor, U: Tensor, h: Tensor) -> Tensor:
    """One step of ``cell``, without gradient: ``gx_t (B, G*H)``, ``h (B, H)`` to the next ``h``."""
    return cell.forward(gx_t, h, U.t(), (None,) * cell.kept, None)


class TimeLoopLayer(RecurrentLayer):
    """One layer in one direction whose steps are a ``Cell``'s; state ``h (B, H)``, one bias.

    A model gives ``gates`` and the cell. Parameters: ``W (G*H, D)``, ``U (G*H, H)``, ``b (G*H,)``.
    """

    def __init__(self, input_size: int, width: int, cell: Cell) -> None:
        super().__init__(input_size, width)
        rows = self.gates * width
        self.W = nn.Parameter(torch.empty(rows, input_size))
        self.U = nn.Parameter(torch.empty(rows, width))
        self.b = nn.Parameter(torch.empty(rows))
        self.cell = cell
        uniform_(self, width)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        gx = linear(x.transpose(0, 1), self.W, self.b)  # (T, B, G*H)
        h0 = self.zeros(x.shape[0]) if h0 is None else h0
        return time_loop(self.cell, gx, self.U, h0).transpose(0, 1)  # (B, T, H)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, ``(B, D)`` to ``(B, H)``."""
        h = single_step(self.cell, linear(x_t, self.W, self.b), self.U, state)  # (B, H)
        return h, h


def deferred_product(da: Tensor, h: Tensor) -> Tensor:
    """The sum over all steps and rows of the outer products of ``da (T, B, G)`` and ``h (T, B, H)``: ``(G, H)``."""
    return da.flatten(0, 1).t() @ h.flatten(0, 1)


def through_sigmoid(d: Tensor, y: Tensor) -> Tensor:
    """``d * y * (1 - y)``, the derivative through ``y = sigmoid(x)``, in one pass."""
    return torch.ops.aten.sigmoid_backward(d, y)  # type: ignore[no-any-return]


def through_tanh(d: Tensor, y: Tensor) -> Tensor:
    """``d * (1 - y * y)``, the derivative through ``y = tanh(x)``, in one pass."""
    return torch.ops.aten.tanh_backward(d, y)  # type: ignore[no-any-return]
