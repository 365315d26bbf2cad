"""The numba backends against torch, model by model: the same parameters, the same numbers, the same training."""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from against_torch import core_of, error, losses_of_training, weighted_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrent_cells import with_cells, with_each_cell
from torch import Tensor

from seqbench import conformance
from seqbench.api import CoreSpec, Refused
from seqbench.backends.kernels.cells import Cell
from seqbench.backends.kernels.engine import CHUNK
from seqbench.backends.kernels.pointwise import tanh, zero
from seqbench.backends.kernels.recurrent import Kernels, fast
from seqbench.backends.kernels.sources import sources_of
from seqbench.backends.kernels.workspace import LARGE
from seqbench.backends.numba_recurrent import CellLayer
from seqbench.backends.numba_sequence import run_sequence
from seqbench.registry import Registry, resolve
from seqbench.states import leaves, map_leaves
from seqbench_models import gru, janet, lstm, rnn, tcn, transformer


def outcome(core: Any, x: Tensor, lengths: Tensor | None, with_state: bool) -> list[Tensor]:
    """Outputs, states, and the gradients in the input, the state and every parameter."""
    x = x.to(next(core.parameters()).dtype).requires_grad_()
    state = None
    if with_state:
        state = core.initial_state(x.shape[0], x.shape[1])
        state = map_leaves(lambda leaf: (leaf + 0.3).requires_grad_(), state)
    y, after = core(x, state, lengths)
    outputs = [y, *leaves(after)]
    gradients = torch.autograd.grad(weighted_sum(outputs), [x, *leaves(state), *core.parameters()])
    return [t.detach() for t in (*outputs, *gradients)]


@with_each_cell
@pytest.mark.parametrize("backend", ["numba-ref", "numba"])
@settings(max_examples=25, deadline=None)
@given(
    B=st.integers(1, 20), T=st.integers(1, 12), D=st.integers(1, 40), H=st.integers(1, 40),
    layers=st.integers(1, 2), both=st.booleans(), ragged=st.booleans(), with_state=st.booleans(), data=st.data(),
)  # fmt: skip
def test_equals_torch_in_float64(
    card: Any, options: dict[str, Any], backend: str, B: int, T: int, D: int, H: int, layers: int, both: bool,
    ragged: bool, with_state: bool, data: st.DataObject,
) -> None:  # fmt: skip
    """Values, states and every gradient, to 1e-10."""
    spec = CoreSpec(D, H, layers, causal=not both, train_length=12)
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, T), min_size=B, max_size=B))) if ragged else None
    x = torch.randn(B, T, D, generator=torch.Generator().manual_seed(B), dtype=torch.float64)
    ours, theirs = (core_of(card, options, name, spec, torch.float64) for name in (backend, "torch"))
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), name  # the same start from the same seed
    pairs = zip(*(outcome(core, x, lengths, with_state and not both) for core in (ours, theirs)), strict=True)
    for got, want in pairs:
        assert float((got - want).abs().max()) <= 1e-10 * max(1.0, float(want.abs().max()))


@with_each_cell
def test_wide_layers_equal_torch_in_float64(card: Any, options: dict[str, Any]) -> None:
    """More columns of gates than weight gradients pack at a time, the last of them within a slot."""
    chosen = card.options(**options)
    H = CHUNK // resolve(card.recurrence)(chosen).cell.slots + 40
    x = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    cores = [core_of(card, options, name, CoreSpec(5, H), torch.float64) for name in ("numba", "torch")]
    for got, want in zip(*(outcome(core, x, None, with_state=True) for core in cores), strict=True):
        assert float((got - want).abs().max()) <= 1e-10 * max(1.0, float(want.abs().max()))


