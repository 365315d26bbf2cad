"""Tokens and FLOPs that are counted, against torch's own counter and by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from seqbench.api import Batch, DecoderForm, Form, Tokens, Vectors
from seqbench.assemble import AnyNetwork, build, core_spec
from seqbench.measure.work import count_tokens, lengths_in, training_flops
from seqbench.options import build_options
from seqbench.registry import Registry

LETTERS = Form(Tokens(10), output=10, head="step", target="class", length=7)
NUMBERS = Form(Vectors(3), output=2, head="pooled", target="value", length=7)
PAIRS = Form(
    Tokens(9), output=11, head="decoder", target="class", length=7, causal=False, bidirectional=True,
    decoder=DecoderForm(length=8, begin=1, end=2, attention="additive"),
)  # fmt: skip


def network(cards: Registry, model: str, form: Form) -> AnyNetwork:
    card = cards.model(model)
    return build(card, "torch", core_spec(card, form, 8, 2), build_options(card.options, {}, model), form)


def batch(form: Form, B: int, T: int, U: int = 0) -> Batch:
    rng = np.random.default_rng(0)
    if isinstance(form.input, Vectors):
        return Batch(rng.standard_normal((B, T, form.input.size), np.float32), np.zeros((B, form.output), np.float32))
    x = rng.integers(0, form.input.vocabulary, (B, T))
    y = rng.integers(0, form.output, (B, U))
    return Batch(x, y, y_in=y) if U else Batch(x, x)


def counted(function: Callable[[], object]) -> int:
    """The plain attention kernel is the only one whose products torch's counter can see."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


# --- lengths and tokens -------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 6)), min_size=1, max_size=5), st.booleans(), st.booleans())
@settings(deadline=None)
def test_sequences_are_counted_by_their_lengths(sizes: list[tuple[int, int]], ragged: bool, target: bool) -> None:
    """Against a loop over rows; targets have lengths, sources only where they are ragged."""
    lengths, target_lengths = np.array(sizes).T
    S, U = lengths.max(), target_lengths.max()
    x, y = np.zeros((len(sizes), S), np.int64), np.zeros((len(sizes), U), np.int64)
    more = {"y_in": y, "target_lengths": target_lengths} if target else {}
    made = Batch(x, y if target else x, lengths if ragged else None, **more)
    rows = [(s if ragged else S, u if target else 0) for s, u in sizes]
    assert lengths_in(made) == Counter(rows)
    assert count_tokens(lengths_in(made)) == sum(map(sum, rows))


@pytest.mark.parametrize(("lengths", "expected"), [(None, 12), (np.array([4, 1, 2]), 7)])
def test_tokens_of_a_batch(lengths: np.ndarray | None, expected: int) -> None:
    assert count_tokens(lengths_in(Batch(np.zeros((3, 4)), np.zeros((3, 4)), lengths))) == expected


# --- FLOPs ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tcn", "transformer"])
@pytest.mark.parametrize("form", [LETTERS, NUMBERS, PAIRS], ids=["letters", "numbers", "pairs"])
def test_forward_flops_are_what_torch_counts(cards: Registry, model: str, form: Form) -> None:
    built = network(cards, model, form)
    for T, target in ((1, 1), (5, 3), (7, 8)):
        U = target if form.decoder else 0
        made = batch(form, 1, T, U)
        assert built.forward_flops(T, U) == counted(lambda made=made: built.outputs(made))  # type: ignore[misc]


def test_an_lstm_by_hand(cards: Registry) -> None:
    """torch counts nothing in its fused LSTM on the CPU. Four gates, each with two H x H matrices, in two layers."""
    H, T = 8, 5
    assert network(cards, "lstm", LETTERS).forward_flops(T) == T * 2 * (2 * 4 * 2 * H * H + H * 10)
    assert network(cards, "lstm", NUMBERS).forward_flops(T) == T * 2 * (3 * H + 2 * 4 * 2 * H * H) + 2 * H * 2


@pytest.mark.parametrize("model", ["tcn", "transformer"])
def test_a_training_step_is_three_forward_passes(cards: Registry, model: str) -> None:
    """What torch counts in the forward and the backward pass together."""
    built, made = network(cards, model, LETTERS), batch(LETTERS, 4, 7)

    def step() -> None:
        target = torch.from_numpy(made.target).flatten()
        functional.cross_entropy(built.outputs(made).flatten(0, 1), target).backward()

    assert training_flops(built, lengths_in(made)) == counted(step)


def test_ragged_sequences_take_what_each_takes_alone(cards: Registry) -> None:
    built = network(cards, "transformer", PAIRS)
    made = batch(PAIRS, 3, 7, 8)
    ragged = Batch(made.x, made.target, np.array([7, 2, 2]), y_in=made.y_in, target_lengths=np.array([1, 8, 8]))
    one, other = (counted(lambda T=T, U=U: built.outputs(batch(PAIRS, 1, T, U))) for T, U in ((7, 1), (2, 8)))  # type: ignore[misc]
    assert training_flops(built, lengths_in(ragged)) == 3 * (one + 2 * other)
