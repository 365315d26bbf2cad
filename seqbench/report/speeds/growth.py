"""How a quantity grows with length: the exponent of a power law, by least squares on logarithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST = 3
"""Two points would lie on any line."""


@dataclass(frozen=True)
class Growth:
    """``value = c * length ** exponent``.

    Attributes:
        exponent: 0 constant, 1 linear, 2 quadratic.
        error: its standard error; with three lengths it has one degree of freedom.
        r2: share of the logarithms' variance that the line explains.
    """

    exponent: float
    error: float
    r2: float


def growth(lengths: Sequence[int], values: Sequence[float]) -> Growth | None:
    """The fit over all points above 0; None with fewer than three lengths."""
    points = [(math.log(n), math.log(v)) for n, v in zip(lengths, values, strict=True) if v > 0]
    if len({x for x, _ in points}) < FEWEST:
        return None
    n = len(points)
    mean_x, mean_y = (sum(point[axis] for point in points) / n for axis in (0, 1))
    across = sum((x - mean_x) ** 2 for x, _ in points)
    total = sum((y - mean_y) ** 2 for _, y in points)
    exponent = sum((x - mean_x) * (y - mean_y) for x, y in points) / across
    rest = sum((y - mean_y - exponent * (x - mean_x)) ** 2 for x, y in points)
    return Growth(exponent, math.sqrt(rest / (n - 2) / across), 1 - rest / total if total > 0 else 1.0)
