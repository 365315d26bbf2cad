"""Write a run's exports beside its records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from seqbench.frame import frame, to_csv
from seqbench.registry import Registry
from seqbench.report.collect import NOT_RUN, Run, read_run
from seqbench.report.summary import summary_of
from seqbench.spec import Trial, record_of
from seqbench.store import RunFolder, write_text

REPORT = "report.html"
TABLE = "results.csv"
SUMMARY = "summary.csv"


def write_report(folder: RunFolder, registry: Registry) -> Path:
    """Make ``results.csv``, ``summary.csv`` and ``report.html`` anew from the stored records.

    Returns:
        The path of the report.
    """
    from seqbench.report.page import page

    run = read_run(folder, registry)
    write_text(folder.path / TABLE, to_csv(frame(rows(run))))
    write_text(folder.path / SUMMARY, to_csv(summary_of(run)))
    write_text(folder.path / REPORT, page(run, folder, registry))
    return folder.path / REPORT


def rows(run: Run) -> list[Any]:
    """The records in the plan's order; a planned trial without one has the status ``not_run``."""
    by_id = {record["id"]: record for record in run.records}
    return [by_id.get(trial.id) or _not_run(trial) for trial in run.planned]


def _not_run(trial: Trial) -> dict[str, Any]:
    return {"id": trial.id, **record_of(trial, status=NOT_RUN)}
