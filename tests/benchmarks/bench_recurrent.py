"""The recurrent kernels against torch, interleaved; writes the tables of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_recurrent.py [--rounds 15] [--write docs/performance.md]
    python tests/benchmarks/bench_recurrent.py --threads 2 [--write docs/performance.md]

CPU time of the process, so that other load on the machine counts little; each case in a fresh process. Every figure is
the ratio torch / numba in one round, median [quartiles] over the rounds: above 1 numba is faster. Packing of the
weights is part of each call. torch gets its best layout, time first. For JANET torch has no kernel: one row has the
faster of the loops that a user would write (eager over ``unbind``, the same under ``torch.jit.script``), one the torch
backend's own loop, whose derivative was written by hand. Results are compared before anything is timed.

Then one step of one sequence, ``core.step`` of both backends in evaluation mode (one thread).
"""

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from interleaved import Run, Steps, in_fresh_process, interleaved, shown, table, write_section
from torch import Tensor

from seqbench.api import CoreSpec
from seqbench.backends.kernels.recurrent import Addresses, Kernels, Shape
from seqbench.backends.numba_arrays import empty_rows
from seqbench.backends.numba_sequence import run_sequence
from seqbench.backends.torch_time_loop import time_loop
from seqbench.registry import resolve
from seqbench_models import gru, janet, lstm, rnn
from seqbench_models.gru import numba_core as gru_core
from seqbench_models.janet import numba_core as janet_core
from seqbench_models.janet.torch_core import Cell as JanetCell
from seqbench_models.lstm import numba_core as lstm_core
from seqbench_models.rnn import numba_core as rnn_core

SHAPES = [(1, 128, 64), (16, 128, 64), (32, 128, 128), (32, 256, 256), (64, 128, 512)]
WIDTHS = (64, 128, 256)
MODELS: dict[str, tuple[Any, Any]] = {
    "lstm": (lstm.card, lstm_core),
    "gru": (gru.card, gru_core),
    "rnn": (rnn.card, rnn_core),
    "janet": (janet.card, janet_core),
}

BASES = {"janet": {"janet": ["eager", "script"], "janet, torch backend": ["by hand"]}}
"""What a model's kernels are compared with, where torch has none: the fastest of each list, a row each."""


FLOAT = np.dtype(np.float32)


def addresses(kernels: Kernels, *tensors: Tensor | None) -> Addresses:
    """Of ``x`` and the matrices, or of their gradients; no state."""
    x, W, U, b_x, b_h = (0 if t is None else t.data_ptr() for t in tensors)
    return Addresses(x, W, U, b_x, b_h, kernels.nowhere)


