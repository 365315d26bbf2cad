"""The fast kernels as compiled for other processors: in a process of its own, since the target is chosen at import."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from seqbench.api import CoreSpec
from seqbench.backends.kernels.target import HOST
from seqbench_models import rnn, tcn
from seqbench_models.rnn import numba_core as numba_rnn, torch_core as torch_rnn
from seqbench_models.tcn import numba_core as numba_tcn, torch_core as torch_tcn

torch.set_num_threads(1)
x, worst = torch.randn(7, 9, 13, requires_grad=True), 0.0
for card, ours, theirs in ((rnn.card, numba_rnn, torch_rnn), (tcn.card, numba_tcn, torch_tcn)):
    cores = [module.Core(CoreSpec(13, 21, 2), card.options()).eval() for module in (ours, theirs)]
    cores[1].load_state_dict(cores[0].state_dict())
    found = []
    for core in cores:
        y, _ = core(x)
        y_t, _ = core.step(x[:, 0], core.initial_state(7, 1))
        found.append([y, y_t, *torch.autograd.grad(y.pow(2).sum(), [x, *core.parameters()])])
    worst = max(worst, *(float((a - b).detach().abs().max()) for a, b in zip(*found)))

import numpy as np
from seqbench.backends.kernels.recurrent import Parameters
from seqbench.backends.kernels.row import rounded, widened
from seqbench.backends.kernels.streaming import Stack, Streamer

theirs = torch_rnn.Core(CoreSpec(13, 21), rnn.card.options())
found = [p.detach().numpy() for p in theirs.parameters()]
for narrow in (False, True):
    if narrow:  # the oracle's matrices as bfloat16 holds them
        for p in found[:2]:
            p[...] = widened(rounded(p))
    stack, out = Stack(numba_rnn.CELLS["tanh"], (), (Parameters(*found),)), np.empty(21, np.float32)
    step = Streamer(stack, narrow=narrow).step
    for x_t in x[0].detach().numpy():
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
def test_right_on_other_processors(name: str, features: str, size: int) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr
    vector_bytes, worst = done.stdout.split()
    assert int(vector_bytes) == size
    assert float(worst) < 1e-4
