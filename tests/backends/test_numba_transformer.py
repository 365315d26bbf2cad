"""The Transformer's numba backends against torch: the same parameters, the same numbers, the same training."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from against_torch import core_of, error, losses_of_training, weighted_sum
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from seqbench import conformance
from seqbench.api import CoreSpec, Memory, Refused
from seqbench.backends.kernels.transformer_calls import attention_calls
from seqbench.registry import Registry, resolve
from seqbench.states import leaves, map_leaves
from seqbench_models.transformer import card

pytestmark = pytest.mark.xdist_group("transformer")  # what all share takes long to compile
BACKENDS = ["numba", "numba-ref"]
backends = pytest.mark.parametrize("backend", BACKENDS)
OPTIONS = st.fixed_dictionaries(
    {
        "norm": st.sampled_from(["pre", "post"]),
        "positions": st.sampled_from(["sinusoidal", "learned", "none"]),
        "activation": st.sampled_from(["relu", "gelu"]),
        "embedding_scale": st.booleans(),
        "feed_forward": st.sampled_from([0, 1, 33]),
        "heads": st.sampled_from([1, 2, 4]),
    }
)
LONGEST = 70
"""Steps of the longest sequences here: more than two panels of queries in either type."""


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder_of(options: dict[str, Any], backend: str, spec: CoreSpec, dtype: torch.dtype) -> Any:
    torch.manual_seed(3)
    return resolve(card.decoders[backend])(spec, card.options(**options)).to(dtype)


def shaken(core: Any) -> Any:
    """Biases and norms away from their initial zeros and ones."""
    torch.manual_seed(4)
    with torch.no_grad():
        for p in core.parameters():
            p.add_(0.2 * torch.randn_like(p, dtype=torch.float64).to(p))
    return core


def outcome(core: Any, x: Tensor, lengths: Tensor | None, steps_before: int = 0) -> list[Tensor]:
    """Outputs, states, and the gradients in the input, the state and every parameter."""
    x, state = x.to(next(core.parameters()).dtype).requires_grad_(), None
    if steps_before:
        B, T, D = x.shape
        ragged = 1 + torch.arange(B) % steps_before
        with torch.no_grad():
            _, state = core(normal(B, steps_before, D, seed=9).to(x), core.initial_state(B, T + steps_before), ragged)
        state = map_leaves(lambda leaf: leaf.requires_grad_(leaf.is_floating_point()), state)
    y, after = core(x, state, lengths)
    learned = [leaf for leaf in leaves(state) if leaf.requires_grad]
    outputs = [y, *(leaf for leaf in leaves(after) if leaf.is_floating_point())]
    gradients = torch.autograd.grad(weighted_sum(outputs), [x, *learned, *core.parameters()])
    return [t.detach() for t in (*outputs, *gradients)]


def decoded(decoder: Any, x: Tensor, outputs: Tensor, lengths: Tensor, target_lengths: Tensor | None) -> list[Tensor]:
    """Outputs, and the gradients in the target, the memory and every parameter."""
    dtype = next(decoder.parameters()).dtype
    x, outputs = x.to(dtype).requires_grad_(), outputs.to(dtype).requires_grad_()
    y, _ = decoder(x, decoder.start(Memory(outputs, lengths, outputs[:, 0]), 0), target_lengths)
    return [t.detach() for t in (y, *torch.autograd.grad(weighted_sum([y]), [x, outputs, *decoder.parameters()]))]


def assert_same(ours: list[Tensor], theirs: list[Tensor], tolerance: float = 1e-10) -> None:
    for got, want in zip(ours, theirs, strict=True):
        got, want = got.detach(), want.detach()
        assert float((got - want).abs().max()) <= tolerance * max(1.0, float(want.abs().max()))


# --- against torch in float64 -----------------------------------------------------------------------


@backends
@settings(max_examples=60, deadline=None)
@given(
    options=OPTIONS, B=st.integers(1, 9), T=st.integers(1, LONGEST), d=st.sampled_from([2, 4, 10, 16, 18]),
    projected=st.booleans(), layers=st.integers(1, 2), both=st.booleans(), ragged=st.booleans(),
    steps_before=st.integers(0, 5), data=st.data(),
)  # fmt: skip
def test_equals_torch(
    backend: str, options: dict[str, Any], B: int, T: int, d: int, projected: bool, layers: int, both: bool,
    ragged: bool, steps_before: int, data: st.DataObject,
) -> None:  # fmt: skip
    """Values, states and every gradient, to 1e-10."""
    H = options["heads"] * d
    spec = CoreSpec(7 if projected else H, H, layers, causal=not both, train_length=LONGEST + 5)
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, T), min_size=B, max_size=B))) if ragged else None
    ours, theirs = (shaken(core_of(card, options, name, spec, torch.float64)) for name in (backend, "torch"))
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q), name  # the same start from the same seed
    x = normal(B, T, spec.input_size)
    assert_same(*(outcome(core, x, lengths, 0 if both else steps_before) for core in (ours, theirs)))


@backends
@settings(max_examples=40, deadline=None)
@given(
    options=OPTIONS, B=st.integers(1, 7), U=st.integers(1, 40), S=st.integers(1, LONGEST), M=st.integers(1, 20),
    layers=st.integers(1, 2), ragged=st.booleans(), data=st.data(),
)  # fmt: skip
def test_the_decoder_equals_torchs(
    backend: str, options: dict[str, Any], B: int, U: int, S: int, M: int, layers: int, ragged: bool,
    data: st.DataObject,
) -> None:  # fmt: skip
    H = 4 * options["heads"]
    spec = CoreSpec(H, H, layers, train_length=LONGEST, memory_size=M)
    lengths = torch.tensor(data.draw(st.lists(st.integers(1, S), min_size=B, max_size=B)))
    targets = torch.tensor(data.draw(st.lists(st.integers(1, U), min_size=B, max_size=B))) if ragged else None
    ours, theirs = (shaken(decoder_of(options, name, spec, torch.float64)) for name in (backend, "torch"))
    x, memory = normal(B, U, H), normal(B, S, M, seed=1)
    assert_same(*(decoded(decoder, x, memory, lengths, targets) for decoder in (ours, theirs)))


@backends
def test_the_alignment_is_torchs(backend: str) -> None:
    """The last layer's attention to the memory, ragged, averaged over the heads."""
    spec, lengths = CoreSpec(12, 12, 2, dropout=0.4, train_length=40, memory_size=5), torch.tensor([6, 2, 40])
    memory, found = normal(3, 40, 5), []
    for name in (backend, "torch"):
        decoder = shaken(decoder_of({}, name, spec, torch.float64)).eval()
        start = decoder.start(Memory(memory, lengths, memory[:, 0]), 0)
        found.append([decoder.explain(normal(3, 33, 12), start)["alignment"]])
    assert_same(*found)


