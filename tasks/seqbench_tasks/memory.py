"""How far back a network's memory reaches: gradients through time, and sequences of other lengths than in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Refused

if TYPE_CHECKING:
    from seqbench.api import Batch, Predictor

PROBED = 32
"""Sequences over which a gradient is averaged."""
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
    return np.asarray(predict.input_gradient(batch).mean(0)[::-1])  # (B, T) -> (T,)


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
