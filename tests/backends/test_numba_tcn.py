"""The TCN on the numba backends against torch: the same parameters, the same numbers, the same training."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from against_torch import core_of, error, losses_of_training, weighted_sum
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqbench import conformance
from seqbench.api import CoreSpec, Refused
from seqbench.backends.kernels.blocks import Kernels
from seqbench.registry import Registry
from seqbench.states import leaves, map_leaves
from seqbench_models.tcn import card

pytestmark = pytest.mark.xdist_group("tcn")  # what all share takes long to compile
backends = pytest.mark.parametrize("backend", ["numba-ref", "numba"])


def past_of(core: Any, B: int) -> list[Tensor]:
    """Random inputs before the first step, ``(B, P, C)`` of each convolution, the oldest first: torch's state."""
    generator = torch.Generator().manual_seed(9)
    convs = [conv for block in core.blocks for conv in (block.conv1, block.conv2)]
    return [torch.randn(B, c.past, c.inputs, generator=generator, dtype=torch.float64) for c in convs]


def state_of(core: Any, past: list[Tensor], position: Tensor) -> Any:
    """The same as a state of this core; numba's rings begin at ``position``."""
    if "torch_core" in type(core.blocks).__module__:
        return tuple(zip(past[::2], past[1::2], strict=True))
    rings = []
    for leaf in past:
        order = (torch.arange(leaf.shape[1]) - position.unsqueeze(1)) % leaf.shape[1]  # (B, P)
        rings.append(leaf.gather(1, order.unsqueeze(-1).expand_as(leaf)).flatten(1))
    return torch.cat(rings, 1), position


def leaves_of(after: Any, past: list[Tensor]) -> list[Tensor]:
    """A state as torch has it; after a call of many steps numba's rings begin with their oldest input."""
    if after is None or isinstance(after[0], tuple):
        return list(leaves(after))
    rings, position = after
    assert not position.any()
    return [
        r.unflatten(1, p.shape[1:]) for r, p in zip(rings.split([p[0].numel() for p in past], 1), past, strict=True)
    ]


def outcome(core: Any, x: Tensor, lengths: Tensor | None = None, position: Tensor | None = None) -> list[Tensor]:
    """Outputs, states, and the gradients in the input, the state (if there is a position) and every parameter."""
    dtype = next(core.parameters()).dtype
    x, past, state = x.to(dtype).requires_grad_(), [], None
    if position is not None:
        past = [leaf.to(dtype).requires_grad_() for leaf in past_of(core, x.shape[0])]
        state = state_of(core, past, position)
    y, after = core(x, state, lengths)
    outputs = [y, *leaves_of(after, past)]
    gradients = torch.autograd.grad(weighted_sum(outputs), [x, *past, *core.parameters()])
    return [t.detach() for t in (*outputs, *gradients)]


def assert_equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for got, want in zip(ours, theirs, strict=True):
        assert got.shape == want.shape
        assert float((got - want).abs().max()) <= 1e-10 * max(1.0, float(want.abs().max()))


