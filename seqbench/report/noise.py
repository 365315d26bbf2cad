"""The certificate of an A/A run: a model against itself, on other seeds, shows what is noise here."""

from __future__ import annotations

import math

from seqbench.api import Metric
from seqbench.frame import look_up
from seqbench.report.collect import Row, Run, TaskRun
from seqbench.report.text import number, plain, share, unit_of_differences
from seqbench.stats import Difference, paired_difference

SPEEDS = {"training": ("speed", "train_tokens_per_s"), "inference": ("speed", "infer_tokens_per_s")}


def certificate(task: TaskRun, run: Run) -> list[str]:
    """What the two halves of an A/A run say, a few lines for each backend; nothing of other runs."""
    model = (run.stored.get("spec") or {}).get("aa")
    if not model or task.score is None:
        return []
    lines = []
    for backend in run.backends:
        rows = sorted((row for row in task.rows if row.backend == backend), key=lambda row: row.name)
        if len(rows) == 2:
            where = f"{model} on {backend}" if len(run.backends) > 1 else str(model)
            lines += [plain(line) for line in _lines(where, rows[0], rows[1], task)]
    return lines


def _lines(where: str, first: Row, second: Row, task: TaskRun) -> list[str]:
    assert task.score is not None
    difference = paired_difference(first.by_seed, second.by_seed)
    if difference.n < 2:
        return [f"A/A of {where}: fewer than two seeds ended well in both halves; nothing can be said of noise"]
    names = {first.name, second.name}
    false = any(v.differ and {v.first, v.second} == names for v in task.verdicts)
    outcome = "a false difference: one in twenty such runs has one" if false else "a tie, as it should be"
    solved = [row.solved for row in (first, second) if row.solved and row.solved.hits]
    score = _score(difference, task.score) if not solved else _shares(first, second)
    return [f"A/A of {where}, the same model on other seeds: {outcome}", score, *_speeds(first, second)]


def _shares(first: Row, second: Row) -> str:
    a, b = (share(row.solved) for row in (first, second))
    return f"noise of the score: solved {a} and {b}; the intervals, in %, are what chance alone allows"


def _score(difference: Difference, metric: Metric) -> str:
    unit = unit_of_differences(metric.unit)
    apart, floor = number(abs(difference.mean), 2), number(difference.half_width(), 2)
    return f"noise of the score: means of {difference.n} seeds were {apart}{unit} apart; up to {floor}{unit} is chance"


def _speeds(first: Row, second: Row) -> list[str]:
    """Differences of logarithms: a factor counts the same up and down."""
    lines = []
    for name, keys in SPEEDS.items():
        logs = [[_log(look_up(record, *keys)) for record in row.ok] for row in (first, second)]
        difference = paired_difference(*logs)
        if difference.n > 1:
            apart, floor = (math.expm1(abs(v)) * 100 for v in (difference.mean, difference.half_width()))
            lines.append(f"noise of {name} speed: {apart:.1f} % apart; up to {floor:.1f} % is chance")
    return lines


def _log(value: float | None) -> float | None:
    return math.log(value) if value else None
