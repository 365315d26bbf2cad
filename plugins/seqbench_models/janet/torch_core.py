"""JANET on torch, over the shared time loop: torch has no kernel for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, chrono_, uniform_
from seqbench.backends.torch_time_loop import Tensors, deferred_product, time_loop

if TYPE_CHECKING:
    from seqbench.api import CoreSpec
    from seqbench_models.janet import Options


class Cell:
    """One step and its derivative; the rows of ``U`` are s, n."""

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def forward(self, gx_t: Tensor, h: Tensor, U: Tensor) -> tuple[Tensor, Tensors]:
        """``gx_t (B, 2H)``, ``h (B, H)``, ``U (2H, H)`` to the next ``h``; keeps the pre-activations."""
        a = torch.addmm(gx_t, h, U.t())  # (B, 2H)
        f, i, g = self._gates(a)
        return torch.addcmul(f * h, i, g), (a,)

    def _gates(self, a: Tensor) -> Tensors:
        s, n = a.chunk(2, dim=-1)
        return s.sigmoid(), (self.beta - s).sigmoid_(), n.tanh()  # 1 - sigmoid(s - beta) = sigmoid(beta - s)

    def factors(self, h_prev: Tensor, kept: Tensors) -> Tensors:
        """``dh/ds`` and ``dh/dn`` side by side, ``(T, B, 2, H)``, and the forget gate, ``(T, B, H)``."""
        f, i, g = self._gates(kept[0])
        d_s = h_prev * f * (1 - f) - g * i * (1 - i)
        d_n = i * (1 - g * g)
        return torch.stack([d_s, d_n], dim=2), f

    def backward(self, dh: Tensor, factors_t: Tensors, U: Tensor, da_t: Tensor) -> Tensor:
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
        h, _ = self.cell.forward(linear(x_t, self.W, self.b), state, self.U)  # (B, H)
        return h, h


class Core(RecurrentCore):
    """JANET; see the card for its equations."""

    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options)
