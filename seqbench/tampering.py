"""Whether a plugin has replaced parts of torch: what all other rows are measured by is then not what this one is."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo  # replaces torch.manual_seed when it is first imported, which the first optimiser would do
from torch import nn
from torch.nn import functional

OPEN: dict[str, Any] = {"torch": torch, "torch.nn": nn}
"""Namespaces that torch itself adds to, lazily: only what was there counts."""

CLOSED: dict[str, Any] = {"torch.nn.functional": functional, "torch.nn.Module": nn.Module, "torch.Tensor": torch.Tensor}
"""Namespaces in which new names count too: ``torch.Tensor.__add__`` is inherited until somebody sets it."""

FOLLOW = {"torch.Storage"}
"""What torch itself replaces when its default type is set."""


class Torch:
    """What torch is at the moment: its functions and classes, the default type and the precision of products."""

    def __init__(self) -> None:
        self._before = _contents({**OPEN, **CLOSED})
        self._settings = _settings()

    def changes(self) -> list[str]:
        """The names of what is another thing now, in alphabetical order; settings with their value."""
        now = _contents({**OPEN, **CLOSED})
        replaced = {name for name, thing in self._before.items() if now.get(name) is not thing}
        added = {name for name in _contents(CLOSED) if name not in self._before}
        settings = {f"{name} ({value})" for name, value in _settings().items() if self._settings[name] != value}
        return sorted(replaced | added | settings)


def _contents(namespaces: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{owner}.{name}": thing
        for owner, namespace in namespaces.items()
        for name, thing in vars(namespace).items()
        if (callable(thing) or isinstance(thing, property)) and f"{owner}.{name}" not in FOLLOW
    }


def _settings() -> dict[str, str]:
    return {
        "the default type": str(torch.get_default_dtype()),
        "the precision of matrix products": torch.get_float32_matmul_precision(),
    }
