"""What tuning saw: validation against each hyper-parameter, and against how many settings were tried."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from seqbench.api import Metric
from seqbench.axes import TUNABLE, is_number, shown
from seqbench.report.collect import Row, Run, TaskRun
from seqbench.report.figures import (
    PANEL,
    Picture,
    axis_name,
    finish,
    look_of,
    mark,
    plain_ticks,
    reference_lines,
    value_axis,
)
from seqbench.report.hover import Readings, Trace
from seqbench.report.look import style
from seqbench.report.text import distinct, plain
from seqbench.tuning import best, expected_best, validation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = list[tuple[float, float]]


def tuning_pictures(task: TaskRun, run: Run) -> list[Picture]:
    """A picture for each hyper-parameter that was tuned and one for the budget; none where nothing was."""
    metric = task.metric(task.select)
    rows = [row for row in task.rows if best(row.tuning) is not None]
    if metric is None or not rows:
        return []
    title, found = f"Tuning: validation {plain(metric.name)} against", []
    for name in distinct(name for row in rows for name in row.tuning[0]["trial"]["setting"]):
        axis = _Values(name, [row for row in rows if name in row.tuning[0]["trial"]["setting"]])
        traces = [Trace(row.name, look_of(row, run).colour, *_columns(axis.points_of(row))) for row in axis.rows]
        readings = Readings(axis.legend, axis_name(metric), tuple(traces))
        found.append(Picture(f"{title} {_words(name)}", _draw(axis, metric, task, run), readings))
    title = f"Tuning: best validation {plain(metric.name)} against settings tried"
    traces = [Trace(row.name, look_of(row, run).colour, *_budget(row, metric)) for row in rows]
    readings = Readings("settings tried", axis_name(metric), tuple(traces))
    return [*found, Picture(title, _draw_budget(rows, metric, task, run), readings)]


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _words(name: str) -> str:
    return {"lr": "learning rate", "weight_decay": "weight decay"}.get(name, plain(name))


def points_of(row: Row, name: str) -> list[tuple[Any, float]]:
    """Each value of a hyper-parameter with the best validation that any setting with it had, ascending."""
    found: dict[Any, list[dict[str, object]]] = {}
    for record in row.tuning:
        found.setdefault(record["trial"]["setting"][name], []).append(dict(record))
    winners = {value: best(records) for value, records in sorted(found.items())}
    return [(value, y) for value, one in winners.items() if one is not None and (y := validation(one)) is not None]


def failed_at(row: Row, name: str) -> list[Any]:
    """The values with which no setting ended well."""
    well = {value for value, _ in points_of(row, name)}
    return sorted({record["trial"]["setting"][name] for record in row.tuning} - well)


class _Values:
    """A hyper-parameter's axis: numbers lie where they are, words side by side in alphabetical order.

    Attributes:
        name: of the hyper-parameter.
        rows: those that have tried values of it.
        words: all values in order, where they are no numbers; else none.
        whole: they are whole numbers.
    """

    def __init__(self, name: str, rows: Sequence[Row]) -> None:
        self.name, self.rows = name, rows
        values = sorted({record["trial"]["setting"][name] for row in rows for record in row.tuning})
        self.words = [] if all(map(is_number, values)) else values
        self.whole = not self.words and all(isinstance(value, int) for value in values)

    @property
    def legend(self) -> str:
        """What the positions mean: ``"start (0: chrono, 1: normal)"``."""
        told = ", ".join(f"{place}: {shown(word)}" for place, word in enumerate(self.words))
        return f"{_words(self.name)} ({plain(told)})" if told else _words(self.name)

    def place(self, value: Any) -> float:
        return float(self.words.index(value) if self.words else value)

    def points_of(self, row: Row) -> Points:
        return [(self.place(value), y) for value, y in points_of(row, self.name)]

    def scale(self, ax: Axes) -> None:
        """Label, scale and ticks."""
        ax.set_xlabel(_words(self.name))
        if self.words:
            ax.set_xticks(range(len(self.words)), [plain(shown(word)) for word in self.words])
            return
        if self.name in TUNABLE and TUNABLE[self.name].log:
            ax.set_xscale("log")
        plain_ticks(ax, "x")
        if self.whole:
            ax.xaxis.set_major_locator(MaxNLocator(integer=True))


def _draw(axis: _Values, metric: Metric, task: TaskRun, run: Run) -> Figure:
    with style():
        figure = Figure(figsize=PANEL, layout="constrained")
        ax = figure.add_subplot()
        for row in axis.rows:
            how, points, chosen = look_of(row, run), axis.points_of(row), best(row.tuning)
            line = "" if axis.words else how.line  # there is nothing between two words
            ax.plot(*zip(*points, strict=True), color=how.colour, ls=line, lw=1.5, **mark(how, 5))
            if chosen is not None:
                at = axis.place(chosen["trial"]["setting"][axis.name])
                ax.plot([at], [dict(points)[at]], **mark(how, 11))
            _draw_failed(ax, [axis.place(value) for value in failed_at(row, axis.name)], how.colour)
        axis.scale(ax)
        value_axis(ax, "y", metric, [y for row in axis.rows for _, y in axis.points_of(row)], task)
        reference_lines(ax.axhline, ax, "y", task, metric)
        finish(ax)
    return figure


def _draw_failed(ax: Axes, values: Sequence[float], colour: str) -> None:
    """Crosses at the upper edge: there is no value to draw."""
    if not values:
        return  # an empty line that is not clipped counts as a point far outside when the figure is laid out
    heights, edge = [0.97] * len(values), ax.get_xaxis_transform()
    ax.plot(values, heights, "x", color=colour, ms=7, transform=edge, clip_on=False)


def _draw_budget(rows: Sequence[Row], metric: Metric, task: TaskRun, run: Run) -> Figure:
    with style():
        figure = Figure(figsize=PANEL, layout="constrained")
        ax = figure.add_subplot()
        curves = [_budget(row, metric) for row in rows]
        for row, (settings, curve) in zip(rows, curves, strict=True):
            how = look_of(row, run)
            ax.plot(settings, curve, color=how.colour, ls=how.line, lw=1.5, **mark(how, 5))
        ax.set_xlabel("settings tried")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        value_axis(ax, "y", metric, [y for _, curve in curves for y in curve], task)
        reference_lines(ax.axhline, ax, "y", task, metric)
        finish(ax)
    return figure


def _budget(row: Row, metric: Metric) -> tuple[list[float], list[float]]:
    """How many settings, and the best validation to be expected of so many."""
    values = [v for record in row.tuning if (v := validation(record)) is not None]
    return [float(n) for n in range(1, len(values) + 1)], list(expected_best(values, metric.lower_is_better))
