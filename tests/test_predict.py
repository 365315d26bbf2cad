"""The predictor that a task is given: whole batches, streams of chunks, generated tokens."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2

from seqbench.api import Batch, CoreSpec, DecoderForm, Form, Tokens, Vectors
from seqbench.assemble import build
from seqbench.errors import Refused
from seqbench.losses import cross_entropy, squared_error
from seqbench.predict import NetworkPredictor
from seqbench.registry import Registry
from seqbench.sampling import sample

V, T = 6, 24
FORM = Form(Tokens(V), output=V, head="step", target="class", length=T)
MODELS = ["rnn", "lstm", "gru", "janet", "tcn", "transformer"]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def predictor(cards: Registry, model: str, form: Form = FORM, dropout: float = 0.0, **options: Any) -> NetworkPredictor:
    """A network in float64 with larger weights than at the start, so that outputs differ."""
    card = cards.model(model)
    built = card.options(**options)
    spec = CoreSpec(8, 8, card.default_layers(built, T), True, dropout, T)
    torch.manual_seed(1)
    network = build(card, "torch", spec, built, form).double()
    with torch.no_grad():
        network.head.weight.mul_(10)
    loss = cross_entropy if form.target == "class" else squared_error
    return NetworkPredictor(network, card, form, loss)


def tokens(rng: np.random.Generator, B: int = 3, steps: int = T) -> Batch:
    return Batch(rng.integers(0, V, (B, steps)), rng.integers(0, V, (B, steps)))


def chunks(batch: Batch, *cuts: int) -> list[Batch]:
    edges = [0, *cuts, batch.x.shape[1]]
    return [Batch(batch.x[:, a:b], batch.target[:, a:b]) for a, b in itertools.pairwise(edges)]


# --- whole batches --------------------------------------------------------------------------------------


def test_outputs_loss_and_weight_of_a_ragged_batch(cards: Registry, rng: np.random.Generator) -> None:
    """Each row alone, its padding cut off, through the same network; losses in numpy."""
    predict, batch, lengths = predictor(cards, "lstm"), tokens(rng), np.array([24, 5, 1])
    said = predict(dataclasses.replace(batch, lengths=lengths))
    loss = 0.0
    for row, length in enumerate(lengths):
        with torch.inference_mode():
            logits = predict._network(torch.from_numpy(batch.x[row : row + 1, :length]))[0].numpy()
        np.testing.assert_allclose(said.outputs[row, :length], logits, atol=1e-5)
        log_softmax = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        loss -= log_softmax[np.arange(length), batch.target[row, :length]].sum()
    assert said.outputs.dtype == np.float32
    assert said.loss == pytest.approx(loss, rel=1e-6)
    assert said.weight == 30
    assert predict.tokens == 30


def test_a_pooled_head_has_one_output_a_sequence(cards: Registry, rng: np.random.Generator) -> None:
    form = Form(Vectors(2), output=3, head="pooled", target="value", length=T)
    predict = predictor(cards, "gru", form)
    batch = Batch(rng.normal(size=(4, 9, 2)), rng.normal(size=(4, 3)), np.array([9, 2, 1, 5]))
    said = predict(batch)
    assert said.outputs.shape == (4, 3)
    assert said.weight == 4
    assert said.loss == pytest.approx(((said.outputs - batch.target) ** 2).mean(-1).sum(), rel=1e-5)
    assert predict.tokens == 17
    for row, length in enumerate(batch.lengths):
        alone = predict(Batch(batch.x[row : row + 1, :length], batch.target[row : row + 1]))
        np.testing.assert_allclose(said.outputs[row], alone.outputs[0], atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", ["call", "stream", "generate", "failure"])
def test_dropout_is_off_and_the_mode_is_put_back(
    cards: Registry, rng: np.random.Generator, training: bool, how: str
) -> None:
    predict, batch = predictor(cards, "tcn", dropout=0.5), tokens(rng)
    predict._network.train(training)
    modes = []
    predict._network.head.register_forward_hook(lambda module, *_: modes.append((module.training, grads())))

    def grads() -> bool:
        return torch.is_grad_enabled()

    if how == "call":
        np.testing.assert_array_equal(predict(batch).outputs, predict(batch).outputs)
    elif how == "stream":
        for _ in predict.stream(chunks(batch, 10)):
            assert predict._network.training is training, "between two chunks the task may train"
    elif how == "generate":
        predict.generate(batch.x, 3, rng, 1.0)
    else:
        with pytest.raises(IndexError):
            predict(dataclasses.replace(batch, x=batch.x + V))
    assert set(modes) <= {(False, False)}
    assert predict._network.training is training
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_training_goes_on_after_a_prediction(cards: Registry, rng: np.random.Generator) -> None:
    """Nothing that was made under inference mode may stay behind in the network."""
    for model in MODELS:
        predict, batch = predictor(cards, model), tokens(rng)
        predict(batch)
        predict.generate(batch.x[:, :4], 3, rng, 1.0)
        list(predict.stream(chunks(batch, 10)))
        predict._network(torch.from_numpy(batch.x)).sum().backward()
        with torch.no_grad():
            for p in predict._network.parameters():
                p.add_(p.grad, alpha=-1e-3)


# --- gradients ------------------------------------------------------------------------------------------


def by_differences(predict: NetworkPredictor, batch: Batch, loss: Any) -> np.ndarray:
    """Central differences of the loss in every number that enters the core: norms over the width, ``(B, T)``."""
    network, entered = predict._network.eval(), predict._network.input(torch.from_numpy(batch.x)).detach()
    lengths = None if batch.lengths is None else torch.from_numpy(batch.lengths)

    def at(x: torch.Tensor) -> float:
        y, _ = network.core(x, None, lengths)
        pooled = network.form.head == "pooled"
        return float(loss(network.head(network.core.summary(y, lengths) if pooled else y).numpy()))

    gradient = np.empty(entered.shape)
    with torch.inference_mode():
        for place in np.ndindex(*entered.shape):
            moved = [entered.clone(), entered.clone()]
            moved[0][place] += 1e-5
            moved[1][place] -= 1e-5
            gradient[place] = (at(moved[0]) - at(moved[1])) / 2e-5
    return np.linalg.norm(gradient, axis=-1)


@pytest.mark.parametrize("model", MODELS)
def test_input_gradients_equal_finite_differences(cards: Registry, rng: np.random.Generator, model: str) -> None:
    """Of one step's loss, the others weighed out; dropout is off whatever the mode, which is put back."""
    predict, batch = predictor(cards, model, dropout=0.5), tokens(rng, 2, 6)
    weight = np.zeros((2, 6), np.float32)
    weight[:, 4] = [1.0, 0.5]

    def loss(logits: np.ndarray) -> float:
        at = logits[:, 4]
        return float(weight[:, 4] @ (np.log(np.exp(at).sum(-1)) - at[[0, 1], batch.target[:, 4]]))

    predict._network.train()
    found = predict.input_gradient(dataclasses.replace(batch, weight=weight))
    assert predict._network.training
    assert found.shape == (2, 6)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, by_differences(predict, batch, loss), rtol=1e-5, atol=1e-9)
    assert (found[:, 5] == 0).all(), "what comes later cannot matter"
    assert all(p.grad is None for p in predict._network.parameters())


