"""The baseline that knows no order: logistic regression on which words a sentence has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

PENALTIES = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Half the squared weights, times one of these, is added to the mean loss; validation chooses."""


@dataclass(frozen=True)
class Bags:
    """Sentences as sets of words, with their classes, int64 ``(n,)``."""

    features: csr_matrix
    label: np.ndarray


def bags(rows: Sequence[np.ndarray], label: np.ndarray, vocabulary: int) -> Bags:
    """``features (n, vocabulary)``: 1 where the sentence has the word, however often."""
    from scipy.sparse import csr_matrix

    distinct = [np.unique(row) for row in rows]
    ends = np.cumsum([0, *(len(row) for row in distinct)])
    ones = np.ones(int(ends[-1]))
    columns = np.concatenate(distinct)
    return Bags(csr_matrix((ones, columns, ends), shape=(len(rows), vocabulary)), label)


def objective(weights: np.ndarray, data: Bags, penalty: float) -> tuple[float, np.ndarray]:
    """Mean cross-entropy with the penalty, and its gradient; the last weight is the bias, which is not penalised."""
    margin = data.features @ weights[:-1] + weights[-1]  # (n,)
    sign = 2.0 * data.label - 1
    loss = np.logaddexp(0, -sign * margin).mean() + 0.5 * penalty * float(weights[:-1] @ weights[:-1])
    error = (_sigmoid(margin) - data.label) / len(margin)
    gradient = np.append(data.features.T @ error + penalty * weights[:-1], error.sum())
    return float(loss), gradient


def fit(data: Bags, penalty: float) -> np.ndarray:
    """The weights at the minimum, found by L-BFGS from zeros: ``(vocabulary + 1,)``."""
    from scipy.optimize import minimize

    start = np.zeros(data.features.shape[1] + 1)
    found: Any = minimize(objective, start, (data, penalty), method="L-BFGS-B", jac=True, options={"maxiter": 500})
    return np.asarray(found.x)


def choose(train: Bags, valid: Bags) -> np.ndarray:
    """The weights whose penalty gives the lowest loss on validation."""
    return min((fit(train, penalty) for penalty in PENALTIES), key=lambda weights: objective(weights, valid, 0.0)[0])


def probabilities(weights: np.ndarray, data: Bags) -> np.ndarray:
    """Of class 1, ``(n,)``."""
    return _sigmoid(data.features @ weights[:-1] + weights[-1])


def _sigmoid(margin: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-np.logaddexp(0, -margin)))
