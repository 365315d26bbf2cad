"""The time loop of JANET and of the GRU with reset before the product, against its alternatives, interleaved.

    python tests/benchmarks/bench_time_loops.py [--rounds 15] [--compile]

Prints, for each shape, the median time of forward + backward on one thread, and its ratio to the hand-written loop in
the same round (above 1: slower than it): median and quartiles over the rounds, which a busy machine moves little.
``--compile`` adds ``torch.compile`` at a small T.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqbench.backends.torch_time_loop import time_loop
from seqbench_models.gru.torch_core import ResetBeforeCell
from seqbench_models.janet.torch_core import Cell as JanetCell

SHAPES = [(32, 70, 80), (32, 128, 128)]


def janet_loop(gx: Tensor, U: Tensor, h: Tensor) -> Tensor:
    """Eager under autograd: one product a step, the rest as the equations read."""
    hs = []
    U_t = U.t()
    for gx_t in gx.unbind(0):
        s, n = torch.addmm(gx_t, h, U_t).chunk(2, 1)
        h = torch.sigmoid(s) * h + torch.sigmoid(1.0 - s) * torch.tanh(n)
        hs.append(h)
    return torch.stack(hs)


def gru_loop(gx: Tensor, U: Tensor, h: Tensor) -> Tensor:
    """Eager under autograd: r and z in one product, n in another."""
    hs = []
    H = h.shape[1]
    U_rz, U_n = U[: 2 * H].t(), U[2 * H :].t()
    for gx_t in gx.unbind(0):
        r, z = torch.sigmoid(torch.addmm(gx_t[:, : 2 * H], h, U_rz)).chunk(2, 1)
        n = torch.tanh(torch.addmm(gx_t[:, 2 * H :], r * h, U_n))
        h = n + z * (h - n)
        hs.append(h)
    return torch.stack(hs)


def candidates(name: str) -> dict[str, Callable[..., Tensor]]:
    """The ways to run one model's loop."""
    cell: Any = {"janet": JanetCell(1.0), "gru-before": ResetBeforeCell()}[name]
    loop = {"janet": janet_loop, "gru-before": gru_loop}[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        scripted = torch.jit.script(loop)
    for kind in sorted({w.category.__name__ for w in caught}):
        print(f"  torch.jit.script gives a {kind}")
    return {"hand-written": lambda *a: time_loop(cell, *a), "eager": loop, "jit.script": scripted}


def measure(run: Callable[..., Tensor], arguments: tuple[Tensor, ...], dy: Tensor) -> float:
    """Seconds of one forward and backward."""
    start = time.perf_counter()
    torch.autograd.grad(run(*arguments), arguments, dy)
    return time.perf_counter() - start


def inputs(B: int, T: int, H: int, gates: int) -> tuple[tuple[Tensor, ...], Tensor]:
    """``(gx, U, h0)`` and the gradient of the output."""
    torch.manual_seed(0)
    shapes = ((T, B, gates * H), (gates * H, H), (B, H))
    scale = 0.3 / H**0.5  # gradients neither vanish nor explode
    return tuple((scale * torch.randn(s)).requires_grad_() for s in shapes), torch.randn(T, B, H)


def check_equal(runs: dict[str, Callable[..., Tensor]], arguments: tuple[Tensor, ...], dy: Tensor) -> None:
    """All candidates compute the same, gradients included: otherwise there is nothing to compare."""
    first, *others = ((y := run(*arguments), *torch.autograd.grad(y, arguments, dy)) for run in runs.values())
    for other in others:
        for a, b in zip(first, other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4 * float(b.detach().abs().max()), rtol=0)


def compare(name: str, B: int, T: int, H: int, rounds: int) -> None:
    """One row of the table for each candidate."""
    arguments, dy = inputs(B, T, H, {"janet": 2, "gru-before": 3}[name])
    runs = candidates(name)
    for _ in range(4):  # torch.jit.script specialises in its first calls
        check_equal(runs, arguments, dy)
    times: dict[str, list[float]] = {key: [] for key in runs}
    order = list(runs)
    for number in range(rounds):
        for key in order[number % len(order) :] + order[: number % len(order)]:
            times[key].append(measure(runs[key], arguments, dy))
    base = times["hand-written"]
    for key, samples in times.items():
        q1, ratio, q3 = statistics.quantiles([s / b for s, b in zip(samples, base, strict=True)], n=4)
        median = statistics.median(samples)
        print(f"  {name:10} B,T,H={B},{T},{H}: {key:12} {1e3 * median:7.2f} ms  x {ratio:.2f}  [{q1:.2f}, {q3:.2f}]")


def compare_compiled(name: str, rounds: int) -> None:
    """``torch.compile`` at a small T: it unrolls the loop, so that its time to compile grows with T."""
    B, T, H = 32, 16, 80
    arguments, dy = inputs(B, T, H, {"janet": 2, "gru-before": 3}[name])
    runs = candidates(name)
    runs["compiled"] = torch.compile({"janet": janet_loop, "gru-before": gru_loop}[name])
    seconds = measure(runs["compiled"], arguments, dy)
    print(f"  {name:10} B,T,H={B},{T},{H}: torch.compile took {seconds:.1f} s for the first call")
    check_equal(runs, arguments, dy)
    for key in ("hand-written", "compiled"):
        samples = [measure(runs[key], arguments, dy) for _ in range(rounds)]
        print(f"  {name:10} B,T,H={B},{T},{H}: {key:12} {1e3 * statistics.median(samples):7.2f} ms")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="add torch.compile at T = 16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread, float32, forward + backward, {arguments.rounds} interleaved rounds")
    for name in ("janet", "gru-before"):
        for B, T, H in SHAPES:
            compare(name, B, T, H, arguments.rounds)
        if arguments.compile:
            compare_compiled(name, arguments.rounds)


if __name__ == "__main__":
    main()
