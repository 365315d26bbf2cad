"""JANET and the GRU with reset before the product: the time loop and its hand-made derivative against plain loops."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from torch import Tensor

from seqbench import conformance
from seqbench.api import CoreSpec, Refused
from seqbench.registry import resolve
from seqbench_models import gru, janet

Step = Callable[..., Tensor]


def gru_before_step(x: Tensor, h: Tensor, W: Tensor, U: Tensor, b: Tensor) -> Tensor:
    """One step as Cho et al. (2014) print it, gate by gate."""
    (W_r, W_z, W_n), (U_r, U_z, U_n), (b_r, b_z, b_n) = W.chunk(3), U.chunk(3), b.chunk(3)
    r = torch.sigmoid(x @ W_r.T + h @ U_r.T + b_r)
    z = torch.sigmoid(x @ W_z.T + h @ U_z.T + b_z)
    n = torch.tanh(x @ W_n.T + (r * h) @ U_n.T + b_n)
    return (1 - z) * n + z * h


def janet_step(x: Tensor, c: Tensor, W: Tensor, U: Tensor, b: Tensor, beta: float) -> Tensor:
    """One step as the paper prints it (arXiv:1804.04849)."""
    (W_s, W_n), (U_s, U_n), (b_s, b_n) = W.chunk(2), U.chunk(2), b.chunk(2)
    s = x @ W_s.T + c @ U_s.T + b_s
    candidate = torch.tanh(x @ W_n.T + c @ U_n.T + b_n)
    return torch.sigmoid(s) * c + (1 - torch.sigmoid(s - beta)) * candidate


def lstm_step(x: Tensor, c: Tensor, W: Tensor, U: Tensor, b: Tensor, beta: float) -> Tensor:
    """An LSTM step with o = 1, no output tanh, W_i = -W_f, U_i = -U_f and b_i = beta - b_f; so h = c."""
    (W_f, W_g), (U_f, U_g), (b_f, b_g) = W.chunk(2), U.chunk(2), b.chunk(2)
    h, o = c, 1.0
    i = torch.sigmoid(x @ -W_f.T + h @ -U_f.T + (beta - b_f))
    f = torch.sigmoid(x @ W_f.T + h @ U_f.T + b_f)
    g = torch.tanh(x @ W_g.T + h @ U_g.T + b_g)
    c = f * c + i * g
    return o * c


def loop(core: Any, step: Step, **constants: float) -> Callable[..., Any]:
    """A plain loop over rows, directions, layers and time under autograd, on the core's own parameters."""

    def sequence(layer: Any, x: Tensor, h: Tensor) -> Tensor:
        hs = []
        for x_t in x:
            h = step(x_t, h, layer.W, layer.U, layer.b, **constants)
            hs.append(h)
        return torch.stack(hs)

    def row(x: Tensor, starts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        ends = []
        for number, layer in enumerate(core.layers):
            y = sequence(layer, x, starts[number])
            ends.append(y[-1])
            if core.backward_layers:
                back = sequence(core.backward_layers[number], x.flip(0), starts[number]).flip(0)
                y = torch.cat([y, back], dim=1)
            x = y
        return x, ends

    def oracle(x: Tensor, state: Any, lengths: Tensor) -> tuple[Tensor, Any]:
        B, T, _ = x.shape
        zero = x.new_zeros(core.spec.width)
        outs, ends = [], []
        for b in range(B):
            n = int(lengths[b])
            y, end = row(x[b, :n], [zero] * core.spec.layers if state is None else [s[b] for s in state])
            outs.append(torch.cat([y, y.new_zeros(T - n, y.shape[1])]))
            ends.append(end)
        after = tuple(torch.stack([end[layer] for end in ends]) for layer in range(core.spec.layers))
        return torch.stack(outs), None if state is None else after

    return oracle


MODELS: dict[str, tuple[Any, dict[str, Any], Step, dict[str, float]]] = {
    "gru-before": (gru.card, {"reset_after": False}, gru_before_step, {}),
    "janet": (janet.card, {}, janet_step, {"beta": 1.0}),
    "janet-beta-0.3": (janet.card, {"beta": 0.3, "chrono": False}, janet_step, {"beta": 0.3}),
    "janet-as-lstm": (janet.card, {"beta": 0.7}, lstm_step, {"beta": 0.7}),
}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=3),
    layers=st.integers(1, 2),
    causal=st.booleans(),
    stateful=st.booleans(),
)
def test_equals_a_plain_loop(name: str, lengths: list[int], layers: int, causal: bool, stateful: bool) -> None:
    card, options, step, constants = MODELS[name]
    torch.manual_seed(sum(lengths))
    core = resolve(card.cores["torch"])(CoreSpec(3, 4, layers, causal), card.options(**options)).double()
    B, T = len(lengths), max(lengths)
    state = tuple(torch.randn(B, 4).double() for _ in range(layers)) if stateful and causal else None
    inputs = (torch.randn(B, T, 3).double(), state, torch.tensor(lengths))
    conformance.check_oracle(core, loop(core, step, **constants), inputs)


