"""The leaderboard of a task as cells of text: what the terminal, a notebook and the HTML file show."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from seqbench.api import Metric, Reference
from seqbench.frame import COLUMNS
from seqbench.report import text
from seqbench.report.collect import Row, TaskRun
from seqbench.report.summary import LATENCIES, MEDIANS

ARROWS = {True: "↓", False: "↑"}
"""Which way is better, by ``lower_is_better``."""

_SUMMARY = {column.name: column.summary for column in COLUMNS}


@dataclass(frozen=True)
class Column:
    """A column of the leaderboard.

    Attributes:
        head: its heading, in one or two lines, unit included.
        cell: a row's text.
        help: what it means.
        reference: a reference row's text.
        priority: 0 stays however narrow the terminal; the highest goes first.
        align: numbers to the right.
        value: the number behind a row's text, nan where there is none; None: the text is all there is.
    """

    head: str
    cell: Callable[[Row], str]
    help: str
    reference: Callable[[Reference], str] = lambda _: ""
    priority: int = 0
    align: Literal["left", "right"] = "right"
    value: Callable[[Row], float] | None = None

    @property
    def title(self) -> str:
        """Its heading in one line."""
        return self.head.replace("\n", " ")


def columns(task: TaskRun) -> list[Column]:
    """The columns of a task's leaderboard."""
    first = Column("Model", lambda row: row.name, _SUMMARY["model"], lambda r: text.plain(r.name), 0, "left")
    status = Column("Status", lambda row: row.status, _SUMMARY["status"], lambda _: "reference", 0, "left")
    return [first, *_metrics(task), *_sizes(task), *_speeds(), *_latencies(task), status]


def heading(metric: Metric) -> str:
    """Name, unit, and which way is better: ``recall`` above ``[%] ↑``."""
    arrow = ARROWS[metric.lower_is_better]
    return text.plain(f"{metric.name}\n[{metric.unit}] {arrow}" if metric.unit else f"{metric.name} {arrow}")


def _metrics(task: TaskRun) -> list[Column]:
    if task.score is None:
        return [Column("Score", lambda _: text.DASH, "no trial of this task has ended well")]
    score, *others = (metric for metric in task.metrics if metric is task.score or _has_values(task, metric))
    mean = _metric(score, lambda row: row.scores.mean, 0)
    found = [replace(mean, cell=lambda row: text.with_interval(row.scores.mean, row.scores.half_width))]
    if len(task.places) > 1:
        found.append(_rank(task))
    if score.solved is not None:
        found += _solved(score)
    for place, metric in enumerate(others):
        found.append(_metric(metric, lambda row, name=metric.name: row.test(name).mean, 6 + place))  # type: ignore[misc]
    return found


def _rank(task: TaskRun) -> Column:
    backends = ", on its backend" if len({row.backend for row in task.rows}) > 1 else ""
    return Column(
        "Rank",
        lambda row: text.span(task.places.get(row.name)),
        f"by the score{backends}: 1 for the best; 2–4 where the verdicts leave these places open",
        priority=1,
        value=lambda row: sum(task.places.get(row.name, (math.nan, math.nan))) / 2,
    )


def _solved(score: Metric) -> list[Column]:
    at = f"{'at most' if score.lower_is_better else 'at least'} {text.number(score.solved)} {score.unit}".strip()
    return [
        Column(
            "Solved\n[95 %]",
            lambda row: text.share(row.solved),
            f"seeds that solved the task ({text.plain(score.name)} {at}), and the interval of the probability of doing "
            "so in %, by Clopper and Pearson",
            priority=1,
            value=lambda row: math.nan if row.solved is None else row.solved.hits / row.solved.n,
        ),
        Column(
            "Steps\nto solve",
            lambda row: text.kilo(row.steps_to_solve),
            "median, over the seeds that solved the task, of the step of the first validation that said so",
            priority=5,
            value=lambda row: row.steps_to_solve,
        ),
    ]


def _has_values(task: TaskRun, metric: Metric) -> bool:
    """A metric that an option leaves out (``nats_carried``) takes no room."""
    return any(math.isfinite(row.test(metric.name).mean) for row in task.rows) or any(
        metric.name in reference.metrics for reference in task.references
    )


def _metric(metric: Metric, value: Callable[[Row], float], priority: int) -> Column:
    return Column(
        heading(metric),
        lambda row: text.number(value(row)),
        metric.summary,
        lambda reference: text.number(reference.metrics.get(metric.name)),
        priority,
        value=value,
    )


def _sizes(task: TaskRun) -> list[Column]:
    limit = " or ".join(f"{100 * share:g}" for share in sorted({trial.parameter_tolerance for trial in task.trials}))
    return [
        _counted("Params", "parameters", lambda row: row.parameters, 1),
        _counted("Core", "core_parameters", lambda row: row.core_parameters, 5),
        Column(
            "Error\n%",
            error_text,
            f"{_SUMMARY['parameters_error']}; ! where it is over {limit} %",
            priority=3,
            value=lambda row: row.parameters_error,
        ),
    ]


def _counted(head: str, column: str, value: Callable[[Row], float], priority: int) -> Column:
    return Column(head, lambda row: text.kilo(value(row)), _SUMMARY[column], priority=priority, value=value)


def error_text(row: Row) -> str:
    """The relative error of the parameters in per cent, ``!`` behind it where it is over the tolerance."""
    error = row.parameters_error
    return text.percent(error) + ("!" if off_budget(row) else "")


def off_budget(row: Row) -> bool:
    """The parameters miss the budget by more than the tolerance."""
    target, tolerance = row.trials[0].target_parameters, row.trials[0].parameter_tolerance
    return math.isfinite(row.parameters) and abs(row.parameters - target) > tolerance * target  # exact at the limit


def _speeds() -> list[Column]:
    return [
        _median("Train\ntok/s", "train_tokens_per_s", 1),
        _median("Infer\ntok/s", "infer_tokens_per_s", 2),
        _median("Train\ns", "train_seconds", 4),
        _median("Peak\nMiB", "peak_memory_mib", 4),
    ]


def _latencies(task: TaskRun) -> list[Column]:
    """Where the run has a speed phase."""
    measured = {operation for row in task.rows for operation in row.latency}
    return [_latency(name, *about) for name, about in LATENCIES.items() if about[0] in measured]


def _latency(column: str, operation: str, scale: float) -> Column:
    head, what = _LATENCY_HEADS[column]

    def value(row: Row) -> float:
        return scale * row.latency.get(operation, math.nan)

    about = f"median wall time of {what} at batch 1, by seqbench speed; the length is training's if it was measured"
    return Column(head, lambda row: text.kilo(value(row)), about, priority=2, value=value)


_LATENCY_HEADS = {
    "infer_latency_ms": ("Infer\nms", "reading one sequence"),
    "step_latency_us": ("Step\nµs", "one step of a stream"),
    "decode_latency_ms": ("Decode\nms", "decoding one sequence"),
}


def _median(head: str, column: str, priority: int) -> Column:
    keys = MEDIANS[column]
    found = _counted(head, column, lambda row: row.median(*keys), priority)
    return replace(found, help=f"{found.help}; median")
