"""Tables as text: aligned for a terminal, or to paste: Markdown, LaTeX, CSV."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from seqbench.frame import to_csv
from seqbench.report.collect import Run, TaskRun
from seqbench.report.summary import summary_of
from seqbench.report.table import Column, columns
from seqbench.report.text import plain

GAP = "  "


@dataclass(frozen=True)
class Board:
    """A leaderboard as text.

    Attributes:
        title: the task.
        heads: of the columns, in one line each.
        right: which columns are numbers.
        rows: of the models, best first.
        references: rows of the trivial baseline, the optimum and the like.
    """

    title: str
    heads: list[str]
    right: list[bool]
    rows: list[list[str]]
    references: list[list[str]] = field(default_factory=list)


def board(task: TaskRun, priority: float = math.inf) -> Board:
    """The leaderboard of a task; one line a cell.

    Args:
        task: its rows and references.
        priority: columns that go first from a narrow terminal, above this number, are left out.
    """
    shown = [column for column in columns(task) if column.priority <= priority]

    def line(read: Callable[[Column], str]) -> list[str]:
        return [" ".join(read(column).split()) for column in shown]

    return Board(
        title=plain(task.label),
        heads=[column.title for column in shown],
        right=[column.align == "right" for column in shown],
        rows=[line(lambda column, row=row: column.cell(row)) for row in task.rows],  # type: ignore[misc]
        references=[line(lambda column, r=r: column.reference(r)) for r in task.references],  # type: ignore[misc]
    )


# --- plain text -------------------------------------------------------------------------------------


def to_text(table: Board) -> str:
    """The title and the columns under one another, words to the left, numbers to the right."""
    lines = [table.heads, *table.rows, *table.references]
    widths = [max(len(line[place]) for line in lines) for place in range(len(table.heads))]
    return "\n".join([table.title, *(_aligned(line, widths, table.right).rstrip() for line in lines)])


def _aligned(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    cells = zip(line, widths, right, strict=True)
    return GAP.join(cell.rjust(width) if to_the_right else cell.ljust(width) for cell, width, to_the_right in cells)


def written(parts: Sequence[Board | str], form: str) -> str:
    """Lines and tables, one below the other.

    Args:
        parts: in order; an empty line stands between paragraphs.
        form: ``"text"`` or ``"markdown"``, where lines become a list.
    """
    if form == "text":
        return "\n".join(part if isinstance(part, str) else to_text(part) for part in parts)
    return "\n".join(
        markdown_of(part) if isinstance(part, Board) else f"- {_markdown_text(part)}" if part else "" for part in parts
    )


# --- Markdown ---------------------------------------------------------------------------------------

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~#])")


def to_markdown(run: Run) -> str:
    """A heading and a pipe table a task (GitHub's kind)."""
    return "\n\n".join(markdown_of(board(task)) for task in run.tasks) + "\n"


def markdown_of(table: Board) -> str:
    """A heading and a pipe table."""
    rule = ["---:" if right else "---" for right in table.right]
    lines = [_piped(table.heads), f"| {' | '.join(rule)} |", *map(_piped, [*table.rows, *table.references])]
    return "\n".join([f"### {_markdown_text(table.title)}", "", *lines])


def _piped(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_markdown_text, cells))} |"


def _markdown_text(text: str) -> str:
    """What would be markup, as text."""
    return _MARKDOWN.sub(r"\\\1", text)


# --- LaTeX ------------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "–": "--", "∞": r"$\infty$", "µ": r"$\mu$",
    "[": "{[}", "]": "{]}",
}  # fmt: skip
"""Brackets are wrapped: behind a line's end LaTeX would read them as its optional argument."""


def to_latex(run: Run) -> str:
    r"""A ``table`` a task, with the rules of the booktabs package; a preamble needs ``\usepackage{booktabs}``."""
    return "\n\n".join(_latex(board(task)) for task in run.tasks) + "\n"


def _latex(table: Board) -> str:
    shape = "".join("r" if right else "l" for right in table.right)
    references = [r"\midrule", *map(_latex_row, table.references)] if table.references else []
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex_text(table.title)}}}",
        rf"\begin{{tabular}}{{{shape}}}",
        r"\toprule",
        _latex_row(table.heads),
        r"\midrule",
        *map(_latex_row, table.rows),
        *references,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<!\w)-(?=[0-9])", "$-$", escaped)  # a minus, not a hyphen


FORMATS: dict[str, Callable[[Run], str]] = {
    "markdown": to_markdown,
    "latex": to_latex,
    "csv": lambda run: to_csv(summary_of(run)),
}
"""By the name that the command line knows."""
