"""What was held equal between the models of a task, and what was not: as asked for, and as it came to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from seqbench.axes import shown
from seqbench.quantities import Budget
from seqbench.report import text
from seqbench.report.collect import Row, TaskRun
from seqbench.spec import Trial

CLOSE = 0.05
"""What the largest may exceed the smallest by, as a share of it, where a quantity counts as equal.

Of parameters it is no more than twice the tolerance that was asked for.
"""


@dataclass(frozen=True)
class Quantity:
    """What training a row took, a number, and how it is written; of parameters how many it has."""

    name: str
    of: Callable[[Row], float]
    written: Callable[[float], str] = text.kilo


PARAMETERS = Quantity("parameters", lambda row: row.parameters)

QUANTITIES = (
    Quantity("parameters of the core", lambda row: row.core_parameters),
    Quantity("steps", lambda row: row.median("steps"), lambda steps: f"{steps:,.0f}"),
    Quantity("tokens", lambda row: row.median("train_tokens")),
    Quantity("FLOPs of training", lambda row: row.median("train_flops")),
    Quantity("seconds of training", lambda row: row.median("speed", "train_seconds"), lambda s: f"{text.kilo(s)} s"),
)

CONDITIONS: tuple[tuple[str, Callable[[Trial], object]], ...] = (
    ("batch", lambda t: f"{t.training.batch} sequences"),
    ("optimiser", lambda t: f"AdamW, peak rate {t.training.lr:g}, weight decay {t.training.weight_decay:g} on "
                            f"matrices, gradient norm at most {t.training.clip:g}"),
    ("schedule", lambda t: f"rate rises over {t.training.warmup:.0%} of the steps, falls as a cosine to "
                           f"{t.training.final_lr:.0%} of its peak; {t.training.validations} validations"),
    ("dropout", lambda t: f"{t.dropout:g}"),
    ("device", lambda t: f"{t.device}, {t.threads} thread{'s' if t.threads != 1 else ''}"),
)  # fmt: skip
"""What is the same for all models of a task unless the user says otherwise, as read off its trials."""


@dataclass(frozen=True)
class Fairness:
    """Sentences for a reader, and the conditions in full.

    Attributes:
        equal: what all models had alike, each with how much it was.
        unequal: what they had not, each with the smallest and the largest, and whose they are.
        facts: name and value of each condition.
    """

    equal: list[str]
    unequal: list[str]
    facts: list[tuple[str, str]]


def fairness(task: TaskRun, asked: Budget | None) -> Fairness:
    """Sorted by what the trials say.

    Args:
        task: its rows.
        asked: the budget of training that the user gave; None: the task's own steps.
    """
    rows = [row for row in task.rows if row.ok]
    sides: dict[bool, list[str]] = {True: [], False: []}
    tolerance = min(trial.parameter_tolerance for trial in task.trials)
    for quantity, limit in [(PARAMETERS, min(CLOSE, 2 * tolerance)), *((q, CLOSE) for q in QUANTITIES)]:
        told = _told(quantity, rows, limit)
        if told is not None:
            sides[told[0]].append(told[1])
    facts = []
    for name, read in CONDITIONS:
        values = text.distinct(str(read(trial)) for trial in task.trials)
        sides[len(values) == 1].append(name)
        facts.append((name, values[0] if len(values) == 1 else f"differs: {'; '.join(values)}"))
    sides[len({tuple(trial.seed for trial in row.trials) for row in task.rows}) == 1].append("seeds and their data")
    seeds = ", ".join(text.distinct(str(trial.seed) for trial in task.trials))
    first = [("parameters asked for", _targets(task)), ("training", _training(task, asked))]
    return Fairness(sides[True], sides[False], [*first, *facts, ("seeds", seeds), *_tuned(task)])


def _told(quantity: Quantity, rows: list[Row], limit: float) -> tuple[bool, str] | None:
    """Whether the rows have it alike, and how much it is; None where nobody knows."""
    values = {row.name: value for row in rows if math.isfinite(value := quantity.of(row))}
    if not values:
        return None
    low, high = (choose(values, key=lambda name: values[name]) for choose in (min, max))
    least, most = (quantity.written(values[name]) for name in (low, high))
    if values[high] <= (1 + limit) * values[low]:
        return True, f"{quantity.name} ({least if least == most else f'{least} to {most}'})"
    return False, f"{quantity.name}, {least} ({low}) to {most} ({high})"


def _targets(task: TaskRun) -> str:
    return "; ".join(
        text.distinct(f"{trial.target_parameters:,} ± {100 * trial.parameter_tolerance:g} %" for trial in task.trials)
    )


def _training(task: TaskRun, asked: Budget | None) -> str:
    """``60 seconds, which came to 812 to 2,345 steps``."""
    planned = "; ".join(text.distinct(str(trial.training.budget) for trial in task.trials))
    if asked is None or asked.kind == "steps":
        return planned
    steps = sorted({record["steps"] for row in task.rows for record in row.ok if record.get("steps")})
    if not steps:
        return str(asked)
    came = f"{steps[0]:,}" if steps[0] == steps[-1] else f"{steps[0]:,} to {steps[-1]:,}"
    return f"{asked}, which came to {came} steps"


def _tuned(task: TaskRun) -> list[tuple[str, str]]:
    """What was tried, for each model alike."""
    tried = [record for row in task.rows for record in row.tuning]
    if not tried:
        return []
    said = "; ".join(_values(name, task) for name in text.distinct(n for r in tried for n in r["trial"]["setting"]))
    seeds = ", ".join(text.distinct(str(record["trial"]["seed"]) for record in tried))
    most = max(len(row.tuning) for row in task.rows)
    return [("tuned", f"{said}: {most} settings of each model on seed {seeds}, chosen by validation {task.select}")]


def _values(name: str, task: TaskRun) -> str:
    """``lr 0.001, 0.01``, ``kernel 3, 5 of tcn``: which models are meant stands there where it is not all."""
    tuned = [row for row in task.rows if row.tuning]
    having = [row for row in tuned if name in row.tuning[0]["trial"]["setting"]]
    values = {record["trial"]["setting"][name] for row in having for record in row.tuning}
    said = f"{name} {', '.join(map(shown, sorted(values)))}"
    return said if len(having) == len(tuned) else f"{said} of {', '.join(row.name for row in having)}"
