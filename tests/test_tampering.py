"""What a plugin has replaced in torch is found, by name; what torch does itself is not."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from seqbench.tampering import Torch


def test_ordinary_work_changes_nothing() -> None:
    before = Torch()
    layer = nn.LSTM(3, 4)
    optimizer = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.zeros(2, 1, 3))[0].sum().backward()
    optimizer.step()
    assert before.changes() == []


def test_what_is_replaced_or_added_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Torch()
    monkeypatch.setattr(functional, "cross_entropy", lambda *_: 0.0)
    monkeypatch.setattr(torch.Tensor, "__add__", lambda self, _: self, raising=False)
    monkeypatch.setattr(nn, "Linear", nn.Bilinear)
    monkeypatch.delattr(torch, "matmul")
    assert before.changes() == [
        "torch.Tensor.__add__", "torch.matmul", "torch.nn.Linear", "torch.nn.functional.cross_entropy"
    ]  # fmt: skip
    monkeypatch.undo()
    assert before.changes() == []


def test_settings_are_named_with_their_value() -> None:
    before = Torch()
    torch.set_default_dtype(torch.float64)
    torch.set_float32_matmul_precision("medium")
    try:
        changed = before.changes()
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_float32_matmul_precision("highest")
    assert changed == ["the default type (torch.float64)", "the precision of matrix products (medium)"]