def test_gru_before_equals_onnxruntime(build: Any, normal: Any) -> None:
    """onnxruntime's kernel, float32, forward only; its gates are in the order z, r, n."""
    B, T, D, H = 3, 6, 3, 4
    core = build(gru.card, D=D, H=H, reset_after=False).float()
    layer = core.layers[0]

    def onnx_order(tensor: Tensor) -> np.ndarray:
        r, z, n = tensor.detach().chunk(3)
        return torch.cat([z, r, n]).unsqueeze(0).numpy()

    weights = {"W": onnx_order(layer.W), "R": onnx_order(layer.U)}
    weights["B"] = np.concatenate([onnx_order(layer.b), np.zeros((1, 3 * H), np.float32)], axis=1)
    x = normal(B, T, D).float()
    want = _run_onnx_gru(x.transpose(0, 1).numpy(), weights, H)[:, 0].transpose(1, 0, 2)  # (T, 1, B, H) to (B, T, H)
    np.testing.assert_allclose(core(x)[0].detach().numpy(), want, atol=2e-6)


def _run_onnx_gru(x: np.ndarray, weights: dict[str, np.ndarray], H: int) -> np.ndarray:
    node = helper.make_node("GRU", ["X", "W", "R", "B"], ["Y"], hidden_size=H, linear_before_reset=0)
    graph = helper.make_graph(
        [node],
        "gru",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"X": x})[0]


@pytest.mark.parametrize("name", ["gru-before", "janet"])
def test_second_derivatives_are_refused(name: str, build: Any, normal: Any) -> None:
    card, options, *_ = MODELS[name]
    core, x = build(card, **options), normal(1, 3, 3).requires_grad_()
    with pytest.raises(Refused, match="leave out create_graph=True"):
        torch.autograd.grad(core(x)[0].sum(), x, create_graph=True)


@pytest.mark.parametrize(("name", "gates"), [("gru-before", 3), ("janet", 2)])
def test_parameter_count(name: str, gates: int, build: Any) -> None:
    card, options, *_ = MODELS[name]
    conformance.check_parameter_count(build(card, **options), gates * 4 * (3 + 4 + 1))


def test_gru_variants_differ(build: Any, normal: Any) -> None:
    """With the same numbers the two resets are two models."""
    before, after, x = build(gru.card, reset_after=False), build(gru.card), normal(2, 4, 3)
    with torch.no_grad():
        for ours, theirs in (("W", "weight_ih_l0"), ("U", "weight_hh_l0"), ("b", "bias_ih_l0")):
            getattr(after.layers[0].rnn, theirs).copy_(getattr(before.layers[0], ours))
        after.layers[0].rnn.bias_hh_l0.zero_()
    difference = (before(x)[0] - after(x)[0]).abs().max()
    assert difference > 1e-4
