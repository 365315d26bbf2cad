"""What all numba cores share when torch calls their kernels: what they refuse, and the number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import torch
from torch import Tensor

from seqbench.api import Refused


def refuse_other(x: Tensor) -> None:
    """Refuse what the kernels cannot compute with.

    Raises:
        Refused: ``x`` is not on the CPU, or not of float32 or float64.
    """
    if x.device.type != "cpu":
        raise Refused(
            f"the numba backend runs on the CPU, not on {x.device.type}: use --device cpu, or --backend torch"
        )
    if x.dtype not in (torch.float32, torch.float64):
        raise Refused(f"the numba backend computes in float32 or float64, not in {x.dtype}")


def refuse_second_derivative() -> None:
    """Called in a backward pass.

    Raises:
        Refused: it runs under ``create_graph=True``.
    """
    if torch.is_grad_enabled():
        raise Refused("this core's derivative is written by hand and has none itself: leave out create_graph=True")


def with_threads(threads: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call with that many threads of numba; its threading layer sets torch's number too, which is put back."""
    if threads == 1:
        return function(*arguments)
    most: Any = numba.config
    numba.set_num_threads(min(threads, most.NUMBA_NUM_THREADS))
    try:
        return function(*arguments, threads=threads)
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
