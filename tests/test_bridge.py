"""The bridge against attention written out step by step, and the three ways in which a core starts."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.gradcheck import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from seqbench.api import CoreSpec, Memory
from seqbench.bridge import Bridge
from seqbench.registry import Registry, resolve
from seqbench.states import leaves

D, H, M, B, S, U = 3, 4, 6, 3, 5, 4
LENGTHS = torch.tensor([3, 5, 1])
KINDS = ("none", "dot", "scaled-dot", "additive")
RECURRENT = ("rnn", "lstm", "gru", "janet")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def core_of(cards: Registry, name: str, layers: int = 1) -> Any:
    torch.manual_seed(5)
    card = cards.model(name)
    width = 4 if name == "transformer" else H
    spec = CoreSpec(D, width, layers, train_length=16)
    return resolve(card.cores["torch"])(spec, card.options()).double()


def bridge_of(cards: Registry, name: str, kind: str, start: str, memory_size: int = M, layers: int = 1) -> Bridge:
    core = core_of(cards, name, layers)
    return Bridge(core, D, memory_size, kind, start).double()  # type: ignore[arg-type]


def memory(size: int = M, state: Any = None) -> Memory:
    outputs = normal(B, S, size)
    outputs[torch.arange(S) >= LENGTHS[:, None]] = 0.0
    return Memory(outputs, LENGTHS, normal(B, size, seed=2), state)


# --- the equations ------------------------------------------------------------------------------------


def score(bridge: Bridge, kind: str, s: Tensor, h: Tensor) -> Tensor:
    """``align(s_i, h_j)`` of one pair of vectors, as the module's docstring has it."""
    p = dict(bridge.attention.named_parameters())  # type: ignore[union-attr]
    if kind == "additive":
        hidden = p["of_output.weight"] @ s + p["of_memory.weight"] @ h + p["of_memory.bias"]
        return p["v.weight"][0] @ torch.tanh(hidden)
    key = p["project.weight"] @ h if "project.weight" in p else h
    return s @ key / (len(s) ** 0.5 if kind == "scaled-dot" else 1.0)


def by_hand(bridge: Bridge, kind: str, s: Tensor, memory: Memory) -> Tensor:
    """Outputs ``(B, U, H)`` from the core's ``s (B, U, H)``, one pair of steps at a time."""
    rows = []
    for b in range(B):
        h = memory.outputs[b, : int(LENGTHS[b])]
        for i in range(s.shape[1]):
            weights = torch.stack([score(bridge, kind, s[b, i], h_j) for h_j in h]).softmax(0)
            context = (weights[:, None] * h).sum(0)
            rows.append(torch.tanh(bridge.combine(torch.cat([s[b, i], context]))))  # type: ignore[misc]
    return torch.stack(rows).view(B, s.shape[1], -1)


@pytest.mark.parametrize("size", [M, H])
@pytest.mark.parametrize("kind", KINDS[1:])
def test_outputs_and_gradients_are_those_of_the_equations(cards: Registry, kind: str, size: int) -> None:
    bridge, x = bridge_of(cards, "gru", kind, "prefix", size), normal(B, U, D, seed=3)
    given = memory(size)
    got, none = bridge(x, bridge.start(given, 0))
    assert none is None
    prefixed = torch.cat([bridge.maps[0](given.summary).unsqueeze(1), x], 1)
    s = bridge.core(prefixed)[0][:, 1:]
    want = by_hand(bridge, kind, s, given)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    weight = normal(*got.shape, seed=4)
    parameters = dict(bridge.named_parameters())
    ours, hand = (torch.autograd.grad((y * weight).sum(), list(parameters.values())) for y in (got, want))
    for name, a, b in zip(parameters, ours, hand, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12, msg=name)


def test_without_attention_the_core_is_all_there_is(cards: Registry) -> None:
    bridge, x = bridge_of(cards, "gru", "none", "map"), normal(B, U, D, seed=3)
    given = memory()
    got, _ = bridge(x, bridge.start(given, 0))
    want, _ = bridge.core(x, (bridge.maps[0](given.summary),))
    torch.testing.assert_close(got, want)
    assert bridge.explain(x, bridge.start(given, 0)) == {}


