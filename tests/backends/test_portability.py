"""The fast kernels as compiled for other processors: in a process of its own, since the target is chosen at import."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys

import torch
from seqbench.api import CoreSpec
from seqbench.backends.kernels.target import HOST

model, width = sys.argv[1], int(sys.argv[2])
if model == "rnn":
    from seqbench_models.rnn import card, numba_core, torch_core
else:
    from seqbench_models.transformer import card, numba_core, torch_core

torch.set_num_threads(1)
spec, options = CoreSpec(13, width), card.options()
ours, theirs = numba_core.Core(spec, options), torch_core.Core(spec, options)
theirs.load_state_dict(ours.state_dict())
x = torch.randn(7, 40, 13, requires_grad=True)
for core in (ours, theirs):
    y, _ = core(x)
    core.found = [y, *torch.autograd.grad(y.pow(3).sum(), [x, *core.parameters()])]
worst = max(float(((a - b).abs().max() / b.abs().max()).detach()) for a, b in zip(ours.found, theirs.found))
if model == "transformer":
    steps = [core.step(x[:, 0].detach(), core.initial_state(7, 1))[0] for core in (ours, theirs)]
    worst = max(worst, float((steps[0] - steps[1]).abs().max()))
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
@pytest.mark.parametrize(("model", "width"), [("rnn", 21), ("transformer", 20)])
def test_right_on_other_processors(name: str, features: str, size: int, model: str, width: int) -> None:
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, model, str(width)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    vector_bytes, worst = done.stdout.split()
    assert int(vector_bytes) == size
    assert float(worst) < 1e-4