@with_each_cell
@pytest.mark.parametrize(("B", "T", "D", "H"), [(1, 256, 33, 40), (16, 128, 64, 64), (9, 256, 20, 100)])
def test_the_fast_kernels_lose_no_more_than_torch_in_float32(
    card: Any, options: dict[str, Any], B: int, T: int, D: int, H: int
) -> None:
    """1e-5 in the norm against float64, and at most three times torch's own error."""
    spec = CoreSpec(D, H, train_length=T)
    x = torch.randn(B, T, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    exact = outcome(core_of(card, options, "numba-ref", spec, torch.float64), x, None, with_state=True)
    ours = outcome(core_of(card, options, "numba", spec, torch.float32), x, None, with_state=True)
    theirs = outcome(core_of(card, options, "torch", spec, torch.float32), x, None, with_state=True)
    for got, other, want in zip(ours, theirs, exact, strict=True):
        assert error(got, want) <= 1e-5
        assert error(got, want) <= 3 * error(other, want)


@with_cells("lstm", "gru-before")
@pytest.mark.parametrize(("T", "H"), [(16, 24), (2, CHUNK)])
def test_two_threads_make_the_same_bits_as_one(card: Any, options: dict[str, Any], T: int, H: int) -> None:
    """But for the sums over the batch, which are split elsewhere; and torch's own number of threads stays.

    Of the wide layer each thread has more columns of gates than it packs at a time.
    """
    spec = CoreSpec(20, H, train_length=T)
    x = torch.randn(17, T, 20, generator=torch.Generator().manual_seed(1))
    one = outcome(core_of(card, options, "numba", spec, torch.float32), x, None, with_state=True)
    torch.set_num_threads(2)
    two = outcome(core_of(card, options, "numba", spec, torch.float32), x, None, with_state=True)
    again = outcome(core_of(card, options, "numba", spec, torch.float32), x, None, with_state=True)
    assert torch.get_num_threads() == 2
    for a, b, c in zip(one, two, again, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
        assert torch.equal(b, c)


@with_each_cell
@pytest.mark.parametrize("backend", ["numba-ref", "numba"])
def test_learns_like_torch_on_a_real_task(cards: Registry, card: Any, options: dict[str, Any], backend: str) -> None:
    """50 steps of char-lm in float64 from one seed: the losses differ by rounding alone."""
    losses = [losses_of_training(cards, card, options, name) for name in ("torch", backend)]
    assert losses[0][-1] < losses[0][0] - 0.3
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0, atol=1e-9)


# --- autograd ---------------------------------------------------------------------------------------


def test_a_second_backward_pass_over_one_graph_gives_the_same() -> None:
    """The first one has used up what was kept."""
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    loss = core(x)[0].pow(2).sum()
    first, second = (torch.autograd.grad(loss, [x, *core.parameters()], retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_a_second_derivative_is_refused() -> None:
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(Refused, match="create_graph"):
        torch.autograd.grad(core(x)[0].sum(), x, create_graph=True)


def test_other_devices_and_numbers_are_refused() -> None:
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float32)
    with pytest.raises(Refused, match="runs on the CPU, not on meta"):
        core(torch.zeros(1, 2, 5, device="meta"))
    with pytest.raises(Refused, match=r"float32 or float64, not in torch\.bfloat16"):
        core.to(torch.bfloat16)(torch.zeros(1, 2, 5, dtype=torch.bfloat16))
    double, x = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float64).eval(), torch.zeros(1, 2, 5)
    for run in (lambda: double(x), lambda: double.step(x[:, 0], double.initial_state(1, 2))):
        with pytest.raises(Refused, match=r"the input is of torch\.float32, parameters or state are of torch\.float64"):
            run()


def test_inputs_of_any_stride_are_read() -> None:
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    x = torch.randn(5, 3, 7, dtype=torch.float64)
    want, _ = core(x.permute(1, 2, 0).contiguous())
    got, _ = core(x.permute(1, 2, 0))  # features far apart
    assert torch.equal(got, want)
    got, _ = core(torch.randn(7, 3, 9, dtype=torch.float64)[..., :5].transpose(0, 1))
    assert got.shape == (3, 7, 6)


def test_outputs_and_gradients_have_the_order_of_what_they_belong_to() -> None:
    """Of memory, so that the next layer reads them as they are; small ones and those from the pool alike."""
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    for B, T in ((3, 7), (200, 200)):
        x = torch.randn(T, B, 5, dtype=torch.float64).transpose(0, 1).requires_grad_()
        y, _ = core(x)
        dx = torch.autograd.grad(y.sum(), x)[0]
        assert (y.numel() * y.element_size() >= LARGE) == (B == 200)
        for t in (y, dx):
            assert t.transpose(0, 1).is_contiguous()
            assert not t.is_contiguous()
        y, _ = core(x.detach().contiguous().requires_grad_())
        assert y.is_contiguous()


def test_gradients_of_any_output_in_any_order_of_memory_are_read() -> None:
    """Of the LSTM's two states after each step: one alone, or both, and not lying as the outputs do."""
    layer = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float64).layers[0]
    there = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in ((3, 4, 5), (3, 6), (3, 6))]
    given = [torch.randn(3, 4, 6, dtype=torch.float64) for _ in range(2)]

    def gradients(*which: int, order: Callable[[Tensor], Tensor] = torch.clone) -> Tensor:
        x, *start = there
        outputs = run_sequence(layer.kernels, x, layer.matrices(), tuple(start), every_state=True)
        d_outputs = [order(given[n]) if n else given[n] for n in which]
        found = torch.autograd.grad([outputs[n] for n in which], [*there, *layer.parameters()], d_outputs)
        return torch.cat([d.flatten() for d in found])

    def time_first(d: Tensor) -> Tensor:
        return d.transpose(0, 1).contiguous().transpose(0, 1)

    def far_apart(d: Tensor) -> Tensor:
        return d.transpose(0, 2).contiguous().transpose(0, 2)

    both = gradients(0, 1)
    torch.testing.assert_close(gradients(0) + gradients(1), both, rtol=0, atol=1e-12)
    given[0] = time_first(given[0])
    for order in (torch.clone, time_first, far_apart):
        torch.testing.assert_close(gradients(0, 1, order=order), both, rtol=0, atol=1e-12)


