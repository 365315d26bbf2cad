"""The recurrent kernels against torch on one thread, interleaved; writes the tables of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_recurrent.py [--rounds 15] [--write docs/performance.md]

CPU time of the process, so that other load on the machine counts little. Every figure is the ratio torch / numba in
one round, median [quartiles] over the rounds: above 1 numba is faster. Packing of the weights is part of each call.
torch gets its best layout, time first; JANET, for which torch has no kernel, the fastest of three loops (eager over
``unbind``, the same under ``torch.jit.script``, and the torch backend's own with a derivative by hand). Results are
compared before anything is timed.
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Run, interleaved, shown, table, write_section
from torch import Tensor

from seqbench.api import CoreSpec
from seqbench.backends.kernels.recurrent import Kernels, Parameters
from seqbench.backends.numba_recurrent import run_sequence
from seqbench.backends.torch_time_loop import time_loop
from seqbench_models import gru, janet, lstm, rnn
from seqbench_models.gru import numba_core as gru_core
from seqbench_models.janet import numba_core as janet_core
from seqbench_models.janet.torch_core import Cell as JanetCell
from seqbench_models.lstm import numba_core as lstm_core
from seqbench_models.rnn import numba_core as rnn_core

SHAPES = [(1, 128, 64), (16, 128, 64), (32, 128, 128), (32, 256, 256), (64, 128, 512)]
MODELS: dict[str, tuple[Any, Any]] = {
    "lstm": (lstm.card, lstm_core),
    "gru": (gru.card, gru_core),
    "rnn": (rnn.card, rnn_core),
    "janet": (janet.card, janet_core),
}


class Case:
    """One model at one shape: forward, and forward with backward, in numba, through autograd, and in torch."""

    def __init__(self, name: str, B: int, T: int, H: int) -> None:
        torch.manual_seed(0)
        card, module = MODELS[name]
        self.layer = module.Core(CoreSpec(H, H, train_length=T), card.options()).layers[0]
        self.kernels: Kernels = self.layer.kernels
        self.x = torch.randn(T, B, H).transpose(0, 1).requires_grad_()  # (B, T, H), in memory time first
        self.dy = torch.randn(T, B, H).transpose(0, 1)
        self.matrices = self.layer.matrices()
        arrays = [torch.empty(0).numpy() if m is None else m.detach().numpy() for m in self.matrices]
        self.parameters = Parameters(*arrays)
        self.x_t = self.x.detach().transpose(0, 1).requires_grad_()  # (T, B, H): torch's best layout
        self.dy_t = self.dy.transpose(0, 1)
        self.arrays = self.x_t.detach().numpy(), True, self.parameters, np.empty((0, 0, 0), np.float32)
        self.d_array = self.dy_t.numpy()[None]
        self.inputs = [self.x, *self.layer.parameters()]
        gates = self.kernels.cell.gates
        self.flops = 2 * B * T * gates * H * 2 * H
        self.torch = janet_loops(self.matrices) if name == "janet" else {"torch": self.fused}

    def fused(self, x: Tensor) -> Tensor:
        module = self.layer.rnn
        module.batch_first = False
        y: Tensor = module(x)[0]
        return y

    def numba_forward(self) -> Any:
        return self.kernels.forward(*self.arrays, outputs=1, training=False)

    def numba_both(self) -> Any:
        _, kept = self.kernels.forward(*self.arrays, outputs=1, training=True)
        return self.kernels.backward(kept, self.parameters, self.d_array, True)

    def autograd_both(self) -> Any:
        y = run_sequence(self.kernels, self.x, self.matrices, ())[0]
        return torch.autograd.grad(y, self.inputs, self.dy)

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


def measure(name: str, shape: tuple[int, int, int], rounds: int) -> list[str]:
    case = Case(name, *shape)
    case.check()
    runs: dict[str, Run] = {"forward": case.numba_forward, "both": case.numba_both, "autograd": case.autograd_both}
    for kind, loop in case.torch.items():
        runs |= {f"{kind} forward": case.torch_forward(loop), f"{kind} both": case.torch_both(loop)}
    found = interleaved(runs, rounds if shape[2] < 512 else max(5, rounds // 3))
    best = {
        what: min((found[f"{kind} {what}"] for kind in case.torch), key=lambda seconds: float(np.median(seconds)))
        for what in ("forward", "both")
    }
    speeds = [case.flops / np.median(found["forward"]) / 1e9, 3 * case.flops / np.median(found["both"]) / 1e9]
    return [
        name,
        ", ".join(map(str, shape)),
        shown(best["forward"] / found["forward"]),
        shown(best["both"] / found["both"]),
        shown(best["both"] / found["autograd"]),
        shown(found["autograd"] / found["both"]),
        f"{1e3 * np.median(found['both']):.2f}",
        f"{speeds[0]:.0f} / {speeds[1]:.0f}",
    ]


HEADER = [
    "model", "B, T, H", "forward", "forward + backward", "the same through autograd", "cost of autograd",
    "numba f+b, ms", "GFLOP/s f / f+b",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in chosen.models.split(","):
        for shape in SHAPES:
            rows.append(measure(name, shape, chosen.rounds))
            print(" | ".join(rows[-1]), flush=True)
    if chosen.write:
        write_section(chosen.write, "recurrent", table(HEADER, rows))


if __name__ == "__main__":
    main()
