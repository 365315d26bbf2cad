"""Ratios of times from interleaved runs in one process, and the tables of docs/performance.md.

CPU time of the process where there is one thread, so that other load on the machine counts little. Every round runs
all candidates, in another order each time, and a ratio is taken within its round: what disturbs a round falls on both
sides.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Run = Callable[[], Any]
Clock = Callable[[], float]


def seconds_of(run: Run, times: int, clock: Clock = time.process_time) -> float:
    """Seconds of one call, the mean over ``times`` calls."""
    start = clock()
    for _ in range(times):
        run()
    return (clock() - start) / times


def interleaved(runs: Mapping[str, Run], rounds: int, clock: Clock = time.process_time) -> dict[str, np.ndarray]:
    """Seconds of each, one number a round; each sample lasts about 20 ms, warm-up outside.

    Several threads need ``time.perf_counter``, and a quiet machine.
    """
    times = {}
    for name, run in runs.items():
        run()
        times[name] = max(1, int(0.02 / max(seconds_of(run, 1, clock), 1e-6)))
    found: dict[str, list[float]] = {name: [] for name in runs}
    rng = np.random.default_rng(0)
    for _ in range(rounds):
        for name in rng.permutation(list(runs)).tolist():
            found[name].append(seconds_of(runs[name], times[name], clock))
    return {name: np.array(values) for name, values in found.items()}


class Steps:
    """A core that makes one step after another of sequences that begin from nothing, with the input ``x_t (B, D)``."""

    def __init__(self, core: Any, x_t: Any) -> None:
        self.core, self.x_t, self.state = core, x_t, core.initial_state(len(x_t), 1)

    def __call__(self) -> None:
        _, self.state = self.core.step(self.x_t, self.state)


def in_fresh_process(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a process of its own, so that no case finds the allocator as another has left it.

    A step whose memory has gone back to the system costs a page fault for every 4 KiB, up to a third of its time, and
    whether it has depends on what was freed before.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def shown(ratios: np.ndarray) -> str:
    """Median [quartiles]."""
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 2) -> str:
    """A Markdown table; the first ``words`` columns are words, the others numbers."""
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_section(path: Path, name: str, text: str) -> None:
    """Put ``text`` between ``<!-- name -->`` and the next ``<!-- end -->`` of a Markdown file."""
    before, rest = path.read_text(encoding="utf-8").split(f"<!-- {name} -->\n")
    _, after = rest.split("<!-- end -->", 1)
    path.write_text(f"{before}<!-- {name} -->\n{text}\n<!-- end -->{after}", encoding="utf-8")
