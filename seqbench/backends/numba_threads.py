"""Threads of the numba kernels beside those of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numba
import torch


@contextmanager
def numba_threads(threads: int) -> Iterator[None]:
    """Run kernels with that many threads; numba's threading layer sets torch's number too, which is put back."""
    if threads == 1:
        yield
        return
    most: Any = numba.config
    numba.set_num_threads(min(threads, most.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
