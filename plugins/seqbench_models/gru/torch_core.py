"""GRU on torch: ``nn.GRU`` where the reset comes after the product; else the shared time loop, which torch lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, cell_weights
from seqbench.backends.torch_time_loop import (
    Tensors,
    TimeLoopLayer,
    deferred_product,
    through_sigmoid,
    through_tanh,
)

if TYPE_CHECKING:
    from seqbench.api import CoreSpec
    from seqbench_models.gru import Options


class ResetAfter(RecurrentLayer):
    """``n = tanh(W x + b + r * (U h + b'))``; gates in torch's order r, z, n; state ``h (B, H)``."""

    gates = 3

    def __init__(self, input_size: int, spec: CoreSpec) -> None:
        super().__init__(input_size, spec.width)
        self.rnn = nn.GRU(input_size, spec.width, batch_first=True)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        y, _ = self.rnn(x, None if h0 is None else h0.unsqueeze(0))  # (B, T, H)
        return y  # type: ignore[no-any-return]

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step, ``(B, D)`` to ``(B, H)``."""
        h = torch.gru_cell(x_t, state, *cell_weights(self.rnn))  # (B, H)
        return h, h


class ResetBeforeCell:
    """One step of ``n = tanh(W x + b + U (r * h))`` and its derivative; kept are r, z, n and ``r * h``."""

    kept = 4

    def forward(self, gx_t: Tensor, h: Tensor, U_t: Tensor, slots: Sequence[Any], out: Any) -> Tensor:
        """``gx_t (B, 3H)``, ``h (B, H)``, ``U_t (H, 3H)`` to the next ``h``."""
        H = h.shape[1]
        r, z = torch.addmm(gx_t[:, : 2 * H], h, U_t[:, : 2 * H]).chunk(2, dim=1)  # 2 x (B, H)
        r, z = torch.sigmoid(r, out=slots[0]), torch.sigmoid(z, out=slots[1])
        rh = torch.mul(r, h, out=slots[3])
        n = torch.addmm(gx_t[:, 2 * H :], rh, U_t[:, 2 * H :], out=slots[2]).tanh_()  # (B, H)
        return torch.lerp(n, h, z, out=out)  # (1 - z) n + z h

    def factors(self, h_prev: Tensor, kept: Tensors) -> Tensors:
        """``dh/dz`` and ``dh/dn`` before their functions, the same for r, and the gates: each ``(T, B, H)``."""
        r, z, n, _ = kept
        return through_sigmoid(h_prev, r), through_sigmoid(h_prev - n, z), through_tanh(1 - z, n), r, z

    def backward(self, dh: Tensor, factors_t: Sequence[Tensor], U: Tensor, da_t: Tensor) -> Tensor:
        """Fill ``da_t (B, 3H)``; return the gradient of the state before, ``(B, H)``."""
        d_r, d_z, d_n, r, z = factors_t
        H = dh.shape[1]
        da_n = torch.mul(dh, d_n, out=da_t[:, 2 * H :])
        d_rh = da_n @ U[2 * H :]  # (B, H)
        torch.mul(d_rh, d_r, out=da_t[:, :H])
        torch.mul(dh, d_z, out=da_t[:, H : 2 * H])
        return torch.addcmul(dh * z, d_rh, r).addmm_(da_t[:, : 2 * H], U[: 2 * H])

    def recurrent_gradient(self, da: Tensor, h_prev: Tensor, kept: Tensors) -> Tensor:
        """The gradient of ``U (3H, H)``: r and z read ``h``, n reads ``r * h``."""
        H = h_prev.shape[-1]
        rows_rz = deferred_product(da[..., : 2 * H], h_prev)  # (2H, H)
        rows_n = deferred_product(da[..., 2 * H :], kept[3])  # (H, H)
        return torch.cat([rows_rz, rows_n])  # (3H, H)


class ResetBefore(TimeLoopLayer):
    """``n = tanh(W x + b + U (r * h))``; the rows of the matrices are r, z, n."""

    gates = 3

    def __init__(self, input_size: int, spec: CoreSpec) -> None:
        super().__init__(input_size, spec.width, ResetBeforeCell())


class Core(RecurrentCore):
    """The gated recurrent unit; see the card for its equations."""

    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        layer = ResetAfter if self.options.reset_after else ResetBefore
        return layer(input_size, self.spec)
