"""What the harness assembles around a core: input adapter, core, output head."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from seqbench.api import Batch, Core, CoreSpec, Form, Model, State, Tokens
from seqbench.errors import Refused
from seqbench.registry import resolve


class Network(nn.Module):
    """Input adapter, core and head.

    Tokens enter through an embedding of unit variance, vectors through a linear layer, both of the core's width; the
    head is a linear layer on every step (``form.head == "step"``) or on the core's summary (``"pooled"``). The keys of
    the ``state_dict`` begin with ``input.``, ``core.`` and ``head.`` on every backend.
    """

    def __init__(self, form: Form, core: nn.Module, width: int) -> None:
        super().__init__()
        self.form = form
        self.input: nn.Module
        if isinstance(form.input, Tokens):
            self.input = nn.Embedding(form.input.vocabulary, width)
        else:
            self.input = nn.Linear(form.input.size, width)
        self.core = core
        self.head = nn.Linear(self._core.output_size, form.output)

    @property
    def _core(self) -> Core:
        return cast("Core", self.core)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Outputs from a zero state.

        Args:
            x: int64 ``(B, T)`` or float ``(B, T, size)``.
            lengths: ``(B,)`` int64 on the CPU, or None.

        Returns:
            ``(B, T, output)`` or, pooled, ``(B, output)``.
        """
        y, _ = self._core(self.input(x), None, lengths)  # (B, T, D) -> (B, T, output_size)
        return self.head(y if self.form.head == "step" else self._core.summary(y, lengths))  # type: ignore[no-any-return]

    def chunk(self, x: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Outputs at every step of the next chunk ``x`` of sequences whose past is in ``state``."""
        y, state = self._core(self.input(x), state, lengths)
        return self.head(y), state

    def initial_state(self, B: int, capacity: int) -> State:
        """The state before the first step, with room for ``capacity`` steps.

        Raises:
            Refused: the core's sequences cannot be that long.
        """
        longest = self._core.max_length
        if longest is not None and capacity > longest:
            raise Refused(f"needs sequences of {capacity} steps; the core's longest is {longest}")
        return self._core.initial_state(B, capacity)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs ``(B, output)`` of one step of tokens ``(B,)`` or vectors ``(B, size)``; consumes ``state``."""
        y_t, state = self._core.step(self.input(x_t), state)  # (B, D) -> (B, output_size)
        return self.head(y_t), state


def build(card: Model, backend: str, spec: CoreSpec, options: Any, form: Form) -> Network:
    """Assemble a network, on torch's current default device, with torch's current random state.

    Raises:
        Refused: the card has no such backend, or does not declare what the task needs.
    """
    if backend not in card.cores:
        raise Refused(f"{card.name} has no {backend!r} backend; it has {', '.join(card.cores)}")
    if form.causal and "causal" not in card.can:
        raise Refused(f"the task needs a model that does not look ahead; {card.name} does not declare 'causal'")
    core = resolve(card.cores[backend])(spec, options)
    if core.max_length is not None and core.max_length < form.length:
        raise Refused(f"the task needs sequences of {form.length} steps; {card.name}'s longest is {core.max_length}")
    return Network(form, core, spec.input_size)


def core_spec(card: Model, form: Form, width: int, layers: int, dropout: float = 0.0) -> CoreSpec:
    """What the harness asks of a card's core on a task: in one direction wherever the card can."""
    return CoreSpec(
        input_size=width,
        width=width,
        layers=layers,
        causal="causal" in card.can,
        dropout=dropout,
        train_length=form.length,
    )


def lengths_of(batch: Batch) -> Tensor | None:
    """The lengths of a batch as a core wants them, on the CPU."""
    return None if batch.lengths is None else torch.from_numpy(batch.lengths)


def count(module: nn.Module) -> int:
    """Trainable parameters; a shared one counts once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def to_tensor(array: Any, device: torch.device) -> Tensor:
    """A numpy array on the device."""
    return torch.from_numpy(array).to(device, non_blocking=True)
