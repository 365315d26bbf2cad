"""The network: adapter, core and head, put together as the task's form says."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from seqbench import registry
from seqbench.api import CoreSpec, Form, Model, Tokens, Vectors
from seqbench.assemble import build, count
from seqbench.errors import PluginError, Refused
from seqbench.network import Network, to_tensor
from seqbench.registry import Registry

WIDTH, T = 8, 12
TOKENS = Form(Tokens(5), output=5, head="step", target="class", length=T)
VECTORS = Form(Vectors(3), output=2, head="pooled", target="value", length=T)


def make(cards: Registry, model: str = "lstm", form: Form = TOKENS, causal: bool = True, **options: Any) -> Network:
    card = cards.model(model)
    layers = card.default_layers(card.options(), T)
    torch.manual_seed(0)
    spec = CoreSpec(WIDTH, WIDTH, layers, causal, train_length=form.length)
    return build(card, "torch", spec, card.options(**options), form).double()


@pytest.mark.parametrize("form", [TOKENS, VECTORS], ids=["tokens", "vectors"])
@pytest.mark.parametrize("model", ["rnn", "lstm", "gru", "janet", "tcn", "transformer"])
def test_keys_of_the_state_dict_have_stable_prefixes(cards: Registry, model: str, form: Form) -> None:
    keys = set(make(cards, model, form).state_dict())
    assert {key.partition(".")[0] for key in keys} == {"input", "core", "head"}
    adapter = {"input.weight"} if form is TOKENS else {"input.weight", "input.bias"}
    assert {key for key in keys if not key.startswith("core.")} == adapter | {"head.weight", "head.bias"}


def test_tokens_enter_through_an_embedding_of_unit_variance(cards: Registry) -> None:
    form = dataclasses.replace(TOKENS, input=Tokens(2000))
    network = make(cards, form=form)
    assert isinstance(network.input, nn.Embedding)
    assert network.input.weight.shape == (2000, WIDTH)
    assert network.input.weight.var().item() == pytest.approx(1.0, abs=0.05)


def test_vectors_enter_through_a_linear_layer(cards: Registry) -> None:
    network = make(cards, form=VECTORS)
    assert isinstance(network.input, nn.Linear)
    assert (network.input.in_features, network.input.out_features) == (3, WIDTH)


def test_a_step_head_is_linear_in_what_the_core_says(cards: Registry) -> None:
    network = make(cards)
    x = torch.randint(0, 5, (2, 7))
    lengths = torch.tensor([7, 3])
    y, _ = network.core(network.input.weight[x], None, lengths)
    expected = y @ network.head.weight.T + network.head.bias
    torch.testing.assert_close(network(x, lengths), expected)


@pytest.mark.parametrize("model", ["lstm", "tcn", "transformer"])
def test_a_pooled_head_reads_the_summary_of_each_row(cards: Registry, model: str) -> None:
    network = make(cards, model, VECTORS)
    x, lengths = torch.randn(3, 7, 3, dtype=torch.float64), torch.tensor([7, 1, 4])
    outputs = network(x, lengths)
    assert outputs.shape == (3, 2)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(outputs[row], network(x[row : row + 1, :length])[0])
    calls = []
    summary = network.core.summary
    network.core.summary = lambda y, lengths: calls.append(y.shape) or summary(y, lengths) * 0
    torch.testing.assert_close(network(x, lengths), network.head.bias.expand(3, 2), msg="the head reads the summary")
    assert calls == [(3, 7, WIDTH)]


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("model", ["lstm", "tcn", "transformer"])
def test_a_pooling_head_reads_the_mean_or_maximum_of_each_row(cards: Registry, model: str, pooling: Any) -> None:
    network = make(cards, model, dataclasses.replace(VECTORS, pooling=pooling))
    x, lengths = torch.randn(3, 7, 3, dtype=torch.float64), torch.tensor([7, 1, 4])
    y, _ = network.core(network.input(x), None, lengths)
    weight, bias = network.head.weight.detach().numpy(), network.head.bias.detach().numpy()
    for row, length in enumerate(lengths.tolist()):
        steps = y[row, :length].detach().numpy()  # the maximum may be below 0: padding must not win
        pooled = steps.mean(0) if pooling == "mean" else steps.max(0)
        np.testing.assert_allclose(network(x, lengths)[row].detach(), weight @ pooled + bias, rtol=1e-10, atol=1e-12)


def test_a_bidirectional_core_has_a_head_of_twice_its_width(cards: Registry) -> None:
    network = make(cards, "gru", dataclasses.replace(VECTORS, causal=False), causal=False)
    assert network.head.in_features == 2 * WIDTH
    assert network(torch.zeros(1, 4, 3, dtype=torch.float64)).shape == (1, 2)


def test_every_parameter_gets_a_gradient(cards: Registry) -> None:
    for model in ("lstm", "tcn", "transformer"):
        network = make(cards, model)
        network(torch.randint(0, 5, (4, T))).square().sum().backward()
        missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum()]
        assert missing == [], model


def test_steps_equal_the_whole(cards: Registry) -> None:
    network = make(cards).eval()
    x = torch.randint(0, 5, (2, T))
    state = network.initial_state(2, T)
    outputs = []
    for t in range(T):
        out, state = network.step(x[:, t], state)
        outputs.append(out)
    torch.testing.assert_close(torch.stack(outputs, 1), network(x))


# --- refusals -------------------------------------------------------------------------------------------


def test_a_backend_that_the_card_does_not_have(cards: Registry) -> None:
    with pytest.raises(Refused, match="lstm has no 'abacus' backend; it has torch"):
        build(cards.model("lstm"), "abacus", CoreSpec(WIDTH, WIDTH), cards.model("lstm").options(), TOKENS)


def test_a_task_that_must_not_look_ahead_refuses_a_model_that_does(cards: Registry) -> None:
    card = dataclasses.replace(cards.model("gru"), can=frozenset({"bidirectional"}))
    spec = CoreSpec(WIDTH, WIDTH, causal=False)
    with pytest.raises(Refused, match="needs a model that does not look ahead; gru does not declare 'causal'"):
        build(card, "torch", spec, card.options(), TOKENS)
    free = dataclasses.replace(TOKENS, causal=False)
    assert build(card, "torch", spec, card.options(), free).head.in_features == 2 * WIDTH


def test_a_core_whose_sequences_are_too_short(cards: Registry) -> None:
    card = cards.model("transformer")
    options = card.options(positions="learned")
    build(card, "torch", CoreSpec(WIDTH, WIDTH, train_length=T), options, TOKENS)
    with pytest.raises(Refused, match="the task needs sequences of 12 steps; transformer's longest is 11"):
        build(card, "torch", CoreSpec(WIDTH, WIDTH, train_length=T - 1), options, TOKENS)


def test_a_state_beyond_the_longest_sequence(cards: Registry) -> None:
    network = make(cards, "transformer", positions="learned")
    network.initial_state(1, T)
    with pytest.raises(Refused, match="needs sequences of 13 steps; the core's longest is 12"):
        network.initial_state(1, T + 1)
    make(cards, "transformer").initial_state(1, 10 * T)


def test_a_core_that_cannot_be_loaded(cards: Registry) -> None:
    card = Model("broken", "", "", {"torch": "no.such.module:Core"})
    with pytest.raises(PluginError, match=r"cannot load 'no\.such\.module:Core': No module named 'no'"):
        build(card, "torch", CoreSpec(WIDTH, WIDTH), None, TOKENS)


# --- a plugin in one file -------------------------------------------------------------------------------


def test_a_model_from_a_single_file(plugins) -> None:
    card = registry.load([plugins / "running_mean.py"]).model("running-mean")
    torch.manual_seed(0)
    network = build(card, "torch", CoreSpec(WIDTH, WIDTH), card.options(), TOKENS).double()
    x = torch.randint(0, 5, (2, 7))
    embedded = network.input(x)
    means = torch.stack([embedded[:, : t + 1].mean(1) for t in range(7)], 1)
    torch.testing.assert_close(network(x), network.head(network.core.linear(means)))


# --- small parts ----------------------------------------------------------------------------------------


def test_count_is_of_trainable_parameters_and_of_shared_ones_once() -> None:
    a, b = nn.Linear(3, 4), nn.Linear(3, 4)
    b.weight = a.weight
    a.bias.requires_grad_(False)
    assert count(nn.ModuleList([a, b])) == 12 + 4


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
def test_to_tensor_keeps_the_type(dtype: type) -> None:
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    tensor = to_tensor(array, torch.device("cpu"))
    assert tensor.numpy().dtype == dtype
    np.testing.assert_array_equal(tensor.numpy(), array)


SHAPES = {
    "time first": lambda y: y.transpose(0, 1),
    "one step for all": lambda y: y[:, :1],
    "another width": lambda y: y[..., :-1],
    "no tensor": lambda y: [y],
}


@pytest.mark.parametrize("fault", SHAPES)
def test_outputs_of_another_shape_are_found_before_a_loss_takes_them(cards: Registry, fault: str) -> None:
    """Time first has as many numbers as batch first: the loss would pair them with the wrong targets."""
    network = make(cards)
    right = network.core.forward
    network.core.forward = lambda *arguments: (SHAPES[fault](right(*arguments)[0]), None)
    x = torch.zeros(3, T, dtype=torch.int64)
    with pytest.raises(
        PluginError, match=r"the core must give outputs of shape \(3, 12, 8\), batch and time first; it"
    ):
        network(x)
    with pytest.raises(PluginError, match="batch and time first"):
        network.chunk(x, network.initial_state(3, T))
