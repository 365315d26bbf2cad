"""What the user sees while trials run: a live table, or a line per finished trial where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from seqbench.axes import shown
from seqbench.executors.supervise import progress
from seqbench.spec import Trial
from seqbench.store import RunFolder
from seqbench.tuning import validation

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

COMPILING = 2.0
"""A first step of so many seconds has compiled something; those of torch, and from numba's cache, take less."""

REFRESH = 2
"""Times per second: each looks at the logs of the running trials."""


def score_text(record: dict[str, Any]) -> str:
    """``"recall 99.2 %"`` of a finished trial, or how it ended."""
    if record["status"] != "ok":
        return f"{record['status']}: {record.get('cause') or 'no cause known'}"
    tuning = _tunes(record)
    name = record["task"]["select" if tuning else "score"]
    metric = next(m for m in record["task"]["metrics"] if m["name"] == name)
    said = f"{metric['name']} {_value(record)} {metric['unit']}".rstrip()
    return f"validation {said}" if tuning else said


def _tunes(record: dict[str, Any]) -> bool:
    return bool(record["trial"].get("purpose") == "tuning")


def _value(record: dict[str, Any]) -> str:
    """Of a trial that ended well: its score, or its best validation if it was to choose a setting."""
    value = validation(record) if _tunes(record) else record["score"]
    return "nan" if value is None else f"{value:.4g}"


def column_of(trial: Trial) -> str:
    """What tells a trial from the others of its row: its seed, or the setting that it tries."""
    if trial.purpose == "tuning":
        return ", ".join(f"{name} {shown(value)}" for name, value in trial.setting.items())
    return f"seed {trial.seed}"


class Lines:
    """A line per finished trial."""

    def __init__(self, trials: Sequence[Trial], folder: RunFolder, write: Callable[[str], None]) -> None:
        self._total, self._write = len(trials), write
        self._done = sum(folder.record(trial.id) is not None for trial in trials)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing to put away."""

    def started(self, trial: Trial) -> None:
        """Nothing: the end is what counts."""

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        """Say how it ended and how long it took."""
        self._done += 1
        speed = record.get("speed") or {}
        seconds, first = speed.get("seconds"), speed.get("first_step_seconds") or 0.0
        compiling = f", {first:.1f} s of it compiling" if first >= COMPILING else ""
        took = f" ({seconds:.1f} s{compiling})" if seconds else ""
        name = f"{trial.task_label} {trial.label} {trial.backend} {column_of(trial)}"
        self._write(f"[{self._done}/{self._total}] {name}: {score_text(record)}{took}")


class Table:
    """A live table: a row a model, a column a seed or a setting that is tried; a context manager."""

    def __init__(self, trials: Sequence[Trial], folder: RunFolder, console: Console) -> None:
        self._trials, self._folder, self._console = trials, folder, console
        self._cells: dict[str, str] = {}
        self._running: dict[str, Trial] = {}
        for trial in trials:
            record = folder.record(trial.id)
            if record is not None:
                self._cells[trial.id] = _cell(record)
        self._live: Live | None = None

    def __enter__(self) -> Table:
        from rich.live import Live

        self._live = Live(
            console=self._console, get_renderable=self._render, refresh_per_second=REFRESH, transient=True
        )
        self._live.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        if self._live is not None:
            self._live.__exit__(*error)

    def started(self, trial: Trial) -> None:
        """Its cell now shows how far it is."""
        self._running[trial.id] = trial

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        """Its cell now shows the score."""
        self._cells[trial.id] = _cell(record)
        self._running.pop(trial.id, None)

    def _render(self) -> RenderableType:
        from rich.table import Table as RichTable
        from rich.text import Text

        done = sum(trial.id in self._cells for trial in self._trials)
        table = RichTable(title=f"{done} of {len(self._trials)} trials done", title_justify="left")
        columns = list(dict.fromkeys(map(column_of, self._trials)))
        for heading in ("task", "model", *columns):
            table.add_column(heading, justify="left" if heading in {"task", "model"} else "right")
        rows: dict[tuple[str, str, str], dict[str, Trial]] = {}
        for trial in self._trials:
            rows.setdefault(trial.row_key, {})[column_of(trial)] = trial
        several = len({backend for _, _, backend in rows}) > 1
        for (task, label, backend), found in rows.items():
            # Text, because brackets in a plain string would be read as markup
            name = f"{label} · {backend}" if several else label
            table.add_row(
                Text(task), Text(name), *(self._cell_of(found[column]) if column in found else "" for column in columns)
            )
        return table

    def _cell_of(self, trial: Trial) -> str:
        if trial.id in self._cells:
            return self._cells[trial.id]
        if trial.id not in self._running:
            return "[dim]waiting[/dim]"
        at = progress(self._folder, trial)
        if at is None:
            return "[cyan]starting[/cyan]"
        step, steps = at
        return f"[cyan]{step / steps:.0%}[/cyan]" if steps else "[cyan]compiling[/cyan]"


def _cell(record: dict[str, Any]) -> str:
    if record["status"] != "ok":
        return f"[red]{record['status']}[/red]"
    return f"[green]{_value(record)}[/green]"
