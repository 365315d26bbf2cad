"""Compiled functions that call themselves for each part of a batch."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from doors import callable_from_python
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.backends.kernels.parts import ROWS, WEIGHTS, WHOLE, bounds_of_rows, in_parts, is_mine, whole_pass
from seqbench.backends.numba_threads import numba_threads

B = 37


@callable_from_python
def doubled_and_summed(x, y, sums, fails, launch, stage, part, parts):
    """``y = 2 x``; then each part sums up its own share of ``y``."""
    result = y.reshape(1, y.size)
    first, last = bounds_of_rows(y.size, part, parts)
    if is_mine(stage, ROWS, parts):
        y[first:last] = 2 * x[first:last]
    elif stage == WHOLE:
        in_parts(launch, ROWS, parts, result)
    if is_mine(stage, WEIGHTS, parts):
        room = np.empty((1 << 59) if part == fails else 1)  # more than there is
        sums[part] = y[first:last].sum() + 0 * room.size
    elif stage == WHOLE:
        in_parts(launch, WEIGHTS, parts, result)
    return result


def run(x: np.ndarray, parts: int, fails: int = -1) -> tuple[np.ndarray, np.ndarray]:
    y, sums = np.zeros(B), np.zeros(parts)
    with numba_threads(2):
        result = doubled_and_summed(x, y, sums, fails, *whole_pass(parts))
    assert np.shares_memory(result, y)
    return result, sums


@settings(deadline=None)  # compiles once
@given(parts=st.integers(1, 9), seed=st.integers(0, 99))
def test_every_part_has_its_turn_in_each_stage_whatever_the_number_of_threads(parts: int, seed: int) -> None:
    x = np.random.default_rng(seed).standard_normal(B)
    y, sums = run(x, parts)
    np.testing.assert_array_equal(y, 2 * x[None])
    bounds = [B * part // parts for part in range(parts + 1)]
    shares = [2 * x[low:high].sum() for low, high in pairwise(bounds)]
    np.testing.assert_allclose(sums, shares, atol=1e-12)


@pytest.mark.parametrize(("parts", "fails"), [(1, 0), (3, 0), (3, 2)])
def test_a_part_without_memory_is_an_error_of_the_whole(parts: int, fails: int) -> None:
    with pytest.raises(MemoryError):
        run(np.ones(B), parts, fails)
    y, _ = run(np.ones(B), parts)
    assert (y == 2).all()


AT_WORK = """
import sys
import torch
from numba.core.event import install_recorder
from numba.core.runtime import rtsys
from seqbench import registry
from seqbench.api import CoreSpec
from seqbench.registry import resolve

card, threads = registry.load().model(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(threads)
x = torch.randn(17, 16, 20, requires_grad=True)
with install_recorder("numba:compile") as recorder:
    core = resolve(card.cores["numba"])(CoreSpec(20, 24, train_length=16), card.options())

    def work():
        core(x)[0].sum().backward()
        with torch.no_grad():
            core(x)
            core.step(x[:, 0], core.initial_state(17, 4))
        return rtsys.get_allocation_stats()

    stats = [work() for _ in range(4)]
assert torch.get_num_threads() == threads
print(len({s.alloc - s.free for s in stats[1:]}), stats[3].alloc > stats[1].alloc)
print(*(event.data["dispatcher"].py_func.__name__ for _, event in recorder.buffer if event.is_start))
"""


@pytest.mark.parametrize("model", ["lstm", "tcn"])  # one returns arrays, the other nothing
def test_what_one_thread_has_compiled_serves_two_and_none_of_its_memory_is_lost(model: str) -> None:
    """Of a part's call nobody gets the result, so it has to be let go of."""

    def at_work(threads: int) -> list[str]:
        words = [sys.executable, "-c", AT_WORK, model, str(threads)]
        environment = os.environ | {"NUMBA_NRT_STATS": "1"}
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr
        return done.stdout.splitlines()

    at_work(1)
    for threads, compiles in (1, set()), (2, {"_launch"}), (2, set()):
        kept, compiled = at_work(threads)
        assert kept == "1 True"
        assert set(compiled.split()) <= compiles
