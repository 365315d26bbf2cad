"""Exported networks, step by step, with numba and numpy alone: nothing here imports torch.

::

    stream = Stream.load("model.npz")
    logits = stream.step(token)
"""

from __future__ import annotations

from seqbench.streaming.stream import Stream

__all__ = ["Stream"]
