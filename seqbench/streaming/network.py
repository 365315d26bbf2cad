"""From the arrays of a file to a network that goes step by step: what does not change with the input is multiplied out.

The input adapter is linear and so is the first layer's product with what comes out of it; one matrix does both. For
tokens that product is a row of a table, which a step then only looks up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from seqbench.backends.kernels.streaming import Parameters, Stack
from seqbench.backends.recurrence import Recurrence
from seqbench.errors import Refused
from seqbench.options import build_options
from seqbench.registry import Registry, resolve
from seqbench.streaming.file import Arrays, Description


def recurrence_of(cards: Registry, model: str, options: Mapping[str, Any]) -> Recurrence:
    """What the layers of a model compute.

    Raises:
        UnknownName: no plugin registers the model, or it has no such option.
        SpecError: an option has a wrong value.
        Refused: the model does not say how to stream it.
    """
    card = cards.model(model)
    if card.recurrence is None:
        able = ", ".join(name for name, other in cards.models.items() if other.recurrence)
        raise Refused(f"{model} cannot be streamed without torch: its card names no recurrence. These can: {able}.")
    found: Recurrence = resolve(card.recurrence)(build_options(card.options, options, f"model {model!r}"))
    return found


def stack_of(description: Description, recurrence: Recurrence, arrays: Arrays, dtype: Any) -> Stack:
    """The network, in numbers of ``dtype``."""
    layers = [_layer(arrays, f"layers.{n}.") for n in range(description.layers)]
    first, E = layers[0], arrays["input.weight"].astype(np.float64)
    table = None
    if description.input == "tokens":
        table = E @ first.W.T  # (V, H) to (V, gates * H)
        W, b_x = first.W[:, :0], first.b_x
    else:
        W, b_x = first.W @ E, first.W @ arrays["input.bias"] + first.b_x  # (gates * H, size), (gates * H,)
    layers[0] = Parameters(W, first.U, b_x, first.b_h)

    def numbers(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array, dtype)

    return Stack(
        recurrence.cell,
        recurrence.constants,
        tuple(Parameters(*map(numbers, (p.W, p.U, p.b_x, p.b_h))) for p in layers),
        None if table is None else numbers(table),
        (numbers(arrays["head.weight"]), numbers(arrays["head.bias"])),
    )


def _layer(arrays: Arrays, prefix: str) -> Parameters:
    """In float64, in which the products of weights are made."""
    W, U, b_x, b_h = (arrays.get(prefix + name, np.empty(0)) for name in ("W", "U", "b_x", "b_h"))
    return Parameters(*(array.astype(np.float64) for array in (W, U, b_x, b_h)))
