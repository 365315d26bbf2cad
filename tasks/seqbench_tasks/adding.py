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
from seqbench_tasks.memory import PROBED, at_lengths, fewer, gradient_by_lag, other_lengths, slices
from seqbench_tasks.randomness import below, fixed, unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seqbench_tasks.cards.adding import AddingOptions

HELD_OUT = 1000
"""Sequences in valid, and in test."""
SEEDS = {"valid": (97, 1), "test": (97, 2)}
OTHER_LENGTHS = (97, 3)
"""With the length behind it, the seed of the sequences of that length."""
AT_EACH_LENGTH = 500
"""Of those sequences."""
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


def squared_errors(predict: Predictor, x: np.ndarray, target: np.ndarray, size: int = EVALUATION_BATCH) -> np.ndarray:
    """Of the answer to each sequence, ``size`` of them at a time: float64 ``(B,)``."""
    parts = slices(len(x), size)
    errors = [predict(Batch(x[part], target[part])).outputs.astype(np.float64) - target[part] for part in parts]
    return np.asarray(np.concatenate(errors)[:, 0] ** 2)


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
        return {"mse": float(squared_errors(predict, *self._held_out[split]).mean())}

    def references(self) -> list[Reference]:
        """Always answering 1, and perfection."""
        here = float(((self._held_out["test"][1] - 1.0) ** 2).mean())
        trivial = f"always answering 1, the mean of the sum: MSE 1/6 ({here:.4f} on these {HELD_OUT} test sequences)"
        return [
            Reference("trivial", trivial, {"mse": 1 / 6}),
            Reference("optimum", "every sum right", {"mse": 0.0}),
        ]

    def probe(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``gradient``: of the loss of the answer, by lag."""
        return {"gradient": gradient_by_lag(predict, Batch(*sequences(rng, PROBED, self.T)))}

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Squared errors on the test set by how long the first number had to be kept, and by length.

        ``lag`` int64 and ``error`` float32 ``(1000,)``: steps from the first mark to the end, and the squared error.
        ``lengths`` int64 ``(n,)`` and ``mse`` ``(n,)``: of other lengths; nan where the model cannot read so far.
        """
        x, target = self._held_out["test"]
        lengths = other_lengths(self.T, shortest=2)
        return {
            "lag": self.T - 1 - x[:, :, 1].argmax(1),
            "error": squared_errors(predict, x, target).astype(np.float32),
            "lengths": lengths,
            "mse": at_lengths(lengths, lambda T: self._mse(predict, T))[:, 0],
        }

    def _mse(self, predict: Predictor, T: int) -> np.ndarray:
        x, target = sequences(fixed(*OTHER_LENGTHS, T), AT_EACH_LENGTH, T)
        found = squared_errors(predict, x, target, fewer(EVALUATION_BATCH, self.T, T))
        return np.asarray(found.mean(keepdims=True))
