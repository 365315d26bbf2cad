"""What convolutions have read before, as a state: rings of inputs, and how they enter and leave a call's buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = Any


@dataclass(frozen=True)
class Ring:
    """Where the last inputs of one convolution lie in ``past (B, S)``.

    Attributes:
        at: column of the first one.
        P: steps.
        C: channels.
    """

    at: int
    P: int
    C: int

    def of(self, past: Array) -> Array:
        """``(B, P, C)``, a view."""
        return past[:, self.at : self.at + self.P * self.C].reshape(-1, self.P, self.C)


@dataclass(frozen=True)
class Before:
    """A state, and how many steps follow it.

    Attributes:
        past: ``(B, S)``, one ring after the other.
        position: ``(B,)``, steps written: the next goes to ``position mod P`` of each ring, where the oldest is.
        lengths: ``(B,)``, valid steps of this call.
    """

    past: Array
    position: Array
    lengths: Array

    def enter(self, rings: Sequence[Ring], buffers: Sequence[Array]) -> None:
        """Put each ring into the first ``P`` steps of a buffer ``(P + T, B, Cp)``, the oldest input first."""
        for ring, x in zip(rings, buffers, strict=False):
            x[: ring.P, :, : ring.C] = ring.of(self.past)[self._in_order(ring)].transpose(1, 0, 2)
            x[: ring.P, :, ring.C :] = 0

    def enter_back(self, rings: Sequence[Ring], d_buffers: Sequence[Array], d_past: Array) -> None:
        """The gradient of ``enter``."""
        for ring, d_x in zip(rings, d_buffers, strict=True):
            ring.of(d_past)[self._in_order(ring)] = d_x[: ring.P, :, : ring.C].transpose(1, 0, 2)

    def leave(self, rings: Sequence[Ring], buffers: Sequence[Array], after: Array) -> None:
        """Take the ``P`` steps up to each row's length out of each buffer, the oldest first."""
        for ring, x in zip(rings, buffers, strict=False):
            ring.of(after)[:] = x[self._last(ring)][:, :, : ring.C].transpose(1, 0, 2)

    def leave_back(self, rings: Sequence[Ring], d_buffers: Sequence[Array], d_after: Array | None) -> None:
        """The gradient of ``leave``, and zeros elsewhere."""
        for ring, d_x in zip(rings, d_buffers, strict=True):
            d_x[:] = 0
            if d_after is not None:
                d_x[(*self._last(ring), slice(ring.C))] = ring.of(d_after).transpose(1, 0, 2)

    def _in_order(self, ring: Ring) -> tuple[Array, Array]:
        """Row and place, ``(B, P)``, of the steps of a ring from the oldest on."""
        return np.arange(len(self.position))[:, None], (self.position[:, None] + np.arange(ring.P)) % ring.P

    def _last(self, ring: Ring) -> tuple[Array, Array]:
        """Step and row, ``(P, B)``, of the last ``P`` valid ones."""
        return np.arange(ring.P)[:, None] + self.lengths, np.arange(len(self.lengths))
