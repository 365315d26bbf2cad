"""The paired bootstrap of corpus BLEU (Koehn 2004): is one output better than another on the same test set?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seqbench_tasks.randomness import below, fixed

SAMPLES = 1000
SEED = 12345


@dataclass(frozen=True)
class Difference:
    """BLEU of one system minus that of another.

    Attributes:
        value: on the test set.
        low: of the 95 % interval over resampled test sets.
        high: of the same.
        p: share of resampled differences, centred at 0, that are at least as large as ``value`` in size.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def decided(self) -> bool:
        """The interval leaves out 0."""
        return self.low > 0 or self.high < 0


def counts(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """What BLEU adds up over sentences: n-grams matched (4), n-grams (4), tokens, reference tokens: ``(n, 10)``."""
    from sacrebleu.metrics.bleu import BLEU

    rows = []
    for hypothesis, reference in zip(hypotheses, references, strict=True):
        found = BLEU().corpus_score([hypothesis], [[reference]])
        rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
    return np.array(rows, dtype=np.int64).reshape(-1, 10)


def bleu_of(total: np.ndarray) -> float:
    """BLEU from counts added up, ``(10,)``."""
    from sacrebleu.metrics.bleu import BLEU

    *numbers, system, reference = map(int, total)
    return float(BLEU.compute_bleu(numbers[:4], numbers[4:], system, reference).score)


def compare(first: np.ndarray, second: np.ndarray) -> Difference:
    """BLEU of the first system minus that of the second, from their counts on the same sentences."""
    n = len(first)
    value = bleu_of(first.sum(0)) - bleu_of(second.sum(0))
    draws = below(fixed(SEED), n, (SAMPLES, n))
    found = np.array([bleu_of(first[rows].sum(0)) - bleu_of(second[rows].sum(0)) for rows in draws])
    low, high = np.percentile(found, [2.5, 97.5])
    extreme = int((np.abs(found - found.mean()) >= abs(value)).sum())
    return Difference(value, float(low), float(high), (extreme + 1) / (SAMPLES + 1))
