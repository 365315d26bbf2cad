"""What the figures of the built-in report sections have in common."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from seqbench.api import TrialView

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.4
"""Inches: the width of the report's text."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def figure(height: float, columns: int = 1, rows: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """A figure of the report's width, and its axes as an array ``(rows, columns)``."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **settings)


def line(
    ax: Axes,
    x: np.ndarray,
    y: np.ndarray,
    label: str,
    colour: str,
    middle: Callable[..., np.ndarray] = np.mean,
    **settings: object,
) -> None:
    """The mean (or ``middle``) over seeds of ``y (seeds, n)`` and a band from the smallest to the largest."""
    ax.plot(x, middle(y, axis=0), color=colour, lw=1.4, label=label, **settings)  # type: ignore[arg-type]
    ax.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.12, lw=0)


def log_scale(ax: Axes) -> None:
    """Powers of ten up the side, as text: formulas take long to set. The style hides minor ticks: there are none."""
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter(FuncFormatter(power_of_ten))
    ax.yaxis.set_minor_locator(NullLocator())


def power_of_ten(value: float, _place: object = None) -> str:
    """``10⁻³``; 1 for itself."""
    exponent = round(math.log10(value))
    return f"10{str(exponent).translate(RAISED)}" if exponent else "1"


def with_key(made: Figure, ax: Axes) -> Figure:
    """The figure with the labels of ``ax`` beside all its panels."""
    handles, labels = ax.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside right center", fontsize=8, frameon=False)
    return made


def by_label(views: Sequence[TrialView]) -> dict[str, list[TrialView]]:
    """The trials of each model, in order of appearance, by seed."""
    groups: dict[str, list[TrialView]] = {}
    for view in sorted(views, key=lambda v: v.seed):
        groups.setdefault(view.label, []).append(view)
    order = list(dict.fromkeys(view.label for view in views))
    return {label: groups[label] for label in order}


def test_metric(view: TrialView, name: str) -> float:
    """A metric on the test set; nan where the record has none."""
    value = ((view.record.get("metrics") or {}).get("test") or {}).get(name)
    return float("nan") if value is None else float(value)


def shown(value: float, digits: int = 1) -> str:
    """A number for a table; a dash where there is none."""
    return "–" if value != value else f"{value:.{digits}f}"
