"""The section of the report on ``mqar``: how recall depends on the distance between a key and its query."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from seqbench.api import Block, Section, TrialView

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Groups = Mapping[str, Sequence[TrialView]]
    Ranges = Sequence[tuple[int, int]]

RANGES = 8
"""At most; each has as many queries, nearly."""
WHAT = (
    "A network that keeps what it has read in a state of fixed size must hold all pairs in it until they are asked "
    "for; one that looks back finds each pair wherever it lies. Steps are counted from a key to its query; the test "
    "sequences are the same for all."
)
HOW = "(band: worst to best seed; dashed: a guess among the values of the sequence)"


def recall_by_distance(views: list[TrialView]) -> Section | None:
    """A curve for each model, mean and range over seeds, and the same numbers in a table."""
    groups = by_model([view for view in views if "distance" in view.arrays])
    if not groups:
        return None
    ranges = equal_parts(next(iter(groups.values()))[0].arrays["distance"])
    curves = {label: np.array([recall(view, ranges) for view in found]) for label, found in groups.items()}
    drawn = curves_figure(ranges, curves, {label: found[0].colour for label, found in groups.items()})
    pairs = next(iter(groups.values()))[0].arrays["right"].shape[1]
    drawn.axes[0].axhline(100 / pairs, color="#5c636e", ls=(0, (4, 3)), lw=1)
    table = [["steps", *curves]]
    for place, (low, high) in enumerate(ranges):
        cells = [f"{curve[:, place].mean():.1f}" for curve in curves.values()]
        table.append([f"{low}" if low == high else f"{low} to {high}", *cells])
    return Section(
        "Recall by distance",
        (
            Block("text", WHAT),
            Block("figure", drawn, caption=f"Test recall by distance {HOW}"),
            Block("table", table, caption="Test recall in per cent, mean over seeds"),
        ),
    )


def by_model(views: Sequence[TrialView]) -> Groups:
    """The trials of each model, in order of appearance."""
    groups: dict[str, list[TrialView]] = {}
    for view in views:
        groups.setdefault(view.label, []).append(view)
    return groups


def equal_parts(distance: np.ndarray) -> Ranges:
    """First and last distance of each of up to ``RANGES`` parts with as many queries, nearly; none is in two."""
    found, count = np.unique(distance, return_counts=True)
    middle = np.cumsum(count) - count / 2
    part = (RANGES * middle / distance.size).astype(int)  # which part each distance falls into
    return [(int(found[part == p].min()), int(found[part == p].max())) for p in np.unique(part)]


def recall(view: TrialView, ranges: Ranges) -> np.ndarray:
    """Per cent in each range: ``(len(ranges),)``."""
    distance, right = view.arrays["distance"], view.arrays["right"]
    return np.array([100.0 * right[(distance >= low) & (distance <= high)].mean() for low, high in ranges])


def curves_figure(ranges: Ranges, curves: Mapping[str, np.ndarray], colours: Mapping[str, str]) -> Figure:
    """Recall over the middle of each range; ``curves`` has ``(seeds, ranges)`` for each model."""
    made = Figure(figsize=(7.4, 3.2), layout="constrained")
    ax = made.subplots()
    x = [(low + high) / 2 for low, high in ranges]
    for label, curve in curves.items():
        ax.plot(x, curve.mean(0), color=colours[label], label=label, marker="o", ms=3, lw=1.4)
        ax.fill_between(x, curve.min(0), curve.max(0), color=colours[label], alpha=0.12, lw=0)
    ax.set_ylim(-3, 103)
    ax.set_xlabel("steps from key to query")
    ax.set_ylabel("recall [%]")
    made.legend(loc="outside right center", fontsize=8, frameon=False)
    return made
