"""What the harness assembles around a core: input adapter, core, output head."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from seqbench.api import Batch, Core, Form, State, Tokens, Vectors
from seqbench.errors import PluginError, Refused


class Network(nn.Module):
    """Input adapter, core and head.

    Tokens enter through an embedding of unit variance, vectors through a linear layer, both of the core's width; the
    head is a linear layer on every step (``form.head == "step"``) or on one vector a sequence (``"pooled"``). The keys
    of the ``state_dict`` begin with ``input.``, ``core.`` and ``head.`` on every backend.
    """

    def __init__(self, form: Form, core: nn.Module, width: int) -> None:
        super().__init__()
        self.form = form
        self.input = input_adapter(form.input, width)
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
        check_shape("core", y, (*x.shape[:2], self._core.output_size))
        return self.head(y if self.form.head == "step" else self._pool(y, lengths))  # type: ignore[no-any-return]

    def _pool(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        """One vector a sequence, ``(B, T, output_size)`` to ``(B, output_size)``; ``y`` is 0 beyond ``lengths``."""
        if self.form.pooling == "mean":
            return y.mean(1) if lengths is None else y.sum(1) / lengths.to(y).unsqueeze(1)
        if self.form.pooling == "max":
            return y.amax(1) if lengths is None else y.masked_fill(~within(lengths, y), -torch.inf).amax(1)
        return self._core.summary(y, lengths)

    def outputs(self, batch: Batch) -> Tensor:
        """Outputs of a batch of numpy arrays.

        Raises:
            Refused: the core's sequences cannot be that long.
        """
        check_capacity(self._core, batch.x.shape[1])
        return self(to_tensor(batch.x, device_of(self)), lengths_of(batch))  # type: ignore[no-any-return]

    def chunk(self, x: Tensor, state: State, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Outputs at every step of the next chunk ``x`` of sequences whose past is in ``state``."""
        y, state = self._core(self.input(x), state, lengths)
        check_shape("core", y, (*x.shape[:2], self._core.output_size))
        return self.head(y), state

    def initial_state(self, B: int, capacity: int) -> State:
        """The state before the first step, with room for ``capacity`` steps.

        Raises:
            Refused: the core's sequences cannot be that long.
        """
        check_capacity(self._core, capacity)
        return self._core.initial_state(B, capacity)

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """Outputs ``(B, output)`` of one step of tokens ``(B,)`` or vectors ``(B, size)``; consumes ``state``."""
        y_t, state = self._core.step(self.input(x_t), state)  # (B, D) -> (B, output_size)
        return self.head(y_t), state

    @property
    def core_modules(self) -> list[nn.Module]:
        """What the model itself is: the core."""
        return [self.core]

    def flops_per_token(self, length: int | None = None) -> float:
        """Matrix-product FLOPs of the core's forward pass per time step; without a length, of the training's."""
        T = length or self.form.length
        return self._core.flops(1, T) / T

    def forward_flops(self, T: int, U: int = 0) -> int:  # noqa: ARG002 - U is for networks with a decoder
        """Matrix-product FLOPs of a forward pass over one sequence of ``T`` steps, adapter and head included."""
        outputs = T if self.form.head == "step" else 1
        return T * linear_flops(self.input) + self._core.flops(1, T) + outputs * linear_flops(self.head)


def input_adapter(form: Tokens | Vectors, width: int) -> nn.Module:
    """What turns a task's input into vectors of a core's width."""
    return nn.Embedding(form.vocabulary, width) if isinstance(form, Tokens) else nn.Linear(form.size, width)


def linear_flops(module: nn.Module) -> int:
    """Of a linear layer on one vector; an embedding is a look-up."""
    return 2 * module.in_features * module.out_features if isinstance(module, nn.Linear) else 0


def check_shape(what: str, y: Tensor, expected: tuple[int, ...]) -> None:
    """Whether a core's outputs have their shape: other axes in another order could pass for it in a loss.

    Raises:
        PluginError: they do not.
    """
    if not isinstance(y, Tensor) or y.shape != expected:
        got = f"shape {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise PluginError(f"the {what} must give outputs of shape {expected}, batch and time first; it gave {got}")


def check_capacity(core: Core, capacity: int) -> None:
    """Whether a core's sequences may be ``capacity`` steps long.

    Raises:
        Refused: they may not.
    """
    if core.max_length is not None and capacity > core.max_length:
        raise Refused(f"needs sequences of {capacity} steps; the core's longest is {core.max_length}")


def within(lengths: Tensor, y: Tensor) -> Tensor:
    """Which steps of ``y (B, T, H)`` lie within each row's length: bool ``(B, T, 1)``."""
    return (torch.arange(y.shape[1], device=y.device) < lengths.to(y.device).unsqueeze(1)).unsqueeze(-1)


def lengths_of(batch: Batch) -> Tensor | None:
    """The lengths of a batch as a core wants them, on the CPU."""
    return None if batch.lengths is None else torch.from_numpy(batch.lengths)


def device_of(module: nn.Module) -> torch.device:
    """Where the parameters are."""
    return next(module.parameters()).device


def to_tensor(array: Any, device: torch.device) -> Tensor:
    """A numpy array on the device."""
    return torch.from_numpy(array).to(device, non_blocking=True)