@backends
@pytest.mark.parametrize("options", [{}, {"norm": "post", "activation": "gelu"}], ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
def test_dropout_draws_the_same_masks(backend: str, options: dict[str, Any], causal: bool) -> None:
    """From one seed: outputs and gradients are equal, and so is the generator afterwards."""
    spec = CoreSpec(6, 24, 2, causal=causal, dropout=0.3, train_length=40)
    lengths, found = torch.tensor([40, 7, 23]), []
    for name in (backend, "torch"):
        core = core_of(card, options, name, spec, torch.float64).train()
        torch.manual_seed(8)
        found.append([*outcome(core, normal(3, 40, 6), lengths), torch.rand(3)])
    assert_same(*found)


@backends
def test_dropout_of_the_decoder_and_of_steps_draws_the_same_masks(backend: str) -> None:
    spec = CoreSpec(8, 8, 2, dropout=0.3, train_length=20, memory_size=5)
    found = []
    for name in (backend, "torch"):
        decoder = decoder_of({}, name, spec, torch.float64).train()
        torch.manual_seed(8)
        done = decoded(decoder, normal(3, 9, 8), normal(3, 6, 5), torch.tensor([6, 2, 4]), torch.tensor([9, 1, 5]))
        memory = normal(3, 6, 5)
        state = decoder.start(Memory(memory, None, memory[:, 0]), 4)
        for t in range(3):
            y_t, state = decoder.step(normal(3, 8, seed=t), state)
            done.append(y_t)
        found.append(done)
    assert_same(*found)


@settings(max_examples=30, deadline=None)
@given(
    options=OPTIONS, B=st.integers(1, 21), d=st.sampled_from([2, 10, 16, 18, 40]), projected=st.booleans(),
    before=st.integers(0, 40), decoding=st.booleans(),
)  # fmt: skip
def test_steps_equal_torchs(
    options: dict[str, Any], B: int, d: int, projected: bool, before: int, decoding: bool
) -> None:
    """From ragged caches with more room than there are steps."""
    H = options["heads"] * d
    spec = CoreSpec(7 if projected else H, H, 2, train_length=60, memory_size=5 if decoding else 0)
    found = []
    for name in ("numba", "torch"):
        make = decoder_of if decoding else lambda *given: core_of(card, *given)
        core = shaken(make(options, name, spec, torch.float64)).eval()
        memory = normal(B, 9, 5)
        lengths = 1 + torch.arange(B) % 9
        state = core.start(Memory(memory, lengths, memory[:, 0]), 50) if decoding else core.initial_state(B, 50)
        if before:
            with torch.no_grad():
                _, state = core(normal(B, before, spec.input_size), state, 1 + torch.arange(B) % before)
        outputs = []
        for t in range(3):
            y_t, state = core.step(normal(B, spec.input_size, seed=t), state)
            outputs.append(y_t)
        found.append([*outputs, *(leaf.double() for leaf in leaves(state))])
    assert_same(*found)


def test_a_step_attends_to_what_has_been_seen_alone() -> None:
    """What lies behind in the cache is never read, and nothing but the new step is written."""
    core = core_of(card, {}, "numba", CoreSpec(8, 8, 2), torch.float64).eval()
    _, state = core(normal(2, 3, 8), core.initial_state(2, 10))
    start, caches = map_leaves(Tensor.detach, state)
    spoilt = tuple(tuple(torch.where(torch.arange(10)[:, None] < 3, side, torch.nan) for side in c) for c in caches)
    x_t = normal(2, 8)
    want, _ = core.step(x_t, map_leaves(Tensor.clone, (start, caches)))
    got, (_, after) = core.step(x_t, (start, spoilt))
    assert torch.equal(got, want)
    assert all(
        after_side is side for a, c in zip(after, spoilt, strict=True) for after_side, side in zip(a, c, strict=True)
    )
    assert all(side[:, :, 3].isfinite().all() and side[:, :, 4:].isnan().all() for c in after for side in c)


# --- in float32 -------------------------------------------------------------------------------------


@pytest.mark.slow  # compiles all for another type
@pytest.mark.parametrize("options", [{}, {"norm": "post", "activation": "gelu"}], ids=str)
@pytest.mark.parametrize(("B", "T", "H"), [(1, 256, 40), (8, 128, 64), (3, 256, 96)])
def test_the_fast_kernels_lose_no_more_than_torch(options: dict[str, Any], B: int, T: int, H: int) -> None:
    """1e-5 in the norm against float64, and at most three times torch's own error."""
    spec, x = CoreSpec(H, H, 2, train_length=T), normal(B, T, H)
    exact = outcome(core_of(card, options, "torch", spec, torch.float64), x, None)
    ours = outcome(core_of(card, options, "numba", spec, torch.float32), x, None)
    theirs = outcome(core_of(card, options, "torch", spec, torch.float32), x, None)
    for got, other, want in zip(ours, theirs, exact, strict=True):
        assert error(got, want) <= 1e-5
        assert error(got, want) <= 3 * error(other, want)


# --- threads, training, conformance -------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"norm": "post"}], ids=str)
def test_two_threads_make_the_same_bits_as_one(options: dict[str, Any]) -> None:
    """But for the sums over the batch, which are split elsewhere; and torch's own number of threads stays."""
    spec, x, lengths = CoreSpec(20, 24, 2, train_length=50), normal(7, 50, 20), torch.tensor([50, 3, 41, 50, 8, 1, 22])
    one = outcome(core_of(card, options, "numba", spec, torch.float32), x, lengths)
    torch.set_num_threads(2)
    two = outcome(core_of(card, options, "numba", spec, torch.float32), x, lengths)
    again = outcome(core_of(card, options, "numba", spec, torch.float32), x, lengths)
    assert torch.get_num_threads() == 2
    for a, b, c in zip(one, two, again, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)
        assert torch.equal(b, c)
    assert torch.equal(one[0], two[0])


@backends
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_learns_like_torch_on_a_real_task(cards: Registry, backend: str, dropout: float) -> None:
    """50 steps of char-lm in float64 from one seed: the losses differ by rounding alone."""
    losses = [losses_of_training(cards, card, {}, name, layers=2, dropout=dropout) for name in ("torch", backend)]
    assert losses[0][-1] < losses[0][0] - 0.3
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), rtol=0, atol=1e-9)