# --- the three starts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECURRENT)
def test_a_core_starts_from_the_encoders_own_state(cards: Registry, name: str) -> None:
    bridge, encoder, x = bridge_of(cards, name, "none", "state", H, 2), core_of(cards, name, 2), normal(B, U, D)
    source = normal(B, S, D, seed=6)
    y, state = encoder(source, encoder.initial_state(B, S), LENGTHS)
    given = Memory(y, LENGTHS, encoder.summary(y, LENGTHS), state)
    got, _ = bridge(x, bridge.start(given, 0))
    for row, n in enumerate(LENGTHS.tolist()):  # reading on after the source is the same as reading both
        both = torch.cat([source[row : row + 1, :n], x[row : row + 1]], 1)
        torch.testing.assert_close(got[row], encoder(both)[0][0, n:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", RECURRENT)
def test_every_part_of_the_state_is_a_map_of_the_summary(cards: Registry, name: str) -> None:
    bridge, given = bridge_of(cards, name, "dot", "map", layers=2), memory()
    _, (first, state) = bridge.start(given, 7)
    assert first is None
    found = list(leaves(state))
    assert len(found) == len(bridge.maps) == (4 if name == "lstm" else 2)
    for leaf, linear in zip(found, bridge.maps, strict=True):
        torch.testing.assert_close(leaf, given.summary @ linear.weight.T + linear.bias)


@pytest.mark.parametrize("name", ["tcn", "transformer", "gru"])
def test_the_summary_is_a_step_before_the_first(cards: Registry, name: str) -> None:
    bridge, given, x = bridge_of(cards, name, "none", "prefix"), memory(), normal(B, U, D, seed=3)
    first = bridge.maps[0](given.summary).unsqueeze(1)
    want = bridge.core(torch.cat([first, x], 1))[0][:, 1:]
    torch.testing.assert_close(bridge(x, bridge.start(given, 0))[0], want, rtol=0, atol=1e-12)


# --- what every decoder must do -----------------------------------------------------------------------

SETTINGS = [
    (name, kind, start)
    for name in (*RECURRENT, "tcn", "transformer")
    for kind in KINDS
    for start in (("prefix",) if name in ("tcn", "transformer") else ("map",))
]


@pytest.mark.parametrize(("name", "kind", "start"), SETTINGS)
def test_a_whole_target_is_chunks_is_steps_in_any_order_of_rows(
    cards: Registry, name: str, kind: str, start: str
) -> None:
    bridge, given, x = bridge_of(cards, name, kind, start, layers=2), memory(), normal(B, 7, D, seed=3)
    whole, _ = bridge(x, bridge.start(given, 0))
    state, done = bridge.start(given, 7), []
    for part in x.split([3, 4], 1):
        y, state = bridge(part, state)
        done.append(y)
    torch.testing.assert_close(torch.cat(done, 1), whole, rtol=0, atol=1e-12)
    state = bridge.start(given, 7)
    for t in range(7):
        y_t, state = bridge.step(x[:, t], state)
        torch.testing.assert_close(y_t, whole[:, t], rtol=0, atol=1e-12)
        assert not y_t.requires_grad


@pytest.mark.parametrize(("name", "kind", "start"), SETTINGS)
def test_neither_the_future_nor_padding_nor_neighbours_matter(
    cards: Registry, name: str, kind: str, start: str
) -> None:
    bridge, given, x = bridge_of(cards, name, kind, start), memory(), normal(B, U, D, seed=3)
    y, _ = bridge(x, bridge.start(given, 0))
    later = torch.cat([x[:, :2], normal(B, U - 2, D, seed=8)], 1)
    torch.testing.assert_close(bridge(later, bridge.start(given, 0))[0][:, :2], y[:, :2], rtol=0, atol=1e-12)
    for row, n in enumerate(LENGTHS.tolist()):
        alone = Memory(given.outputs[row : row + 1, :n], None, given.summary[row : row + 1])
        one, _ = bridge(x[row : row + 1], bridge.start(alone, 0))
        torch.testing.assert_close(one[0], y[row], rtol=0, atol=1e-12)
    lengths = torch.tensor([2, 4, 1])
    cut, _ = bridge(x, bridge.start(given, 0), lengths)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(cut[row, :n], y[row, :n], rtol=0, atol=1e-12)
        assert not cut[row, n:].any()


@pytest.mark.parametrize(("name", "kind", "start"), SETTINGS)
def test_flops_are_what_torch_counts(cards: Registry, name: str, kind: str, start: str) -> None:
    bridge, x = bridge_of(cards, name, kind, start), normal(B, U, D)
    given = Memory(normal(B, S, M), None, normal(B, M))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        bridge(x, bridge.start(given, 0))
        core = bridge.core(normal(B, U + (start == "prefix"), D))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as alone:
        bridge.core(normal(B, U + (start == "prefix"), D))
    assert core[1] is None
    counted = counter.get_total_flops() - 2 * alone.get_total_flops()  # torch counts no fused recurrent core
    assert counted == bridge.flops(B, U, S) - bridge.core.flops(B, U + (start == "prefix"))  # type: ignore[operator]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_alignment_explains_the_output(cards: Registry, kind: str) -> None:
    bridge, given, x = bridge_of(cards, "lstm", kind, "map"), memory(), normal(B, U, D, seed=3)
    state = bridge.start(given, 0)
    weights = bridge.explain(x, state)["alignment"]
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, U).double())
    assert not weights.detach().masked_select((torch.arange(S) >= LENGTHS[:, None])[:, None]).any()
    s = bridge.core(x, state[1][1])[0]
    context = torch.einsum("bus,bsm->bum", weights, given.outputs)
    want = torch.tanh(bridge.combine(torch.cat([s, context], -1)))  # type: ignore[misc]
    torch.testing.assert_close(bridge(x, state)[0], want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_finite_differences(cards: Registry, kind: str) -> None:
    bridge = bridge_of(cards, "gru", kind, "map")

    def outputs(x: Tensor, h: Tensor, summary: Tensor) -> Tensor:
        return bridge(x, bridge.start(Memory(h, LENGTHS, summary), 0))[0]

    inputs = (normal(B, 2, D), normal(B, S, M, seed=1), normal(B, M, seed=2))
    gradcheck(outputs, tuple(t.requires_grad_() for t in inputs), fast_mode=True)
