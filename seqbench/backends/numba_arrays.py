"""What the numba kernels take from torch."""

from __future__ import annotations

import torch
from torch import Tensor

from seqbench.api import Refused

_COMPUTED = (torch.float32, torch.float64)


def refuse_others(x: Tensor, *others: Tensor) -> None:
    """Let pass what the kernels compute with.

    Args:
        x: the input.
        others: what is of its type: parameters, states.

    Raises:
        Refused: the input is not on the CPU, or not of float32 or float64, or the others are of another type.
    """
    if not x.is_cpu:
        raise Refused(
            f"the numba backend runs on the CPU, not on {x.device.type}: use --device cpu, or --backend torch"
        )
    dtype = x.dtype
    if dtype not in _COMPUTED:
        raise Refused(f"the numba backend computes in float32 or float64, not in {dtype}")
    for other in others:
        if other.dtype != dtype:
            raise Refused(f"the input is of {dtype}, parameters or state are of {other.dtype}: convert one of them")


def refuse_second_derivative() -> None:
    """Called in a backward pass.

    Raises:
        Refused: it runs under ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise Refused("this core's derivative is written by hand and has none itself: leave out create_graph=True")
