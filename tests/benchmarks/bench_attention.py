"""The Transformer's kernels against torch on one thread, interleaved; writes the tables of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_attention.py [--rounds 15] [--write docs/performance.md]

CPU time of the process, so that other load on the machine counts little. Every figure is the ratio torch / numba in
one round, median [quartiles] over the rounds: above 1 numba is faster. Two layers, 4 heads, causal, pre-norm, input as
wide as the model, no positions: what is left are the layers. Packing of the weights is part of each call. torch is the
faster of this project's torch core (scaled_dot_product_attention) and of ``nn.TransformerEncoder`` with the same
weights, which without gradients takes its fast path. Results are compared before anything is timed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Run, interleaved, shown, table, write_section
from torch import Tensor, nn

from seqbench.api import CoreSpec
from seqbench.backends.kernels.stack import Call, Stack, Sublayer
from seqbench.backends.kernels.transformer import Parameters
from seqbench.backends.numba_transformer import run_stack
from seqbench_models.transformer import Options, numba_core, torch_core

SHAPES = [(1, 128, 64), (16, 128, 64), (32, 128, 128), (32, 256, 128), (64, 128, 512)]
STEPS = [(1, 64), (1, 128), (1, 256), (8, 128), (64, 128)]
LAYERS, LENGTH = 2, 128


def pair(H: int, T: int) -> tuple[Any, Any]:
    """Both cores with the same weights."""
    spec, options = CoreSpec(H, H, LAYERS, train_length=T), Options(positions="none")
    ours, theirs = numba_core.Core(spec, options), torch_core.Core(spec, options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def encoder_of(core: Any) -> nn.TransformerEncoder:
    """torch's own encoder with the core's weights."""
    H, N = core.spec.width, core.options.heads
    layer = nn.TransformerEncoderLayer(H, N, 4 * H, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(H), enable_nested_tensor=False)
    with torch.no_grad():
        for ours, theirs in zip(core.layers, encoder.layers, strict=True):
            modules: list[tuple[Any, Any]] = [
                (ours.out, theirs.self_attn.out_proj), (ours.hidden, theirs.linear1), (ours.back, theirs.linear2),
                (ours.norm_attention, theirs.norm1), (ours.norm_feed_forward, theirs.norm2),
            ]  # fmt: skip
            theirs.self_attn.in_proj_weight.copy_(ours.qkv.weight)
            theirs.self_attn.in_proj_bias.copy_(ours.qkv.bias)
            for mine, other in modules:
                other.load_state_dict(mine.state_dict())
    return encoder.eval()


class Case:
    """All layers at one shape: forward, and forward with backward, in numba, through autograd, and in torch."""

    def __init__(self, B: int, T: int, H: int) -> None:
        torch.manual_seed(0)
        self.core, self.theirs = pair(H, T)
        self.encoder, self.mask = encoder_of(self.theirs), nn.Transformer.generate_square_subsequent_mask(T)
        self.x, self.dy = torch.randn(B, T, H).requires_grad_(), torch.randn(B, T, H)
        self.kernels: Stack = self.core._kernels()
        self.layers = self.core._layers()
        arrays = [(kind, Parameters(*(p.detach().numpy() for p in group))) for kind, group in self.layers.sublayers]
        self.sublayers = [Sublayer(kind, p) for kind, p in arrays]
        self.norm: Any = tuple(p.detach().numpy() for p in self.layers.norm)
        rows = 2 * B * T * H * H
        self.feed_forward_flops = 8 * rows
        self.flops = LAYERS * (12 * rows + 2 * B * T * (T + 1) * H)  # of the pairs that a causal mask leaves

    def numba(self, sublayers: list[Sublayer], norm: Any, backward: bool) -> Run:
        x, dy = self.x.detach().numpy(), self.dy.numpy()

        def run() -> Any:
            y, _, tape = self.kernels.forward(x, sublayers, norm, Call(training=backward))
            return self.kernels.backward(tape, dy, [], norm) if backward else y

        return run

    def feed_forward_back(self) -> Run:
        """The backward pass of one feed-forward sublayer alone."""
        _, _, tape = self.kernels.forward(self.x.detach().numpy(), self.sublayers[1:2], None, Call(training=True))
        return lambda: self.kernels.backward(tape, self.dy.numpy(), [], None)

    def ours(self) -> Tensor:
        return run_stack(self.kernels, self.x, self.layers)[0]

    def core_of_torch(self) -> Tensor:
        y: Tensor = self.theirs(self.x)[0]
        return y

    def encoder_of_torch(self) -> Tensor:
        y: Tensor = self.encoder(self.x, mask=self.mask, is_causal=True)
        return y

    def forward(self, run: Callable[[], Tensor]) -> Run:
        def without_gradient() -> Tensor:
            with torch.no_grad():
                return run()

        return without_gradient

    def both(self, run: Callable[[], Tensor], module: nn.Module) -> Run:
        inputs = [self.x, *module.parameters()]
        return lambda: torch.autograd.grad(run(), inputs, self.dy)

    def runs(self) -> dict[str, Run]:
        return {
            "forward": self.numba(self.sublayers, self.norm, False),
            "both": self.numba(self.sublayers, self.norm, True),
            "autograd": self.both(self.ours, self.core),
            "feed-forward": self.numba(self.sublayers[1:2], None, False),
            "feed-forward back": self.feed_forward_back(),
            "core forward": self.forward(self.core_of_torch),
            "core both": self.both(self.core_of_torch, self.theirs),
            "encoder forward": self.forward(self.encoder_of_torch),
            "encoder both": self.both(self.encoder_of_torch, self.encoder),
        }

    def check(self) -> None:
        """All compute the same: otherwise there is nothing to compare."""
        runs = self.runs()
        want = runs["core forward"]()
        for got in (torch.from_numpy(runs["forward"]()), runs["encoder forward"]()):
            assert float((got - want).abs().max()) < 1e-4
        theirs = {"core": runs["core both"](), "encoder": runs["encoder both"]()}
        for gradients in theirs.values():
            assert float((runs["autograd"]()[0] - gradients[0]).abs().max() / gradients[0].abs().max()) < 1e-4
        for got, want in zip(runs["autograd"](), theirs["core"], strict=True):
            assert float((got - want).norm() / want.norm()) < 1e-3


def measure(shape: tuple[int, int, int], rounds: int) -> list[str]:
    case = Case(*shape)
    case.check()
    found = interleaved(case.runs(), rounds if shape[2] < 512 else max(5, rounds // 3))
    times = {name: float(np.median(seconds)) for name, seconds in found.items()}
    best = {
        what: found[min((f"core {what}", f"encoder {what}"), key=lambda name: times[name])]
        for what in ("forward", "both")
    }
    speeds = case.flops / times["forward"] / 1e9, 3 * case.flops / times["both"] / 1e9
    linear = case.feed_forward_flops / np.array([times["feed-forward"], times["feed-forward back"] / 2]) / 1e9
    return [
        ", ".join(map(str, shape)),
        "encoder" if times["encoder forward"] < times["core forward"] else "core",
        shown(best["forward"] / found["forward"]),
        shown(best["both"] / found["both"]),
        shown(best["both"] / found["autograd"]),
        shown(found["autograd"] / found["both"]),
        f"{1e3 * times['both']:.2f}",
        f"{speeds[0]:.0f} / {speeds[1]:.0f}",
        f"{linear[0]:.0f} / {linear[1]:.0f}",
    ]


def steps_of(core: Any, B: int) -> Run:
    """``LENGTH`` steps from an empty cache."""
    x = torch.randn(B, core.spec.width)

    def run() -> None:
        state = core.initial_state(B, LENGTH)
        for _ in range(LENGTH):
            _, state = core.step(x, state)

    return run


def measure_steps(B: int, H: int, rounds: int) -> list[str]:
    ours, theirs = (core.eval() for core in pair(H, LENGTH))
    found = interleaved({"numba": steps_of(ours, B), "torch": steps_of(theirs, B)}, rounds)
    times = {name: float(np.median(seconds)) / LENGTH * 1e6 for name, seconds in found.items()}
    return [f"{B}, {H}", shown(found["torch"] / found["numba"]), f"{times['numba']:.0f}", f"{times['torch']:.0f}"]


HEADER = [
    "B, T, H", "torch's faster forward", "forward", "forward + backward", "the same through autograd",
    "cost of autograd", "numba f+b, ms", "GFLOP/s f / f+b", "feed-forward alone, GFLOP/s f / b",
]  # fmt: skip
STEP_HEADER = ["B, H", "step", "numba, µs", "torch, µs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    rows, steps = [], []
    for shape in SHAPES:
        rows.append(measure(shape, chosen.rounds))
        print(" | ".join(rows[-1]), flush=True)
    for B, H in STEPS:
        steps.append(measure_steps(B, H, chosen.rounds))
        print(" | ".join(steps[-1]), flush=True)
    if chosen.write:
        tables = table(HEADER, rows), table(STEP_HEADER, steps, words=1)
        write_section(chosen.write, "attention", "\n\n".join(tables))


if __name__ == "__main__":
    main()
