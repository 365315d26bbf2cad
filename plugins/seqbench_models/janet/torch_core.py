"""JANET on torch, over the shared time loop: torch has no kernel for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, chrono_
from seqbench.backends.torch_time_loop import (
    Tensors,
    TimeLoopLayer,
    deferred_product,
    through_sigmoid,
    through_tanh,
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


class Layer(TimeLoopLayer):
    """The rows of the matrices are s, n."""

    gates = 2

    def __init__(self, input_size: int, spec: CoreSpec, options: Options) -> None:
        super().__init__(input_size, spec.width, Cell(options.beta))
        self._initialise_bias(spec, options)

    @torch.no_grad()
    def _initialise_bias(self, spec: CoreSpec, options: Options) -> None:
        b_s, b_n = self.b.chunk(2)
        b_n.zero_()
        b_s.fill_(1.0)
        if options.chrono:
            chrono_(b_s, spec.train_length)


class Core(RecurrentCore):
    """JANET; see the card for its equations."""

    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return Layer(input_size, self.spec, self.options)
