"""A stand-in for a trained network: any function from a batch to outputs, under a cross-entropy in plain numpy."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from seqbench.api import Batch, Prediction, Refused


def cross_entropy(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """``-ln softmax(logits)[target]`` in float64: ``(..., V)`` and ``(...)`` to ``(...)``."""
    logits = logits.astype(np.float64)
    top = logits.max(-1, keepdims=True)
    log_total = np.log(np.exp(logits - top).sum(-1)) + top[..., 0]
    return log_total - np.take_along_axis(logits, target[..., None], -1)[..., 0]


def weights(batch: Batch) -> np.ndarray:
    """The weight of each target, as ``api.Batch`` defines it."""
    if batch.weight is not None:
        return batch.weight
    if batch.target.ndim == 1:  # one answer a sequence
        return np.ones(len(batch.target), dtype=np.float32)
    if batch.lengths is None:
        return np.ones(batch.target.shape[:2], dtype=np.float32)
    return (np.arange(batch.target.shape[1]) < batch.lengths[:, None]).astype(np.float32)


class FakePredictor:
    """An ``api.Predictor`` for tasks with target ``class``; keeps every batch that it was asked about."""

    def __init__(self, outputs: Callable[[Batch], np.ndarray], *, can_step: bool = True, refuses: str = "") -> None:
        self.outputs, self.can_step, self.refuses = outputs, can_step, refuses
        self.seen: list[Batch] = []
        self.streamed: list[Batch] = []

    def __call__(self, batch: Batch) -> Prediction:
        self.seen.append(batch)
        return self.predict(batch)

    def predict(self, batch: Batch) -> Prediction:
        outputs, weight = self.outputs(batch), weights(batch)
        loss = float((cross_entropy(outputs, batch.target) * weight).sum())
        return Prediction(outputs, loss, float(weight.sum(dtype=np.float64)))

    def stream(self, batches: Iterable[Batch]) -> Iterator[Prediction]:
        if self.refuses:
            raise Refused(self.refuses)
        for batch in batches:
            self.streamed.append(batch)
            yield self.predict(batch)

    def generate(self, prompt: np.ndarray, steps: int, rng: np.random.Generator, temperature: float) -> np.ndarray:
        if self.refuses:
            raise Refused(self.refuses)
        return np.resize(prompt, (len(prompt), steps))  # the prompt, over and over


class NoFiles:
    """The ``api.DataFiles`` of an embedded dataset, without a cache."""

    def path(self, name: str):
        raise AssertionError(f"an embedded dataset asked for {name}")

    def derived(self, name, parts, make):
        assert all(isinstance(part, bytes) for part in parts)
        return dict(make())


@pytest.fixture(scope="session")
def fake() -> type[FakePredictor]:
    return FakePredictor


@pytest.fixture(scope="session")
def no_files() -> NoFiles:
    return NoFiles()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real data sets."""
    folder = os.environ.get("SEQBENCH_DATA")
    if not folder:
        pytest.skip("SEQBENCH_DATA names no folder of real data sets")
    return Path(folder)
