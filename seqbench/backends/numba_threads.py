"""Threads of the numba kernels beside those of torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numba
import torch

_ONE: AbstractContextManager[None] = nullcontext()


def numba_threads(threads: int) -> AbstractContextManager[None]:
    """Run kernels with that many threads; numba's threading layer sets torch's number too, which is put back."""
    return _ONE if threads == 1 else _several(threads)


@contextmanager
def _several(threads: int) -> Iterator[None]:
    most: Any = numba.config
    numba.set_num_threads(min(threads, most.NUMBA_NUM_THREADS))
    try:
        yield
    finally:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
