"""What the numba kernels take from torch, and memory for what they give it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from seqbench.api import Refused
from seqbench.backends.kernels.workspace import LARGE, aligned

NUMPY_TYPES = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}
"""Of the numbers that the kernels compute with."""


def refuse_others(x: Tensor, *others: Tensor | None) -> None:
    """Let pass what the kernels compute with.

    Args:
        x: the input.
        others: what is of its type: parameters, states.

    Raises:
        Refused: one of them is not on the CPU, or the input not of float32 or float64, or the others are of another
            type than the input.
    """
    dtype = x.dtype
    if not x.is_cpu or dtype not in NUMPY_TYPES:
        raise Refused(_reason(x))
    for other in others:
        if other is None:
            continue
        if not other.is_cpu:
            raise Refused(_reason(other))
        if other.dtype != dtype:
            raise Refused(f"the input is of {dtype}, parameters or state are of {other.dtype}: convert one of them")


def _reason(x: Tensor) -> str:
    if not x.is_cpu:
        return f"the numba backend runs on the CPU, not on {x.device.type}: use --device cpu, or --backend torch"
    return f"the numba backend computes in float32 or float64, not in {x.dtype}"


def refuse_second_derivative() -> None:
    """Called in a backward pass.

    Raises:
        Refused: it runs under ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise Refused("this core's derivative is written by hand and has none itself: leave out create_graph=True")


def contiguous(x: Tensor) -> Tensor:
    """The tensor, its numbers one after another in memory and with their signs; a copy, if it lies otherwise."""
    return (x.resolve_neg() if x.is_neg() else x).contiguous()


def in_memory_order(x: Tensor) -> tuple[Tensor, bool]:
    """``x (B, T, D)`` as it lies in memory, or a copy, and whether that is ``(T, B, D)``; else it is ``(B, T, D)``."""
    if x.is_neg():
        x = x.resolve_neg()
    if x.is_contiguous():
        return x, False
    B, _, D = x.shape
    return (x, True) if x.stride() == (D, B * D, 1) else (x.contiguous(), False)


def empty_rows(B: int, T: int, D: int, time_first: bool, dtype: torch.dtype) -> Tensor:
    """``(B, T, D)``, in memory ``(T, B, D)`` or not, whatever is in it; what is large comes from the kernels' pool."""
    if B * T * D * dtype.itemsize < LARGE:
        strides = (D, B * D, 1) if time_first else (T * D, D, 1)
        return torch.empty_strided((B, T, D), strides, dtype=dtype, device="cpu")
    rows = aligned((T, B, D) if time_first else (B, T, D), NUMPY_TYPES[dtype])
    return torch.from_numpy(rows.transpose(1, 0, 2) if time_first else rows)


def address_of(x: Tensor | None) -> int:
    """Where the numbers of a tensor lie; 0 of None, and where there are none.

    Raises:
        Refused: the tensor has numbers, but no memory.
    """
    if x is None:
        return 0
    address = x.data_ptr()
    if not address and x.numel():
        raise Refused(f"the numba backend reads memory, and a {type(x).__name__} of shape {tuple(x.shape)} has none")
    return address
