"""Write a run's exports beside its records."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from seqbench.errors import UsageError
from seqbench.frame import frame, to_csv, typed
from seqbench.garbage import all_spared
from seqbench.registry import Registry
from seqbench.report.collect import NOT_RUN, Run
from seqbench.report.summary import summary_of
from seqbench.spec import Trial, record_of
from seqbench.store import RunFolder, write_atomically, write_text

REPORT = "report.html"
TABLE = "results.csv"
SUMMARY = "summary.csv"


def write_report(run: Run, folder: RunFolder, registry: Registry) -> Path:
    """Make ``results.csv``, ``summary.csv`` and ``report.html`` anew.

    Args:
        run: as read from the folder.
        folder: where they are written; has the arrays that sections draw.
        registry: has the sections.

    Returns:
        The path of the report.
    """
    from seqbench.report.page import page

    with all_spared():
        write_text(folder.path / TABLE, to_csv(frame(rows(run))))
        write_text(folder.path / SUMMARY, to_csv(summary_of(run)))
        write_text(folder.path / REPORT, page(run, folder, registry))
    return folder.path / REPORT


def write_parquet(run: Run, path: Path) -> None:
    """Write the rows of ``results.csv`` as a Parquet file, whole numbers, floats and texts in types of their own.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import_module("pyarrow")  # pandas needs it, and would say more than a line
    except ImportError:
        raise UsageError("Parquet needs pyarrow, which is not installed: pip install 'seqbench[parquet]'.") from None
    table = typed(frame(rows(run)))
    write_atomically(path, lambda file: table.to_parquet(file, engine="pyarrow", index=False))


def rows(run: Run) -> list[Any]:
    """The records in the plan's order; a planned trial without one has the status ``not_run``."""
    by_id = {record["id"]: record for record in run.records}
    return [by_id.get(trial.id) or _not_run(trial) for trial in run.planned]


def _not_run(trial: Trial) -> dict[str, Any]:
    return {"id": trial.id, **record_of(trial, status=NOT_RUN)}
