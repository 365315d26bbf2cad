"""Clocks and memory gauges: against a clock and an allocation of known size."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from seqbench.measure import clock, memory
from seqbench.measure.clock import Stopwatch, per_second
from seqbench.measure.memory import PeakMemory


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(clock.time, "perf_counter", fake)
    return fake


def test_a_stopwatch_adds_up_its_blocks_alone(time: Clock) -> None:
    watch = Stopwatch()
    assert watch.seconds == 0.0
    for inside, outside in ((1.0, 10.0), (0.5, 20.0)):
        with watch as same:
            time.now += inside
        assert same is watch
        time.now += outside
    assert watch.seconds == 1.5


def test_a_block_that_raises_counts(time: Clock) -> None:
    watch = Stopwatch(torch.device("cpu"))

    def fails() -> None:
        with watch:
            time.now += 2.0
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fails()
    assert watch.seconds == 2.0


def test_on_cuda_it_waits_for_the_device_at_both_ends(time: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work queued before is not charged, work queued within is."""
    queue = [5.0]

    def synchronize() -> None:
        time.now += sum(queue)
        queue.clear()

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    watch = Stopwatch(torch.device("cuda"))
    with watch:
        queue.append(3.0)  # asynchronous: the clock does not move
    assert watch.seconds == 3.0


def test_per_second() -> None:
    assert per_second(10, 4.0) == 2.5
    assert math.isnan(per_second(10, 0.0))


GROW = """
import sys, torch
from seqbench.measure.memory import PeakMemory
earlier = torch.ones(int(sys.argv[1]) * 2**18); del earlier    # a peak before the gauge starts
gauge = PeakMemory(torch.device("cpu"))
before = gauge.mib()
block = torch.ones(64 * 2**18)    # 64 MiB, every page touched
held = gauge.mib()
del block
print(before, held, gauge.mib())
"""


def grown(earlier: int) -> list[float]:
    done = subprocess.run([sys.executable, "-c", GROW, str(earlier)], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark of the whole process is used")
def test_peak_memory_sees_an_allocation_and_keeps_it_and_forgets_what_was_before() -> None:
    before, held, after = grown(earlier=200)
    assert before < 4
    assert 60 <= held < 80
    assert after == pytest.approx(held, abs=1), "the peak stays when the block is gone"


def test_the_gauge_of_other_systems_sees_an_allocation_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_status", lambda field: None)
    gauge = PeakMemory(torch.device("cpu"))
    size = int(memory._high_water() - memory._resident()) + 64 * 2**20  # beyond the mark of the whole process
    block = torch.ones(size // 4)
    assert gauge.mib() >= 60
    del block


def test_cuda_asks_the_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: asked.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**20)
    assert PeakMemory(torch.device("cuda")).mib() == 3.0
    assert asked == ["reset"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_sees_an_allocation() -> None:
    gauge = PeakMemory(torch.device("cuda"))
    before = gauge.mib()
    block = torch.ones(64 * 2**18, device="cuda")
    assert gauge.mib() - before == pytest.approx(64, abs=2)
    del block
