"""Random streams: the same everywhere, and none disturbs another."""

from __future__ import annotations

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch

from seqbench.streams import stream, torch_seed

NAMES = ["data", "diagnose", "probe", "initialisation", "dropout"]


def test_the_numbers_are_what_they_were() -> None:
    """Published results are repeated by later versions, on other machines, with other versions of numpy."""
    assert stream(0, "data").bit_generator.random_raw(2).tolist() == [8396933752253546773, 2736684055898990943]
    assert torch_seed(0, "initialisation") == 5455777220220879381


def test_another_process_gets_the_same_numbers() -> None:
    """Python's own ``hash`` of a text would not do."""
    code = "from seqbench.streams import *; print(stream(3, 'data').integers(1 << 62), torch_seed(3, 'dropout'))"
    environment = {"PYTHONHASHSEED": "77"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == [str(stream(3, "data").integers(1 << 62)), str(torch_seed(3, "dropout"))]


def test_no_two_streams_are_alike() -> None:
    first = {int(stream(seed, name).integers(1 << 62)) for seed in range(200) for name in NAMES}
    assert len(first) == 200 * len(NAMES)
    seeds = {torch_seed(seed, name) for seed in range(200) for name in NAMES}
    assert len(seeds) == 200 * len(NAMES)


def test_streams_are_uncorrelated() -> None:
    samples = [stream(seed, name).normal(size=20_000) for seed in (0, 1) for name in NAMES]
    for a, b in itertools.combinations(samples, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(20_000)


def test_a_stream_starts_anew_each_time() -> None:
    assert stream(1, "data").random() == stream(1, "data").random()


@pytest.mark.parametrize("seed", [0, 1, 999_999_999])
def test_torch_takes_the_seed(seed: int) -> None:
    value = torch_seed(seed, "dropout")
    assert 0 <= value < 1 << 63
    generator = torch.Generator().manual_seed(value)
    assert generator.initial_seed() == value
