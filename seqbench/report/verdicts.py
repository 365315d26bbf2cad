"""Verdicts in words: which model is better, which ones tie, and what would have been seen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from seqbench.api import Metric
from seqbench.report.collect import Run, TaskRun
from seqbench.report.text import DASH, number, unit_of_differences
from seqbench.stats import Difference, Interval
from seqbench.verdicts import Verdict, fewest_seeds, mean_ranks

PAIRS = [
    ("pair", "the better mean first"),
    ("difference", "of the scores, mean over seeds, ± half width of the interval at the level of this pair"),
    ("effect", "that mean in standard deviations of the differences, corrected for few seeds (Hedges)"),
    ("p", "adjusted for all pairs of the task (Holm)"),
    ("detectable", "the difference that would have been found in four of five repetitions"),
    ("verdict", ""),
]
"""Columns of the table of pairs and what they mean."""


@dataclass(frozen=True)
class Said:
    """Everything that is said of the differences on a task.

    Attributes:
        summary: a few lines: who is better than whom, who ties.
        pairs: a row for each pair, cells as in ``PAIRS``.
    """

    summary: list[str]
    pairs: list[list[str]]


def said_of(task: TaskRun) -> Said | None:
    """The verdicts of a task in words; None where no two models can be compared."""
    if not task.verdicts or task.score is None:
        return None
    return Said(_summary(task), [_cells(verdict, task.score) for verdict in task.verdicts])


def _summary(task: TaskRun) -> list[str]:
    verdicts, better = task.verdicts, dict[str, list[str]]()
    for verdict in verdicts:
        if verdict.differ:
            better.setdefault(verdict.first, []).append(verdict.second)
    order = [row.name for row in task.rows]
    lines = [
        f"{name} is better than {_listed(sorted(better[name], key=order.index))}" for name in order if name in better
    ]
    ties = [sorted((v.first, v.second), key=order.index) for v in verdicts if not v.differ]
    if len(ties) == len(verdicts):
        lines.append("no two models can be told apart")
    elif ties:
        alike = {name: [b for a, b in ties if a == name] for name in order}
        told = (f"{a} from {_listed(sorted(bs, key=order.index))}" for a, bs in alike.items() if bs)
        lines.append(f"not told apart: {'; '.join(told)}")
    return lines + _power(verdicts, task.level)


def _power(verdicts: tuple[Verdict, ...], level: float) -> list[str]:
    """What so few seeds cannot do; nothing where they are enough."""
    pairs, n = len(verdicts), min(verdict.n for verdict in verdicts)
    solved = any(v.by == "solved" for v in verdicts)
    needed = fewest_seeds(pairs, solved, level)
    if n >= needed:
        return []
    over = f"over {pairs} pairs" if pairs > 1 else "for one pair"
    if n >= fewest_seeds(pairs, by_share=False, level=level):
        return [f"{n} seeds cannot tell all solved from none solved {over}; use --seeds {needed} or more"]
    apart = Difference(0.0, 1.0, n, 1.0).half_width(level / pairs)
    wide = f"the surest pair must differ by {number(apart, 2)} standard deviations of its difference"
    return [f"{n} seeds decide next to nothing {over}: {wide}; use --seeds {needed} or more"]


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + " and " + names[-1] if len(names) > 1 else names[0]


def sentence(verdict: Verdict, metric: Metric) -> str:
    """A verdict in one sentence: ``gru and lstm tie at n = 5: difference 0.2 ± 0.6; 0.9 would have been detected``."""
    if verdict.by == "solved" and verdict.solved is not None:
        a, b = verdict.solved
        told = f"{verdict.first} solved {a.hits} of {a.n}, {verdict.second} {b.hits} of {b.n}"
        return f"{told}: {'better' if verdict.differ else 'not told apart'} (p = {_p(verdict.p)})"
    by = f"{_difference(verdict)}{unit_of_differences(metric.unit)}"
    if verdict.differ:
        return f"{verdict.first} is better than {verdict.second} by {by} (n = {verdict.n}, p = {_p(verdict.p)})"
    if verdict.difference.deviation == 0:
        return f"{verdict.first} and {verdict.second} are equal on all {verdict.n} seeds"
    return (
        f"{verdict.first} and {verdict.second} tie at n = {verdict.n}: difference {by}; "
        f"{_two_digits(verdict.detectable)} would have been detected"
    )


def _cells(verdict: Verdict, metric: Metric) -> list[str]:
    by_score = verdict.by == "score"
    return [
        f"{verdict.first} – {verdict.second}",
        _difference(verdict) if by_score else _two_digits(abs(verdict.difference.mean)),
        _effect(verdict.difference.effect) if by_score else DASH,
        _p(verdict.p),
        _two_digits(verdict.detectable) if by_score else DASH,
        sentence(verdict, metric),
    ]


def _difference(verdict: Verdict) -> str:
    return f"{_two_digits(abs(verdict.difference.mean))} ± {_two_digits(verdict.half_width)}"


def _effect(value: float) -> str:
    return "∞" if math.isinf(value) else DASH if math.isnan(value) else f"{abs(value):.1f}"


def _two_digits(value: float) -> str:
    return number(value, 2)


def _p(value: float) -> str:
    return "< 0.0001" if value < 1e-4 else number(value, 2)


def ranked_tasks(run: Run) -> list[TaskRun]:
    """Those that have run to the end: a trial that has not run yet is none that failed, which is a last place."""
    done = [task for task in run.tasks if all(len(row.records) == len(row.trials) for row in task.rows)]
    return [task for task in done if task.score is not None]


def ranks_of(run: Run) -> Mapping[str, Interval]:
    """The mean rank over ``ranked_tasks``; empty with fewer than two of them, or with several backends."""
    tasks = ranked_tasks(run)
    if len(tasks) < 2 or len(run.backends) > 1:
        return {}
    scores = [({row.name: row.by_seed for row in task.rows}, task.score) for task in tasks if task.score is not None]
    ranks = mean_ranks(scores)
    return dict(sorted(ranks.items(), key=lambda item: item[1].mean))
