"""The TCN against a plain re-implementation of the published module: pad both sides, chop, norm by hand."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqbench import conformance
from seqbench.api import CoreSpec, Refused
from seqbench.registry import resolve
from seqbench_models import tcn


def published(core: Any, kernel: int) -> Any:
    """The module of arXiv:1803.01271, section 3, on the core's own parameters."""
    parameters = dict(core.named_parameters())

    def filter_of(prefix: str) -> Tensor:
        if f"{prefix}.weight" in parameters:
            return parameters[f"{prefix}.weight"]
        g, v = (parameters[f"{prefix}.parametrizations.weight.original{n}"] for n in (0, 1))
        return g * v / v.pow(2).sum(dim=(1, 2), keepdim=True).sqrt()

    def conv(x: Tensor, prefix: str, dilation: int) -> Tensor:
        padding = (kernel - 1) * dilation
        y = torch.conv1d(x, filter_of(prefix), parameters[f"{prefix}.bias"], padding=padding, dilation=dilation)
        return y[:, :, :-padding]  # chop what the padding on the right added

    def oracle(x: Tensor, _state: None, lengths: Tensor) -> tuple[Tensor, None]:
        h = x.transpose(1, 2)
        for n in range(len(core.blocks)):
            block = f"blocks.{n}"
            inner = torch.relu(conv(torch.relu(conv(h, f"{block}.conv1.conv", 2**n)), f"{block}.conv2.conv", 2**n))
            if f"{block}.shortcut.weight" in parameters:
                h = torch.conv1d(h, parameters[f"{block}.shortcut.weight"], parameters[f"{block}.shortcut.bias"])
            h = torch.relu(inner + h)
        keep = torch.arange(x.shape[1]) < lengths.unsqueeze(1)
        return h.transpose(1, 2) * keep.unsqueeze(-1), None

    return oracle


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=3),
    layers=st.integers(1, 3),
    kernel=st.integers(2, 4),
    normed=st.booleans(),
    last=st.sampled_from([0, 4, 6]),
    D=st.sampled_from([3, 4]),
)
def test_equals_the_published_module(
    lengths: list[int], layers: int, kernel: int, normed: bool, last: int, D: int
) -> None:
    torch.manual_seed(sum(lengths))
    options = tcn.Options(kernel=kernel, weight_norm=normed, last_channels=last)
    core = resolve(tcn.card.cores["torch"])(CoreSpec(D, 4, layers), options).double()
    inputs = (torch.randn(len(lengths), max(lengths), D).double(), None, torch.tensor(lengths))
    conformance.check_oracle(core, published(core, kernel), inputs)
    assert core.output_size == (last or 4)


def test_norm_and_direction_are_separate(build: Any) -> None:
    """The gain is the norm of each output channel's filter at the start, so both forms begin with the same filter."""
    conv = build(tcn.card).blocks[0].conv1.conv
    parts = conv.parametrizations.weight
    torch.testing.assert_close(parts.original0, parts.original1.pow(2).sum((1, 2), keepdim=True).sqrt())


@pytest.mark.parametrize(("kernel", "layers"), [(2, 3), (3, 2), (4, 1), (3, 4)])
def test_receptive_field_is_exact(kernel: int, layers: int, build: Any, normal: Any) -> None:
    """The last output sees exactly the inputs that the formula says."""
    field = tcn.receptive_field(kernel, layers)
    core, x = build(tcn.card, L=layers, kernel=kernel), normal(1, field + 5, 3).requires_grad_()
    reach = torch.zeros(field + 5, dtype=torch.bool)
    for _ in range(8):  # relu may shut a path by chance
        (dx,) = torch.autograd.grad(core(x)[0][:, -1].sum(), x)
        reach |= (dx.abs().sum(2) > 0)[0]
        x = normal(1, field + 5, 3).requires_grad_()
    assert int(reach.nonzero()[0]) == 5


@pytest.mark.parametrize(
    ("kernel", "length", "layers"), [(3, 1, 1), (3, 5, 1), (3, 6, 2), (3, 13, 2), (3, 128, 6), (8, 600, 6)]
)
def test_default_layers_cover_the_training_length(kernel: int, length: int, layers: int) -> None:
    options = tcn.Options(kernel=kernel)
    assert tcn.card.default_layers(options, length) == layers
    assert tcn.receptive_field(kernel, layers) >= length
    assert tcn.card.advice is not None
    field = tcn.receptive_field(kernel, layers)
    assert tcn.card.advice(options, layers, length) == f"receptive field {field} covers the task's {length} steps"


def test_advice_warns_of_a_short_field() -> None:
    assert tcn.advice(tcn.Options(kernel=3), 2, 14).startswith("warning: receptive field 13 is shorter than")


def test_both_ways_is_a_causal_stack_in_each_direction(build: Any, normal: Any) -> None:
    both, x = build(tcn.card, causal=False), normal(2, 9, 3)
    forward, backward = build(tcn.card), build(tcn.card)
    forward.blocks.load_state_dict(both.blocks.state_dict())
    backward.blocks.load_state_dict(both.backward_blocks.state_dict())
    want = torch.cat([forward(x)[0], backward(x.flip(1))[0].flip(1)], dim=-1)
    torch.testing.assert_close(both(x)[0], want, rtol=0, atol=1e-12)
    with pytest.raises(Refused, match="no state"):
        both.initial_state(2, 9)


@pytest.mark.parametrize("change", ["optimiser", "data", "load"])
def test_step_follows_the_parameters(change: str, build: Any, normal: Any) -> None:
    """The filter kept for single steps is made anew when its parameters change, however they change."""
    core, other, x = build(tcn.card, L=2).eval(), build(tcn.card, L=2), normal(2, 3)
    core.step(x, core.initial_state(2, 1))
    with torch.no_grad():
        if change == "optimiser":
            for p in core.parameters():
                p.add_(0.1)
        elif change == "data":
            core.train()
            for p in core.parameters():
                p.data.mul_(1.1)
            core.eval()
        else:
            for p in other.parameters():
                p.add_(0.1)
            core.load_state_dict(other.state_dict())
    y, _ = core.step(x, core.initial_state(2, 1))
    torch.testing.assert_close(y, core(x.unsqueeze(1))[0][:, 0])


def test_parameter_count(build: Any) -> None:
    K, D, H, C = 3, 3, 4, 6
    first = K * D * H + K * H * H + 2 * (H + H) + D * H + H  # two filters, gains and biases, 1x1
    last = K * H * C + K * C * C + 2 * (C + C) + H * C + C
    conformance.check_parameter_count(build(tcn.card, L=2, last_channels=C), first + last)
