"""The fast kernels as compiled for other processors: in a process of its own, since the target is chosen at import."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

CORES = """
import importlib
import sys

import torch
from seqbench.api import CoreSpec
from seqbench.backends.kernels.target import HOST

torch.set_num_threads(1)
model, width = sys.argv[1], int(sys.argv[2])
package = f"seqbench_models.{model}"
card = importlib.import_module(package).card
modules = [importlib.import_module(f"{package}.{name}") for name in ("numba_core", "torch_core")]
cores = [module.Core(CoreSpec(13, width, 2), card.options()).eval() for module in modules]
cores[1].load_state_dict(cores[0].state_dict())
x, found = torch.randn(7, 40, 13, requires_grad=True), []
for core in cores:
    y, _ = core(x)
    y_t, _ = core.step(x[:, 0].detach(), core.initial_state(7, 1))
    found.append([y, y_t, *torch.autograd.grad(y.pow(3).sum(), [x, *core.parameters()])])
worst = max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in zip(*found))
print(HOST.vector_bytes, worst)
"""
STREAM = """
import numpy as np
import torch
from seqbench.api import CoreSpec
from seqbench.backends.kernels.row import rounded, widened
from seqbench.backends.kernels.streaming import Parameters, Stack, Streamer
from seqbench.backends.kernels.target import HOST
from seqbench_models.rnn import card, cell, torch_core

torch.set_num_threads(1)
x, worst = torch.randn(1, 9, 13), 0.0
theirs = torch_core.Core(CoreSpec(13, 21), card.options())
found = [p.detach().numpy() for p in theirs.parameters()]
for narrow in (False, True):
    if narrow:  # the oracle's matrices as bfloat16 holds them
        for p in found[:2]:
            p[...] = widened(rounded(p))
    stack, out = Stack(cell.CELLS["tanh"], (), (Parameters(*found),)), np.empty(21, np.float32)
    step = Streamer(stack, narrow=narrow).step
    for x_t in x[0].numpy():
        step(0, x_t, out)
    worst = max(worst, float(np.abs(out - theirs(x)[0][0, -1].detach().numpy()).max()))
print(HOST.vector_bytes, worst)
"""
SSE2 = "+cmov,+sse,+sse2"
AVX2 = SSE2 + ",+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma"


@pytest.mark.slow
@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="these processors are x86's")
@pytest.mark.parametrize(
    ("name", "features", "size"),
    [("haswell", AVX2, 32), ("x86-64", SSE2, 16)],
    ids=["AVX2", "SSE2, no multiply-add"],
)
@pytest.mark.parametrize(
    ("program", "arguments"),
    [(CORES, ("rnn", "21")), (CORES, ("tcn", "21")), (CORES, ("transformer", "20")), (STREAM, ())],
    ids=["rnn", "tcn", "transformer", "stream"],
)
def test_right_on_other_processors(
    name: str, features: str, size: int, program: str, arguments: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features},
    )
    assert done.returncode == 0, done.stderr
    vector_bytes, worst = done.stdout.split()
    assert int(vector_bytes) == size
    assert float(worst) < 1e-4