def test_what_was_saved_may_come_back_in_another_order_of_memory() -> None:
    """A hook that keeps copies, on disk or on another device, gives them back contiguous, whatever they were."""
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    x = torch.randn(7, 3, 5, dtype=torch.float64).transpose(0, 1).requires_grad_()

    def contiguous_copy(saved: Tensor) -> Tensor:
        return saved.clone(memory_format=torch.contiguous_format)

    want = torch.autograd.grad(core(x)[0].pow(2).sum(), [x, *core.parameters()])
    for retain in (False, True):
        with torch.autograd.graph.saved_tensors_hooks(torch.clone, contiguous_copy):
            loss = core(x)[0].pow(2).sum()
        for _ in range(1 + retain):
            found = torch.autograd.grad(loss, [x, *core.parameters()], retain_graph=retain)
        for got, expected in zip(found, want, strict=True):
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


def test_parameters_of_other_sizes_or_strides() -> None:
    """The kernels get addresses: what does not fit must never reach them, what lies otherwise must be copied."""
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    x, layer = torch.randn(2, 3, 5, dtype=torch.float64), core.layers[0]
    W, U, b_x, b_h = (p.detach() for p in layer.matrices())
    want = run_sequence(layer.kernels, x, (W, U, b_x, b_h), ())[0]
    strided = (W.t().contiguous().t(), U.t().contiguous().t(), b_x.repeat_interleave(2)[::2], b_h)
    assert not strided[0].is_contiguous()
    assert torch.equal(run_sequence(layer.kernels, x, strided, ())[0], want)
    wrong = [(W[:-1], U, b_x, b_h), (W, U[:, :-1], b_x, b_h), (W, U[:-1], b_x, b_h), (W, U, b_x[1:], b_h),
             (W, U, b_x, b_h[1:])]  # fmt: skip
    for matrices in wrong:
        with pytest.raises(ValueError, match=r"parameters of .*; expected 4 and 4 blocks of"):
            run_sequence(layer.kernels, x, matrices, ())
    with pytest.raises(Refused, match="runs on the CPU, not on meta"):
        run_sequence(layer.kernels, x, (W, U, b_x.to("meta"), b_h), ())


@pytest.mark.parametrize("change", ["half", "double", "smaller", "input"])
def test_what_was_saved_must_be_of_the_same_size_and_type_again(change: str) -> None:
    """A parameter is saved as itself, with whatever memory it has in the end."""
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float32)
    x = torch.randn(2, 3, 5, requires_grad=True)
    y, _ = core(x)
    if change == "input":
        x.data = torch.ones(1, 1, 5)
    elif change == "smaller":
        for p in core.parameters():
            p.data = torch.ones(1)
    else:
        getattr(core, change)()
    with pytest.raises(RuntimeError, match="than in the forward pass"):
        y.sum().backward()


