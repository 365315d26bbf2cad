"""A network as a task sees it: numpy in, numpy out, no gradients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqbench.api import Batch, Form, Model, Prediction
from seqbench.errors import Refused
from seqbench.losses import Loss, targets_of
from seqbench.network import Network, lengths_of, to_tensor

if TYPE_CHECKING:
    from seqbench.api import State


class NetworkPredictor:
    """The ``api.Predictor`` of a network.

    Attributes:
        can_step: the card declares ``"step"``.
        tokens: time steps of all sequences predicted so far, padding not counted.
    """

    def __init__(self, network: Network, card: Model, form: Form, loss: Loss) -> None:
        self.can_step = "step" in card.can
        self.tokens = 0
        self._network, self._card, self._form, self._loss = network, card, form, loss
        self._device = next(network.parameters()).device

    def __call__(self, batch: Batch) -> Prediction:
        """Outputs and loss of one batch, from a zero state."""
        with self._evaluating():
            return self._prediction(self._network(self._to(batch.x), lengths_of(batch)), batch)

    def stream(self, batches: Iterable[Batch]) -> Iterator[Prediction]:
        """The same for successive chunks of one set of sequences, the state carried along."""
        if not self.can_step:
            raise Refused(f"{self._card.name} does not declare 'step': it has no state to carry")
        chunks = list(batches)
        if not chunks:
            return
        with self._evaluating():
            state: State = self._network.initial_state(len(chunks[0].x), sum(chunk.x.shape[1] for chunk in chunks))
        for chunk in chunks:
            with self._evaluating():
                outputs, state = self._network.chunk(self._to(chunk.x), state, lengths_of(chunk))
            yield self._prediction(outputs, chunk)

    def generate(self, prompt: np.ndarray, steps: int, rng: np.random.Generator, temperature: float) -> np.ndarray:
        """Continue token sequences ``prompt (B, P)`` by ``steps`` sampled tokens: ``(B, steps)``."""
        if not self.can_step:
            raise Refused(f"{self._card.name} does not declare 'step': it cannot generate step by step")
        B, P = prompt.shape
        made = np.empty((B, steps), np.int64)
        with self._evaluating():
            state = self._network.initial_state(B, P + steps)
            outputs, state = self._network.chunk(self._to(prompt), state)
            logits = outputs[:, -1]  # (B, P, V) -> (B, V)
            for t in range(steps):
                made[:, t] = sample(logits.double().cpu().numpy(), rng, temperature)
                if t + 1 < steps:
                    logits, state = self._network.step(self._to(made[:, t]), state)
        return made

    def _evaluating(self) -> _Evaluating:
        return _Evaluating(self._network)

    def _to(self, array: np.ndarray) -> Tensor:
        return to_tensor(array, self._device)

    def _prediction(self, outputs: Tensor, batch: Batch) -> Prediction:
        targets = targets_of(batch, self._form, self._device)
        self.tokens += count_tokens(batch)
        loss = float(self._loss(outputs.detach(), targets))
        return Prediction(outputs.detach().float().cpu().numpy(), loss, targets.total)


class _Evaluating:
    """Without gradients and dropout; the network's mode is put back afterwards."""

    def __init__(self, network: Network) -> None:
        self._network, self._inference = network, torch.inference_mode()

    def __enter__(self) -> None:
        self._training = self._network.training
        self._network.eval()
        self._inference.__enter__()

    def __exit__(self, *error: object) -> None:
        self._inference.__exit__(*error)
        self._network.train(self._training)


def count_tokens(batch: Batch) -> int:
    """Time steps of all sequences, padding not counted."""
    return int(batch.x.shape[0] * batch.x.shape[1] if batch.lengths is None else batch.lengths.sum())


def sample(logits: np.ndarray, rng: np.random.Generator, temperature: float) -> np.ndarray:
    """One token a row: ``logits (B, V)`` divided by the temperature; 0 takes the likeliest."""
    if temperature <= 0:
        return np.asarray(logits.argmax(-1))
    scaled = (logits - logits.max(-1, keepdims=True)) / temperature
    cumulative = np.exp(scaled).cumsum(-1)
    draws = rng.random((len(logits), 1)) * cumulative[:, -1:]
    return np.asarray((cumulative <= draws).sum(-1).clip(max=logits.shape[-1] - 1))
