"""The results of a run, for Python and notebooks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from seqbench.errors import UnknownName
from seqbench.registry import Registry
from seqbench.report.collect import Run, read_run
from seqbench.store import RunFolder

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


class Results:
    """What a run found, read from its folder: what is there when it is first asked for.

    Attributes:
        folder: where the records are.
        path: of that folder.
    """

    def __init__(self, folder: RunFolder, registry: Registry) -> None:
        self.folder = folder
        self.path = folder.path
        self._registry = registry

    @cached_property
    def _run(self) -> Run:
        return read_run(self.folder, self._registry)

    @property
    def frame(self) -> pd.DataFrame:
        """One row a trial; ``docs/results.md`` lists the columns."""
        from seqbench.frame import frame
        from seqbench.report.write import rows

        return frame(rows(self._run))

    @property
    def summary(self) -> pd.DataFrame:
        """One row a task, model and backend: mean score with its interval, medians of the rest."""
        from seqbench.report.summary import summary_of

        return summary_of(self._run)

    @property
    def ok(self) -> bool:
        """Every planned trial has run and ended well."""
        return self._run.all_ok

    def print(self, console: Console | None = None) -> None:
        """Print a table a task, as wide as the terminal allows."""
        from seqbench.report.terminal import terminal_table

        terminal_table(self._run, console)

    def write_report(self) -> Path:
        """Write ``report.html``, ``results.csv`` and ``summary.csv`` into the run's folder; gives the report's path."""
        from seqbench.report.write import write_report

        return write_report(self._run, self.folder, self._registry)

    def write_figures(self) -> list[Path]:
        """Write every figure as SVG and PNG into the run's folder ``figures``; gives their paths."""
        from seqbench.report.figure_files import write_figures

        return write_figures(self._run, self.folder, self._registry)

    def write_parquet(self, path: str | Path) -> None:
        """Write the rows of ``results.csv`` as a Parquet file.

        Raises:
            UsageError: pyarrow is not installed.
        """
        from seqbench.report.write import write_parquet

        write_parquet(self._run, Path(path))

    def table(self, form: str = "markdown") -> str:
        """The tables as text to paste: ``markdown``, ``latex`` (booktabs) or ``csv`` (the summary).

        Raises:
            UnknownName: there is no such form.
        """
        from seqbench.report.formats import FORMATS

        if form not in FORMATS:
            raise UnknownName("format", form, FORMATS)
        return FORMATS[form](self._run)

    def __repr__(self) -> str:
        from seqbench.report.terminal import text_tables

        return f"Results of {self.path}\n\n{text_tables(self._run)}"

    def _repr_html_(self) -> str:
        from seqbench.report.notebook import html_tables

        return html_tables(self._run)
