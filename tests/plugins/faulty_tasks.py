"""A task that works but for one planted fault; used by tests/test_run.py."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seqbench.api import Batch, Dataset, Form, Metric, Task, TaskCard, Vectors, hookimpl, option

FAULTS = ("none", "prepare", "probe", "diagnose", "score", "metric", "references")


@dataclass(frozen=True)
class Options:
    """Where it fails."""

    fault: str = option("none", "what goes wrong", choices=FAULTS)


class Last(Task):
    """Repeat the last number."""

    def __init__(self, options: Options) -> None:
        self.fault = options.fault

    def prepare(self, dataset, files):
        if self.fault == "prepare":
            raise ValueError("a planted fault")
        return Form(Vectors(1), output=1, head="pooled", target="value", length=4)

    def batches(self, split, size, rng):
        while True:
            x = rng.normal(size=(size, 4, 1)).astype(np.float32)
            yield Batch(x, x[:, -1])
            if split != "train":
                return

    def evaluate(self, predict, split):
        done = predict(next(self.batches(split, 8, np.random.default_rng(0))))
        if self.fault == "metric":
            return {"other": 1.0}
        return {"mse": math.nan if self.fault == "score" and split == "test" else done.loss / done.weight}

    def references(self):
        if self.fault == "references":
            raise ValueError("a planted fault")
        return []

    def probe(self, predict, rng):
        if self.fault == "probe":
            raise ValueError("a planted fault")
        return {"draw": rng.normal(size=3), "weights": predict.input_gradient(next(self.batches("valid", 2, rng)))}

    def diagnose(self, predict, rng):
        if self.fault == "diagnose":
            raise ValueError("a planted fault")
        return {}


@hookimpl
def register_tasks(register) -> None:
    register.task(
        TaskCard(
            name="last",
            summary="Repeat the last number.",
            factory=f"{__name__}:Last",
            metrics=(Metric("mse", "mean squared error"),),
            datasets=(Dataset("made", "from a seed"),),
            select="mse",
            options=Options,
        )
    )
