"""Multi-query associative recall: pairs of key and value, then each key once more, at an unforeseen place.

Two pairs in a sequence of length 16, with keys 0..4 and values 5..9 (``.`` is any of the ten tokens)::

    position   0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15
    input      2  8  4  7  .  .  4  .  .  .  .  .  2  .  .  .
    target                       7                 8
               |-- pairs --| |--- queries at even places ---|

The form of Arora et al. (2023), section 4 and appendix, and of their code. The keys of a sequence all differ, and so
do its values. The ``n`` queries take ``n`` of the even places behind the pairs, drawn without replacement, place
``k = 1, 2, ...`` with a weight of ``k ** (power - 1)``: soon as a rule, as words come back in a text, and sooner for
the first pairs than for the last. All other places hold tokens drawn from the whole vocabulary, keys too, which nobody
asks for. Only queries count in the loss. (What differs from their code: they have a token 0 that is no key, and a fixed
training set.)

The answer follows from what has been read, so the optimum is 100 %. A guess among all values is right in ``2 /
vocabulary`` of the queries and costs ``ln(vocabulary / 2)``; a guess among those that the sequence has shown, in ``1 /
pairs`` and ``ln pairs``. So a loss of ``ln pairs`` means that the values are remembered, and not whose they are.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seqbench.api import Batch, DataFiles, Form, Predictor, Reference, Task, Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seqbench_mqar import Options

HELD_OUT = 1000
"""Sequences in valid, and in test."""
SEEDS = {"valid": (4927, 1), "test": (4927, 2)}
EVALUATION_BATCH = 100


class Sequences(NamedTuple):
    """``B`` sequences of ``T`` steps with ``n`` queries each.

    Attributes:
        x: the tokens, int64 ``(B, T)``.
        at: where each key is asked for, in order of the pairs, int64 ``(B, n)``.
        values: what the answers are, int64 ``(B, n)``.
    """

    x: np.ndarray
    at: np.ndarray
    values: np.ndarray

    def batch(self) -> Batch:
        """As the harness reads it: weight 1 at the queries, 0 elsewhere."""
        target = np.zeros_like(self.x)
        weight = np.zeros(self.x.shape, dtype=np.float32)
        np.put_along_axis(target, self.at, self.values, axis=1)
        np.put_along_axis(weight, self.at, 1.0, axis=1)
        return Batch(self.x, target, weight=weight)

    def part(self, start: int, size: int) -> Sequences:
        """``size`` of them, fewer at the end."""
        return Sequences(*(one[start : start + size] for one in self))

    def distances(self) -> np.ndarray:
        """Steps from each key to its query, int64 ``(B, n)``."""
        return self.at - 2 * np.arange(self.at.shape[1])


def draw(rng: np.random.Generator, weights: np.ndarray, B: int, n: int) -> np.ndarray:
    """``n`` different numbers below ``len(weights)``, one after another by weight among those left: int64 ``(B, n)``.

    Each number arrives after a time of its own, exponential with its weight as the rate; the first ``n`` are taken.
    """
    arrivals = rng.standard_exponential((B, len(weights))) / weights
    return np.argsort(arrivals, axis=1)[:, :n]


def sequences(rng: np.random.Generator, B: int, options: Options) -> Sequences:
    """``B`` sequences."""
    n, half = options.pairs, options.vocabulary // 2
    places = (options.length - 2 * n) // 2
    x = rng.integers(options.vocabulary, size=(B, options.length))
    keys = draw(rng, np.ones(half), B, n)
    values = half + draw(rng, np.ones(half), B, n)
    at = 2 * n + 2 * draw(rng, np.arange(1, places + 1) ** (options.power - 1), B, n)
    x[:, 0 : 2 * n : 2], x[:, 1 : 2 * n : 2] = keys, values
    np.put_along_axis(x, at, keys, axis=1)
    return Sequences(x, at, values)


class Recall(Task):
    """Multi-query associative recall (see the module)."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, dataset: str, files: DataFiles) -> Form:  # noqa: ARG002 - made from seeds: nothing to load
        """Make the two fixed sets, the same for everyone."""
        made = {split: np.random.Generator(np.random.PCG64(seed)) for split, seed in SEEDS.items()}
        self._held_out = {split: sequences(rng, HELD_OUT, self.options) for split, rng in made.items()}
        V = self.options.vocabulary
        return Form(Tokens(V), output=V, head="step", target="class", length=self.options.length, causal=True)

    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless fresh sequences for ``train``; one pass over the fixed set for ``valid`` and ``test``."""
        while split == "train":
            yield sequences(rng, size, self.options).batch()
        for start in range(0, HELD_OUT, size):
            yield self._held_out[split].part(start, size).batch()

    def evaluate(self, predict: Predictor, split: str) -> dict[str, float]:
        """``recall``, by the likeliest of all tokens at each query; ``loss``."""
        hits, loss = self._answers(predict, split)
        return {"recall": 100.0 * float(hits.mean()), "loss": loss}

    def references(self) -> list[Reference]:
        """Guessing without the pairs, guessing without knowing whose the values are, and perfection."""
        values, n = self.options.vocabulary // 2, self.options.pairs
        return [
            Reference(
                "trivial", f"a guess among all {values} values", {"recall": 100 / values, "loss": math.log(values)}
            ),
            Reference(
                "unbound",
                f"a guess among the {n} values of the sequence, without knowing whose they are",
                {"recall": 100 / n, "loss": math.log(n)},
            ),
            Reference("optimum", "every value found", {"recall": 100.0, "loss": 0.0}),
        ]

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Of the test set, the same for every model: ``distance`` int64 and ``right`` bool, both ``(1000, pairs)``."""
        hits, _ = self._answers(predict, "test")
        return {"distance": self._held_out["test"].distances(), "right": hits}

    def _answers(self, predict: Predictor, split: str) -> tuple[np.ndarray, float]:
        """Which queries are answered rightly, bool ``(1000, pairs)``, and the mean loss."""
        hits, loss, weight = [], 0.0, 0.0
        for start in range(0, HELD_OUT, EVALUATION_BATCH):
            part = self._held_out[split].part(start, EVALUATION_BATCH)
            said = predict(part.batch())
            answers = np.take_along_axis(said.outputs.argmax(-1), part.at, axis=1)  # (B, n)
            hits.append(answers == part.values)
            loss, weight = loss + said.loss, weight + said.weight
        return np.concatenate(hits), loss / weight