def test_input_gradients_of_a_pooled_ragged_batch(cards: Registry, rng: np.random.Generator) -> None:
    form = Form(Vectors(2), output=1, head="pooled", target="value", length=T)
    predict = predictor(cards, "gru", form)
    batch = Batch(rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 1)), np.array([5, 2]))
    found = predict.input_gradient(batch)
    loss = by_differences(predict, batch, lambda out: ((out - batch.target) ** 2).sum())
    np.testing.assert_allclose(found, loss, rtol=1e-5, atol=1e-9)
    assert (found[1, 2:] == 0).all()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: gradients there are untested here")
@pytest.mark.parametrize("model", MODELS)
def test_input_gradients_on_cuda_equal_those_on_the_cpu(cards: Registry, rng: np.random.Generator, model: str) -> None:
    """cuDNN refuses the gradients of a recurrent layer in evaluation mode."""
    batch = tokens(rng, 2, 6)
    expected = predictor(cards, model).input_gradient(batch)
    predict = predictor(cards, model)
    there = NetworkPredictor(predict._network.cuda(), predict._card, FORM, cross_entropy)
    np.testing.assert_allclose(there.input_gradient(batch), expected, rtol=1e-9, atol=1e-12)


def test_a_sequence_longer_than_the_core_can_read_is_refused(cards: Registry, rng: np.random.Generator) -> None:
    predict = predictor(cards, "transformer", positions="learned")
    for ask in (predict, predict.input_gradient):
        with pytest.raises(Refused, match="25 steps; the core's longest is 24"):
            ask(tokens(rng, 2, T + 1))
    assert predict(tokens(rng)).outputs.shape == (3, T, V)


