"""The report sections of ``copy`` and ``adding``: how far back each model remembers, before training and after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Block, Section, TrialView
from seqbench_tasks.memory import memory_length
from seqbench_tasks.report_style import by_label, figure, line, log_scale, with_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    Groups = Mapping[str, Sequence[TrialView]]

TIMES = {"untrained": "at the start", "trained": "after training"}
FLOOR = 1e-10
"""Shares of a gradient below are not drawn."""
LEAST = 1e-45
"""Stands for 0, which has no logarithm: the least number above it in float32."""
POINTS = 10
"""Points of a curve of errors: each has as many sequences, nearly."""
TITLE = "How far back it remembers"
WHAT = (
    "The gradient through time says how much the loss at the last step would change with the input k steps before: the "
    "norm of its derivative, mean over 32 sequences, as a share of its largest value. Where it has faded, training "
    "cannot tell what the input should have done, and the model forgets. The memory length is the largest k at which "
    "the share is still at least one per cent."
)


def copy_memory(views: list[TrialView]) -> Section | None:
    """``copy``: gradient through time, recall by delay and by the symbol's place."""
    groups = _with_gradient(views)
    if not groups:
        return None
    T = _length(groups)
    needed = T + 10
    said = f" Here the loss is that of the last symbol, which was shown {needed} steps before (the dashed line)."
    drawn = _two_panels(
        groups,
        (_recall_by_delay, f"delay T (dashed: {T}, as trained)"),
        (_recall_by_place, "place of the symbol among the ten"),
        "recall [%]",
        T,
    )
    caption = "Test recall by delay, 200 sequences each, and, at the delay of training, by place"
    return _section(groups, WHAT + said + _left_out(views, groups), needed, Block("figure", drawn, caption=caption))


def adding_memory(views: list[TrialView]) -> Section | None:
    """``adding``: gradient through time, error by length and by how long the first number had to be kept."""
    groups = _with_gradient(views)
    if not groups:
        return None
    T = _length(groups)
    said = (
        " Here the loss is that of the answer; the numbers to add lie anywhere, one in each half of the sequence. The "
        "dashed line is its first step."
    )
    drawn = _two_panels(
        groups,
        (_error_by_length, f"length (dashed: {T}, as trained)"),
        (_error_by_lag, "steps from the first number to the end"),
        "mean squared error",
        T,
    )
    for ax in drawn.axes:
        log_scale(ax)
    caption = "Test error by length, 500 sequences each, and, at the length of training, by how long to remember"
    return _section(groups, WHAT + said + _left_out(views, groups), T - 1, Block("figure", drawn, caption=caption))


def _with_gradient(views: Sequence[TrialView]) -> Groups:
    """The trials that have finite gradients of both times, by model."""
    return by_label([view for view in views if all(_is_finite(view, when) for when in TIMES)])


def _left_out(views: Sequence[TrialView], groups: Groups) -> str:
    """A sentence that names the models of which no seed has finite gradients."""
    missing = list(dict.fromkeys(view.label for view in views if view.label not in groups))
    return f" Not shown, for want of finite gradients: {', '.join(missing)}." if missing else ""


def _is_finite(view: TrialView, when: str) -> bool:
    return bool(np.isfinite(view.arrays.get(f"{when}/gradient", np.nan)).all())


def _length(groups: Groups) -> int:
    return int(next(iter(groups.values()))[0].record["trial"]["task_options"]["T"])


def _section(groups: Groups, text: str, needed: int, *more: Block) -> Section:
    gradients = Block("figure", gradient_figure(groups, needed), caption="Gradient through time")
    table = Block("table", _lengths(groups, needed), caption="Memory length, median over seeds")
    return Section(TITLE, (Block("text", text), gradients, table, *more))


# --- gradients --------------------------------------------------------------------------------------


def shares(view: TrialView, when: str) -> np.ndarray:
    """The gradient by lag as a share of its largest value: ``(T,)``, never 0, for it is drawn on a log scale."""
    gradient = view.arrays[f"{when}/gradient"]
    return np.asarray(np.maximum(gradient / (gradient.max() or 1.0), LEAST))


def gradient_figure(groups: Groups, needed: int) -> Figure:
    """A panel before training, one after it: median over seeds, band from the smallest to the largest."""
    made, axes = figure(3.3, columns=2, sharey=True)
    for ax, (when, title) in zip(axes[0], TIMES.items(), strict=True):
        for label, found in groups.items():
            curves = np.array([shares(view, when) for view in found])  # (seeds, T)
            line(ax, np.arange(curves.shape[1]), curves, label, found[0].colour, np.median)
        log_scale(ax)
        ax.set_ylim(FLOOR, 3)
        ax.set_title(title)
        ax.set_xlabel("steps back k")
        ax.axvline(needed, color="#5c636e", ls=(0, (4, 3)), lw=1)
    axes[0, 0].set_ylabel("gradient, share of its largest")
    return with_key(made, axes[0, 1])


def _lengths(groups: Groups, needed: int) -> list[list[str]]:
    heads = [f"{name}, {time}" for name in ("memory length", f"share at k = {needed}") for time in TIMES.values()]
    table = [["model", *heads]]
    for label, found in groups.items():
        lengths = [_median([memory_length(view.arrays[f"{when}/gradient"]) for view in found]) for when in TIMES]
        at = [_median([shares(view, when)[needed] for view in found]) for when in TIMES]
        table.append([label, *(f"{n:g}" for n in lengths), *(_share(value) for value in at)])
    return table


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _share(value: float) -> str:
    return f"under {FLOOR:.0e}" if value < FLOOR else f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


# --- scores -----------------------------------------------------------------------------------------

Points = tuple[np.ndarray, np.ndarray]
"""``x (n,)`` and a row of ``y`` for each seed, ``(seeds, n)``."""


def _recall_by_delay(found: Sequence[TrialView]) -> Points:
    return found[0].arrays["delays"], np.array([view.arrays["recall"].mean(1) for view in found])


def _recall_by_place(found: Sequence[TrialView]) -> Points:
    at = list(found[0].arrays["delays"]).index(int(found[0].record["trial"]["task_options"]["T"]))
    return np.arange(1, 11), np.array([view.arrays["recall"][at] for view in found])


def _error_by_length(found: Sequence[TrialView]) -> Points:
    return found[0].arrays["lengths"], np.array([view.arrays["mse"] for view in found])


def _error_by_lag(found: Sequence[TrialView]) -> Points:
    lag = found[0].arrays["lag"]
    parts = np.array_split(np.argsort(lag, kind="stable"), POINTS)
    x = np.array([lag[part].mean() for part in parts])
    return x, np.array([[view.arrays["error"][part].mean() for part in parts] for view in found])


def _two_panels(
    groups: Groups,
    left: tuple[Callable[[Sequence[TrialView]], Points], str],
    right: tuple[Callable[[Sequence[TrialView]], Points], str],
    unit: str,
    T: int,
) -> Figure:
    made, axes = figure(3.0, columns=2, sharey=True)
    for ax, (points, name) in zip(axes[0], (left, right), strict=True):
        for label, found in groups.items():
            x, y = points(found)
            line(ax, x, y, label, found[0].colour, marker="o", ms=3)
        ax.set_xlabel(name)
    axes[0, 0].axvline(T, color="#5c636e", ls=(0, (4, 3)), lw=1)
    axes[0, 0].set_ylabel(unit)
    return with_key(made, axes[0, 1])
