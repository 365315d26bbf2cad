"""rnn, lstm and gru against torch's own multi-layer modules over packed sequences: values and all gradients."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from seqbench import conformance
from seqbench.api import CoreSpec
from seqbench.registry import resolve
from seqbench_models import gru, lstm, rnn

MODELS = {
    "rnn-tanh": (rnn.card, {"nonlinearity": "tanh"}, nn.RNN),
    "rnn-relu": (rnn.card, {"nonlinearity": "relu"}, nn.RNN),
    "lstm": (lstm.card, {}, nn.LSTM),
    "gru": (gru.card, {}, nn.GRU),
}


class Oracle:
    """One torch module with all layers and directions, its weights copied from the core."""

    def __init__(self, name: str, core: Any) -> None:
        _, options, kind = MODELS[name]
        spec = core.spec
        self.layers, self.lstm = spec.layers, kind is nn.LSTM
        self.module = kind(
            spec.input_size,
            spec.width,
            spec.layers,
            batch_first=True,
            bidirectional=not spec.causal,
            **options,
        ).double()
        self.parameters = {}
        for key, value in core.named_parameters():
            direction, number, _, tensor = key.split(".")
            suffix = "_reverse" if direction == "backward_layers" else ""
            theirs = getattr(self.module, tensor.replace("_l0", f"_l{number}{suffix}"))
            self.parameters[key] = theirs
            theirs.data.copy_(value.data)

    def __call__(self, x: Tensor, state: Any, lengths: Tensor | None) -> tuple[Tensor, Any]:
        B, T, _ = x.shape
        full = torch.full((B,), T) if lengths is None else lengths
        packed = pack_padded_sequence(x, full, batch_first=True, enforce_sorted=False)
        packed, last = self.module(packed, None if state is None else self._stack(state))
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=T)
        return y, None if state is None else self._unstack(last)

    def _stack(self, state: Any) -> Any:
        if self.lstm:
            return tuple(torch.stack([layer[n] for layer in state]) for n in (0, 1))
        return torch.stack(list(state))

    def _unstack(self, last: Any) -> Any:
        if self.lstm:
            return tuple((last[0][n], last[1][n]) for n in range(self.layers))
        return tuple(last.unbind(0))


def _state(name: str, core: Any, B: int) -> Any:
    shape = (B, core.spec.width)
    one = (lambda: (torch.randn(shape).double(), torch.randn(shape).double())) if name == "lstm" else None
    return tuple(one() if one else torch.randn(shape).double() for _ in range(core.spec.layers))


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    layers=st.integers(1, 3),
    causal=st.booleans(),
    ragged=st.booleans(),
    stateful=st.booleans(),
)
def test_equals_torch(name: str, lengths: list[int], layers: int, causal: bool, ragged: bool, stateful: bool) -> None:
    card, options, _ = MODELS[name]
    torch.manual_seed(sum(lengths))
    core = resolve(card.cores["torch"])(CoreSpec(3, 4, layers, causal), card.options(**options)).double()
    B, T = len(lengths), max(lengths)
    state = _state(name, core, B) if stateful and causal else None
    x = torch.randn(B, T, 3).double()
    oracle = Oracle(name, core)
    conformance.check_oracle(core, oracle, (x, state, torch.tensor(lengths) if ragged else None), oracle.parameters)


@pytest.mark.parametrize("name", MODELS)
def test_summary_is_the_last_hidden_state_of_both_directions(name: str, build: Any, normal: Any) -> None:
    card, options, _ = MODELS[name]
    core, x, lengths = build(card, L=2, causal=False, **options), normal(3, 6, 3), torch.tensor([6, 2, 4])
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    _, last = Oracle(name, core).module(packed)
    h = last[0] if name == "lstm" else last
    y, _ = core(x, None, lengths)
    torch.testing.assert_close(core.summary(y, lengths), torch.cat([h[-2], h[-1]], dim=1))


@pytest.mark.parametrize(("name", "gates"), [("rnn-tanh", 1), ("lstm", 4), ("gru", 3)])
def test_parameter_count(name: str, gates: int, build: Any) -> None:
    D, H = 3, 4
    one, two = gates * H * (D + H + 2), gates * H * (H + H + 2)
    conformance.check_parameter_count(build(MODELS[name][0], L=2), one + two)
    both = 2 * (one + gates * H * (2 * H + H + 2))
    conformance.check_parameter_count(build(MODELS[name][0], L=2, causal=False), both)


def test_dropout_is_on_the_output_and_never_in_the_recurrence(build: Any, normal: Any) -> None:
    x = normal(2, 50, 3)
    core = build(lstm.card, dropout=0.5)
    plain = core.eval()(x)[0]
    dropped = core.train()(x)[0]
    kept = dropped != 0
    assert 0.3 < kept.double().mean() < 0.7
    torch.testing.assert_close(dropped[kept], 2 * plain[kept])  # the kept ones scaled, and no trace of earlier drops
    two = build(lstm.card, L=2, dropout=0.5)
    assert not torch.equal(two(x)[0] != 0, two(x)[0] != 0)
