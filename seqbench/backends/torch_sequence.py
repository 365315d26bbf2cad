"""Padded sequences on torch: masks, reversals and last steps that respect each row's length."""

from __future__ import annotations

import torch
from torch import Tensor


def valid(lengths: Tensor, T: int, device: torch.device) -> Tensor:
    """Which steps lie within each row's length: bool ``(B, T)``."""
    return torch.arange(T, device=device) < lengths.to(device).unsqueeze(1)


def zero_beyond(y: Tensor, lengths: Tensor | None) -> Tensor:
    """``y (B, T, H)`` with exact zeros beyond ``lengths``, and no gradient from there."""
    if lengths is None:
        return y
    beyond = ~valid(lengths, y.shape[1], y.device)
    return y.masked_fill(beyond.unsqueeze(-1), 0.0)


def last_valid(y: Tensor, lengths: Tensor | None) -> Tensor:
    """The last valid step of each row of ``y (B, T, H)``: ``(B, H)``."""
    if lengths is None:
        return y[:, -1]
    rows = torch.arange(y.shape[0], device=y.device)
    return y[rows, lengths.to(y.device) - 1]


def reverse_valid(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Reverse the valid part of each row of ``x (B, T, D)`` and leave the padding where it is.

    Applying it twice gives ``x`` back.
    """
    if lengths is None:
        return x.flip(1)
    t = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths.to(x.device).unsqueeze(1) - 1 - t  # (B, T)
    index = torch.where(mirrored >= 0, mirrored, t)
    return x.gather(1, index.unsqueeze(-1).expand_as(x))


def window(x: Tensor, start: Tensor, size: int) -> Tensor:
    """``size`` consecutive steps of each row of ``x (B, T, D)``, from ``start (B,)`` on: ``(B, size, D)``."""
    index = start.to(x.device).unsqueeze(1) + torch.arange(size, device=x.device)  # (B, size)
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))
