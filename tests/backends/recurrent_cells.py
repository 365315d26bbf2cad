"""The recurrent models, each with the options that make another cell of it."""

from __future__ import annotations

from typing import Any

import pytest

from seqbench_models import gru, janet, lstm, rnn

CELLS: dict[str, tuple[Any, dict[str, Any]]] = {
    "rnn": (rnn.card, {}),
    "rnn-relu": (rnn.card, {"nonlinearity": "relu"}),
    "lstm": (lstm.card, {}),
    "gru": (gru.card, {}),
    "gru-before": (gru.card, {"reset_after": False}),
    "janet": (janet.card, {"beta": 0.7}),
}


def with_cells(*names: str) -> pytest.MarkDecorator:
    """Gives a test ``card`` and ``options`` of each; tests of a cell share a process, for it takes long to compile."""
    chosen = [pytest.param(*CELLS[name], id=name, marks=pytest.mark.xdist_group(name)) for name in names]
    return pytest.mark.parametrize(("card", "options"), chosen)


with_each_cell = with_cells(*CELLS)