@backends
@pytest.mark.parametrize("options", conformance.cases(card), ids=str)
def test_conformance(options: Any, backend: str) -> None:
    conformance.check_all(card, options, backend)


# --- autograd -----------------------------------------------------------------------------------------


@backends
def test_a_second_backward_pass_over_one_graph_gives_the_same(backend: str) -> None:
    core = core_of(card, {}, backend, CoreSpec(5, 8, 2), torch.float64)
    x = normal(2, 4, 5).requires_grad_()
    loss = core(x)[0].pow(2).sum()
    first, second = (torch.autograd.grad(loss, [x, *core.parameters()], retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)


def test_graphs_that_live_at_the_same_time_do_not_disturb_one_another() -> None:
    """Buffers are used again, but not while a graph needs them."""
    core = core_of(card, {}, "numba", CoreSpec(8, 8, 2), torch.float64)
    inputs = [normal(2, 4, 8, seed=n).requires_grad_() for n in range(3)]
    alone = [torch.autograd.grad(core(x)[0].pow(2).sum(), x)[0] for x in inputs]
    losses = [core(x)[0].pow(2).sum() for x in inputs]
    for x, loss, want in zip(inputs, losses, alone, strict=True):
        assert torch.equal(torch.autograd.grad(loss, x)[0], want)


@backends
def test_a_second_derivative_is_refused(backend: str) -> None:
    core = core_of(card, {}, backend, CoreSpec(5, 8), torch.float64)
    x = normal(2, 4, 5).requires_grad_()
    with pytest.raises(Refused, match="create_graph"):
        torch.autograd.grad(core(x)[0].sum(), x, create_graph=True)


def test_a_parameter_changed_before_the_backward_pass_is_noticed() -> None:
    core = core_of(card, {}, "numba", CoreSpec(8, 8), torch.float64)
    loss = core(normal(2, 4, 8))[0].sum()
    with torch.no_grad():
        core.layers[0].qkv.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_steps_of_other_sizes_are_refused_and_one_for_which_the_cache_has_no_room() -> None:
    """The kernels would read and write what lies behind them."""
    core = core_of(card, {"positions": "none"}, "numba", CoreSpec(5, 8), torch.float64).eval()
    x = torch.zeros(3, 5, dtype=torch.float64)
    with pytest.raises(ValueError, match="the input has 4 numbers a step; expected 5"):
        core.step(x[:, :4], core.initial_state(3, 2))
    with pytest.raises(ValueError, match="the state is of 2 sequences; expected 3"):
        core.step(x, core.initial_state(2, 2))
    _, state = core.step(x, core.initial_state(3, 1))
    with pytest.raises(ValueError, match="the cache is full: it was made for 1 step"):
        core.step(x, state)


@pytest.mark.parametrize("backend", ["torch", "numba", "numba-ref"])
def test_a_chunk_for_which_the_cache_has_no_room_is_refused(backend: str) -> None:
    """Its last steps would be lost without a word; padding needs no room."""
    core = core_of(card, {}, backend, CoreSpec(5, 8), torch.float64)
    x = normal(2, 3, 5)
    _, state = core(x, core.initial_state(2, 5))
    core(x[:, :2], state)
    core(x, state, torch.tensor([2, 1]))
    with pytest.raises(ValueError, match="the cache is full: it was made for 5 steps, and this chunk ends at 6"):
        core(x, state, torch.tensor([2, 3]))


@backends
def test_other_devices_and_numbers_are_refused(backend: str) -> None:
    core = core_of(card, {"positions": "none"}, backend, CoreSpec(8, 8), torch.float32)
    with pytest.raises(Refused, match="runs on the CPU, not on meta"):
        core(torch.zeros(1, 2, 8, device="meta"))
    with pytest.raises(Refused, match=r"float32 or float64, not in torch\.bfloat16"):
        core.to(torch.bfloat16)(torch.zeros(1, 2, 8, dtype=torch.bfloat16))
    double, x = (
        core_of(card, {"positions": "none"}, backend, CoreSpec(8, 8), torch.float64).eval(),
        torch.zeros(1, 2, 8),
    )
    for run in (lambda: double(x), lambda: double.step(x[:, 0], double.initial_state(1, 2))):
        with pytest.raises(Refused, match=r"the input is of torch\.float32, parameters or state are of torch\.float64"):
            run()


@backends
def test_inputs_of_any_stride_are_read(backend: str) -> None:
    core = core_of(card, {"positions": "none"}, backend, CoreSpec(8, 8), torch.float64)
    x = normal(8, 3, 7)
    want, _ = core(x.permute(1, 2, 0).contiguous())
    got, _ = core(x.permute(1, 2, 0))  # features far apart
    assert torch.equal(got, want)
    one, _ = core(normal(1, 7, 8).expand(3, 7, 8))
    assert torch.equal(one[0], one[2])


def same_as_whole(core: Any) -> bool:
    """One step equals a whole sequence of one step."""
    x = normal(2, 1, 8).to(next(core.parameters()))
    y_t, _ = core.step(x[:, 0], core.initial_state(2, 1))
    return torch.allclose(y_t, core(x)[0][:, 0], atol=1e-6)


@pytest.mark.slow  # compiles all for another type
def test_steps_follow_a_change_of_type() -> None:
    core = core_of(card, {}, "numba", CoreSpec(8, 8), torch.float64).eval()
    assert same_as_whole(core)
    assert same_as_whole(core.float())
    assert same_as_whole(core.double())


def test_steps_follow_the_parameters_wherever_they_go() -> None:
    """What is kept from step to step are views: written into, copied or replaced, all is seen."""
    core = core_of(card, {}, "numba", CoreSpec(8, 8), torch.float64).eval()
    assert same_as_whole(core)
    with torch.no_grad():
        core.layers[0].hidden.weight.mul_(3)
    assert same_as_whole(core)
    other = deepcopy(core)
    with torch.no_grad():
        other.layers[0].back.weight.mul_(3)
    assert same_as_whole(other)
    assert same_as_whole(core)
    core.layers[0].qkv.weight = nn.Parameter(torch.randn(24, 8, dtype=torch.float64))
    assert same_as_whole(core)


def test_compiled_functions_are_kept_on_disk() -> None:
    core_of(card, {}, "numba", CoreSpec(8, 8), torch.float64)(torch.zeros(1, 2, 8, dtype=torch.float64))
    stats = attention_calls()[0].stats
    assert stats.cache_path
    assert sum(stats.cache_hits.values()) + sum(stats.cache_misses.values()) > 0
