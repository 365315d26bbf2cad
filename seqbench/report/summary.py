"""One row a model, backend and task: means, intervals and medians over seeds, as a pandas frame."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seqbench.api import Reference
from seqbench.report.collect import Row, Run, TaskRun

if TYPE_CHECKING:
    import pandas as pd

MEDIANS = {
    "train_tokens_per_s": ("speed", "train_tokens_per_s"),
    "infer_tokens_per_s": ("speed", "infer_tokens_per_s"),
    "train_seconds": ("speed", "train_seconds"),
    "seconds": ("speed", "seconds"),
    "peak_memory_mib": ("memory", "peak_mib"),
}
"""Column of the summary, and where a record holds what its median is taken of."""

LATENCIES = {
    "infer_latency_ms": ("infer", 1e3),
    "step_latency_us": ("step", 1e6),
    "decode_latency_ms": ("decode", 1e3),
}
"""Column of the summary, the operation of the speed phase that it is about, and by how much seconds are multiplied."""


def summary_of(run: Run) -> pd.DataFrame:
    """One row a task, model and backend, best score first; a task's reference rows follow its models.

    Columns: ``task model backend kind`` (``model`` or ``reference``), ``score_metric score score_half_width score_low
    score_high``, where a task can be solved ``solved solved_low solved_high steps_to_solve``, then ``ok trials``,
    ``parameters core_parameters parameters_error``, the medians of ``MEDIANS``, the columns of ``LATENCIES``, ``status
    cause``, then the mean ``test_<metric>`` of every metric.
    """
    rows: list[dict[str, Any]] = []
    for task in run.tasks:
        rows += [model_row(task, row) for row in task.rows]
        rows += [reference_row(task, reference) for reference in task.references]
    return as_table(rows)


def as_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a summary as a frame."""
    import pandas as pd

    table = pd.DataFrame(rows)
    return table.astype({"ok": "Int64", "trials": "Int64"}) if rows else table


def model_row(task: TaskRun, row: Row) -> dict[str, Any]:
    """A row of the summary."""
    scores = row.scores
    return {
        "task": task.label,
        "model": row.label,
        "backend": row.backend,
        "kind": "model",
        "score_metric": task.score.name if task.score else None,
        "score": scores.mean,
        "score_half_width": scores.half_width,
        "score_low": scores.low,
        "score_high": scores.high,
        **_solved(row),
        "ok": len(row.ok),
        "trials": len(row.trials),
        "parameters": row.parameters,
        "core_parameters": row.core_parameters,
        "parameters_error": row.parameters_error,
        **{column: row.median(*keys) for column, keys in MEDIANS.items()},
        **{column: row.latency.get(operation, math.nan) * scale for column, (operation, scale) in LATENCIES.items()},
        "status": row.status,
        "cause": row.cause or None,
        **{f"test_{metric.name}": row.test(metric.name).mean for metric in task.metrics},
    }


def _solved(row: Row) -> dict[str, Any]:
    solved = row.solved
    if solved is None:
        return {}
    share = {"solved": solved.hits / solved.n, "solved_low": solved.low, "solved_high": solved.high}
    return {**share, "steps_to_solve": row.steps_to_solve}


def reference_row(task: TaskRun, reference: Reference) -> dict[str, Any]:
    """The row of a trivial baseline, an optimum and the like."""
    return {
        "task": task.label,
        "model": reference.name,
        "backend": None,
        "kind": "reference",
        "score_metric": task.score.name if task.score else None,
        "score": _value(reference, task.score.name if task.score else ""),
        "status": None,
        **{f"test_{metric.name}": _value(reference, metric.name) for metric in task.metrics},
    }


def _value(reference: Reference, metric: str) -> float:
    value = reference.metrics.get(metric)
    return math.nan if value is None else value
