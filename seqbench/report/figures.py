"""The figures of a task: score, learning curves, score against size and time. Aggregated here, then drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from seqbench.api import Metric
from seqbench.frame import look_up
from seqbench.report.collect import Record, Row, Run, TaskRun
from seqbench.report.hover import Readings, Trace
from seqbench.report.look import INK, OTHER, PAPER, SOFT, Look, look, style
from seqbench.report.text import plain, short, tick

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 7.4
PANEL = (5.3, 3.5)
THIRD = (3.75, 3.1)
Ends = Sequence[float]
DECADES = 30.0
"""Positive values that span more than this factor are shown on a log scale."""

FAR = 2.0
"""A reference further from the values shown than this many times their span would squeeze them: it is off the scale."""

LONGEST_LABEL = 30
_REFERENCE_LINES = {"trivial": (SOFT, (0, (4, 3))), "optimum": (INK, (0, (1, 1.5)))}
_OTHER_LINE = (OTHER, (0, (6, 2, 1, 2)))
_FRONT = "#8a8f98"


@dataclass(frozen=True)
class Picture:
    """A figure and what a reader, seeing or not, must know of it; ``readings`` can be read off it point by point."""

    title: str
    figure: Figure
    readings: Readings | None = None


def score_picture(task: TaskRun, run: Run) -> Picture | None:
    """Each row's seeds, mean and interval; None where no row has a score."""
    rows = [row for row in task.rows if row.points]
    if task.score is None or not rows:
        return None
    with style():
        figure = Figure(figsize=(WIDTH, 1.05 + 0.36 * len(rows)), layout="constrained")
        ax = figure.add_subplot()
        for place, row in enumerate(rows):
            _draw_score(ax, place, row, look_of(row, run))
        ax.set_yticks(range(len(rows)), [short(row.name, LONGEST_LABEL) for row in rows])
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.grid(visible=False, axis="y")
        value_axis(ax, "x", task.score, [v for row in rows for v in row.points], task, _ends(rows))
        reference_lines(ax.axvline, ax, "x", task, task.score)
        finish(ax)
    return Picture(f"Test {plain(task.score.name)}: each seed, mean, 95 % interval", figure)


def _ends(rows: Sequence[Row]) -> list[float]:
    return [end for row in rows for end in (row.scores.low, row.scores.high)]


def _draw_score(ax: Axes, place: int, row: Row, how: Look) -> None:
    scores = row.scores
    ax.plot(row.points, [place + 0.2] * len(row.points), how.marker, ms=4, mfc="none", mec=how.colour, alpha=0.75)
    if scores.n > 1:
        ax.plot([scores.low, scores.high], [place - 0.08] * 2, color=how.colour, lw=2.2, solid_capstyle="butt")
    ax.plot([scores.mean], [place - 0.08], **mark(how, 9))


def mark(how: Look, size: float) -> dict[str, Any]:
    """A filled mark with a white rim, which tells it from one below; or a hollow one."""
    rim: dict[str, Any] = {"mec": PAPER, "mew": 0.5} if how.filled else {"mec": how.colour, "mew": 1.6}
    return {"marker": how.marker, "ms": size, "mfc": how.face, **rim}


# --- learning curves --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Validation of a row over its seeds: mean, smallest, largest at each point."""

    x: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def curve_pictures(task: TaskRun, run: Run) -> list[Picture]:
    """The metric that selects the checkpoint on the validation set, against steps and against training seconds."""
    metric = task.metric(task.select)
    if metric is None:
        return []
    found = []
    for axis, unit in (("step", "training step"), ("seconds", "training time [s]")):
        curves = [(row, curve) for row in task.rows if (curve := aggregate(row.ok, axis, metric.name)) is not None]
        if curves:
            title = f"Validation {plain(metric.name)} against {unit.partition(' [')[0]}"
            traces = [Trace(r.name, look_of(r, run).colour, c.x.tolist(), c.mean.tolist()) for r, c in curves]
            readings = Readings(unit, axis_name(metric), tuple(traces))
            found.append(Picture(title, _draw_curves(curves, unit, metric, task, run), readings))
    return found


def aggregate(records: Sequence[Record], axis: str, metric: str) -> Curve | None:
    """Mean and range over seeds; None where no record has a point.

    The k-th points of all seeds are averaged, places included: seconds always differ from seed to seed. Where the
    numbers of points differ, each curve is first read off at the shortest one's shares of its length.
    """
    pairs = [pair for r in records if len((pair := _points(r, axis, metric))[0])]
    if not pairs:
        return None
    length = min(len(x) for x, _ in pairs)
    x, y = (np.array([_resampled(pair[part], length) for pair in pairs]) for part in (0, 1))
    return Curve(x.mean(axis=0), y.mean(axis=0), y.min(axis=0), y.max(axis=0))


