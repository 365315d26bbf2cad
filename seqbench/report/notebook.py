"""The leaderboards as HTML tables for a notebook."""

from __future__ import annotations

from html import escape

from seqbench.report.collect import Run, TaskRun
from seqbench.report.messages import failures, notes
from seqbench.report.table import columns
from seqbench.report.text import plain


def html_tables(run: Run) -> str:
    """A table a task, its notes and failures below; everything escaped."""
    return "\n".join(_table(task) for task in run.tasks)


def _table(task: TaskRun) -> str:
    shown = columns(task)
    heads = "".join(f'<th title="{escape(plain(c.help))}">{escape(c.title)}</th>' for c in shown)
    rows = [[c.cell(row) for c in shown] for row in task.rows]
    rows += [[c.reference(r) for c in shown] for r in task.references]
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    below = "".join(f"<div>{escape(line)}</div>" for line in map(str, [*notes(task), *failures(task)]))
    caption = f"<caption>{escape(plain(task.label))}</caption>"
    return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>{below}"
