"""A network as a task sees it: numpy in, numpy out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from seqbench.api import Batch, Decoded, Form, Model, Prediction
from seqbench.assemble import AnyNetwork
from seqbench.encoder_decoder import EncoderDecoder
from seqbench.errors import Refused
from seqbench.losses import Loss, targets_of
from seqbench.measure.work import count_tokens, lengths_in
from seqbench.network import Network, device_of, lengths_of, to_tensor
from seqbench.sampling import sample
from seqbench.search import Rules, search

if TYPE_CHECKING:
    from seqbench.api import State


class NetworkPredictor:
    """The ``api.Predictor`` of a network.

    Attributes:
        can_step: the card declares ``"step"``.
        tokens: time steps of all sequences read so far, sources and targets, padding not counted.
    """

    def __init__(self, network: AnyNetwork, card: Model, form: Form, loss: Loss) -> None:
        self.can_step = "step" in card.can
        self.tokens = 0
        self._network, self._card, self._form, self._loss = network, card, form, loss
        self._device = device_of(network)

    def __call__(self, batch: Batch) -> Prediction:
        """Outputs and loss of one batch, from a zero state."""
        with self._evaluating():
            return self._prediction(self._network.outputs(batch), batch)

    def input_gradient(self, batch: Batch) -> np.ndarray:
        """The norm of ``d loss / d x_t`` for every input step ``x_t`` as it enters the core: float64 ``(B, T)``."""
        entered: list[Tensor] = []
        hook = self._network.input.register_forward_hook(lambda _module, _x, out: entered.append(out))
        training = self._network.training
        self._network.eval()
        try:
            # cuDNN takes gradients of recurrent layers in training mode alone, where dropout would be at work
            with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
                loss = self._loss(self._network.outputs(batch), targets_of(batch, self._form, self._device))
            (gradient,) = torch.autograd.grad(loss, entered)  # (B, T, D)
        finally:
            hook.remove()
            self._network.train(training)
        norms: np.ndarray = gradient.double().norm(dim=-1).cpu().numpy()  # (B, T)
        return norms

    def stream(self, batches: Iterable[Batch]) -> Iterator[Prediction]:
        """The same for successive chunks of one set of sequences, the state carried along."""
        if not self.can_step:
            raise Refused(f"{self._card.name} does not declare 'step': it has no state to carry")
        chunks = list(batches)
        if not chunks:
            return
        network = self._stepping()
        with self._evaluating():
            state: State = network.initial_state(len(chunks[0].x), sum(chunk.x.shape[1] for chunk in chunks))
        for chunk in chunks:
            with self._evaluating():
                outputs, state = network.chunk(self._to(chunk.x), state, lengths_of(chunk))
            yield self._prediction(outputs, chunk)

    def generate(self, prompt: np.ndarray, steps: int, rng: np.random.Generator, temperature: float) -> np.ndarray:
        """Continue token sequences ``prompt (B, P)`` by ``steps`` sampled tokens: ``(B, steps)``."""
        if not self.can_step:
            raise Refused(f"{self._card.name} does not declare 'step': it cannot generate step by step")
        B, P = prompt.shape
        made, network = np.empty((B, steps), np.int64), self._stepping()
        with self._evaluating():
            state = network.initial_state(B, P + steps)
            outputs, state = network.chunk(self._to(prompt), state)
            logits = outputs[:, -1]  # (B, P, V) -> (B, V)
            for t in range(steps):
                made[:, t] = sample(logits.double().cpu().numpy(), rng, temperature)
                if t + 1 < steps:
                    logits, state = network.step(self._to(made[:, t]), state)
        return made

    def decode(self, batch: Batch, limit: int, beam: int = 1, length_penalty: float = 1.0) -> Decoded:
        """Translate the sources of a batch; see ``seqbench.search``."""
        network, form = self._decoding(), self._form.decoder
        assert form is not None
        with self._evaluating():
            state = network.start(self._to(batch.x), lengths_of(batch), limit)
            rules = Rules(form.begin, form.end, limit, beam, length_penalty)
            found = search(network.step, state, len(batch.x), rules)
        length = found.length - found.ended.long()  # without the end
        rows = zip(found.tokens.cpu().numpy(), length.tolist(), strict=True)
        tokens = [row[:n].copy() for row, n in rows]
        return Decoded(tokens, found.score.cpu().numpy(), found.ended.cpu().numpy())

    def align(self, batch: Batch) -> np.ndarray | None:
        """How the decoder attends when it reads ``batch.y_in``: float32 ``(B, U, S)``, or None."""
        with self._evaluating():
            found = self._decoding().align(batch)
        return None if found is None else found.float().cpu().numpy()

    def _stepping(self) -> Network:
        """The network, if it is of one sequence."""
        if not isinstance(self._network, Network):
            raise Refused("an encoder-decoder has no output before a whole source is read: use decode, not stream")
        return self._network

    def _decoding(self) -> EncoderDecoder:
        """The network, if it is of two sequences."""
        if not isinstance(self._network, EncoderDecoder):
            raise Refused("only a task with head 'decoder' can decode: its form says so")
        return self._network

    def _evaluating(self) -> _Evaluating:
        return _Evaluating(self._network)

    def _to(self, array: np.ndarray) -> Tensor:
        return to_tensor(array, self._device)

    def _prediction(self, outputs: Tensor, batch: Batch) -> Prediction:
        targets = targets_of(batch, self._form, self._device)
        self.tokens += count_tokens(lengths_in(batch))
        loss = float(self._loss(outputs.detach(), targets))
        return Prediction(outputs.detach().float().cpu().numpy(), loss, targets.total)


class _Evaluating:
    """Without gradients and dropout; the network's mode is put back afterwards."""

    def __init__(self, network: AnyNetwork) -> None:
        self._network, self._inference = network, torch.inference_mode()

    def __enter__(self) -> None:
        self._training = self._network.training
        self._network.eval()
        self._inference.__enter__()

    def __exit__(self, *error: object) -> None:
        self._inference.__exit__(*error)
        self._network.train(self._training)
