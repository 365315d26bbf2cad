"""The leaderboards in the terminal: as many columns as fit, plain text where there is no terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from seqbench.report.collect import Run, TaskRun
from seqbench.report.messages import failures, notes
from seqbench.report.noise import certificate
from seqbench.report.table import Column, columns
from seqbench.report.text import plain, short, with_interval
from seqbench.report.verdicts import ranked_tasks, ranks_of, said_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

LONGEST_MODEL = 28
LONGEST_IN_NARROW = 18
NARROW = 110
GAP = 2
"""Spaces between two columns."""

_ASCII = {"±": "+/-", "…": "...", "–": "-", "↑": "^", "↓": "v", "·": "/", "∞": "inf"}


def terminal_table(run: Run, console: Console | None = None) -> None:
    """Print a table a task, the notes and the failures below.

    Args:
        run: from ``read_run``.
        console: where to; default: standard output, without colours and rules where that is no terminal.
    """
    from rich.console import Console

    out = console or Console()
    for task in run.tasks:
        _print_task(task, certificate(task, run), out)
    ranks = ranks_of(run)
    if ranks:
        said = ", ".join(f"{name} {with_interval(rank.mean, rank.half_width)}" for name, rank in ranks.items())
        line = f"Mean rank over {len(ranked_tasks(run))} tasks, 1 is best: {said}"
        out.print()
        out.print(_written(line, out), soft_wrap=not out.is_terminal)


def text_tables(run: Run, width: int = 100) -> str:
    """What ``terminal_table`` prints, as plain text."""
    import io

    from rich.console import Console

    file = io.StringIO()
    terminal_table(run, Console(file=file, width=width, color_system=None, force_terminal=False))
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def _print_task(task: TaskRun, noise: list[str], out: Console) -> None:
    def written(line: str, style: str = "") -> Text:
        return _written(line, out, style)

    shown, hidden = fitting(task, out.width)
    out.print()
    out.print(written(plain(task.label), "bold"))
    out.print(_table(task, shown, out.width, written))
    for line, style in _below(task, hidden, noise):
        out.print(written(line, style), soft_wrap=not out.is_terminal)


def _written(line: str, out: Console, style: str = "") -> Text:
    from rich.text import Text

    return Text(line if out.encoding.lower().startswith("utf") else _to_ascii(line), style=style)


def _to_ascii(line: str) -> str:
    for character, instead in _ASCII.items():
        line = line.replace(character, instead)
    return line.encode("ascii", "replace").decode("ascii")


def _table(task: TaskRun, shown: list[Column], width: int, written: Callable[[str], Text]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for column in shown:
        table.add_column(written(column.head), justify=column.align, no_wrap=True)
    for row in task.rows:
        style = "" if row.status == "ok" else "red" if not row.ok and row.records else "yellow"
        table.add_row(*(written(_cell(column, column.cell(row), width)) for column in shown), style=style)
    if task.references:
        table.add_section()
    for reference in task.references:
        table.add_row(*(written(_cell(column, column.reference(reference), width)) for column in shown), style="dim")
    return table


def _cell(column: Column, cell: str, width: int) -> str:
    longest = LONGEST_IN_NARROW if width < NARROW else LONGEST_MODEL
    return short(" ".join(cell.split()), longest) if column.align == "left" else cell


def fitting(task: TaskRun, width: int) -> tuple[list[Column], list[Column]]:
    """The columns that fit into a width, and those that do not: the least important go first."""
    shown, hidden = columns(task), []
    widths = {id(column): _width(task, column, width) for column in shown}
    while sum(widths[id(column)] + GAP for column in shown) - GAP > width and max(c.priority for c in shown) > 0:
        last = max(column.priority for column in shown)
        gone = next(column for column in reversed(shown) if column.priority == last)
        shown.remove(gone)
        hidden.append(gone)
    return shown, hidden


def _width(task: TaskRun, column: Column, width: int) -> int:
    """Of a column's widest cell; in a terminal of that width."""
    from rich.cells import cell_len

    cells = [column.cell(row) for row in task.rows] + [column.reference(r) for r in task.references]
    return max(map(cell_len, [*column.head.split("\n"), *(_cell(column, cell, width) for cell in cells)]))


def _below(task: TaskRun, hidden: list[Column], noise: list[str]) -> list[tuple[str, str]]:
    """The lines below a table, each with its style."""
    lines = []
    if any(len(row.ok) > 1 for row in task.rows):
        lines.append(("± half width of the 95 % interval of the mean over seeds (Student's t)", "dim"))
    if hidden:
        lines.append((f"not shown at this width: {', '.join(column.title for column in hidden)}", "dim"))
    if noise:
        return [*lines, *((line, "") for line in noise), *_remarks(task)]
    said = said_of(task)
    if said is not None:
        lines += [(line, "") for line in said.summary]
        pairs = f", all {len(said.pairs)} pairs together (Holm)" if len(said.pairs) > 1 else ""
        looks = f", {task.looks} looks at growing numbers of seeds allowed for" if task.looks > 1 else ""
        lines.append((f"verdicts: wrong in 5 of 100 runs at most{pairs}{looks}", "dim"))
    return [*lines, *_remarks(task)]


def _remarks(task: TaskRun) -> list[tuple[str, str]]:
    lines = [(str(note), "yellow" if note.warning else "dim") for note in notes(task)]
    return lines + [(f"failed: {failure}", "red") for failure in failures(task)]