class Case:
    """One model at one shape: forward, and forward with backward, in numba, through autograd, and in torch."""

    def __init__(self, name: str, B: int, T: int, H: int, threads: int = 1) -> None:
        torch.manual_seed(0)
        self.threads = threads
        card, module = MODELS[name]
        self.layer = module.Core(CoreSpec(H, H, train_length=T), card.options()).layers[0]
        self.kernels: Kernels = self.layer.kernels
        self.x = torch.randn(T, B, H).transpose(0, 1).requires_grad_()  # (B, T, H), in memory time first
        self.dy = torch.randn(T, B, H).transpose(0, 1)
        self.matrices = self.layer.matrices()
        self.x_t = self.x.detach().transpose(0, 1).requires_grad_()  # (T, B, H): torch's best layout
        self.dy_t = self.dy.transpose(0, 1)
        self.shape = Shape(T, B, H, H, time_first=True)
        self.given = addresses(self.kernels, self.x, *self.matrices)
        self.d_y = (self.dy.data_ptr(), *self.kernels.nowhere[1:])
        self.inputs = [self.x, *self.layer.parameters()]
        self.nothing = [torch.zeros_like(p) for p in self.inputs]
        gates = self.kernels.cell.gates
        self.flops = 2 * B * T * gates * H * 2 * H
        self.torch = janet_loops(self.matrices) if name == "janet" else {"torch": self.fused}

    def fused(self, x: Tensor) -> Tensor:
        module = self.layer.rnn
        module.batch_first = False
        y: Tensor = module(x)[0]
        return y

    def run_forward(self, training: bool) -> tuple[Any, Any]:
        """With memory for what comes out, as every call needs it."""
        y = empty_rows(self.shape.B, self.shape.T, self.shape.H, True, torch.float32)
        outputs = (y.data_ptr(), *self.kernels.nowhere[1:])
        return y, self.kernels.forward(FLOAT, self.shape, self.given, outputs, training, self.threads)

    def numba_forward(self) -> Any:
        return self.run_forward(training=False)

    def numba_both(self) -> Any:
        y, kept = self.run_forward(training=True)
        dx = empty_rows(self.shape.B, self.shape.T, self.shape.D, True, torch.float32)
        gradients = [None if m is None else torch.empty_like(m) for m in self.matrices]
        found = addresses(self.kernels, dx, *gradients)
        self.kernels.backward(FLOAT, self.shape, self.given, kept, self.d_y, True, found, self.threads)
        return y, dx, gradients

    def autograd_both(self) -> Any:
        y = run_sequence(self.kernels, self.x, self.matrices, ())[0]
        return torch.autograd.grad(y, self.inputs, self.dy)

    def numba_both_and_nothing(self) -> None:
        self.numba_both()
        torch.autograd.grad(Nothing.apply(self, *self.inputs), self.inputs, self.dy)

    def torch_forward(self, loop: Callable[..., Tensor]) -> Run:
        def run() -> Tensor:
            with torch.no_grad():
                return loop(self.x_t)

        return run

    def torch_both(self, loop: Callable[..., Tensor]) -> Run:
        inputs = [self.x_t, *self.inputs[1:]]
        return lambda: torch.autograd.grad(loop(self.x_t), inputs, self.dy_t)

    def check(self) -> None:
        """All compute the same: otherwise there is nothing to compare."""
        ours = self.autograd_both()
        for loop in self.torch.values():
            theirs = self.torch_both(loop)()
            for got, want in zip(ours, (theirs[0].transpose(0, 1), *theirs[1:]), strict=True):
                worst = float((got - want).abs().max() / want.abs().max().clamp(min=1e-6))
                assert worst < 1e-4, worst


