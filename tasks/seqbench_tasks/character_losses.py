"""What single characters cost a language model: by their place in the window, and along one passage.

The passage is the beginning of the test split. Each of its characters is predicted from at least half a window of the
text before it, so that what stands out is the text and not the place where a window begins. Drawn for a window of 4,
with ``^`` below the characters whose predictions count::

    row 0    c0 c1 c2 c3 c4               row 1    c2 c3 c4 c5 c6
                      ^  ^                                  ^  ^

Shape letters: ``B`` windows, ``T`` targets of a window, ``V`` characters of the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seqbench.api import Predictor

PASSAGE = 240
"""Characters of the passage, at most."""


def log_probabilities(logits: np.ndarray) -> np.ndarray:
    """``ln softmax`` over the last axis, in float64: ``(..., V)`` to ``(..., V)``."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def _predicted(predict: Predictor, rows: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Log probabilities ``(T, V)`` and targets ``(T,)`` of each row of ``rows (B, T + 1)``; ``size`` rows at a time."""
    for start in range(0, len(rows), size):
        chunk = rows[start : start + size]
        outputs = predict(Batch(chunk[:, :-1], chunk[:, 1:])).outputs
        for logits, target in zip(outputs, chunk[:, 1:], strict=True):  # one by one: a window can be long
            yield log_probabilities(logits), target


def loss_by_position(predict: Predictor, rows: np.ndarray, size: int) -> np.ndarray:
    """Mean nats over windows ``rows (B, T + 1)`` of the target at each place: float64 ``(T,)``."""
    total = np.zeros(rows.shape[1] - 1)
    for logs, target in _predicted(predict, rows, size):
        total -= logs[np.arange(len(target)), target]
    return total / len(rows)


def passage_rows(codes: np.ndarray, window: int) -> np.ndarray:
    """The windows of the passage, each half a window behind the one before: ``(B, window + 1)``, ``B`` 0 if none fits.

    Of each the last ``window // 2`` targets count; of all of them together the first ``PASSAGE``.
    """
    half = window // 2
    fit = (len(codes) - 1 - window) // half + 1  # below 1 if not even one
    starts = half * np.arange(max(0, min(fit, -(-PASSAGE // half))))[:, None]
    return np.asarray(codes[starts + np.arange(window + 1)])


def along_passage(
    predict: Predictor, rows: np.ndarray, size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The passage as codes, the nats of each character, the likeliest one in its place and its probability.

    Args:
        predict: the trained network.
        rows: as ``passage_rows`` cuts them, at least one.
        size: windows in a batch.

    Returns:
        int64, float64, int64 and float64 ``(n,)``, ``n <= PASSAGE``.
    """
    half = (rows.shape[1] - 1) // 2
    found = [(logs[-half:], target[-half:]) for logs, target in _predicted(predict, rows, size)]
    logs = np.concatenate([one for one, _ in found])[:PASSAGE]  # (n, V)
    codes = np.concatenate([one for _, one in found])[:PASSAGE]  # (n,)
    return codes, -logs[np.arange(len(codes)), codes], logs.argmax(-1), np.exp(logs.max(-1))
