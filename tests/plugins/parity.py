"""A task in one file: is the number of ones so far odd?  ``0 1 1 0 1 -> 0 1 0 0 1``."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from seqbench.api import Batch, Dataset, Defaults, Form, Metric, Reference, Task, TaskCard, Tokens, hookimpl, option


@dataclass(frozen=True)
class Options:
    length: int = option(12, "steps of a sequence", low=1, high=1000)


class Parity(Task):
    def __init__(self, options):
        self.length = options.length

    def prepare(self, dataset, files):
        return Form(Tokens(2), output=2, head="step", target="class", length=self.length)

    def batches(self, split, size, rng):
        rng = rng if split == "train" else np.random.default_rng({"valid": 1, "test": 2}[split])
        left = math.inf if split == "train" else 4
        while left > 0:
            x = rng.integers(0, 2, (size, self.length))
            yield Batch(x, x.cumsum(1) % 2)
            left -= 1

    def evaluate(self, predict, split):
        said = [(predict(batch), batch) for batch in self.batches(split, 50, np.random.default_rng(0))]
        right = [(prediction.outputs.argmax(-1) == batch.target).mean() for prediction, batch in said]
        nats = sum(prediction.loss for prediction, _ in said) / sum(prediction.weight for prediction, _ in said)
        return {"accuracy": 100 * float(np.mean(right)), "nats": nats}

    def references(self):
        return [Reference("trivial", "a guess", {"accuracy": 50.0, "nats": math.log(2)})]


@hookimpl
def register_tasks(register):
    metrics = (Metric("accuracy", "share of right answers", "%", False), Metric("nats", "cross-entropy", "nats"))
    embedded = Dataset("embedded", "endless training data, 200 fixed sequences each for valid and test")
    small = Defaults(parameters=2000, steps=20, batch=8)
    name, factory = "parity", f"{__name__}:Parity"
    register.task(TaskCard(name, "Parity.", factory, metrics, (embedded,), "nats", Options, small))
