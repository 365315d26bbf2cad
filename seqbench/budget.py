"""The parameter-budget solver: the width, and a card's second size, at which the whole network has the asked count."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from seqbench.api import Form, Model
from seqbench.assemble import AnyNetwork, build, core_spec, count
from seqbench.quantities import Target

_LARGEST = 1 << 20


@dataclass(frozen=True)
class Size:
    """A solved size.

    Attributes:
        width: ``H``.
        options: the card's options, the second size set where it was needed.
        parameters: of the whole network.
        core_parameters: of the core.
    """

    width: int
    options: Any
    parameters: int
    core_parameters: int


@dataclass(frozen=True)
class Question:
    """The network whose size is sought, all but the size."""

    card: Model
    backend: str
    form: Form
    options: Any
    layers: int

    def network(self, width: int, options: Any) -> AnyNetwork:
        """The network of that size, without memory for its parameters."""
        spec = core_spec(self.card, self.form, width, self.layers)
        with torch.device("meta"):
            return build(self.card, self.backend, spec, options, self.form)

    def sized(self, width: int, fine: int = 0) -> Size:
        """Count the parameters at a width (and second size)."""
        options = (
            dataclasses.replace(self.options, **{self.card.fine: fine}) if fine and self.card.fine else self.options
        )
        network = self.network(width, options)
        return Size(width, options, count(network), count(*network.core_modules))


def solve(question: Question, target: Target) -> Size:
    """The size nearest to ``target`` parameters.

    The width alone is tried first. A card with a second size (``Model.fine``) that the user has not set then closes the
    gap, at the nearest width if it can, else at the one beside it.

    Raises:
        Refused: the card cannot do the task.
    """

    def miss(size: Size) -> int:
        return abs(size.parameters - target.count)

    multiple = question.card.width_multiple(question.options)
    below = largest(lambda k: question.sized(k * multiple).parameters <= target.count)
    candidates = sorted((question.sized(k * multiple) for k in (below, below + 1) if k >= 1), key=miss)
    fine = question.card.fine
    if fine is None or getattr(question.options, fine) or candidates[0].parameters == target.count:
        return candidates[0]
    refined = []
    for candidate in candidates:
        refined.append(_refine(question, candidate.width, target.count))
        if miss(refined[-1]) <= target.tolerance * target.count:
            return refined[-1]
    return min([*candidates, *refined], key=miss)


def _refine(question: Question, width: int, target: int) -> Size:
    """The second size nearest to the target at this width."""
    below = largest(lambda fine: question.sized(width, fine).parameters <= target)
    sizes = [question.sized(width, fine) for fine in (below, below + 1) if fine >= 1]
    return min(sizes, key=lambda size: abs(size.parameters - target))


def largest(holds: Callable[[int], bool]) -> int:
    """The largest whole number from 1 on for which ``holds`` (which then never holds again); 0 if there is none."""
    low, high = 0, 1
    while high < _LARGEST and holds(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
