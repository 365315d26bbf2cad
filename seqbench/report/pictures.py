"""All figures that every task has, in the report's order."""

from __future__ import annotations

from seqbench.report.collect import Run, TaskRun
from seqbench.report.figures import Picture, cost_pictures, curve_pictures, score_picture
from seqbench.report.tuning_figures import tuning_pictures


def pictures_of(task: TaskRun, run: Run) -> tuple[Picture | None, list[Picture]]:
    """The score, None where there is none, and the others."""
    others = [*cost_pictures(task, run), *curve_pictures(task, run), *tuning_pictures(task, run)]
    return score_picture(task, run), others
