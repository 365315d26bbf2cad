"""Timed samples of a call: calibrated to last, without garbage collection inside, wall and CPU time side by side."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from seqbench.garbage import collector_off

SHORTEST = 0.02
"""Seconds that a sample lasts at least: thousands of times what reading a clock costs."""

Call = Callable[[], Any]


@dataclass(frozen=True)
class Sample:
    """One sample of several calls in a row.

    Attributes:
        wall: seconds of a call, the mean of the sample; on CUDA the device's own, between two events.
        cpu: seconds of processor time of a call, of all threads of this process.
    """

    wall: float
    cpu: float


class Sampler:
    """Takes samples of a call on a device.

    Attributes:
        first: seconds of the very first call: compiling, loading of libraries.
        calls: how many calls a sample has, so that it lasts about ``SHORTEST`` seconds.
    """

    def __init__(self, call: Call, device: torch.device) -> None:
        self._call, self._device = call, device
        self.first = self._timed(1).wall
        self.calls = self._calibrated()
        gc.collect()
        gc.freeze()  # what is there by now need not be looked through before each sample

    def sample(self) -> Sample:
        """One sample.

        The garbage of the sample before is collected first. Short calls begin with one that is not timed: the
        processor's caches hold what another process has left there.
        """
        gc.collect()
        if self.calls > 1:
            self._call()
        return self._timed(self.calls)

    def _calibrated(self) -> int:
        """Grow until a sample lasts long enough; the shorter ones on the way are the warm-up."""
        calls = 1
        while (wall := self._timed(calls).wall * calls) < SHORTEST:
            calls = max(calls + 1, min(10 * calls, math.ceil(1.1 * calls * SHORTEST / max(wall, 1e-9))))
        return calls

    def _timed(self, calls: int) -> Sample:
        take = self._on_cuda if self._device.type == "cuda" else self._on_cpu
        with collector_off():
            return take(calls)

    def _on_cpu(self, calls: int) -> Sample:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(calls):
            self._call()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return Sample(wall / calls, cpu / calls)

    def _on_cuda(self, calls: int) -> Sample:
        """Two events around all calls and one wait at the end: the device is never kept waiting for the clock."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        cpu = time.process_time()
        begin.record()
        for _ in range(calls):
            self._call()
        end.record()
        end.synchronize()
        return Sample(begin.elapsed_time(end) / 1e3 / calls, (time.process_time() - cpu) / calls)
