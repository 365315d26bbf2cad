"""What the figures of the built-in report sections have in common."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from matplotlib.figure import Figure

from seqbench.api import TrialView

WIDTH = 7.4
"""Inches: the width of the report's text."""


def figure(height: float, columns: int = 1, rows: int = 1, **settings: Any) -> tuple[Figure, Any]:
    """A figure of the report's width, and its axes as an array ``(rows, columns)``."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    return made, made.subplots(rows, columns, squeeze=False, **settings)


def by_label(views: Iterable[TrialView]) -> dict[str, list[TrialView]]:
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