@backends
@settings(max_examples=60, deadline=None)
@given(
    B=st.integers(1, 20), T=st.integers(1, 20), D=st.integers(1, 40), H=st.integers(1, 40), layers=st.integers(1, 4),
    kernel=st.integers(2, 4), normed=st.booleans(), last=st.sampled_from([0, 5, 33]), both=st.booleans(),
    ragged=st.booleans(), with_state=st.booleans(), data=st.data(),
)  # fmt: skip
def test_equals_torch_in_float64(
    backend: str, B: int, T: int, D: int, H: int, layers: int, kernel: int, normed: bool, last: int, both: bool,
    ragged: bool, with_state: bool, data: st.DataObject,
) -> None:  # fmt: skip
    """Values, states and every gradient, to 1e-10; the rings of each row begin somewhere else."""
    spec = CoreSpec(D, H, layers, causal=not both)
    options = {"kernel": kernel, "weight_norm": normed, "last_channels": last}
    rows = st.lists(st.integers(1, T), min_size=B, max_size=B)
    lengths = torch.tensor(data.draw(rows)) if ragged else None
    position = torch.tensor(data.draw(rows)) if with_state and not both else None
    x = torch.randn(B, T, D, generator=torch.Generator().manual_seed(B), dtype=torch.float64)
    ours, theirs = (core_of(card, options, name, spec, torch.float64) for name in (backend, "torch"))
    for (name, p), (other, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(p, q), name  # the same start from the same seed
    assert_equal(*(outcome(core, x, lengths, position) for core in (ours, theirs)))


# --- dropout ----------------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_the_same_seed_drops_the_same_units(backend: str, both: bool, with_state: bool, p: float) -> None:
    """Torch's masks, drawn in its order; afterwards its stream is where torch would have left it."""
    spec, found, streams = CoreSpec(7, 21, 3, causal=not both, dropout=p), [], []
    x = torch.randn(5, 11, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    position = torch.arange(5) if with_state and not both else None
    for name in (backend, "torch"):
        core = core_of(card, {"last_channels": 9}, name, spec, torch.float64)
        torch.manual_seed(8)
        found.append(outcome(core, x, torch.tensor([11, 3, 1, 8, 11]), position))
        streams.append(torch.rand(3))
    assert_equal(*found)
    assert torch.equal(*streams)


@backends
def test_steps_drop_the_same_units_in_training(backend: str) -> None:
    found, x = [], torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for name in (backend, "torch"):
        core = core_of(card, {}, name, CoreSpec(5, 6, 2, dropout=0.5), torch.float64)
        torch.manual_seed(8)
        state, ys = core.initial_state(2, 6), []
        for x_t in x.unbind(1):
            y_t, state = core.step(x_t, state)
            ys.append(y_t)
        found.append(ys)
    assert_equal(*found)


# --- float32 ----------------------------------------------------------------------------------------


def nearest_to_a_kink(core: Any, x: Tensor) -> float:
    """The smallest size, but for exact zeros, of what a rectifier reads."""
    found: list[Tensor] = []

    def look(block: Any, inputs: tuple[Tensor], _output: Tensor) -> None:
        sums = [block.conv1(inputs[0]), block.conv2(block.conv1(inputs[0]).relu())]
        found.extend([*sums, sums[1].relu() + block.shortcut(inputs[0])])

    handles = [block.register_forward_hook(look) for block in core.blocks]
    with torch.no_grad():
        core(x)
    for handle in handles:
        handle.remove()
    return min(float(sums[sums != 0].abs().min()) for sums in found)


@pytest.mark.parametrize(
    ("B", "T", "D", "H", "options"),
    [(1, 256, 33, 40, {}), (16, 128, 64, 64, {}), (5, 256, 20, 100, {"weight_norm": False, "kernel": 2})],
)
def test_the_fast_kernels_lose_no_more_than_torch_in_float32(
    B: int, T: int, D: int, H: int, options: dict[str, Any]
) -> None:
    """1e-5 in the norm against float64, and at most three times torch's own error.

    On data where no rectifier is so near to its kink that rounding could carry it to the other side: one that is
    changes a gradient altogether, in torch as here.
    """
    spec = CoreSpec(D, H, 2)
    theirs = core_of(card, options, "torch", spec, torch.float64)
    draws = (torch.randn(B, T, D, generator=torch.Generator().manual_seed(seed)) for seed in range(40))
    x = next(x for x in draws if nearest_to_a_kink(theirs, x.double()) > 1e-6)
    exact = outcome(core_of(card, options, "numba-ref", spec, torch.float64), x)
    ours, others = (outcome(core_of(card, options, name, spec, torch.float32), x) for name in ("numba", "torch"))
    for got, other, want in zip(ours, others, exact, strict=True):
        assert error(got, want) <= 1e-5
        assert error(got, want) <= 3 * error(other, want)


# --- threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_state", [False, True])
def test_two_threads_make_the_same_bits_each_time(with_state: bool) -> None:
    """And the same numbers as one, but for rounding; torch's own number of threads stays."""
    spec = CoreSpec(20, 24, 3)
    x = torch.randn(17, 16, 20, generator=torch.Generator().manual_seed(1))
    core = core_of(card, {}, "numba", spec, torch.float32)
    position = torch.arange(17) if with_state else None
    one = outcome(core, x, None, position)
    torch.set_num_threads(2)
    two, again = (outcome(core, x, None, position) for _ in range(2))
    assert torch.get_num_threads() == 2
    for a, b, c in zip(one, two, again, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
        assert torch.equal(b, c)


# --- training ---------------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_learns_like_torch_on_a_real_task(cards: Registry, backend: str, dropout: float) -> None:
    """50 steps of char-lm in float64 from one seed: the losses differ by rounding alone."""
    losses = [losses_of_training(cards, card, {}, name, layers=2, dropout=dropout) for name in ("torch", backend)]
    assert losses[0][-1] < losses[0][0] - 0.3
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0, atol=1e-9)


# --- single steps -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    B=st.integers(1, 9), D=st.integers(1, 70), H=st.integers(1, 70), layers=st.integers(1, 3), kernel=st.integers(2, 4),
    last=st.sampled_from([0, 5, 33]), T=st.integers(1, 25), chunk=st.integers(0, 24),
)  # fmt: skip
@example(B=1, D=64, H=64, layers=4, kernel=3, last=0, T=40, chunk=0)
def test_steps_equal_torch(B: int, D: int, H: int, layers: int, kernel: int, last: int, T: int, chunk: int) -> None:
    """More steps than a ring has places, from the start or after a chunk."""
    chunk = min(chunk, T - 1)
    options = {"kernel": kernel, "last_channels": last}
    ours, theirs = (
        core_of(card, options, name, CoreSpec(D, H, layers), torch.float64).eval() for name in ("numba", "torch")
    )
    x = torch.randn(B, T, D, generator=torch.Generator().manual_seed(B), dtype=torch.float64)
    want, _ = theirs(x)
    state = ours.initial_state(B, T)
    if chunk:
        _, state = ours(x[:, :chunk], state)
        state = map_leaves(Tensor.detach, state)
    for t in range(chunk, T):
        y_t, state = ours.step(x[:, t], state)
        torch.testing.assert_close(y_t, want[:, t], rtol=0, atol=1e-10)


def test_a_step_does_not_copy_the_past() -> None:
    core = core_of(card, {}, "numba", CoreSpec(5, 6, 3), torch.float32).eval()
    past, position = core.initial_state(2, 9)
    _, after = core.step(torch.zeros(2, 5), (past, position))
    assert after[0].data_ptr() == past.data_ptr()
    assert position.tolist() == [1, 1]


def test_rows_at_different_positions_step_together() -> None:
    """Rows of two batches that have made different numbers of steps."""
    core = core_of(card, {}, "numba", CoreSpec(5, 6, 3), torch.float64).eval()
    x = torch.randn(2, 20, 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    want, _ = core(x)
    alone = [core.initial_state(1, 20) for _ in range(2)]
    done = (7, 11)
    for row, n in enumerate(done):
        for t in range(n):
            _, alone[row] = core.step(x[row : row + 1, t], alone[row])
    state = tuple(torch.cat(pair) for pair in zip(*alone, strict=True))
    for t in range(9):
        y_t, state = core.step(torch.stack([x[row, n + t] for row, n in enumerate(done)]), state)
        for row, n in enumerate(done):
            torch.testing.assert_close(y_t[row], want[row, n + t], rtol=0, atol=1e-10)


@pytest.mark.parametrize("change", ["optimiser", "data", "load", "assign"])
def test_steps_follow_the_parameters(change: str) -> None:
    """The filters packed for single steps are made anew when a parameter changes, however it does."""
    core, other = (core_of(card, {}, "numba", CoreSpec(3, 4, 2), torch.float64).eval() for _ in range(2))
    x = torch.randn(2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    core.step(x, core.initial_state(2, 1))
    with torch.no_grad():
        for p in other.parameters():
            p.data.add_(0.1)
        if change == "optimiser":
            for p in core.parameters():
                p.add_(0.1)
        elif change == "data":
            core.train()
            for p in core.parameters():
                p.data.mul_(1.1)
            core.eval()
        else:
            core.load_state_dict(other.state_dict(), assign=change == "assign")
    y, _ = core.step(x, core.initial_state(2, 1))
    torch.testing.assert_close(y, core(x.unsqueeze(1))[0][:, 0])


# --- autograd ---------------------------------------------------------------------------------------


@backends
def test_a_second_backward_pass_over_one_graph_gives_the_same(backend: str) -> None:
    """The first one has used up what was kept; with dropout, the masks are still the same."""
    core = core_of(card, {}, backend, CoreSpec(5, 6, 2, dropout=0.3), torch.float64)
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    loss = weighted_sum([core(x)[0]])
    first, second = (torch.autograd.grad(loss, [x, *core.parameters()], retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_calls_before_the_backward_pass_do_not_disturb_it() -> None:
    """What one call keeps lies in memory that others do not use meanwhile."""
    core = core_of(card, {}, "numba", CoreSpec(5, 6, 2), torch.float64)
    xs = torch.randn(3, 2, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    alone = [torch.autograd.grad(core(x)[0].pow(2).sum(), list(core.parameters())) for x in xs]
    losses = [core(x)[0].pow(2).sum() for x in xs]
    with torch.no_grad():
        core(xs[0])
    for loss, want in zip(losses, alone, strict=True):
        for a, b in zip(torch.autograd.grad(loss, list(core.parameters())), want, strict=True):
            assert torch.equal(a, b)


def test_a_call_without_gradients_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the parameters ask for gradients."""
    kept = []

    def forward(*arguments: Any, **named: Any) -> Any:
        kept.append(run(*arguments, **named))
        return kept[-1]

    run = Kernels.forward
    monkeypatch.setattr(Kernels, "forward", forward)
    core = core_of(card, {}, "numba", CoreSpec(5, 6, 2), torch.float64)
    x = torch.randn(2, 4, 5, dtype=torch.float64)
    core(x)
    with torch.no_grad():
        core(x)
    assert [len(k.buffers) for k in kept] == [2, 0]


def test_a_parameter_changed_before_the_backward_pass_is_an_error() -> None:
    core = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float64)
    loss = core(torch.randn(2, 4, 5, dtype=torch.float64))[0].sum()
    with torch.no_grad():
        next(core.parameters()).add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_second_derivative_is_refused() -> None:
    core = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float64)
    x = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(Refused, match="create_graph"):
        torch.autograd.grad(core(x)[0].sum(), x, create_graph=True)


def test_inputs_and_states_of_other_sizes_are_refused() -> None:
    """The kernels would read and write what lies behind them."""
    core = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float64).eval()
    x = torch.zeros(3, 2, 5, dtype=torch.float64)
    for run in (lambda: core(x[..., :4]), lambda: core.step(x[:, 0, :4], core.initial_state(3, 2))):
        with pytest.raises(ValueError, match="the input has 4 numbers a step; expected 5"):
            run()
    with pytest.raises(ValueError, match="the state is of 2 sequences; expected 3"):
        core.step(x[:, 0], core.initial_state(2, 2))


def test_other_devices_and_numbers_are_refused() -> None:
    core = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float32).eval()
    with pytest.raises(Refused, match="runs on the CPU, not on meta"):
        core(torch.zeros(1, 2, 5, device="meta"))
    half = core_of(card, {}, "numba", CoreSpec(5, 6), torch.bfloat16).eval()
    with pytest.raises(Refused, match=r"float32 or float64, not in torch\.bfloat16"):
        half(torch.zeros(1, 2, 5, dtype=torch.bfloat16))
    with pytest.raises(Refused, match=r"float32 or float64, not in torch\.bfloat16"):
        half.step(torch.zeros(1, 5, dtype=torch.bfloat16), half.initial_state(1, 2))
    double, x = core_of(card, {}, "numba", CoreSpec(5, 6), torch.float64).eval(), torch.zeros(1, 2, 5)
    for run in (lambda: double(x), lambda: double.step(x[:, 0], double.initial_state(1, 2))):
        with pytest.raises(Refused, match=r"the input is of torch\.float32, parameters or state are of torch\.float64"):
            run()


def test_inputs_of_any_stride_are_read() -> None:
    core = core_of(card, {}, "numba", CoreSpec(5, 6, 2), torch.float64)
    x = torch.randn(5, 3, 7, dtype=torch.float64)
    want, _ = core(x.permute(1, 2, 0).contiguous())
    got, _ = core(x.permute(1, 2, 0))  # features far apart
    assert torch.equal(got, want)
    wide = torch.randn(7, 3, 9, dtype=torch.float64)[..., :5].transpose(0, 1)
    assert torch.equal(core(wide)[0], core(wide.contiguous())[0])


def test_a_core_can_be_copied_and_loaded() -> None:
    """The harness times a copy and keeps the best weights; the copy has parameters of its own."""
    core, torch_core = (core_of(card, {}, name, CoreSpec(5, 6, 2), torch.float64) for name in ("numba", "torch"))
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    core.eval().step(x[:, 0], core.initial_state(2, 3))
    copy = deepcopy(core)
    with torch.no_grad():
        for p in copy.parameters():
            p.mul_(1.5)
    torch_core.load_state_dict(copy.state_dict())
    torch.testing.assert_close(copy(x)[0], torch_core(x)[0])
    y_t, _ = copy.step(x[:, 0], copy.initial_state(2, 3))
    torch.testing.assert_close(y_t, torch_core(x)[0][:, 0])


# --- conformance ------------------------------------------------------------------------------------


@backends
@pytest.mark.parametrize("options", conformance.cases(card), ids=str)
def test_conformance(backend: str, options: Any) -> None:
    conformance.check_all(card, options, backend)
