"""Encoder, decoder and head: the network of sequence-to-sequence tasks."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from seqbench.api import Batch, Core, Decoder, Form, Memory, State
from seqbench.network import check_capacity, check_shape, device_of, input_adapter, lengths_of, linear_flops, to_tensor


class EncoderDecoder(nn.Module):
    """Sources enter by ``input`` and ``core``, the encoder; targets by ``target_input``, ``decoder`` and ``head``.

    These names begin the keys of the ``state_dict`` on every backend.
    """

    def __init__(self, form: Form, core: nn.Module, decoder: nn.Module, width: int, seeded: bool) -> None:
        super().__init__()
        self.form, self._seeded = form, seeded
        self.input = input_adapter(form.input, width)
        self.core = core
        self.target_input = nn.Embedding(form.output, width)
        self.decoder = decoder
        self.head = nn.Linear(self._decoder.output_size, form.output)

    @property
    def _core(self) -> Core:
        return cast("Core", self.core)

    @property
    def _decoder(self) -> Decoder:
        return cast("Decoder", self.decoder)

    def encode(self, x: Tensor, lengths: Tensor | None = None) -> Memory:
        """Read the sources ``x``, int64 ``(B, S)`` or float ``(B, S, size)``."""
        state = self._core.initial_state(x.shape[0], x.shape[1]) if self._seeded else None
        y, state = self._core(self.input(x), state, lengths)  # (B, S, D) -> (B, S, M)
        check_shape("core", y, (*x.shape[:2], self._core.output_size))
        return Memory(y, lengths, self._core.summary(y, lengths), state)

    def forward(self, x: Tensor, lengths: Tensor | None, y_in: Tensor) -> Tensor:
        """Outputs ``(B, U, output)`` when the decoder reads ``y_in``, int64 ``(B, U)``.

        The decoder is not told the targets' lengths: it is causal, so padding at the end changes nothing before it.
        """
        state = self._decoder.start(self.encode(x, lengths), 0)
        y, _ = self._decoder(self.target_input(y_in), state)  # (B, U, D) -> (B, U, H)
        check_shape("decoder", y, (*y_in.shape, self._decoder.output_size))
        return self.head(y)  # type: ignore[no-any-return]

    def outputs(self, batch: Batch) -> Tensor:
        """Outputs of a batch of numpy arrays.

        Raises:
            Refused: the sequences of core or decoder cannot be that long.
        """
        assert batch.y_in is not None
        check_capacity(self._core, batch.x.shape[1])
        check_capacity(self._decoder, batch.y_in.shape[1])
        device = device_of(self)
        return self(to_tensor(batch.x, device), lengths_of(batch), to_tensor(batch.y_in, device))  # type: ignore[no-any-return]

    def align(self, batch: Batch) -> Tensor | None:
        """The alignment ``(B, U, S)`` of a batch's targets to its sources; None where the decoder does not attend."""
        device = device_of(self)
        state = self._decoder.start(self.encode(to_tensor(batch.x, device), lengths_of(batch)), 0)
        return self._decoder.explain(self.target_input(to_tensor(batch.y_in, device)), state).get("alignment")

    def start(self, x: Tensor, lengths: Tensor | None, capacity: int) -> State:
        """The decoder's state before its first step, with room for ``capacity`` steps.

        Raises:
            Refused: the core's sequences cannot be that long.
        """
        check_capacity(self._core, x.shape[1])
        check_capacity(self._decoder, capacity)
        return self._decoder.start(self.encode(x, lengths), capacity)

    @torch.no_grad()
    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs ``(B, output)`` of one decoder step on ``tokens (B,)``; consumes ``state``."""
        y_t, state = self._decoder.step(self.target_input(tokens), state)  # (B, D) -> (B, H)
        return self.head(y_t), state

    @property
    def core_modules(self) -> list[nn.Module]:
        """What the model itself is: encoder and decoder, with what joins them."""
        return [self.core, self.decoder]

    def flops_per_token(self, length: int | None = None) -> float:
        """Matrix-product FLOPs of encoder and decoder per step of either, on sequences as long as in training.

        Args:
            length: of source and target instead.
        """
        assert self.form.decoder is not None
        S, U = (length, length) if length else (self.form.length, self.form.decoder.length)
        return (self._core.flops(1, S) + self._decoder.flops(1, U, S)) / (S + U)

    def forward_flops(self, T: int, U: int = 0) -> int:
        """Matrix-product FLOPs of a forward pass over a source of ``T`` and a target of ``U`` steps, head included."""
        adapters = T * linear_flops(self.input) + U * (linear_flops(self.target_input) + linear_flops(self.head))
        return adapters + self._core.flops(1, T) + self._decoder.flops(1, U, T)