def test_what_comes_out_is_on_the_cpu_whatever_the_default_device() -> None:
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 16), torch.float32)
    x, state = torch.randn(2, 3, 5), core.initial_state(2, 1)
    want = core(x)[0]
    with torch.device("meta"):
        found = core(x)[0], core(x, state)[0], core.step(x[:, 0], state)[0]
    assert all(y.is_cpu for y in found)
    assert torch.equal(found[0], want)


def test_tensors_without_memory_are_refused() -> None:
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float32)
    x = torch.zeros(2, 3, 5)
    x.untyped_storage().resize_(0)
    with pytest.raises(Refused, match=r"reads memory, and a Tensor of shape \(2, 3, 5\) has none"):
        core(x)


def test_signs_that_wait_are_read() -> None:
    """The imaginary part of a conjugate is the memory of the other one, to be negated."""
    core = core_of(gru.card, {}, "numba", CoreSpec(1, 1), torch.float32)
    x, h = (torch.randn(1, 1, 1, dtype=torch.complex64).conj().imag for _ in range(2))
    assert x.is_neg()
    assert x.is_contiguous()
    for state in (None, (h[0],)):
        assert torch.equal(core(x, state)[0], core(x.clone(), state and (h[0].clone(),))[0])


def test_large_outputs_may_be_written_to() -> None:
    """They come from a pool, and are no views all the same."""
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float32)
    x = torch.randn(300, 300, 5).transpose(0, 1)
    y, _ = core(x)
    assert y.numel() * y.element_size() >= LARGE
    want = torch.autograd.grad(y.sum() * 2, core.layers[0].rnn.weight_hh_l0, retain_graph=True)[0]
    got = torch.autograd.grad(y.mul_(2).sum(), core.layers[0].rnn.weight_hh_l0)[0]
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize("card", [gru.card, tcn.card, transformer.card], ids=lambda card: card.name)
def test_steps_follow_a_change_of_type(card: Any) -> None:
    """``Module.to`` gives a parameter other memory and leaves its identity and its version."""
    core = core_of(
        card, {"heads": 2} if card is transformer.card else {}, "numba", CoreSpec(8, 8), torch.float64
    ).eval()
    for dtype in (torch.float64, torch.float32, torch.float64):
        core.to(dtype)
        x = torch.randn(3, 1, 8, dtype=dtype)
        y, _ = core.step(x[:, 0], core.initial_state(3, 1))
        torch.testing.assert_close(y, core(x)[0][:, 0].detach())


def test_steps_follow_a_change_of_width() -> None:
    layer = core_of(gru.card, {"reset_after": False}, "numba", CoreSpec(5, 64), torch.float32).layers[0].eval()
    narrow = core_of(gru.card, {"reset_after": False}, "numba", CoreSpec(5, 8), torch.float32).layers[0].eval()
    x = torch.randn(3, 5)
    layer.step(x, torch.zeros(3, 64))
    for p, q in zip(layer.parameters(), narrow.parameters(), strict=True):
        p.data = p.data.view(-1)[: q.numel()].view(q.shape).copy_(q.data)  # the same memory
    torch.testing.assert_close(layer.step(x, torch.zeros(3, 8))[0], narrow.step(x, torch.zeros(3, 8))[0])


def test_steps_of_no_sequences() -> None:
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float32).eval()
    y, _ = core.step(torch.zeros(0, 5), core.initial_state(0, 1))
    assert y.shape == (0, 6)


@pytest.mark.parametrize("card", [gru.card, lstm.card], ids=["gru", "lstm"])
@pytest.mark.parametrize("state", [None, ()])
def test_a_step_from_no_state_is_refused(card: Any, state: Any) -> None:
    core = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float32)
    with pytest.raises(ValueError, match="a step goes on from a state, and there is none"):
        core.step(torch.zeros(2, 5), (state,))


