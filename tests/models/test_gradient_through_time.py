"""Why a plain RNN forgets: gradients of untrained networks, at the size and delay of the copy-memory benchmark."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from seqbench.assemble import build, core_spec
from seqbench.losses import cross_entropy
from seqbench.predict import NetworkPredictor
from seqbench.registry import Registry
from seqbench_tasks.cards.copy_memory import CopyOptions
from seqbench_tasks.copy_memory import CopyMemory

WIDTHS = {"rnn": 216, "lstm": 108, "janet": 152}
"""About 50,000 parameters."""


def shares(cards: Registry, model: str, seed: int, **options: bool) -> np.ndarray:
    """The gradient of the last symbol's loss by lag, as a share of that at lag 0: ``(120,)``."""
    task = CopyMemory(CopyOptions(T=100))
    form, card = task.prepare("embedded", None), cards.model(model)
    built = card.options(**options)
    torch.manual_seed(seed)
    network = build(card, "torch", core_spec(card, form, WIDTHS[model], 1, 0.0), built, form)
    predict = NetworkPredictor(network, card, form, cross_entropy)
    gradient = task.probe(predict, np.random.default_rng(seed))["gradient"]
    return gradient / gradient[0]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_plain_rnn_starts_forgetful_and_chrono_cells_do_not(cards: Registry, seed: int) -> None:
    """Orthodox starts: spectral radius about 1/sqrt(3) for the RNN, forget gates up to 1 - 1/T for the others."""
    assert shares(cards, "rnn", seed)[:50].min() < 1e-6
    for model, options, least in (("janet", {}, 0.1), ("lstm", {"chrono": True}, 0.01)):
        found = shares(cards, model, seed, **options)
        assert found[:50].min() > 1e-6
        assert found[110] > least, "the symbol itself is felt as it is not without that start"
        assert shares(cards, model, seed, chrono=False)[110] < least / 3
