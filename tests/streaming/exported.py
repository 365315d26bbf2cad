"""Networks with random weights as files of ``seqbench export``, for the tests here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from seqbench.api import CoreSpec, Form, Model
from seqbench.assemble import build
from seqbench.export import arrays_of
from seqbench.network import Network
from seqbench.registry import resolve
from seqbench.streaming.file import Arrays, Description, write


@dataclass(frozen=True)
class Exported:
    """A network of torch, and what its file holds."""

    network: Network
    description: Description
    arrays: Arrays

    def write(self, path: Path) -> Path:
        with path.open("wb") as file:
            write(file, self.description, self.arrays)
        return path


def exported(
    card: Model, form: Form, width: int = 9, layers: int = 1, dtype: torch.dtype = torch.float64, **options: Any
) -> Exported:
    torch.manual_seed(3)
    chosen = card.options(**options)
    network: Any = build(card, "torch", CoreSpec(width, width, layers, train_length=12), chosen, form).to(dtype)
    tokens = hasattr(form.input, "vocabulary")
    description = Description(
        trial="made-up",
        task="made-up",
        dataset="embedded",
        model=card.name,
        options=vars(chosen),
        width=width,
        layers=layers,
        input="tokens" if tokens else "vectors",
        input_size=form.input.vocabulary if tokens else form.input.size,
        head=form.head,
        output=form.output,
        target=form.target,
        vocabulary=tuple(map(chr, range(97, 97 + form.input.vocabulary))) if tokens else None,
    )
    stored = {name: p.detach().numpy() for name, p in network.state_dict().items()}
    return Exported(network, description, arrays_of(stored, description, resolve(str(card.recurrence))(chosen)))