def test_inputs_of_other_axes_are_refused() -> None:
    core = core_of(gru.card, {}, "numba", CoreSpec(5, 6), torch.float32)
    with pytest.raises(ValueError, match=r"the input has shape \(2, 3, 4, 5\); expected \(B, T, D\)"):
        core(torch.zeros(2, 3, 4, 5))
    with pytest.raises(ValueError, match=r"the input has shape \(2, 3, 5\); expected \(B, D\)"):
        core.step(torch.zeros(2, 3, 5), core.initial_state(2, 1))


def test_a_stepper_keeps_the_memory_that_it_reads() -> None:
    """A write through ``.data`` leaves no trace, and the parameter's memory may be anybody's afterwards."""
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float64).eval()
    x, state = torch.randn(1, 5, dtype=torch.float64), core.initial_state(1, 1)
    stepper = core.layers[0]._stepper(core.layers[0].matrices())  # nothing packed yet
    want = core(x[:, None])[0][:, 0].detach()
    for p in core.parameters():
        p.data = p.data.clone()
    spoilt = [torch.full((24, 6), 1e9, dtype=torch.float64) for _ in range(100)]
    y, c = torch.empty(1, 6, dtype=torch.float64), torch.empty(1, 6, dtype=torch.float64)
    h_0, c_0 = state[0]
    stepper(1, x.data_ptr(), (h_0.data_ptr(), c_0.data_ptr()), (y.data_ptr(), c.data_ptr()))
    torch.testing.assert_close(y, want)
    assert len(spoilt) == 100


def test_a_core_can_be_copied_and_loaded() -> None:
    """The harness times a copy and keeps the best weights."""
    from copy import deepcopy

    core = core_of(janet.card, {}, "numba", CoreSpec(5, 6), torch.float64)
    torch_core = core_of(janet.card, {}, "torch", CoreSpec(5, 6), torch.float64)
    torch_core.load_state_dict(core.state_dict())
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    for _ in range(2):  # before its first use, and after it
        copy = deepcopy(core).eval()
        torch.testing.assert_close(copy(x)[0], torch_core(x)[0])
        first, _ = copy.step(x[:, 0], copy.initial_state(2, 3))
        torch.testing.assert_close(first, torch_core(x)[0][:, 0])
        core.eval()(x)
        core.step(x[:, 0], core.initial_state(2, 3))


# --- conformance, and what is kept on disk ----------------------------------------------------------


@pytest.mark.parametrize("backend", ["numba", "numba-ref"])
@with_each_cell
def test_conformance(card: Any, options: dict[str, Any], backend: str) -> None:
    conformance.check_all(card, card.options(**options), backend)


def test_a_cell_is_known_by_its_source() -> None:
    """The compiled code on disk must not outlive the source that it comes from."""
    from seqbench_models.lstm.cell import CELL, backward

    def other(a, before, constants):  # the same name, other code
        return before, a

    other.__name__ = "forward"
    changed = replace(CELL, forward=other)
    assert changed.key != CELL.key
    assert replace(CELL, backward=backward).key == CELL.key
    assert replace(CELL, name="another").key != CELL.key


STRANGER = """
import helpers
import numba
import numpy as np

SCALE, TABLE = {scale}, np.zeros({size})

@numba.njit
def squash(a):
    return {squash}

def make(rate):
    def forward(a, before, constants):
        h = np.clip(before[0], 0, 1) + np.float32(rate * SCALE) * TABLE[0] * squash(helpers.twice(a[0]))
        return (h,), (h,)
    return forward

def backward(kept, before, after, d, constants):
    return (d[0],), (d[0],)
"""
HELPERS = """
def twice(a):
    return {twice}
"""


