"""The plain loops of a Transformer as torch modules and functions, each with its derivative by hand.

They take the places of torch's own: ``nn.Linear``, ``nn.LayerNorm``, ``nn.ReLU``, ``nn.GELU`` and
``scaled_dot_product_attention``, with the same parameters and initial values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqbench.backends.kernels import plain_transformer as plain
from seqbench.backends.numba_arrays import refuse_others, refuse_second_derivative
from seqbench.backends.numba_transformer import factors


class PlainLinear(nn.Linear):
    """``nn.Linear``."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., K)`` to ``(..., N)``."""
        refuse_others(x, self.weight)
        y: Tensor = _Linear.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(*x.shape[:-1], -1)


class PlainLayerNorm(nn.LayerNorm):
    """``nn.LayerNorm`` over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        """``(..., H)`` to the same shape."""
        refuse_others(x, self.weight)
        y: Tensor = _LayerNorm.apply(x.reshape(-1, x.shape[-1]), self.weight, self.bias)  # type: ignore[no-untyped-call]
        return y.view(x.shape)


class PlainReLU(nn.Module):
    """``nn.ReLU``."""

    smooth = False

    def forward(self, x: Tensor) -> Tensor:
        """Of each number."""
        y: Tensor = _Activation.apply(self.smooth, x.reshape(-1))  # type: ignore[no-untyped-call]
        return y.view(x.shape)


class PlainGELU(PlainReLU):
    """``nn.GELU``, exact."""

    smooth = True


def plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0, is_causal: bool = False
) -> Tensor:
    """``scaled_dot_product_attention``: ``q (B, N, T, d)``, ``k`` and ``v (B, N, S, d)``, ``mask`` of what is seen."""
    (B, N, T, _), S = q.shape, k.shape[2]
    seen = torch.ones(B, 1, T, S, dtype=torch.bool) if mask is None else mask.expand(B, 1, T, S)
    if is_causal:
        seen = seen.tril()
    drops = factors((B, N, T, S), dropout, q) if dropout else q.new_empty(0, 0, 0, 0)
    return _Attention.apply(q, k, v, seen.squeeze(1), drops)  # type: ignore[no-any-return, no-untyped-call]


def _array(x: Tensor) -> Any:
    return x.detach().contiguous().numpy()


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, W)
        y = x.new_empty(x.shape[0], W.shape[0])
        plain.linear(_array(x), _array(W), _array(b), y.numpy())
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        refuse_second_derivative()
        x, W = ctx.saved_tensors
        dx, dW, db = torch.empty_like(x), torch.zeros_like(W), W.new_zeros(W.shape[0])
        plain.linear_back(_array(x), _array(W), _array(dy), dx.numpy(), dW.numpy(), db.numpy())
        return dx, dW, db


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        y = torch.empty_like(x)
        plain.layer_norm(_array(x), _array(w), _array(b), y.numpy())
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        refuse_second_derivative()
        x, w = ctx.saved_tensors
        dx, dw, db = torch.empty_like(x), torch.zeros_like(w), torch.zeros_like(w)
        plain.layer_norm_back(_array(x), _array(w), _array(dy), dx.numpy(), dw.numpy(), db.numpy())
        return dx, dw, db


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, smooth: bool, x: Tensor) -> Tensor:
        ctx.smooth = smooth
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        plain.activation(_array(x), smooth, y.numpy())
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        (x,) = ctx.saved_tensors
        dx = torch.empty_like(x)
        plain.activation_back(_array(x), ctx.smooth, _array(dy), dx.numpy())
        return None, dx


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, seen: Tensor, drops: Tensor) -> Tensor:
        y, p = q.new_empty(q.shape), q.new_empty(*q.shape[:3], k.shape[2])
        plain.attention(_array(q), _array(k), _array(v), _array(seen), _array(drops), y.numpy(), p.numpy())
        ctx.save_for_backward(q, k, v, drops, p)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        q, k, v, drops, p = ctx.saved_tensors
        found = [x.new_empty(x.shape) for x in (q, k, v)]
        arrays = [_array(x) for x in (q, k, v, p, drops, dy)]
        plain.attention_back(*arrays, *(d.numpy() for d in found))
        return *found, None, None
