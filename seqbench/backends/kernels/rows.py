"""Padded batches as rows: the valid steps one after another, and the keys and values of caches and memories."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqbench.backends.kernels.padding import padded
from seqbench.backends.kernels.workspace import aligned

Array = Any
Pair = tuple[Array, Array]
"""Keys and values ``2 x (B, N, C, d)``."""


class Steps:
    """The valid steps of a padded batch ``(B, T)``.

    Args:
        B: sequences.
        T: steps.
        lengths: ``(B,)``, or None where every row is full.

    Attributes:
        counts: ``(B,)`` steps of each sequence.
        first: ``(B + 1)``: the row where each begins.
        R: all rows.
    """

    def __init__(self, B: int, T: int, lengths: Array | None) -> None:
        self.B, self.T = B, T
        self.counts: Array = np.full(B, T) if lengths is None else lengths
        self.first = _starts(self.counts)
        self.R = int(self.first[-1])
        self._inside = None if self.R == B * T else np.arange(T) < self.counts[:, None]  # (B, T)

    def gathered(self, x: Array, copy: bool = False) -> Array:
        """``(B, T, H)`` to flat rows ``(R, Hp)``; ``x`` itself where it is that, unless a copy is asked for."""
        H = x.shape[2]
        Hp = padded(H, x.dtype)
        if not copy and self._inside is None and Hp == H and x.flags.c_contiguous:
            return x.reshape(-1)
        rows = aligned((self.R, Hp), x.dtype, zero=Hp != H)
        rows[:, :H] = x.reshape(self.R, H) if self._inside is None else x[self._inside]
        return rows.reshape(-1)

    def scattered(self, rows: Array, H: int) -> Array:
        """Flat rows ``(R, Hp)`` to ``(B, T, H)``, 0 beyond the lengths."""
        if self._inside is None:
            return rows.reshape(self.B, self.T, -1)[:, :, :H]
        x = np.zeros((self.B, self.T, H), rows.dtype)
        x[self._inside] = rows.reshape(self.R, -1)[:, :H]
        return x


class Keys:
    """Flat rows ``(S, 2 Np)`` of the keys and values of a memory or a cache, of which each sequence has some.

    Args:
        C: steps that there is room for.
        old: ``(B,)``: how many are there.
        new: ``(B,)``: how many come behind them.

    Attributes:
        first: ``(B + 1)``: the row where each sequence's begin.
        is_old: ``(B, C)``.
        is_new: ``(B, C)``.
    """

    def __init__(self, C: int, old: Array, new: Array) -> None:
        self.old, self.first = old, _starts(old + new)
        place = np.arange(C)
        self._row = self.first[:-1, None] + place  # (B, C)
        self.is_old = place < old[:, None]
        self.is_new = ~self.is_old & (place < (old + new)[:, None])

    def rows(self, pair: Pair, which: Array) -> Array:
        """Those of ``which (B, C)``; the others 0."""
        _, N, _, d = pair[0].shape
        rows = aligned((int(self.first[-1]), 2, N, padded(d, pair[0].dtype)), pair[0].dtype, zero=True)
        for side, part in enumerate(pair):
            rows[self._row[which], side, :, :d] = part.transpose(0, 2, 1, 3)[which]
        return rows.reshape(-1)

    def put(self, rows: Array, pair: Pair, which: Array) -> None:
        """Write those of ``which`` into ``pair``."""
        _, N, _, d = pair[0].shape
        parts = rows.reshape(int(self.first[-1]), 2, N, -1)
        for side, part in enumerate(pair):
            part.transpose(0, 2, 1, 3)[which] = parts[self._row[which], side, :, :d]


def _starts(counts: Array) -> Array:
    return np.concatenate([[0], np.cumsum(counts)])
