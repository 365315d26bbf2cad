"""Losses as (sum, weight), never a mean: ragged batches then average exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.nn import functional

from seqbench.errors import PluginError
from seqbench.network import to_tensor

if TYPE_CHECKING:
    import numpy as np

    from seqbench.api import Batch, Form, Task


@dataclass(frozen=True)
class Targets:
    """The answers of a batch on the device.

    Attributes:
        target: as in ``api.Batch``.
        weight: of each target, or None where all weigh 1.
        total: the sum of the weights.
    """

    target: Tensor
    weight: Tensor | None
    total: float


Loss = Callable[[Tensor, Targets], Tensor]
"""``(outputs, targets) -> sum``; the weight is ``targets.total``."""


def targets_of(batch: Batch, form: Form, device: torch.device) -> Targets:
    """The targets of a batch, its weights made from lengths where it gives none."""
    weight = _weights(batch, form)
    size = batch.target.size // (form.output if form.target == "value" else 1)
    total = float(size if weight is None else weight.sum(dtype="float64"))
    return Targets(to_tensor(batch.target, device), None if weight is None else to_tensor(weight, device), total)


def _weights(batch: Batch, form: Form) -> np.ndarray | None:
    lengths = {"step": batch.lengths, "pooled": None, "decoder": batch.target_lengths}[form.head]
    if batch.weight is not None or lengths is None:
        return batch.weight
    import numpy as np

    steps = np.arange(batch.target.shape[1])
    return (steps < lengths[:, None]).astype(np.float32)  # (B, T) or (B, U)


def loss_of(task: Task, form: Form) -> Loss:
    """The task's own loss, or the default of ``form.target``."""
    own = getattr(task, "loss", None)
    return default_loss(form) if own is None else cast("Loss", own)


def default_loss(form: Form) -> Loss:
    """Cross-entropy of classes, squared error of values."""
    return cross_entropy if form.target == "class" else squared_error


def cross_entropy(outputs: Tensor, targets: Targets) -> Tensor:
    """Sum of ``-ln softmax(outputs)[target]`` in nats: outputs ``(..., V)``, target int64 ``(...)``."""
    flat, target = outputs.flatten(0, -2), targets.target.flatten()  # (B*T, V), (B*T,)
    if targets.weight is None:
        return functional.cross_entropy(flat, target, reduction="sum")
    return (functional.cross_entropy(flat, target, reduction="none") * targets.weight.flatten()).sum()


def squared_error(outputs: Tensor, targets: Targets) -> Tensor:
    """Sum over targets of the mean squared error of their ``output`` numbers.

    Raises:
        PluginError: the shapes differ; torch would broadcast ``(B, 1)`` and ``(B,)`` to ``(B, B)``.
    """
    if outputs.shape != targets.target.shape:
        expected, got = tuple(outputs.shape), tuple(targets.target.shape)
        raise PluginError(f"a target of values must have the outputs' shape {expected}, the last axis too; got {got}")
    error = (outputs - targets.target).square().mean(-1)  # (B, T) or (B,)
    return error.sum() if targets.weight is None else (error * targets.weight).sum()
