"""A whole training step on numba against torch, one thread, interleaved; writes its table of docs/performance.md.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_training_backends.py [--rounds 15] [--write docs/performance.md]

What ``seqbench run --task char-lm`` does at every step: embedding, core, head, cross-entropy, backward pass, clipping,
AdamW; 32 sequences of 128 characters, networks of about 130,000 parameters from the same seed on both backends. CPU
time of the process, each model in a fresh one; the ratio torch / numba of each round, median [quartiles]: above 1 numba
trains faster. Both have the same loss after the same steps, or nothing is timed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from interleaved import in_fresh_process, interleaved, shown, table, write_section

from seqbench import registry
from seqbench.api import Batch, Form, Tokens
from seqbench.assemble import build, core_spec
from seqbench.budget import Question, solve
from seqbench.losses import cross_entropy
from seqbench.quantities import Budget, Target
from seqbench.spec import Training
from seqbench.train import Problem, Stepper

B, T, V, PARAMETERS = 32, 128, 65, 130_000
FORM = Form(Tokens(V), output=V, head="step", target="class", length=T)
TRAINING = Training(lr=1e-3, batch=B, budget=Budget("steps", 1000))
HEADER = ["model", "width", "torch / numba", "torch, tokens/s", "numba, tokens/s"]


def stepper_of(name: str, backend: str) -> tuple[Stepper, int]:
    card = registry.load().model(name)
    options = card.options()
    layers = card.default_layers(options, T)
    size = solve(Question(card, "torch", FORM, options, layers), Target(PARAMETERS))
    torch.manual_seed(0)
    network = build(card, backend, core_spec(card, FORM, size.width, layers), size.options, FORM)
    return Stepper(Problem(network, FORM, cross_entropy), TRAINING, 1000), size.width


def measure(name: str, rounds: int) -> list[str]:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T)))
    steppers = {backend: stepper_of(name, backend) for backend in ("torch", "numba")}
    losses = {backend: [float(step(k, batch)) for k in range(1, 4)] for backend, (step, _) in steppers.items()}
    np.testing.assert_allclose(losses["numba"], losses["torch"], rtol=1e-3)
    found = interleaved({backend: lambda s=step: s(500, batch) for backend, (step, _) in steppers.items()}, rounds)
    speeds = [f"{B * T / np.median(found[backend]):,.0f}" for backend in steppers]
    return [name, str(steppers["torch"][1]), shown(found["torch"] / found["numba"]), *speeds]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--models", default="rnn,lstm,gru,janet,tcn,transformer")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    rows = []
    for name in chosen.models.split(","):
        rows.append(in_fresh_process(measure, name, chosen.rounds))
        print(" | ".join(rows[-1]), flush=True)
    if chosen.write:
        write_section(chosen.write, "training", table(HEADER, rows, words=1))


if __name__ == "__main__":
    main()
