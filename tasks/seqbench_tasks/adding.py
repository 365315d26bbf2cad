"""The adding problem: sum two marked numbers out of T.

Each position holds a number, uniform in [0, 1), and a mark; one mark lies in each half::

    T = 8      numbers  .64 .27 .91 .05 .33 .78 .12 .50
               marks     0   1   0   0   0   0   1   0
    target     .27 + .12 = .39

The first mark is uniform over positions 0 .. T//2 - 1, the second over T//2 .. T - 1 (Le, Jaitly and Hinton 2015).
The loss is the squared error of the sum. Always answering 1, the mean, has the error Var(u1 + u2) = 2/12 = **1/6 =
0.1667** (the figure 0.1767 that is often repeated is a slip); the optimum is 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Batch, DataFiles, Form, Predictor, Reference, Task, Vectors
from seqbench_tasks.randomness import below, fixed, unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seqbench_tasks.cards.adding import AddingOptions

HELD_OUT = 1000
"""Sequences in valid, and in test."""
SEEDS = {"valid": (97, 1), "test": (97, 2)}
EVALUATION_BATCH = 100


def sequences(rng: np.random.Generator, B: int, T: int) -> tuple[np.ndarray, np.ndarray]:
    """``B`` inputs, float32 ``(B, T, 2)`` of (number, mark), and their sums, float32 ``(B, 1)``."""
    numbers = unit(rng, (B, T))
    half, rows = T // 2, np.arange(B)
    first, second = below(rng, half, (B,)), half + below(rng, T - half, (B,))
    x = np.zeros((B, T, 2), dtype=np.float32)
    x[:, :, 0] = numbers
    x[rows, first, 1] = x[rows, second, 1] = 1.0
    return x, (numbers[rows, first] + numbers[rows, second])[:, None]


class Adding(Task):
    """The adding problem (see the module)."""

    def __init__(self, options: AddingOptions) -> None:
        self.T = options.T

    def prepare(self, dataset: str, files: DataFiles) -> Form:  # noqa: ARG002 - made from seeds: nothing to load
        """Make the two fixed sets, the same for everyone.

        One answer a sequence would allow a core that reads in both directions; the problem is about memory, and
        the literature runs it forwards only.
        """
        self._held_out = {split: sequences(fixed(*seed), HELD_OUT, self.T) for split, seed in SEEDS.items()}
        return Form(Vectors(2), output=1, head="pooled", target="value", length=self.T, causal=True)

    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless fresh sequences for ``train``; one pass over the fixed set for ``valid`` and ``test``."""
        while split == "train":
            yield Batch(*sequences(rng, size, self.T))
        x, target = self._held_out[split]
        for start in range(0, HELD_OUT, size):
            yield Batch(x[start : start + size], target[start : start + size])

    def evaluate(self, predict: Predictor, split: str) -> dict[str, float]:
        """``mse``, in float64 from the answers themselves."""
        total = 0.0
        for batch in self.batches(split, EVALUATION_BATCH, fixed(0)):
            error = predict(batch).outputs.astype(np.float64) - batch.target  # (B, 1)
            total += float((error**2).sum())
        return {"mse": total / HELD_OUT}

    def references(self) -> list[Reference]:
        """Always answering 1, and perfection."""
        here = float(((self._held_out["test"][1] - 1.0) ** 2).mean())
        trivial = f"always answering 1, the mean of the sum: MSE 1/6 ({here:.4f} on these {HELD_OUT} test sequences)"
        return [
            Reference("trivial", trivial, {"mse": 1 / 6}),
            Reference("optimum", "every sum right", {"mse": 0.0}),
        ]
