"""Named streams of random numbers: each thing that is random in a trial has its own, so that none disturbs another."""

from __future__ import annotations

import zlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator for ``name`` (``"data"``, ``"diagnose"``) in a trial with this seed; the same on every machine."""
    return np.random.Generator(np.random.PCG64(_sequence(seed, name)))


def torch_seed(seed: int, name: str) -> int:
    """A seed for torch's own generators, for ``"initialisation"`` and ``"dropout"``."""
    return int(_sequence(seed, name).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _sequence(seed: int, name: str) -> np.random.SeedSequence:
    return np.random.SeedSequence([seed, zlib.crc32(name.encode())])
