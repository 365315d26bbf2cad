"""What is timed: a call of each kind on random sequences."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch

from seqbench.api import Batch, Form, Tokens
from seqbench.assemble import AnyNetwork
from seqbench.encoder_decoder import EncoderDecoder
from seqbench.losses import default_loss
from seqbench.measure.sampling import Call
from seqbench.measure.work import count_tokens, lengths_in
from seqbench.network import Network, device_of, to_tensor
from seqbench.spec import Training
from seqbench.train import Problem, Stepper

Operation = Callable[[Batch], Call]
"""Makes the call that works on a batch."""

_STEPS, _MIDDLE = 1000, 500
"""Every training step is the middle one of a run: a usual learning rate, no warm-up."""


def random_batch(form: Form, B: int, T: int) -> Batch:
    """Full rows of noise in the form's shape; of two sequences both have ``T`` steps."""
    rng = np.random.default_rng(0)

    def classes(most: int, shape: tuple[int, ...]) -> np.ndarray:
        return rng.integers(0, most, shape)

    def numbers(size: int, shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal((*shape, size), np.float32)

    each = (B,) if form.head == "pooled" else (B, T)
    x = classes(form.input.vocabulary, (B, T)) if isinstance(form.input, Tokens) else numbers(form.input.size, (B, T))
    target = classes(form.output, each) if form.target == "class" else numbers(form.output, each)
    return Batch(x, target, y_in=classes(form.output, (B, T)) if form.head == "decoder" else None)


def operation(name: str, network: AnyNetwork, training: Training) -> Operation:
    """The operation of that name on a network; see ``columns.OPERATIONS``."""
    if name == "train":
        return _train(network, training)
    network.eval()
    if name == "infer":
        return lambda batch: _without_gradients(lambda: network.outputs(batch))
    return _stream(cast("Network", network)) if name == "step" else _decode(cast("EncoderDecoder", network))


def tokens_of(name: str, batch: Batch) -> int:
    """Time steps that a call works off; of decoding those that come out."""
    return int(batch.target.size) if name == "decode" else count_tokens(lengths_in(batch))


def _train(network: AnyNetwork, training: Training) -> Operation:
    network.train()
    stepper = Stepper(Problem(network, network.form, default_loss(network.form)), training, _STEPS)
    return lambda batch: lambda: stepper(_MIDDLE, batch)


def _without_gradients(call: Call) -> Call:
    def without() -> None:
        with torch.inference_mode():
            call()

    return without


def _stream(network: Network) -> Operation:
    def of(batch: Batch) -> Call:
        steps = to_tensor(batch.x, device_of(network)).unbind(1)  # T x (1,) or (1, size)

        def read() -> None:
            state = network.initial_state(1, len(steps))
            for x_t in steps:
                _, state = network.step(x_t, state)

        return _without_gradients(read)

    return of


def _decode(network: EncoderDecoder) -> Operation:
    form = network.form.decoder
    assert form is not None

    def of(batch: Batch) -> Call:
        x = to_tensor(batch.x, device_of(network))
        begin = torch.full((len(x),), form.begin, device=x.device)  # (B,)

        def write() -> None:
            state, tokens = network.start(x, None, batch.target.shape[1]), begin
            for _ in range(batch.target.shape[1]):
                logits, state = network.step(tokens, state)
                tokens = logits.argmax(-1)  # (B, V) -> (B,)

        return _without_gradients(write)

    return of