def _points(record: Record, axis: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The finite points of one seed."""
    given = look_up(record, "curve", "valid") or {}
    x, y = (np.array(given.get(key) or [], dtype=float) for key in (axis, metric))
    length = min(len(x), len(y))
    fine = np.isfinite(x[:length]) & np.isfinite(y[:length])
    return x[:length][fine], y[:length][fine]


def _resampled(values: np.ndarray, length: int) -> np.ndarray:
    if len(values) == length:
        return values
    return np.asarray(np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(values)), values))


def _draw_curves(curves: Sequence[tuple[Row, Curve]], unit: str, metric: Metric, task: TaskRun, run: Run) -> Figure:
    with style():
        figure = Figure(figsize=PANEL, layout="constrained")
        ax = figure.add_subplot()
        for row, curve in curves:
            how = look_of(row, run)
            ax.plot(curve.x, curve.mean, color=how.colour, ls=how.line, lw=1.7, markevery=[-1], **mark(how, 7))
            if len(row.ok) > 1:
                ax.fill_between(curve.x, curve.low, curve.high, color=how.colour, alpha=0.14, lw=0)
        ax.set_xlabel(unit)
        ax.set_xlim(left=0)
        plain_ticks(ax, "x")
        value_axis(ax, "y", metric, [v for _, curve in curves for v in curve.mean], task)
        reference_lines(ax.axhline, ax, "y", task, metric)
        finish(ax)
    return figure


# --- score against cost -----------------------------------------------------------------------------


def _inference_time(row: Row) -> float:
    """In µs per token of the test set, data and metric included."""
    rate = row.median("speed", "infer_tokens_per_s")
    return 1e6 / rate if rate > 0 else float("nan")


def _latency(row: Row) -> float:
    """In ms, of the speed phase."""
    return 1e3 * row.latency.get("infer", float("nan"))


Cost = tuple[str, Callable[[Row], float]]
"""What a score may cost: as the axis says it, and as it is read off a row."""


def _costs(task: TaskRun) -> Mapping[str, Cost]:
    """By their names in titles; inference as the speed phase measured it, or, where there was none, as trials did."""
    inference: dict[str, Cost] = (
        {"latency": ("sequence latency, batch 1 [ms], median", _latency)}
        if task.has_latency
        else {"inference time": ("inference time per token [µs], median", _inference_time)}
    )
    return {
        "parameters": ("parameters of the network", lambda row: row.parameters),
        "training time": ("training time [s], median", lambda row: row.median("speed", "train_seconds")),
        **inference,
    }


def cost_pictures(task: TaskRun, run: Run) -> list[Picture]:
    """The score against parameters, training time and inference time, each with its front."""
    if task.score is None:
        return []
    found: list[Picture] = []
    for name, (label, cost) in _costs(task).items():
        rows = [row for row in task.rows if row.points and np.isfinite(cost(row))]
        if rows:
            title = f"Test {plain(task.score.name)} against {name}"
            traces = [Trace(row.name, look_of(row, run).colour, [cost(row)], [row.scores.mean]) for row in rows]
            readings = Readings(label, axis_name(task.score), tuple(traces))
            found.append(Picture(title, _draw_costs(rows, label, cost, task.score, task, run), readings))
    return found


def front(points: Sequence[tuple[float, float]], lower_is_better: bool) -> list[tuple[float, float]]:
    """The Pareto front, by ascending cost.

    A point is on it if no other has a score at least as good at no greater cost and is better in one of the two; of
    equal points all are on it or none, and they are listed once.

    Args:
        points: cost and score of each row.
        lower_is_better: of the score; of the cost it always is.
    """
    sign = 1.0 if lower_is_better else -1.0
    found: list[tuple[float, float]] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], sign * point[1])):
        if not found or sign * score < sign * found[-1][1]:
            found.append((cost, score))
    return found


def _draw_costs(
    rows: Sequence[Row], label: str, cost: Callable[[Row], float], score: Metric, task: TaskRun, run: Run
) -> Figure:
    with style():
        figure = Figure(figsize=THIRD, layout="constrained")
        ax = figure.add_subplot()
        for row in rows:
            how, scores = look_of(row, run), row.scores
            if scores.n > 1:
                ax.plot([cost(row)] * 2, [scores.low, scores.high], color=how.colour, lw=1.3, alpha=0.8)
            ax.plot([cost(row)], [scores.mean], **mark(how, 9))
        ax.set_xlabel(label)
        _cost_axis(ax, [cost(row) for row in rows])
        value_axis(ax, "y", score, [row.scores.mean for row in rows], task, _ends(rows))
        _draw_front(ax, front([(cost(row), row.scores.mean) for row in rows], score.lower_is_better))
        reference_lines(ax.axhline, ax, "y", task, score)
        finish(ax)
    return figure


def _draw_front(ax: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A step line: the best mean score at no more than each cost, to the edge of the axes."""
    x, y = zip(*points, (ax.get_xlim()[1], points[-1][1]), strict=True)
    ax.plot(x, y, drawstyle="steps-post", color=_FRONT, lw=1.1, zorder=1.6, label="front")


def _cost_axis(ax: Axes, values: Sequence[float]) -> None:
    """A log scale over a wide span; else at least ten per cent to either side, so that equal sizes look equal."""
    low, high = min(values), max(values)
    if low > 0 and high / low >= DECADES:
        ax.set_xscale("log")
        ax.set_xlim(low / 1.6, high * 1.6)
    else:
        room = max(0.1 * high, 0.08 * (high - low), 1e-9)
        ax.set_xlim(max(0.0, low - room), high + room)
    plain_ticks(ax, "x")


# --- axes -------------------------------------------------------------------------------------------


def axis_name(metric: Metric) -> str:
    """``loss [nats]``."""
    return plain(f"{metric.name} [{metric.unit}]" if metric.unit else metric.name)


def value_axis(ax: Axes, which: str, metric: Metric, values: Sequence[float], task: TaskRun, ends: Ends = ()) -> None:
    """Label, scale, limits and ticks of the axis that shows a metric.

    Args:
        ax: where.
        which: ``"x"`` or ``"y"``.
        metric: what is shown.
        values: means or points, which must be seen.
        task: whose reference lines are seen too, where they do not lie too far off.
        ends: of intervals, which may run out of the figure rather than squeeze everything else.
    """
    better = "lower" if metric.lower_is_better else "higher"
    ax.set(**{f"{which}label": f"{axis_name(metric)}, {better} is better"})
    finite, fine_ends = ([v for v in some if np.isfinite(v)] for some in (values, ends))
    references = _reference_values(task, metric).values()
    seen = [*finite, *references]
    if wants_log(metric, seen):
        shown = [v for v in seen if v > 0]
        ax.set(**{f"{which}scale": "log", f"{which}lim": (min(shown) / 1.6, max(shown) * 1.6)})
    else:
        near = _near(references, [*finite, *fine_ends])
        ax.set(**{f"{which}lim": _limits([*finite, *near], fine_ends)})
    plain_ticks(ax, which)


def _near(references: Iterable[float], values: Sequence[float]) -> list[float]:
    """Those within ``FAR`` times the values' span of them; all, where the values are one number and have none."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    room = FAR * (high - low) or np.inf
    return [v for v in references if low - room <= v <= high + room]


def _limits(seen: Sequence[float], ends: Sequence[float]) -> tuple[float, float]:
    low, high = min(seen), max(seen)
    span = high - low or abs(high) or 1.0
    low, high = max(min([low, *ends]), low - 0.5 * span), min(max([high, *ends]), high + 0.5 * span)
    return low - 0.05 * span, high + 0.05 * span


def wants_log(metric: Metric, values: Iterable[float]) -> bool:
    """Errors and losses that are never negative and whose values above 0 span decades."""
    seen = list(values)
    shown = [v for v in seen if v > 0]
    fits = metric.lower_is_better and bool(shown) and min(seen) >= 0
    return fits and max(shown) / min(shown) >= DECADES


def plain_ticks(ax: Axes, which: str) -> None:
    """Ticks as people write numbers, on an axis ``"x"`` or ``"y"`` of either scale."""
    axis: Any = ax.xaxis if which == "x" else ax.yaxis
    if axis.get_scale() == "log":
        low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 1e3 else (1.0,), numticks=10))
        axis.set_minor_locator(NullLocator())  # as invisible as the style makes them, and not laid out
    else:
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(tick))


def _reference_values(task: TaskRun, metric: Metric) -> dict[str, float]:
    found = {plain(r.name): r.metrics.get(metric.name) for r in task.references}
    return {name: value for name, value in found.items() if value is not None and np.isfinite(value)}


def reference_lines(draw: Callable[..., Any], ax: Axes, which: str, task: TaskRun, metric: Metric) -> None:
    """A line for each reference; one that is off the axis is named in the legend all the same."""
    low, high = ax.get_xlim() if which == "x" else ax.get_ylim()
    values = _reference_values(task, metric)
    for name, value in values.items():
        colour, line = _REFERENCE_LINES.get(name, _OTHER_LINE)
        off = not low <= value <= high
        text = f"{short(name, 20)} {tick(float(f'{value:.4g}'))}{' (off the scale)' if off else ''}"
        if off:
            ax.plot([], [], color=colour, ls=line, lw=1.2, label=text)
        else:
            draw(value, color=colour, ls=line, lw=1.2, label=text, zorder=1.5)
    texts = ax.get_legend_handles_labels()[1]
    if texts:
        entry = 0.45 + 0.07 * max(map(len, texts))  # inches, of the line and of the letters
        columns = max(1, int(ax.figure.bbox.width / ax.figure.dpi / entry))
        ax.figure.legend(loc="outside lower right", ncols=columns, frameon=False, fontsize=8.5, handlelength=2.6)


def finish(ax: Axes) -> None:
    """Take away what frames and says nothing."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)


def look_of(row: Row, run: Run) -> Look:
    """Colour, line and marker of a row, the same in all figures of a run."""
    return look(row.label, row.backend, run.labels, run.backends)
