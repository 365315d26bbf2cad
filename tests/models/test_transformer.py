"""The Transformer against torch's encoder layers, with the positions written out."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqbench import conformance
from seqbench.api import Refused
from seqbench_models import transformer

LENGTHS = torch.tensor([5, 2, 7])
NAMES = {
    "qkv.weight": "self_attn.in_proj_weight",
    "qkv.bias": "self_attn.in_proj_bias",
    "out.weight": "self_attn.out_proj.weight",
    "out.bias": "self_attn.out_proj.bias",
    "hidden.weight": "linear1.weight",
    "hidden.bias": "linear1.bias",
    "back.weight": "linear2.weight",
    "back.bias": "linear2.bias",
    "norm_attention.weight": "norm1.weight",
    "norm_attention.bias": "norm1.bias",
    "norm_feed_forward.weight": "norm2.weight",
    "norm_feed_forward.bias": "norm2.bias",
}


class Oracle:
    """A stack of ``nn.TransformerEncoderLayer`` with the core's weights; positions and scale by the definition."""

    def __init__(self, core: Any) -> None:
        self.spec, self.options = core.spec, core.options
        H, pre = self.spec.width, self.options.norm == "pre"
        layer = nn.TransformerEncoderLayer(
            H,
            self.options.heads,
            self.options.feed_forward or 4 * H,
            dropout=0.0,
            activation=self.options.activation,
            batch_first=True,
            norm_first=pre,
        )
        norm = nn.LayerNorm(H) if pre else None
        self.encoder = nn.TransformerEncoder(layer, self.spec.layers, norm, enable_nested_tensor=False).double()
        self.front = nn.Linear(self.spec.input_size, H).double()
        self.table = nn.Parameter(torch.zeros(self.spec.train_length, H).double())
        theirs = dict(self.encoder.named_parameters())
        theirs |= {"project.weight": self.front.weight, "project.bias": self.front.bias, "positions": self.table}
        self.parameters = {name: theirs[self._name(name)] for name, _ in core.named_parameters()}
        torch.nn.init.normal_(core.layers[0].norm_attention.bias)  # not left at torch's zero
        for name, value in core.named_parameters():
            self.parameters[name].data.copy_(value.data)

    def _name(self, name: str) -> str:
        if not name.startswith("layers."):
            return name
        _, number, rest = name.split(".", 2)
        return f"layers.{number}.{NAMES[rest]}"

    def __call__(self, x: Tensor, _state: None, lengths: Tensor | None) -> tuple[Tensor, None]:
        T, H = x.shape[1], self.spec.width
        h = x if self.spec.input_size == H else self.front(x)
        h = h * (math.sqrt(H) if self.options.embedding_scale else 1.0) + self._positions(T)
        mask = torch.full((T, T), -math.inf).double().triu(1) if self.spec.causal else None
        beyond = None if lengths is None else torch.arange(T) >= lengths.unsqueeze(1)
        padding = None if beyond is None else torch.zeros(beyond.shape).double().masked_fill(beyond, -math.inf)
        y = self.encoder(h, mask=mask, src_key_padding_mask=padding)
        return y if beyond is None else y.masked_fill(beyond.unsqueeze(-1), 0.0), None

    def _positions(self, T: int) -> Any:
        if self.options.positions == "none":
            return 0.0
        if self.options.positions == "learned":
            return self.table[:T]
        H = self.spec.width
        table = torch.zeros(T, H).double()
        for t in range(T):
            for j in range(H // 2):
                table[t, 2 * j] = math.sin(t / 10000 ** (2 * j / H))
                table[t, 2 * j + 1] = math.cos(t / 10000 ** (2 * j / H))
        return table


SETTINGS: list[dict[str, Any]] = [
    {"norm": norm, "activation": activation, "positions": positions}
    for norm, activation, positions in (
        ("pre", "relu", "none"),
        ("pre", "gelu", "sinusoidal"),
        ("post", "relu", "learned"),
        ("post", "gelu", "none"),
    )
] + [{"embedding_scale": True}, {"feed_forward": 5, "heads": 1}, {"heads": 8, "norm": "post"}]


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "ragged"])
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both-ways"])
@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_equals_torch(options: dict[str, Any], causal: bool, ragged: bool, build: Any, normal: Any) -> None:
    core = build(transformer.card, H=8, L=2, causal=causal, **options)
    oracle = Oracle(core)
    conformance.check_oracle(core, oracle, (normal(3, 7, 3), None, LENGTHS if ragged else None), oracle.parameters)


def test_no_projection_where_the_widths_agree(build: Any, normal: Any) -> None:
    core = build(transformer.card, D=8, H=8)
    assert not any(name.startswith("project") for name, _ in core.named_parameters())
    oracle = Oracle(core)
    conformance.check_oracle(core, oracle, (normal(3, 7, 8), None, LENGTHS), oracle.parameters)


def test_summary(build: Any, normal: Any) -> None:
    """Causal: the last valid step; both ways: the mean over the valid steps."""
    x = normal(3, 7, 3)
    causal, both = build(transformer.card, H=8), build(transformer.card, H=8, causal=False)
    y, _ = causal(x, None, LENGTHS)
    torch.testing.assert_close(causal.summary(y, LENGTHS), torch.stack([y[0, 4], y[1, 1], y[2, 6]]))
    y, _ = both(x, None, LENGTHS)
    want = torch.stack([y[row, :n].mean(0) for row, n in enumerate(LENGTHS.tolist())])
    torch.testing.assert_close(both.summary(y, LENGTHS), want)
    torch.testing.assert_close(both.summary(y, None), y.mean(1))


def test_learned_positions_have_an_end(build: Any) -> None:
    assert build(transformer.card, H=8, positions="learned", train_length=20).max_length == 20
    assert build(transformer.card, H=8).max_length is None


@pytest.mark.parametrize(("heads", "multiple"), [(1, 2), (3, 6), (4, 4)])
def test_width_multiple(heads: int, multiple: int, build: Any) -> None:
    assert transformer.card.width_multiple(transformer.Options(heads=heads)) == multiple
    with pytest.raises(Refused, match=f"width {multiple + 1} is not a multiple of {multiple}"):
        build(transformer.card, H=multiple + 1, heads=heads)


@pytest.mark.parametrize("call", ["initial_state", "forward"])
def test_both_ways_has_no_state(call: str, build: Any, normal: Any) -> None:
    state = build(transformer.card, H=8).initial_state(1, 3)
    core = build(transformer.card, H=8, causal=False)
    with pytest.raises(Refused, match="a bidirectional core has no state"):
        core.initial_state(1, 3) if call == "initial_state" else core(normal(1, 3, 3), state)


def test_parameter_count(build: Any) -> None:
    D, H, F, T = 3, 8, 10, 20
    layer = 4 * (H * H + H) + 2 * H * F + F + H + 4 * H
    front, places, last = D * H + H, T * H, 2 * H
    core = build(transformer.card, D=D, H=H, L=2, feed_forward=F, positions="learned", train_length=T)
    conformance.check_parameter_count(core, front + places + 2 * layer + last)


def test_a_larger_cache_changes_nothing(build: Any, normal: Any) -> None:
    core, x = build(transformer.card, H=8).eval(), normal(2, 3, 3)
    outputs = [core(x, core.initial_state(2, capacity))[0] for capacity in (3, 50)]
    torch.testing.assert_close(*outputs)
