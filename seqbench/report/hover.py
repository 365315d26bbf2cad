"""The values of a figure's points and where they lie, for readers who point at them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Trace:
    """Points of one row, in data coordinates."""

    name: str
    colour: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Readings:
    """What can be read off a figure with one pair of axes; ``x`` and ``y`` name them, units included."""

    x: str
    y: str
    traces: tuple[Trace, ...]


def placed(figure: Figure, readings: Readings) -> str:
    """JSON for the page's script: ``{"x": …, "y": …, "rows": [[name, colour, [[left, top, x, y], …]], …]}``.

    Left and top are shares of the figure's width and height. Points outside of the axes are left out.

    Args:
        figure: saved already, so that its layout is final.
        readings: of its first axes.
    """
    ax = figure.axes[0]
    box = ax.get_position()
    rows = []
    for trace in readings.traces:
        points = np.column_stack([np.asarray(trace.x, dtype=float), np.asarray(trace.y, dtype=float)])
        with np.errstate(all="ignore"):  # what a log scale cannot show becomes nan, and is left out
            at = figure.transFigure.inverted().transform(ax.transData.transform(points))
        seen = np.isfinite(at).all(axis=1)
        seen &= (at >= np.array(box.min) - 1e-6).all(axis=1) & (at <= np.array(box.max) + 1e-6).all(axis=1)
        rows.append(
            [
                trace.name,
                trace.colour,
                [
                    [round(float(left), 4), round(1 - float(up), 4), *map(_told, point)]
                    for (left, up), point in zip(at[seen], points[seen], strict=True)
                ],
            ]
        )
    return json.dumps(
        {"x": readings.x, "y": readings.y, "rows": rows}, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def _told(value: float) -> float:
    """To four digits, but whole above that: numbers of steps and of parameters are exact."""
    return float(f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}")