def test_a_source_or_a_target_that_is_too_long_is_refused(cards: Registry, rng: np.random.Generator) -> None:
    form = Form(Tokens(V), V, "decoder", "class", T, causal=False, bidirectional=True, decoder=DecoderForm(T, 1, 2))
    predict = predictor(cards, "transformer", form, positions="learned")
    fine, long = rng.integers(3, V, (2, T)), rng.integers(3, V, (2, T + 1))
    predict(Batch(fine, fine, y_in=fine))
    for batch in (Batch(long, fine, y_in=fine), Batch(fine, long, y_in=long)):
        with pytest.raises(Refused, match="25 steps; the core's longest is 24"):
            predict(batch)


# --- streams --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_chunks_of_a_stream_equal_the_whole(cards: Registry, rng: np.random.Generator, model: str) -> None:
    predict, batch = predictor(cards, model), tokens(rng)
    whole = predict(batch)
    parts = list(predict.stream(chunks(batch, 1, 9, 10)))
    np.testing.assert_allclose(np.concatenate([p.outputs for p in parts], 1), whole.outputs, atol=1e-6)
    assert sum(p.loss for p in parts) == pytest.approx(whole.loss, rel=1e-9)
    assert sum(p.weight for p in parts) == whole.weight
    assert predict.tokens == 2 * 3 * T


def test_a_stream_carries_what_a_fresh_start_forgets(cards: Registry, rng: np.random.Generator) -> None:
    predict, batch = predictor(cards, "lstm"), tokens(rng)
    second = chunks(batch, 12)[1]
    streamed = list(predict.stream(chunks(batch, 12)))[1]
    assert np.abs(streamed.outputs - predict(second).outputs)[:, 0].max() > 0.01


def test_ragged_rows_go_on_where_each_of_them_stopped(cards: Registry, rng: np.random.Generator) -> None:
    for model in MODELS:
        predict, batch = predictor(cards, model), tokens(rng, B=2, steps=12)
        first = Batch(batch.x[:, :6], batch.target[:, :6], np.array([6, 2]))
        rest = Batch(batch.x[:, 6:], batch.target[:, 6:])
        said = list(predict.stream([first, rest]))[1].outputs
        joined = np.concatenate([batch.x[1, :2], batch.x[1, 6:]])[None]
        alone = predict(Batch(joined, joined)).outputs[0, 2:]
        np.testing.assert_allclose(said[1], alone, atol=1e-6, err_msg=model)


def test_a_stream_of_nothing(cards: Registry) -> None:
    assert list(predictor(cards, "lstm").stream([])) == []


def test_streams_that_are_refused(cards: Registry, rng: np.random.Generator) -> None:
    predict = predictor(cards, "transformer", positions="learned")
    list(predict.stream(chunks(tokens(rng), 12)))
    with pytest.raises(Refused, match="needs sequences of 25 steps; the core's longest is 24"):
        list(predict.stream(chunks(tokens(rng, steps=T + 1), 12)))
    network, card = predict._network, dataclasses.replace(cards.model("gru"), can=frozenset({"bidirectional"}))
    with pytest.raises(Refused, match="gru does not declare 'step': it has no state to carry"):
        list(NetworkPredictor(network, card, FORM, cross_entropy).stream(chunks(tokens(rng), 12)))


# --- generation -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_generation_without_temperature_is_the_likeliest_of_the_whole_text_each_time(
    cards: Registry, rng: np.random.Generator, model: str
) -> None:
    """Read again from the start for every token: no state, no cache."""
    predict, prompt = predictor(cards, model), rng.integers(0, V, (3, 5))
    made = predict.generate(prompt, 12, rng, 0.0)
    text = prompt
    for _ in range(12):
        logits = predict(Batch(text, text)).outputs[:, -1]
        text = np.concatenate([text, logits.argmax(-1)[:, None]], 1)
    np.testing.assert_array_equal(made, text[:, 5:])
    assert len(np.unique(made)) > 1, "an oracle that cannot tell steps apart proves nothing"


