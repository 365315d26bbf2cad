"""The budget solver, against trying every size, and against networks that are really built."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.api import CoreSpec, DecoderForm, Form, Tokens, Vectors
from seqbench.assemble import build, count
from seqbench.budget import Question, Size, largest, solve
from seqbench.errors import Refused
from seqbench.options import build_options
from seqbench.quantities import Target
from seqbench.registry import Registry

TOKENS = Form(Tokens(10), output=10, head="step", target="class", length=20)
TRANSLATION = Form(
    Tokens(47), output=74, head="decoder", target="class", length=16, causal=False, bidirectional=True,
    decoder=DecoderForm(length=18, begin=1, end=2, attention="additive"),
)  # fmt: skip
POOLED = Form(Vectors(2), output=1, head="pooled", target="value", length=50)
RECURRENT = ["rnn", "lstm", "gru", "janet"]


def question(cards: Registry, model: str, form: Form = TOKENS, layers: int | None = None, **options: Any) -> Question:
    card = cards.model(model)
    built = build_options(card.options, options, model)
    return Question(card, "torch", form, built, layers or card.default_layers(built, form.length))


def all_counts(asked: Question, multiple: int, enough: int) -> dict[int, int]:
    """Width to parameters, for all widths up to the first that has ``enough``."""
    counts = {}
    for width in itertools.count(multiple, multiple):
        counts[width] = asked.sized(width).parameters
        if counts[width] >= enough:
            return counts
    raise AssertionError


def really_built(asked: Question, size: Size) -> torch.nn.Module:
    spec = CoreSpec(size.width, size.width, asked.layers, True, train_length=asked.form.length)
    return build(asked.card, asked.backend, spec, size.options, asked.form)


@given(st.integers(-5, 5000))
@settings(deadline=None)
def test_largest_is_what_trying_all_gives(threshold: int) -> None:
    tried = []

    def holds(k: int) -> bool:
        tried.append(k)
        return k <= threshold

    assert largest(holds) == max([k for k in range(1, 5001) if k <= threshold], default=0)
    assert min(tried) >= 1, "a width of 0 is never built"
    assert len(tried) <= 30


def test_every_built_in_model_is_here(cards: Registry) -> None:
    assert {*RECURRENT, "tcn", "transformer"} <= set(cards.models)


@pytest.mark.parametrize("form", [TOKENS, POOLED], ids=["tokens", "pooled"])
@pytest.mark.parametrize("model", RECURRENT)
def test_no_width_comes_closer(cards: Registry, model: str, form: Form) -> None:
    asked = question(cards, model, form)
    counts = all_counts(asked, 1, 10_000)
    for target in (60, 1000, 1001, 7777):
        solved = solve(asked, Target(target))
        assert abs(solved.parameters - target) == min(abs(n - target) for n in counts.values())
        assert solved.parameters == counts[solved.width]
        assert solved.options == asked.options


@pytest.mark.parametrize(("model", "fine"), [("tcn", "last_channels"), ("transformer", "feed_forward")])
@pytest.mark.parametrize("target", [5_000, 12_345, 50_000])
def test_the_second_size_closes_the_gap(cards: Registry, model: str, fine: str, target: int) -> None:
    asked = question(cards, model)
    solved = solve(asked, Target(target))
    assert abs(solved.parameters / target - 1) < 0.02
    multiple = asked.card.width_multiple(asked.options)
    assert solved.width % multiple == 0
    widths_alone = all_counts(asked, multiple, target)
    assert abs(solved.parameters - target) <= min(abs(n - target) for n in widths_alone.values())
    second = getattr(solved.options, fine)
    neighbours = [asked.sized(solved.width, second + d) for d in (-1, 1) if second + d > 0]
    assert all(abs(solved.parameters - target) <= abs(n.parameters - target) for n in neighbours)


def test_a_narrow_tolerance_looks_at_the_width_beside(cards: Registry) -> None:
    """A last channel is 2 % of this TCN: none comes within 1 % at the nearest width, but one does beside it."""
    asked = question(cards, "tcn", TRANSLATION)
    coarse, exact = solve(asked, Target(100_000, 0.02)), solve(asked, Target(100_000, 0.01))
    errors = [abs(size.parameters / 100_000 - 1) for size in (coarse, exact)]
    assert 0.01 < errors[0] < 0.02
    assert errors[1] < 0.01
    assert coarse.width != exact.width


@pytest.mark.parametrize(("model", "fine"), [("tcn", "last_channels"), ("transformer", "feed_forward")])
def test_a_second_size_that_the_user_set_stays(cards: Registry, model: str, fine: str) -> None:
    asked = question(cards, model, **{fine: 13})
    solved = solve(asked, Target(20_000))
    assert getattr(solved.options, fine) == 13
    multiple = asked.card.width_multiple(asked.options)
    tried = all_counts(asked, multiple, 20_000)
    assert abs(solved.parameters - 20_000) == min(abs(n - 20_000) for n in tried.values())


def test_other_options_of_the_user_stay(cards: Registry) -> None:
    solved = solve(question(cards, "transformer", heads=3, norm="post", positions="learned"), Target(20_000))
    assert (solved.options.heads, solved.options.norm, solved.options.positions) == (3, "post", "learned")
    assert solved.width % 6 == 0


@pytest.mark.parametrize("model", [*RECURRENT, "tcn", "transformer"])
@pytest.mark.parametrize("form", [TOKENS, POOLED], ids=["tokens", "pooled"])
def test_the_count_is_that_of_the_network_that_is_built(cards: Registry, model: str, form: Form) -> None:
    for layers in (1, 3):
        asked = question(cards, model, form, layers)
        solved = solve(asked, Target(9000))
        network = really_built(asked, solved)
        by_hand = sum(p.numel() for p in network.state_dict(keep_vars=True).values() if p.requires_grad)
        assert solved.parameters == count(network) == by_hand
        adapter = sum(p.numel() for part in (network.input, network.head) for p in part.parameters())
        assert solved.core_parameters == by_hand - adapter
        assert all(not p.is_meta for p in network.parameters())


def test_counting_allocates_nothing(cards: Registry) -> None:
    """2 ** 16 wide, an LSTM has 34 billion parameters."""
    assert question(cards, "lstm").sized(1 << 16).parameters > 34e9


def test_a_target_below_the_smallest_size_gets_the_smallest(cards: Registry) -> None:
    assert solve(question(cards, "lstm"), Target(1)).width == 1
    small = solve(question(cards, "transformer"), Target(1))
    assert (small.width, small.options.feed_forward) == (4, 1)


def test_an_exact_hit_is_left_alone(cards: Registry) -> None:
    asked = question(cards, "transformer")
    target = asked.sized(32).parameters
    assert dataclasses.astuple(solve(asked, Target(target)))[:3] == (32, dataclasses.astuple(asked.options), target)


def test_what_the_card_cannot_do_is_refused(cards: Registry) -> None:
    asked = question(cards, "lstm")
    with pytest.raises(Refused, match="lstm has no 'abacus' backend; it has torch"):
        solve(dataclasses.replace(asked, backend="abacus"), Target(1000))
