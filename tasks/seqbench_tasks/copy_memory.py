"""Copy memory: ten symbols, a long delay, a signal to speak; then the ten symbols, in order.

The form of Arjovsky, Shah and Bengio (2016), section 5.1, drawn for a delay of T = 5 (T + 20 = 25 positions;
``.`` is the blank, class 0, and ``9`` the delimiter)::

    position   0         1         2
               0123456789012345678901234
    input      3185271144....9..........
               |---10---||T-1| |---10---|
    target     ...............3185271144
               |----T+10-----||---10---|

The symbols are uniform over 1..8, so there are ten classes. The input at the last ten positions is blank: what to
say there, and that it is time to speak, must both be remembered. (Bai et al. 2018 fill those positions with the
delimiter instead; the two forms have the same trivial loss.)

The loss is the cross-entropy averaged over all T + 20 positions. Ignoring the symbols, blank for T + 10 positions and
uniform over 1..8 for the last ten, costs ``10 ln 8 / (T + 20)``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Batch, DataFiles, Form, Predictor, Reference, Task, Tokens
from seqbench_tasks.memory import PROBED, at_lengths, fewer, gradient_by_lag, other_lengths, slices
from seqbench_tasks.randomness import below, fixed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seqbench_tasks.cards.copy_memory import CopyOptions

SYMBOLS = 10
"""How many symbols are to be remembered."""
BLANK, DELIMITER, CLASSES = 0, 9, 10
HELD_OUT = 1000
"""Sequences in valid, and in test."""
SEEDS = {"valid": (20, 1), "test": (20, 2)}
OTHER_DELAYS = (20, 3)
"""With the delay behind it, the seed of the sequences that are read at that delay."""
AT_EACH_DELAY = 200
"""Of those sequences."""
EVALUATION_BATCH = 100


def sequences(rng: np.random.Generator, B: int, T: int) -> tuple[np.ndarray, np.ndarray]:
    """``B`` inputs and targets, both int64 ``(B, T + 20)``."""
    symbols = 1 + below(rng, 8, (B, SYMBOLS))
    x = np.full((B, T + 2 * SYMBOLS), BLANK, dtype=np.int64)
    target = x.copy()
    x[:, :SYMBOLS] = symbols
    x[:, SYMBOLS + T - 1] = DELIMITER
    target[:, -SYMBOLS:] = symbols
    return x, target


def recalled(outputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Which of the last ten symbols ``outputs (B, T + 20, 10)`` get right: bool ``(B, 10)``."""
    return np.asarray(outputs[:, -SYMBOLS:].argmax(-1) == target[:, -SYMBOLS:])


class CopyMemory(Task):
    """The copy-memory task (see the module)."""

    def __init__(self, options: CopyOptions) -> None:
        self.T = options.T

    def prepare(self, dataset: str, files: DataFiles) -> Form:  # noqa: ARG002 - made from seeds: nothing to load
        """Make the two fixed sets, the same for everyone."""
        self._held_out = {split: sequences(fixed(*seed), HELD_OUT, self.T) for split, seed in SEEDS.items()}
        length = self.T + 2 * SYMBOLS
        return Form(Tokens(CLASSES), output=CLASSES, head="step", target="class", length=length, causal=True)

    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless fresh sequences for ``train``; one pass over the fixed set for ``valid`` and ``test``."""
        while split == "train":
            yield Batch(*sequences(rng, size, self.T))
        x, target = self._held_out[split]
        for start in range(0, HELD_OUT, size):
            yield Batch(x[start : start + size], target[start : start + size])

    def evaluate(self, predict: Predictor, split: str) -> dict[str, float]:
        """``recall``: by the likeliest of the ten classes at the last ten positions; ``loss``."""
        right, symbols, loss, weight = 0, 0, 0.0, 0.0
        for batch in self.batches(split, EVALUATION_BATCH, fixed(0)):
            said = predict(batch)
            hits = recalled(said.outputs, batch.target)
            right, symbols = right + int(hits.sum()), symbols + hits.size
            loss, weight = loss + said.loss, weight + said.weight
        return {"recall": 100.0 * right / symbols, "loss": loss / weight}

    def references(self) -> list[Reference]:
        """Ignoring the symbols, and perfection."""
        trivial = SYMBOLS * math.log(8) / (self.T + 2 * SYMBOLS)
        return [
            Reference("trivial", "blanks, then a guess among the eight symbols", {"recall": 12.5, "loss": trivial}),
            Reference("optimum", "every symbol remembered", {"recall": 100.0, "loss": 0.0}),
        ]

    def probe(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """``gradient``: of the loss of the last symbol alone, by lag; it was shown ``T + 10`` steps before."""
        x, target = sequences(rng, PROBED, self.T)
        last = np.zeros(target.shape, dtype=np.float32)
        last[:, -1] = 1.0
        return {"gradient": gradient_by_lag(predict, Batch(x, target, weight=last))}

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """``delays`` int64 ``(n,)`` and ``recall`` in per cent ``(n, 10)``, by the place of the symbol among the ten.

        The sequences are the same for every model and seed; nan where the model cannot read so long a one.
        """
        delays = other_lengths(self.T)
        return {"delays": delays, "recall": at_lengths(delays, lambda T: self._recall(predict, T), SYMBOLS)}

    def _recall(self, predict: Predictor, T: int) -> np.ndarray:
        """Per cent at each of the ten places ``(10,)``."""
        x, target = sequences(fixed(*OTHER_DELAYS, T), AT_EACH_DELAY, T)
        parts = slices(AT_EACH_DELAY, fewer(EVALUATION_BATCH, self.T, T))
        hits = [recalled(predict(Batch(x[part], target[part])).outputs, target[part]) for part in parts]
        return np.asarray(100.0 * np.concatenate(hits).mean(0))