def test_generation_with_temperature_draws_from_the_softmax_of_each_step(cards: Registry) -> None:
    """The same draws from logits that are read off the whole text each time."""
    predict = predictor(cards, "lstm")
    prompt = np.random.default_rng(0).integers(0, V, (4, 3))
    made = predict.generate(prompt, 10, np.random.default_rng(9), 0.7)
    rng, text = np.random.default_rng(9), prompt
    for _ in range(10):
        logits = predict(Batch(text, text)).outputs[:, -1].astype(np.float64)
        text = np.concatenate([text, sample(logits, rng, 0.7)[:, None]], 1)
    np.testing.assert_array_equal(made, text[:, 3:])


def test_generation_follows_from_its_generator_alone(cards: Registry) -> None:
    predict, prompt = predictor(cards, "gru"), np.zeros((2, 1), np.int64)
    first, again, other = (predict.generate(prompt, 20, np.random.default_rng(s), 1.0) for s in (4, 4, 5))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.dtype == np.int64
    assert predict.generate(prompt, 0, np.random.default_rng(0), 1.0).shape == (2, 0)


def test_generation_that_is_refused(cards: Registry, rng: np.random.Generator) -> None:
    predict = predictor(cards, "transformer", positions="learned")
    predict.generate(np.zeros((1, 4), np.int64), T - 4, rng, 1.0)
    with pytest.raises(Refused, match="needs sequences of 25 steps"):
        predict.generate(np.zeros((1, 4), np.int64), T - 3, rng, 1.0)
    card = dataclasses.replace(cards.model("lstm"), can=frozenset({"causal"}))
    silent = NetworkPredictor(predictor(cards, "lstm")._network, card, FORM, cross_entropy)
    assert silent.can_step is False
    with pytest.raises(Refused, match="lstm does not declare 'step': it cannot generate step by step"):
        silent.generate(np.zeros((1, 4), np.int64), 3, rng, 1.0)


# --- sampling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_sample_frequencies_are_those_of_the_softmax(temperature: float) -> None:
    logits, draws = np.array([1.0, -2.0, 0.5, 3.0, -0.5]), 100_000
    found = sample(np.tile(logits, (draws, 1)), np.random.default_rng(0), temperature)
    z = np.exp(logits / temperature)
    expected = draws * z / z.sum()
    statistic = ((np.bincount(found, minlength=5) - expected) ** 2 / expected).sum()
    assert statistic < chi2.ppf(0.999, df=4)


def test_each_row_is_sampled_from_its_own_logits() -> None:
    certain = np.where(np.eye(5, dtype=bool)[[3, 0, 4, 1]], 0.0, -np.inf)
    for seed in range(20):
        np.testing.assert_array_equal(sample(certain, np.random.default_rng(seed), 1.0), [3, 0, 4, 1])


def test_a_token_without_probability_is_never_drawn_whatever_the_generator_says() -> None:
    class Fixed:
        def __init__(self, value: float) -> None:
            self.value = value

        def random(self, shape: tuple[int, ...]) -> np.ndarray:
            return np.full(shape, self.value)

    logits = np.array([[-np.inf, 0.0, 0.0, -np.inf]])
    found = [int(sample(logits, Fixed(u), 1.0)[0]) for u in (0.0, 0.25, 0.49, 0.5, 0.75, 1 - 2**-53)]
    assert found == [1, 1, 1, 2, 2, 2]


def test_sampling_huge_logits_and_without_temperature() -> None:
    logits = np.array([[1e300, 0.0], [-1e6, -1e6 + 100]])
    np.testing.assert_array_equal(sample(logits, np.random.default_rng(0), 1.0), [0, 1])
    np.testing.assert_array_equal(sample(logits, np.random.default_rng(0), 0.0), [0, 1])
    np.testing.assert_array_equal(sample(np.array([[2.0, 2.0]]), np.random.default_rng(0), 0.0), [0])
