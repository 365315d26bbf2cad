"""What a call of torch's autograd costs after a pause of Python; writes a table of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_cold_calls.py [--rounds 200] [--write docs/performance.md]

The pause is a loop of additions and square roots in registers: compiled, without any memory. So whatever takes longer
afterwards has lost its place in the caches to somebody else. In the last row an LSTM's kernels run instead. Timed are
``x * x``, torch's own linear layer, an empty function with the tensors of an RNN layer and that layer itself at a size
of one step, where its kernels cost nothing: each forward and backward, alone after its pause, in random order.
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from bench_recurrent import Case, Nothing
from interleaved import Run, in_fresh_process, table, write_section

PAUSES_MS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)


def roots(turns: int) -> float:
    """No more than one number is alive."""
    total = 0.0
    for n in range(turns):
        total += np.sqrt(total + n)
    return total


in_registers: Any = numba.njit(roots)


def turns_per_ms() -> float:
    """Of the loop."""
    in_registers(1)
    start = time.perf_counter()
    in_registers(3_000_000)
    return 3_000_000 / (1e3 * (time.perf_counter() - start))


def runs_of_one_step() -> dict[str, Run]:
    """What is timed."""
    case: Any = Case("rnn", 1, 1, 16)
    W, _, b, _ = case.matrices
    own = [case.x, W, b]
    return {
        "x * x": lambda: torch.autograd.grad(case.x * case.x, case.x, case.dy),
        "linear": lambda: torch.autograd.grad(torch.nn.functional.linear(case.x, W, b), own, case.dy),
        "empty function": lambda: torch.autograd.grad(Nothing.apply(case, *case.inputs), case.inputs, case.dy),
        "RNN layer": case.autograd_both,
    }


def measure(rounds: int) -> list[list[str]]:
    """Microseconds, a row for each pause."""
    torch.set_num_threads(1)
    runs, pauses, rng = runs_of_one_step(), pauses_of(turns_per_ms()), np.random.default_rng(0)
    for run in (*runs.values(), *pauses.values()):
        run()
    found: dict[tuple[str, str], list[float]] = {(pause, name): [] for pause in pauses for name in runs}
    keys = list(found)
    for _ in range(rounds):
        for n in rng.permutation(len(keys)):
            pause, name = keys[n]
            runs[name]()  # hot
            pauses[pause]()
            start = time.perf_counter()
            runs[name]()
            found[keys[n]].append(1e6 * (time.perf_counter() - start))
    return [[pause, *(quartiles(found[pause, name]) for name in runs)] for pause in pauses]


def pauses_of(turns: float) -> dict[str, Run]:
    """What runs before: so many milliseconds of the loop, or kernels."""
    idle: dict[str, Run] = {f"{ms:g} ms in registers": partial(in_registers, int(ms * turns)) for ms in PAUSES_MS}
    return idle | {"LSTM kernels, 16, 128, 64": Case("lstm", 16, 128, 64).numba_both}


def quartiles(microseconds: list[float]) -> str:
    """Median [quartiles]."""
    low, middle, high = np.percentile(microseconds, [25, 50, 75])
    return f"{middle:.0f} [{low:.0f}, {high:.0f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    rows = in_fresh_process(measure, chosen.rounds)
    text = table(["after", "x * x, µs", "linear layer, µs", "empty function, µs", "RNN layer, µs"], rows, words=1)
    print(text)
    if chosen.write:
        write_section(chosen.write, "cold calls", text)


if __name__ == "__main__":
    main()
