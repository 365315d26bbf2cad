"""How far back a network's memory reaches: gradients through time, and sequences of other lengths than in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Batch, Refused

if TYPE_CHECKING:
    from seqbench.api import Predictor

PROBED = 32
"""Sequences over which a gradient is averaged."""
FOLLOWED = 4
"""Of which so many at a time: training may have room for small batches alone, and who runs out of memory loses all."""
FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Lengths that a network is tested at, in units of the length of its training."""
LONGEST = 2000
"""No test sequence is longer, unless training's are: memory of attention may grow with the square."""
SHARE = 0.01
"""Of the largest gradient: what is smaller does not count as memory."""


def gradient_by_lag(predict: Predictor, batch: Batch) -> np.ndarray:
    """Mean over the sequences of ``|d loss / d x_(T-1-k)|`` for ``k = 0 .. T-1``: float64 ``(T,)``.

    Args:
        predict: the network.
        batch: full sequences; its weights say whose loss it is, the last step's as a rule.
    """
    parts = (
        Batch(batch.x[part], batch.target[part], weight=None if batch.weight is None else batch.weight[part])
        for part in slices(len(batch.x), FOLLOWED)
    )
    norms = np.concatenate([predict.input_gradient(part) for part in parts])  # (B, T)
    return np.asarray(norms.mean(0)[::-1])


def slices(count: int, size: int) -> list[slice]:
    """``count`` rows in parts of ``size``, the last one shorter."""
    return [slice(start, start + size) for start in range(0, count, size)]


def fewer(size: int, trained: int, length: int) -> int:
    """How many sequences of ``length`` are as many steps as ``size`` of the trained length, if those are longer."""
    return max(1, size * trained // max(length, trained))


def memory_length(gradient: np.ndarray) -> int:
    """The largest lag at which ``gradient (T,)`` is still at least one per cent of its largest value; 0 without any."""
    return int(np.flatnonzero(gradient >= SHARE * gradient.max())[-1]) if gradient.any() else 0


def other_lengths(T: int, shortest: int = 1) -> np.ndarray:
    """From a quarter of ``T`` to four times as long: int64, rising, ``T`` itself among them."""
    lengths = {max(shortest, round(T * factor)) for factor in FACTORS}
    return np.array(sorted(n for n in lengths if n <= max(T, LONGEST)), dtype=np.int64)


def at_lengths(lengths: np.ndarray, measure: Callable[[int], np.ndarray], size: int = 1) -> np.ndarray:
    """``measure`` at each length, ``(n, size)``; nan where the model cannot read sequences so long."""
    return np.stack([_where_read(measure, length, size) for length in lengths.tolist()])


def _where_read(measure: Callable[[int], np.ndarray], length: int, size: int) -> np.ndarray:
    try:
        return measure(length)
    except Refused:
        return np.full(size, np.nan)
