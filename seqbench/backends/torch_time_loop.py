"""The loop over time for recurrent layers that torch has no fused kernel for, with its derivative by hand.

Autograd records every small operation of every step; here the forward loop records nothing, the derivative's factors
are computed for all steps at once, and the gradient of the recurrent matrix is one product over all ``T * B`` rows.
The products with the inputs are done before (``gx``), for all steps at once, under autograd as usual.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from seqbench.api import Refused

Tensors = tuple[Tensor, ...]


class Cell(Protocol):
    """One step ``h_t = cell(gx_t, h_{t-1}; U)`` and its derivative; ``G`` is the number of gates."""

    def forward(self, gx_t: Tensor, h: Tensor, U: Tensor) -> tuple[Tensor, Tensors]:
        """``gx_t (B, G*H)``, ``h (B, H)``, ``U (G*H, H)`` to the next ``h`` and what the derivative needs of it."""

    def factors(self, h_prev: Tensor, kept: Tensors) -> Tensors:
        """What the derivative is multiplied from, for all steps at once: each ``(T, B, ...)``."""

    def backward(self, dh: Tensor, factors_t: Tensors, U: Tensor, da_t: Tensor) -> Tensor:
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
        h, hs, kept = h0, [], []
        for gx_t in gx.unbind(0):
            h, kept_t = cell.forward(gx_t, h, U)
            hs.append(h)
            kept.append(kept_t)
        y = torch.stack(hs)  # (T, B, H)
        if any(ctx.needs_input_grad):
            ctx.cell = cell
            ctx.save_for_backward(U, h0, y, *(torch.stack(steps) for steps in zip(*kept, strict=True)))
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
            dh = cell.backward(dh + dy_t, tuple(factors_t), U, da_t)
        return None, da, cell.recurrent_gradient(da, h_prev, tuple(kept)), dh


def time_loop(cell: Cell, gx: Tensor, U: Tensor, h0: Tensor) -> Tensor:
    """All steps of ``cell`` from ``h0 (B, H)``: ``gx (T, B, G*H)`` to ``h (T, B, H)``; differentiable once."""
    return TimeLoop.apply(cell, gx, U, h0)  # type: ignore[no-any-return,no-untyped-call]


def deferred_product(da: Tensor, h: Tensor) -> Tensor:
    """The sum over all steps and rows of the outer products of ``da (T, B, G)`` and ``h (T, B, H)``: ``(G, H)``."""
    return da.flatten(0, 1).t() @ h.flatten(0, 1)
