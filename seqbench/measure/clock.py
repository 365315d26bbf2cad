"""Wall time that waits for the device."""

from __future__ import annotations

import time
from typing import Self

import torch


class Stopwatch:
    """Adds up the wall time of ``with`` blocks; on CUDA each block ends when the device is done.

    Attributes:
        seconds: the sum so far.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self.seconds = 0.0
        self._cuda = device is not None and device.type == "cuda"

    def __enter__(self) -> Self:
        self._wait()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self._wait()
        self.seconds += time.perf_counter() - self._start

    def _wait(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()


def per_second(amount: float, seconds: float) -> float:
    """A rate; nan where no time has passed."""
    return amount / seconds if seconds > 0 else float("nan")
