"""The built-in models. Importing this module loads cards only, no torch."""

from __future__ import annotations

from seqbench.api import Register, hookimpl
from seqbench_models import gru, janet, lstm, rnn, tcn, transformer


@hookimpl
def register_models(register: Register) -> None:
    """Add the six built-in models."""
    for module in (rnn, lstm, gru, janet, tcn, transformer):
        register.model(module.card)
