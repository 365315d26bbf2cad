"""What the harness costs: our training step against a minimal loop written by hand with the same modules.

Run alone on the machine: ``tox -e bench`` or ``pytest tests/benchmarks/bench_training_step.py``. Each round times the
hand-written step, then ours, on the same batch; the ratio of each round is kept, so that load on the machine falls on
both. ``ratio`` above 1 means that ours is faster. Nothing is asserted about time.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from seqbench import registry
from seqbench.api import Batch, CoreSpec, Form, Tokens
from seqbench.assemble import build
from seqbench.losses import cross_entropy
from seqbench.quantities import Budget
from seqbench.spec import Training
from seqbench.train import Problem, Stepper

ROUNDS = 100
B, T, V = 32, 70, 10
WIDTH = {"rnn": 153, "lstm": 77, "gru": 89, "janet": 109, "tcn": 40, "transformer": 44}
FORM = Form(Tokens(V), output=V, head="step", target="class", length=T)
TRAINING = Training(lr=1e-3, batch=B, budget=Budget("steps", 1000))
CARDS = registry.load().models


def network_of(name: str) -> Any:
    torch.manual_seed(0)
    card = CARDS[name]
    options = card.options()
    layers = card.default_layers(options, T)
    spec = CoreSpec(WIDTH[name], WIDTH[name], layers, train_length=T)
    return build(card, "torch", spec, options, FORM)


def by_hand(network: Any) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """The loop that a careful user would write: embedding, core, head, cross-entropy, clipping, AdamW."""
    parameters = list(network.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, fused=True)

    def step(x: torch.Tensor, target: torch.Tensor) -> None:
        logits = network.head(network.core(network.input(x))[0])
        loss = functional.cross_entropy(logits.flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()

    return step


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", WIDTH)
def test_training_step(name: str, benchmark: Any) -> None:
    rng = np.random.default_rng(0)
    batch = Batch(rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T)))
    x, target = torch.from_numpy(batch.x), torch.from_numpy(batch.target)
    hand, ours = by_hand(network_of(name)), Stepper(Problem(network_of(name), FORM, cross_entropy), TRAINING, 1000)
    for step in range(1, 6):
        hand(x, target)
        ours(step, batch)
    hand_seconds: list[float] = []

    def before_each_round() -> None:
        start = time.perf_counter()
        hand(x, target)
        hand_seconds.append(time.perf_counter() - start)

    benchmark.pedantic(lambda: ours(500, batch), setup=before_each_round, rounds=ROUNDS, iterations=1)
    if benchmark.disabled:
        return
    ratios = [h / o for h, o in zip(hand_seconds, benchmark.stats.stats.data, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    benchmark.extra_info["ratio"] = {"median": middle, "quartiles": [low, high]}
    _report(name, {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}, hand_seconds)


def _report(name: str, ratio: dict, hand_seconds: list[float]) -> None:
    print(f"\n{name}: ours runs at {ratio['median']} of the hand-written speed, quartiles {ratio['quartiles']}")
    folder = os.environ.get("SEQBENCH_BENCH_OUT")
    if folder:
        row = {"model": name, "hand_ms": round(1e3 * statistics.median(hand_seconds), 2), **ratio}
        with (Path(folder) / "training_step.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
