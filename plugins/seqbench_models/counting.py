"""How many parameters a stack of recurrent layers has; for the cards, so without torch."""

from __future__ import annotations

from seqbench.api import CoreSpec


def recurrent_parameters(spec: CoreSpec, gates: int, biases: int) -> int:
    """Of ``L`` layers, in one direction or in both, whose gates each have ``W``, ``U`` and so many biases.

    Args:
        spec: of the core.
        gates: products of width ``H`` with ``x`` and with ``h``.
        biases: of each gate.
    """
    H, directions = spec.width, 1 if spec.causal else 2
    sizes = [spec.input_size] + [directions * H] * (spec.layers - 1)
    return sum(directions * gates * (H * (size + H) + biases * H) for size in sizes)
