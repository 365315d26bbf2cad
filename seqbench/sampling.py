"""Tokens drawn from logits, on numpy alone: a trained network and an exported one draw alike."""

from __future__ import annotations

import numpy as np


def sample(logits: np.ndarray, rng: np.random.Generator, temperature: float) -> np.ndarray:
    """One token a row: ``logits (B, V)`` divided by the temperature; 0 takes the likeliest."""
    if temperature <= 0:
        return np.asarray(logits.argmax(-1))
    scaled = (logits - logits.max(-1, keepdims=True)) / temperature
    cumulative = np.exp(scaled).cumsum(-1)
    draws = rng.random((len(logits), 1)) * cumulative[:, -1:]
    return np.asarray((cumulative <= draws).sum(-1).clip(max=logits.shape[-1] - 1))
