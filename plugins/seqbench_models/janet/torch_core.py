"""JANET on torch, over the shared time loop: torch has no kernel for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, chrono_, uniform_
from seqbench.backends.torch_time_loop import (
    Tensors,
    deferred_product,
    single_step,
    through_sigmoid,
    through_tanh,
    time_loop,
)

if TYPE_CHECKING:
    from seqbench.api import CoreSpec
    from seqbench_models.janet import Options


class Cell:
    """One step and its derivative; the rows of ``U`` are s, n; kept are the gates f, i and the candidate g."""

    kept = 3

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def forward(self, gx_t: Tensor, h: Tensor, U_t: Tensor, slots: Sequence[Any], out: Any) -> Tensor:
        """``gx_t (B, 2H)``, ``h (B, H)``, ``U_t (H, 2H)`` to the next ``h``."""
        s, n = torch.addmm(gx_t, h, U_t).chunk(2, dim=1)  # 2 x (B, H)
        f = torch.sigmoid(s, out=slots[0])
        i = torch.sub(s, self.beta, out=slots[1]).neg_().sigmoid_()  # 1 - sigmoid(s - beta) = sigmoid(beta - s)
        g = torch.tanh(n, out=slots[2])
        return torch.addcmul(f * h, i, g, out=out)

    def factors(self, h_prev: Tensor, kept: Tensors) -> Tensors:
        """``dh/ds`` and ``dh/dn`` side by side, ``(T, B, 2, H)``, and the forget gate, ``(T, B, H)``."""
        f, i, g = kept
        d_s = through_sigmoid(h_prev, f).sub_(through_sigmoid(g, i))
        return torch.stack([d_s, through_tanh(i, g)], dim=2), f

    def backward(self, dh: Tensor, factors_t: Sequence[Tensor], U: Tensor, da_t: Tensor) -> Tensor:
        """Fill ``da_t (B, 2H)``; return the gradient of the state before, ``(B, H)``."""
        d_a, f = factors_t
        torch.mul(dh.unsqueeze(1), d_a, out=da_t.view_as(d_a))
        return torch.addmm(dh * f, da_t, U)

    def recurrent_gradient(self, da: Tensor, h_prev: Tensor, kept: Tensors) -> Tensor:  # noqa: ARG002 - Cell's form
        """The gradient of ``U (2H, H)``."""
        return deferred_product(da, h_prev)


class Layer(RecurrentLayer):
    """Rows of the matrices: s, n; one bias; state ``h (B, H)``."""

    gates = 2

    def __init__(self, input_size: int, spec: CoreSpec, options: Options) -> None:
        super().__init__(input_size, spec.width)
        H = spec.width
        self.W = nn.Parameter(torch.empty(2 * H, input_size))
        self.U = nn.Parameter(torch.empty(2 * H, H))
        self.b = nn.Parameter(torch.empty(2 * H))
        self.cell = Cell(options.beta)
        uniform_(self, H)
        self._initialise_bias(spec, options)

    @torch.no_grad()
    def _initialise_bias(self, spec: CoreSpec, options: Options) -> None:
        b_s, b_n = self.b.chunk(2)
        b_n.zero_()
        b_s.fill_(1.0)
        if options.chrono:
            chrono_(b_s, spec.train_length)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        gx = linear(x.transpose(0, 1), self.W, self.b)  # (T, B, 2H)
        h0 = self.zeros(x.shape[0]) if h0 is None else h0
        return time_loop(self.cell, gx, self.U, h0).transpose(0, 1)  # (B, T, H)

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, ``(B, D)`` to ``(B, H)``."""
        h = single_step(self.cell, linear(x_t, self.W, self.b), self.U, state)  # (B, H)
        return h, h


class Core(RecurrentCore):
    """JANET; see the card for its equations."""

    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options)
