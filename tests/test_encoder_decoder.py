"""The encoder-decoder as a whole: padding, parameters, refusals, and that it learns."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.api import Batch, DecoderForm, Form, PluginError, Refused, Tokens, Vectors
from seqbench.assemble import build, core_spec, count
from seqbench.losses import cross_entropy, targets_of
from seqbench.predict import NetworkPredictor
from seqbench.quantities import Budget
from seqbench.registry import Registry
from seqbench.spec import Training
from seqbench.train import Problem, Stepper

V, W, S, U = 11, 9, 7, 6
MODELS = ("rnn", "lstm", "gru", "janet", "tcn", "transformer")


def form_of(attention: str = "additive", both: bool = True) -> Form:
    decoder = DecoderForm(U, 1, 2, attention)  # type: ignore[arg-type]
    return Form(Tokens(V), W, "decoder", "class", S, causal=not both, bidirectional=both, decoder=decoder)


def network_of(cards: Registry, name: str, form: Form, width: int = 8) -> Any:
    card = cards.model(name)
    torch.manual_seed(2)
    return build(card, "torch", core_spec(card, form, width, 1), card.options(), form)


def batch_of(lengths: list[tuple[int, int]], seed: int = 0) -> Batch:
    """Random sources and targets; the padding is random too, for it must not matter."""
    rng = np.random.default_rng(seed)
    n, S_, U_ = len(lengths), max(s for s, _ in lengths), max(u for _, u in lengths)
    x, target, y_in = (rng.integers(0, v, (n, t)) for v, t in ((V, S_), (W, U_), (W, U_)))
    return Batch(
        x, target, np.array([s for s, _ in lengths]), y_in=y_in, target_lengths=np.array([u for _, u in lengths])
    )


def row(batch: Batch, b: int) -> Batch:
    assert batch.lengths is not None
    assert batch.target_lengths is not None
    assert batch.y_in is not None
    s, u = batch.lengths[b], batch.target_lengths[b]
    part = slice(b, b + 1)
    return Batch(batch.x[part, :s], batch.target[part, :u], y_in=batch.y_in[part, :u])


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("attention", ["none", "dot", "additive"])
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None)
@given(lengths=st.lists(st.tuples(st.integers(1, S), st.integers(1, U)), min_size=1, max_size=4))
def test_padding_and_neighbours_do_not_matter(
    cards: Registry, name: str, attention: str, both: bool, lengths: list[tuple[int, int]]
) -> None:
    form = form_of(attention, both)
    network, batch = network_of(cards, name, form).double(), batch_of(lengths)
    outputs = network.outputs(batch)
    targets = targets_of(batch, form, torch.device("cpu"))
    loss = cross_entropy(outputs, targets)
    alone = 0.0
    for b, (_, u) in enumerate(lengths):
        one = row(batch, b)
        said = network.outputs(one)
        torch.testing.assert_close(outputs[b : b + 1, :u], said, rtol=0, atol=1e-10)
        alone += float(cross_entropy(said, targets_of(one, form, torch.device("cpu"))).detach())
    assert float(loss.detach()) == pytest.approx(alone, abs=1e-9)
    assert targets.total == sum(u for _, u in lengths)


def test_keys_of_the_state_dict_begin_with_the_part(cards: Registry) -> None:
    for name in MODELS:
        keys = network_of(cards, name, form_of()).state_dict()
        assert {key.partition(".")[0] for key in keys} == {"input", "core", "target_input", "decoder", "head"}


def test_the_core_that_is_counted_is_encoder_and_decoder(cards: Registry) -> None:
    network = network_of(cards, "gru", form_of())
    outside = count(network.input) + count(network.target_input) + count(network.head)
    assert count(*network.core_modules) == count(network) - outside
    H, M = 8, 16
    gru = 3 * (H * H + H * H + 2 * H)
    attention = (M * H + H) + H * H + H + ((H + M) * H + H)
    assert count(*network.core_modules) == 2 * gru + gru + (M * H + H) + attention


def test_the_transformer_has_its_own_decoder_unless_there_is_no_attention(cards: Registry) -> None:
    kinds = {kind: type(network_of(cards, "transformer", form_of(kind)).decoder).__name__ for kind in ("none", "dot")}
    assert kinds == {"none": "Bridge", "dot": "Decoder"}
    assert type(network_of(cards, "lstm", form_of("dot")).decoder).__name__ == "Bridge"


@pytest.mark.parametrize(
    ("can", "both", "said"),
    [
        ({"causal", "step"}, True, "does not declare 'bidirectional'"),
        ({"causal", "bidirectional"}, True, "does not declare 'step'"),
        ({"bidirectional", "step"}, True, "does not declare 'causal'"),
    ],
)
def test_what_a_card_does_not_declare_is_refused(cards: Registry, can: set[str], both: bool, said: str) -> None:
    card = dataclasses.replace(cards.model("gru"), can=frozenset(can))
    form = form_of(both=both)
    with pytest.raises(Refused, match=said):
        build(card, "torch", core_spec(card, form, 8, 1), card.options(), form)


def test_learned_positions_are_as_many_as_the_longer_side_needs(cards: Registry) -> None:
    card = cards.model("transformer")
    options = card.options(positions="learned")
    for attention in ("additive", "none"):
        form = form_of(attention)
        network = build(card, "torch", core_spec(card, form, 8, 1), options, form)
        assert NetworkPredictor(network, card, form, cross_entropy).decode(batch_of([(S, U)]), U).tokens
        with pytest.raises(Refused, match="needs sequences of 50 steps"):
            NetworkPredictor(network, card, form, cross_entropy).decode(batch_of([(S, U)]), 50)


def test_a_form_must_not_contradict_itself() -> None:
    with pytest.raises(PluginError, match="both causal and bidirectional"):
        Form(Vectors(2), 1, "step", "value", 5, causal=True, bidirectional=True)
    with pytest.raises(PluginError, match="decoder=DecoderForm"):
        Form(Tokens(3), 3, "decoder", "class", 5, causal=False)
    with pytest.raises(PluginError, match="decoder=DecoderForm"):
        Form(Tokens(3), 3, "step", "class", 5, decoder=DecoderForm(5, 1, 2))
    with pytest.raises(PluginError, match="target='class'"):
        Form(Tokens(3), 3, "decoder", "value", 5, decoder=DecoderForm(5, 1, 2))


def test_a_predictor_refuses_what_its_network_cannot(cards: Registry) -> None:
    form = form_of()
    two = NetworkPredictor(network_of(cards, "gru", form), cards.model("gru"), form, cross_entropy)
    with pytest.raises(Refused, match="use decode"):
        two.generate(np.zeros((1, 2), np.int64), 3, np.random.default_rng(0), 1.0)
    plain = Form(Tokens(V), V, "step", "class", S)
    one = NetworkPredictor(network_of(cards, "gru", plain), cards.model("gru"), plain, cross_entropy)
    with pytest.raises(Refused, match="only a task with head 'decoder'"):
        one.decode(batch_of([(2, 2)]), 3)


def test_decoded_tokens_have_no_end_and_alignments_have_words(cards: Registry) -> None:
    form, batch = form_of(), batch_of([(3, 2), (5, 6), (7, 1)])
    network = network_of(cards, "lstm", form)
    with torch.no_grad():
        network.head.bias[2] = 3.0
    predict = NetworkPredictor(network, cards.model("lstm"), form, cross_entropy)
    found = predict.decode(batch, U, beam=3)
    assert found.ended.any()
    assert all(2 not in row for row, ended in zip(found.tokens, found.ended, strict=True) if ended)
    weights = predict.align(batch)
    assert weights is not None
    assert weights.shape == (3, 6, 7)
    assert not weights[0, :, 3:].any()
    none = form_of("none")
    assert (
        NetworkPredictor(network_of(cards, "lstm", none), cards.model("lstm"), none, cross_entropy).align(batch) is None
    )


def reversing(rng: np.random.Generator) -> Batch:
    """Sources of 3 to 6 symbols, to be written backwards."""
    n = int(rng.integers(3, 7))
    x = rng.integers(3, W, (32, n))
    target = np.concatenate([x[:, ::-1], np.full((32, 1), 2)], 1)
    y_in = np.concatenate([np.full((32, 1), 1), target[:, :-1]], 1)
    return Batch(x, target, y_in=y_in)


@pytest.mark.parametrize("name", ["gru", "tcn", "transformer"])
def test_it_learns_to_write_backwards(cards: Registry, name: str) -> None:
    decoder = DecoderForm(8, 1, 2, "additive")
    form = Form(Tokens(V), W, "decoder", "class", 6, causal=False, bidirectional=True, decoder=decoder)
    network = network_of(cards, name, form, 32)
    problem, rng = Problem(network, form, cross_entropy), np.random.default_rng(0)
    stepper = Stepper(problem, Training(lr=1e-2, batch=32, budget=Budget("steps", 300)), 300)
    for step in range(1, 301):
        stepper(step, reversing(rng))
    batch = reversing(rng)
    found = NetworkPredictor(network, cards.model(name), form, cross_entropy).decode(batch, 8, beam=2)
    right = [row.tolist() == want[:-1].tolist() for row, want in zip(found.tokens, batch.target, strict=True)]
    assert np.mean(right) > 0.9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False")
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("attention", ["none", "dot", "additive"])
@pytest.mark.parametrize("name", MODELS)
def test_equals_the_cpu_on_a_gpu(cards: Registry, name: str, attention: str, both: bool) -> None:
    """Outputs, gradients and what beam search finds, in float64."""
    form, batch = form_of(attention, both), batch_of([(5, 3), (7, 6), (1, 2)])
    found = []
    for device in ("cpu", "cuda"):
        network = network_of(cards, name, form).double().to(device)
        outputs = network.outputs(batch)
        cross_entropy(outputs, targets_of(batch, form, torch.device(device))).backward()
        gradients = [p.grad.cpu() for p in network.parameters()]
        predict = NetworkPredictor(network.eval(), cards.model(name), form, cross_entropy)
        found.append((outputs.detach().cpu(), gradients, predict.decode(batch, 8, beam=3).tokens))
    (want, want_gradients, tokens), (got, gradients, on_gpu) = found
    torch.testing.assert_close(got, want, rtol=0, atol=1e-9)
    torch.testing.assert_close(gradients, want_gradients, rtol=0, atol=1e-8)
    assert [row.tolist() for row in on_gpu] == [row.tolist() for row in tokens]
