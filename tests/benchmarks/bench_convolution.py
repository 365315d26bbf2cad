"""The TCN's kernels against torch on one thread, interleaved; writes its tables of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_convolution.py [--rounds 15] [--write docs/performance.md]

Four blocks, kernel 3, weight norm, input as wide as the blocks, float32. CPU time of the process, so that other load on
the machine counts little. A ratio is torch / numba in one round, median [quartiles] over the rounds: above 1 numba is
faster. Packing of the weights and weight norm are part of each call. torch gets the fastest of three ways: the torch
backend's own (``Conv1d`` over ``(B, C, T)``), ``conv2d`` in channels-last layout, a product with the taps side by side.
Results are compared before anything is timed. GFLOP/s count the taps that reach an input; the others cost nothing here.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Run, Steps, interleaved, shown, table, write_section
from torch import Tensor
from torch.nn import functional

from seqbench.api import CoreSpec
from seqbench.backends.kernels.blocks import Kernels
from seqbench_models.tcn import card, numba_core, torch_core

SHAPES = [(1, 128, 64), (16, 128, 64), (32, 128, 128), (32, 256, 128), (64, 128, 512)]
WIDTHS = [64, 128, 256]
LAYERS, K = 4, 3


class Case:
    """Forward, and forward with backward, in numba, through autograd, and in torch."""

    def __init__(self, B: int, T: int, H: int) -> None:
        torch.manual_seed(0)
        spec = CoreSpec(H, H, LAYERS, train_length=T)
        self.torch_core, self.core = torch_core.Core(spec, card.options()), numba_core.Core(spec, card.options())
        self.core.load_state_dict(self.torch_core.state_dict())
        self.x, self.dy = torch.randn(B, T, H).requires_grad_(), torch.randn(B, T, H)
        self.ours, self.theirs = ([self.x, *core.parameters()] for core in (self.core, self.torch_core))
        filters: Any = self.core.blocks._filters
        self.blocks = filters.blocks(filters.tensors())
        self.rows, self.d_rows = self.x.detach().transpose(0, 1).numpy(), self.dy.transpose(0, 1).numpy()
        self.ways = {"Conv1d": self.conv1d, "channels last": self.channels_last, "taps side by side": self.side_by_side}
        steps = sum(max(0, T - (K - 1 - k) * 2**n) for n in range(LAYERS) for k in range(K))
        self.flops = 2 * B * 2 * steps * H * H

    def conv1d(self, x: Tensor) -> Tensor:
        y: Tensor = self.torch_core(x)[0]
        return y

    def channels_last(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2).unsqueeze(2)  # (B, C, 1, T), channels last as it lies
        blocks: Any = self.torch_core.blocks
        for block in blocks:
            h = x
            for conv in (block.conv1, block.conv2):
                W = conv.conv.weight.unsqueeze(2).contiguous(memory_format=torch.channels_last)
                padded = functional.pad(h, (conv.past, 0))
                h = functional.conv2d(padded, W, conv.conv.bias, dilation=(1, conv.dilation)).relu_()
            x = (h + x).relu_()
        return x.squeeze(2).transpose(1, 2)

    def side_by_side(self, x: Tensor) -> Tensor:
        T = x.shape[1]
        blocks: Any = self.torch_core.blocks
        for block in blocks:
            h = x
            for conv in (block.conv1, block.conv2):
                W = conv.conv.weight.permute(0, 2, 1).flatten(1)  # (C', C, K) to (C', K * C)
                padded = functional.pad(h, (0, 0, conv.past, 0))  # (B, P + T, C)
                taps = torch.cat([padded[:, k * conv.dilation :][:, :T] for k in range(K)], dim=-1)  # (B, T, K * C)
                h = functional.linear(taps, W, conv.conv.bias).relu_()
            x = (h + x).relu_()
        return x

    def numba_forward(self) -> Any:
        return Kernels().forward(self.rows, self.blocks, [], None, training=False)

    def numba_both(self) -> Any:
        kept = Kernels().forward(self.rows, self.blocks, [], None, training=True)
        return Kernels().backward(kept, self.blocks, self.d_rows, 1.0, None, None)

    def autograd_both(self) -> Any:
        return torch.autograd.grad(self.core(self.x)[0], self.ours, self.dy)

    def torch_forward(self, way: Callable[[Tensor], Tensor]) -> Run:
        def run() -> Tensor:
            with torch.no_grad():
                return way(self.x)

        return run

    def torch_both(self, way: Callable[[Tensor], Tensor]) -> Run:
        return lambda: torch.autograd.grad(way(self.x), self.theirs, self.dy)

    def check(self) -> None:
        """All compute the same: otherwise there is nothing to compare."""
        ours = self.autograd_both()
        for way in self.ways.values():
            for got, want in zip(ours, self.torch_both(way)(), strict=True):
                error = float((got - want).norm() / want.norm())
                assert error < 1e-2, error  # a rectifier that rounding carries over its kink changes a gradient


def measure(shape: tuple[int, int, int], rounds: int) -> list[str]:
    case = Case(*shape)
    case.check()
    runs: dict[str, Run] = {"forward": case.numba_forward, "both": case.numba_both, "autograd": case.autograd_both}
    for name, way in case.ways.items():
        runs |= {f"{name} forward": case.torch_forward(way), f"{name} both": case.torch_both(way)}
    found = interleaved(runs, rounds if shape[2] < 512 else max(5, rounds // 3))
    best = {
        what: min(case.ways, key=lambda name, what=what: float(np.median(found[f"{name} {what}"])))
        for what in ("forward", "both")
    }
    forward, both = (found[f"{best[what]} {what}"] for what in ("forward", "both"))
    speeds = [case.flops / np.median(found["forward"]) / 1e9, 3 * case.flops / np.median(found["both"]) / 1e9]
    return [
        ", ".join(map(str, shape)),
        best["both"] if best["both"] == best["forward"] else f"{best['forward']}, {best['both']}",
        shown(forward / found["forward"]),
        shown(both / found["both"]),
        shown(both / found["autograd"]),
        shown(found["Conv1d both"] / found["autograd"]),
        shown(found["autograd"] / found["both"]),
        f"{1e3 * np.median(found['both']):.2f}",
        f"{speeds[0]:.0f} / {speeds[1]:.0f}",
    ]


def measure_steps(H: int, rounds: int) -> list[str]:
    """One step of one sequence."""
    case, runs = Case(1, 8, H), {}
    x_t = torch.randn(1, H)
    for name, core in (("numba", case.core.eval()), ("torch", case.torch_core.eval())):
        runs[name] = Steps(core, x_t)
    found = interleaved(runs, rounds)
    microseconds = [f"{1e6 * np.median(found[name]):.1f}" for name in ("numba", "torch")]
    return [str(H), *microseconds, shown(found["torch"] / found["numba"])]


HEADER = [
    "B, T, H", "torch's fastest way", "forward", "forward + backward", "the same through autograd",
    "that against the torch backend", "cost of autograd", "numba f+b, ms", "GFLOP/s f / f+b",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--shapes", default=",".join(map(str, range(len(SHAPES)))), help="places in the list of shapes")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows, steps = [], []
    for place in map(int, filter(None, chosen.shapes.split(","))):
        rows.append(measure(SHAPES[place], chosen.rounds))
        print(" | ".join(rows[-1]), flush=True)
    for H in WIDTHS:
        steps.append(measure_steps(H, chosen.rounds))
        print(" | ".join(steps[-1]), flush=True)
    if chosen.write:
        write_section(chosen.write, "convolution", table(HEADER, rows))
        header = ["H", "numba, µs", "torch backend, µs", "torch / numba"]
        write_section(chosen.write, "convolution steps", table(header, steps, words=0))


if __name__ == "__main__":
    main()