def test_a_cell_is_known_by_all_that_its_functions_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers and constants are compiled into it, and numba does not see when they change."""
    number = itertools.count()

    def key(rate: float = 1.0, **changes: str) -> str:
        """In files of its own, as a new process would see it."""
        written = {"scale": "2.0", "size": "3", "squash": "a", "twice": "a + a"} | changes
        folder, name = tmp_path / str(next(number)), "stranger"
        folder.mkdir()
        (folder / "helpers.py").write_text(HELPERS.format(**written), encoding="utf-8")
        (folder / f"{name}.py").write_text(STRANGER.format(**written), encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            for module in ("helpers", name):
                patch.delitem(sys.modules, module, raising=False)
            stranger = importlib.import_module(name)
            return Cell(name, gates=1, forward=stranger.make(rate), backward=stranger.backward).key

    assert key() == key()
    changed = [key(rate=0.5), key(scale="3.0"), key(size="4"), key(squash="a * a"), key(twice="2 * a")]
    assert len({key(), *changed}) == 6
    assert not [text for text in sources_of(clipped) if " at 0x" in text], "the same in every process"


def clipped(a, before, constants):
    return (np.clip(a[0], 0, 1),), (np.float64(a[0]),)


def test_a_cell_of_compiled_functions_is_refused() -> None:
    import numba

    with pytest.raises(TypeError, match="cell fast: forward is a CPUDispatcher; expected a plain function"):
        Cell("fast", gates=1, forward=numba.njit(clipped), backward=clipped)


def test_a_cell_that_gives_too_few_values_is_told_so() -> None:
    from seqbench_models.rnn.cell import CELLS

    wrong = replace(CELLS["tanh"], name="wrong", states=2)
    with pytest.raises(Exception, match="cell wrong: 1 values where there are 2"):
        CellLayer(4, 4, wrong)(torch.zeros(1, 1, 4))


@pytest.mark.parametrize("beta", [-1000.0, -100.0, 100.0, 1000.0])
def test_janet_bears_any_beta(beta: float) -> None:
    """The kernels take ``exp(-beta)``, which has a largest value."""
    ours, theirs = (
        core_of(janet.card, {"beta": beta}, name, CoreSpec(3, 5), torch.float32) for name in ("numba", "torch")
    )
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], rtol=0, atol=1e-6)


def test_a_slot_that_the_state_alone_fills_begins_with_its_bias() -> None:
    """Beside slots that both fill: ``h = tanh(a_0) + a_1``, where two blocks and no input are in ``a_1``."""

    def forward(a, before, constants):
        t = tanh(a[0])
        return (t + a[1],), (t, a[1])

    def backward(kept, before, after, d, constants):
        return (d[0] * (1 - kept[0] * kept[0]), d[0]), (zero(d[0]),)

    cell = Cell("half fed", gates=1, slots=2, recurrent=(0, 1, 1), forward=forward, backward=backward)
    assert cell.runs == ((0, 1, 0), (1, 1, 1), (1, 1, 2))
    assert cell.first_runs == (False, True, False)
    generator, (T, B, D, H) = torch.Generator().manual_seed(0), (5, 3, 4, 6)
    shapes = ((H, D), (3 * H, H), (H,), (3 * H,), (T, B, D), (1, B, H))
    W, U, b_x, b_h, x, h = given = [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes
    ]
    states, (h,) = [], h
    for t in range(T):
        a = h @ U.T + b_h
        h = torch.tanh(x[t] @ W.T + b_x + a[:, :H]) + a[:, H : 2 * H] + a[:, 2 * H :]
        states.append(h)
    want = torch.stack(states)
    theirs = torch.autograd.grad(weighted_sum([want]), given)
    d_y = torch.autograd.grad(weighted_sum([y := want.detach().requires_grad_()]), y)[0]

    got = run_sequence(Kernels(cell), x.transpose(0, 1), (W, U, b_x, b_h), (given[5][0],))[0].transpose(0, 1)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-10)
    for one, other in zip(torch.autograd.grad(got, given, d_y), theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


def test_compiled_functions_are_kept_on_disk() -> None:
    from seqbench_models.rnn.cell import CELLS

    core_of(rnn.card, {}, "numba", CoreSpec(3, 4), torch.float32)(torch.zeros(1, 2, 3))
    stats = fast(CELLS["tanh"]).forward.stats
    assert stats.cache_path
    assert sum(stats.cache_hits.values()) + sum(stats.cache_misses.values()) > 0


# --- steps ------------------------------------------------------------------------------------------


@with_each_cell
@pytest.mark.parametrize("training", [False, True])
def test_steps_follow_every_change_of_the_parameters(card: Any, options: dict[str, Any], training: bool) -> None:
    """The matrices stay packed from step to step, but not beyond a change of theirs."""
    core = core_of(card, options, "numba", CoreSpec(5, 6, 2), torch.float64).train(training)
    theirs = core_of(card, options, "torch", CoreSpec(5, 6, 2), torch.float64)
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def agree() -> None:
        theirs.load_state_dict(core.state_dict())
        for _ in range(2):
            y, _ = core.step(x, core.initial_state(3, 1))
            torch.testing.assert_close(y, theirs.step(x, theirs.initial_state(3, 1))[0], rtol=0, atol=1e-12)

    agree()
    for parameter in core.parameters():
        with torch.no_grad():
            parameter.mul_(1.5)
        agree()
    core.load_state_dict({name: p * 0.5 for name, p in core.state_dict().items()})
    agree()
    for parameter in core.parameters():
        parameter.data.add_(0.1)  # leaves no trace: so in training matrices are packed at every step,
    if not training:
        core.eval()  # and otherwise anew on every change of mode
    agree()


def test_steps_of_another_number_of_sequences_follow() -> None:
    """The buffers are kept from step to step too; a batch of 20 runs in parts on two threads."""
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6, 2), torch.float64).eval()
    torch.set_num_threads(2)
    for B in (1, 20, 3, 20, 1):
        x = torch.randn(B, 4, 5, generator=torch.Generator().manual_seed(B), dtype=torch.float64)
        state = core.initial_state(B, 4)
        for t in range(4):
            y, state = core.step(x[:, t], state)
        torch.testing.assert_close(y, core(x)[0][:, -1], rtol=0, atol=1e-12)


def test_threads_of_python_may_step_one_core() -> None:
    """Each with sequences of its own, while the buffers that steps share are one set."""
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 200), torch.float64).eval()

    def stepped(seed: int) -> float:
        torch.set_num_threads(2)  # of this thread of Python: then parts of the batch run while others wait
        x = torch.randn(16, 100, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        y, state, worst = core(x)[0].detach(), core.initial_state(16, 100), 0.0
        for t in range(100):
            y_t, state = core.step(x[:, t], state)
            worst = max(worst, float((y_t - y[:, t]).abs().max()))
        return worst

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(stepped, range(4))) <= 1e-12


@pytest.mark.parametrize("card", [gru.card, lstm.card], ids=["gru", "lstm"])
def test_inputs_and_states_of_other_sizes_are_refused(card: Any) -> None:
    """The kernels would read what lies behind them."""
    core = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float64).eval()
    x, state = torch.ones(3, 2, 5, dtype=torch.float64), core.initial_state(3, 2)
    states = len(list(leaves(state)))
    other = (torch.zeros(3, 6, dtype=torch.float64),) * (3 - states)  # two of a GRU, one of an LSTM
    for run, there in ((core, x), (core.step, x[:, 0])):
        with pytest.raises(ValueError, match=rf"the state has shape \({states}, 2, 6\); expected \({states}, 3, 6\)"):
            run(there, core.initial_state(2, 2))
        with pytest.raises(ValueError, match=rf"shape \({3 - states}, 3, 6\); expected \({states}, 3, 6\)"):
            run(there, (other,))
        with pytest.raises(ValueError, match=r"the input has 4 numbers a step; expected 5"):
            run(there[..., :4], state)


def test_states_of_one_layer_that_differ_in_size_are_refused() -> None:
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float32).eval()
    x, state = torch.ones(3, 2, 5), ((torch.zeros(3, 6), torch.zeros(2, 6)),)
    for run, there in ((core, x), (core.step, x[:, 0])):
        with pytest.raises(ValueError, match=r"states of a layer have different shapes: \(3, 6\), \(2, 6\)"):
            run(there, state)


def test_what_failed_does_not_count_as_packed() -> None:
    core = core_of(lstm.card, {}, "numba", CoreSpec(5, 6), torch.float64).eval()
    x, state = torch.ones(1, 5, dtype=torch.float64), core.initial_state(1, 1)
    with pytest.raises(Exception):  # noqa: B017, PT011 - of torch or of numba, as it likes
        core.step(x, ((state[0][0], state[0][1][:, :3]),))
    y, _ = core.step(x, state)
    torch.testing.assert_close(y, core(x[:, None])[0][:, 0])
