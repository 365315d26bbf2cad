"""Memory that is used again: never while somebody holds it, and never more of it than was needed at once."""

from __future__ import annotations

import gc
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch

from seqbench.api import CoreSpec
from seqbench.backends.kernels.workspace import LARGE, LINE, LOANS, POOL, STAYS, Pool, Room, Workspace, aligned
from seqbench_models.rnn import card, numba_core

F32 = np.dtype(np.float32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_of_a_workspace_do_not_overlap(dtype: type) -> None:
    shapes = [(3, 5), (0,), (1,), (2, 3, 4), (17,)]
    arrays = Workspace(np.dtype(dtype), shapes).arrays
    for n, array in enumerate(arrays):
        assert array.ctypes.data % LINE == 0 or not array.size
        array[...] = n
    assert [array.shape for array in arrays] == shapes
    assert all((array == n).all() for n, array in enumerate(arrays))


def test_memory_in_use_is_given_to_nobody_else() -> None:
    first = Workspace(F32, [(1000,)])
    second = Workspace(F32, [(1000,)])
    assert not np.shares_memory(first.arrays[0], second.arrays[0])
    place = first.arrays[0].ctypes.data
    del first
    gc.collect()
    assert Workspace(np.dtype(np.float64), [(500,)]).arrays[0].ctypes.data == place


def test_a_room_is_not_copied() -> None:
    """The copy would have the address of memory that is not its own."""
    with pytest.raises(TypeError, match="a room is not copied"):
        deepcopy(Room(100))


def test_a_room_that_was_never_made_gives_nothing_back() -> None:
    before = len(POOL._returned)
    Room.__new__(Room).__del__()
    assert len(POOL._returned) == before


def kept_by(pool: Pool, sizes: tuple[int, ...]) -> int:
    """Bytes that came from what the pool had, when arrays of these sizes are taken at once."""
    before = {block.address for block in pool._returned} | {block.address for block in pool._spare}
    blocks = [pool.take(size) for size in sizes]
    assert all(block.address == block.array.ctypes.data for block in blocks)
    found = sum(block.size for block in blocks if block.address in before)
    for block in blocks:
        pool.give(block)
    return found


def test_a_pool_keeps_no_more_than_was_in_use_at_once() -> None:
    pool = Pool()
    for size in (1000, 100, 3000, 500):  # one after the other: none serves the next
        pool.give(pool.take(size))
    pool.take(1 << 20)  # sorts in what came back
    assert 0 < sum(block.size for block in pool._spare) <= 3000

    pool = Pool()
    blocks = [pool.take(size) for size in (3000, 500, 500)]
    for block in blocks:
        pool.give(block)
    assert kept_by(pool, (3000, 500, 500)) == 4000
    block = pool.take(2000)
    assert block.size == 3000, "up to twice as much serves too"
    pool.give(block)
    assert pool.take(1000).size == 1000, "but not more"


def test_a_pool_keeps_no_more_than_its_limit() -> None:
    pool = Pool(limit=4000)
    blocks = [pool.take(1000 + n) for n in range(10)]
    for block in blocks:
        pool.give(block)
    assert kept_by(pool, tuple(1000 + n for n in range(9, 5, -1))) <= 4000
    assert sum(block.size for block in pool._spare) <= 4000
    assert all(block.size > 1005 for block in pool._spare), "the oldest go first"


class GivesBack(list):
    """What the garbage collector may do at any time: a block comes back while another one is looked for."""

    def __init__(self, give: Callable[[], None]) -> None:
        super().__init__()
        self._once = [give]

    def append(self, block: object) -> None:
        super().append(block)
        while self._once:
            self._once.pop()()


def test_a_block_may_come_back_in_the_middle_of_a_search() -> None:
    pool = Pool()
    first, second = pool.take(1000), pool.take(1000)
    pool._spare = GivesBack(lambda: pool.give(second))
    pool.give(first)
    assert pool.take(1000) is second
    assert pool.take(1000) is first


# --- arrays that leave --------------------------------------------------------------------------------


def place_of(array: np.ndarray) -> int:
    return array.ctypes.data


def test_a_large_array_is_used_again_when_nothing_refers_to_it() -> None:
    array = aligned((LARGE,), np.uint8)
    assert place_of(array) % LINE == 0
    place = place_of(array)
    tensor = torch.from_numpy(array.reshape(2, -1)[1:].view(np.float32))  # a view of a view, in torch's hands
    del array
    gc.collect()
    with_it = aligned((LARGE,), np.uint8)
    assert place_of(with_it) != place, "the tensor is still there"
    del tensor
    gc.collect()
    assert place_of(aligned((LARGE,), np.uint8)) == place


def test_zeros_are_zeros_in_memory_that_was_used() -> None:
    for _ in range(2):
        array = aligned((LARGE // 4,), np.float32, zero=True)
        assert not array.any()
        array[...] = 1
        del array


def test_what_waits_is_bounded() -> None:
    arrays = [aligned((STAYS // 4,), np.uint8) for _ in range(8)]
    arrays.clear()
    gc.collect()
    aligned((LARGE,), np.uint8)  # sorts in what came back
    assert STAYS // 2 <= sum(block.size for block in LOANS._spare) <= STAYS


def test_results_that_are_kept_stay_what_they_were() -> None:
    """Outputs and gradients of large calls, while later calls run."""
    torch.manual_seed(0)
    core = numba_core.Core(CoreSpec(32, 64), card.options())
    kept = []
    for n in range(4):
        x = torch.randn(64, 80, 32, requires_grad=True)
        y, _ = core(x)
        assert y.numel() * y.element_size() >= LARGE
        dx = torch.autograd.grad(y.sum(), x)[0]
        kept.append((n, y.detach(), y.detach().clone(), dx, dx.clone()))
    for _, y, y_then, dx, dx_then in kept:
        torch.testing.assert_close(y, y_then, rtol=0, atol=0)
        torch.testing.assert_close(dx, dx_then, rtol=0, atol=0)