def janet_step(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    hs = []
    U_t = U.t()
    for gx_t in torch.nn.functional.linear(x, W, b).unbind(0):
        s, n = torch.addmm(gx_t, h, U_t).chunk(2, 1)
        h = torch.sigmoid(s) * h + torch.sigmoid(1.0 - s) * torch.tanh(n)
        hs.append(h)
    return torch.stack(hs)


def janet_loops(matrices: Any) -> dict[str, Callable[..., Tensor]]:
    W, U, b, _ = matrices
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(janet_step)

    def zeros(x: Tensor) -> Tensor:
        return x.new_zeros(x.shape[1], U.shape[1])

    return {
        "eager": lambda x: janet_step(x, zeros(x), W, U, b),
        "script": lambda x: scripted(x, zeros(x), W, U, b),
        "by hand": lambda x: time_loop(JanetCell(1.0), torch.nn.functional.linear(x, W, b), U, zeros(x)),
    }


class Nothing(torch.autograd.Function):
    """What autograd itself costs: a function of the same tensors that computes nothing."""

    @staticmethod
    def forward(ctx: Any, case: Case, *inputs: Tensor) -> Tensor:
        ctx.case = case
        ctx.save_for_backward(*inputs)
        return case.x.detach()

    @staticmethod
    def backward(ctx: Any, _dy: Tensor) -> tuple[Any, ...]:
        return None, *ctx.case.nothing


def measure(name: str, shape: tuple[int, int, int], rounds: int, threads: int) -> list[list[str]]:
    """Rows of the table: one for each base that numba is compared with."""
    torch.set_num_threads(threads)
    numba.set_num_threads(threads)
    torch.set_num_threads(threads)  # numba's threading layer has just set it
    case = Case(name, *shape, threads)
    case.check()
    runs: dict[str, Run] = {
        "forward": case.numba_forward,
        "both": case.numba_both,
        "autograd": case.autograd_both,
        "nothing": case.numba_both_and_nothing,
    }
    for kind, loop in case.torch.items():
        runs |= {f"{kind} forward": case.torch_forward(loop), f"{kind} both": case.torch_both(loop)}
    clock = time.process_time if threads == 1 else time.perf_counter
    found = interleaved(runs, rounds if shape[2] < 512 else max(5, rounds // 3), clock)
    speeds = [case.flops / np.median(found["forward"]) / 1e9, 3 * case.flops / np.median(found["both"]) / 1e9]
    ours = [
        shown(found["autograd"] / found["both"]),
        shown(found["nothing"] / found["both"]),
        f"{1e3 * np.median(found['both']):.2f}",
        f"{speeds[0]:.0f} / {speeds[1]:.0f}",
    ]
    rows = []
    for label, kinds in BASES.get(name, {name: ["torch"]}).items():
        forward, both = (fastest(found, kinds, what) for what in ("forward", "both"))
        ratios = [forward / found["forward"], both / found["both"], both / found["autograd"]]
        rows.append([label, ", ".join(map(str, shape)), *map(shown, ratios), *ours])
    return rows


def measure_steps(name: str, H: int, rounds: int) -> list[str]:
    """One step of one sequence."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    card, x_t = MODELS[name][0], torch.randn(1, H)
    cores = {kind: resolve(card.cores[kind])(CoreSpec(H, H), card.options()).eval() for kind in ("numba", "torch")}
    cores["torch"].load_state_dict(cores["numba"].state_dict())
    runs: dict[str, Run] = {kind: Steps(core, x_t) for kind, core in cores.items()}
    ours, theirs = (core.step(x_t, core.initial_state(1, 1))[0] for core in cores.values())
    torch.testing.assert_close(ours, theirs)
    found = interleaved(runs, rounds)
    microseconds = [f"{1e6 * np.median(found[kind]):.1f}" for kind in cores]
    return [name, str(H), *microseconds, shown(found["torch"] / found["numba"])]


def fastest(found: dict[str, np.ndarray], kinds: list[str], what: str) -> np.ndarray:
    """The seconds of the kind with the smallest median."""
    return min((found[f"{kind} {what}"] for kind in kinds), key=lambda seconds: float(np.median(seconds)))


HEADER = [
    "model", "B, T, H", "forward", "forward + backward", "the same through autograd", "cost of autograd",
    "of which an empty function", "numba f+b, ms", "GFLOP/s f / f+b",
]  # fmt: skip


STEP_HEADER = ["model", "H", "numba, µs", "torch backend, µs", "torch / numba"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))), help="places in the list of shapes")
    parser.add_argument("--threads", type=int, default=1, help="above 1, wall time is taken: on a quiet machine")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    names, rows, steps = chosen.models.split(","), [], []
    for name in names:
        for place in map(int, filter(None, chosen.shapes.split(","))):
            for row in in_fresh_process(measure, name, SHAPES[place], chosen.rounds, chosen.threads):
                rows.append(row)
                print(" | ".join(row), flush=True)
    if chosen.threads == 1:
        for name in names:
            for H in WIDTHS:
                steps.append(in_fresh_process(measure_steps, name, H, chosen.rounds))
                print(" | ".join(steps[-1]), flush=True)
    if chosen.write and rows:
        section = "recurrent" if chosen.threads == 1 else f"recurrent, {chosen.threads} threads"
        write_section(chosen.write, section, table(HEADER, rows))
    if chosen.write and steps:
        write_section(chosen.write, "recurrent steps", table(STEP_HEADER, steps))


if __name__ == "__main__":
    main()
