"""The sections that plugins add to a task: called with stored data, guarded, turned into escaped blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from seqbench.api import Block, PluginError, Section, SectionCard, TrialView
from seqbench.registry import Registry, resolve
from seqbench.report.collect import Run, TaskRun
from seqbench.report.look import look, style
from seqbench.report.svg import to_svg
from seqbench.report.text import plain
from seqbench.store import RunFolder


@dataclass(frozen=True)
class Shown:
    """A block as the page shows it; ``content`` is escaped there, except the SVG of a figure."""

    kind: str
    caption: str
    content: Any


@dataclass(frozen=True)
class ShownSection:
    """A section as the page shows it, or why it could not be made."""

    title: str
    blocks: list[Shown] = field(default_factory=list)
    error: str = ""


def sections(task: TaskRun, run: Run, folder: RunFolder, registry: Registry, salt: str) -> list[ShownSection]:
    """All sections registered for a task that have something to say."""
    alike = [other for other in run.tasks if other.name == task.name]
    made = [
        _guarded(card, alike if card.across else [task], run, folder, f"{salt}-{place}")
        for place, card in enumerate(registry.sections_of(task.name))
        if not card.across or task is alike[-1]
    ]
    return [section for section in made if section is not None]


def _guarded(
    card: SectionCard, tasks: Sequence[TaskRun], run: Run, folder: RunFolder, salt: str
) -> ShownSection | None:
    try:
        with style(formulas=True):
            section = resolve(card.factory)([view for task in tasks for view in views(task, run, folder)])
            return None if section is None else _shown(section, salt)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything; the report goes on
        return ShownSection(card.name, error=plain(f"{type(error).__name__}: {error}"))


def views(task: TaskRun, run: Run, folder: RunFolder) -> list[TrialView]:
    """What a section is given: the trials that ended well, with the arrays that their task kept."""
    return [
        TrialView(
            task_label=task.label,
            label=row.name,
            colour=look(row.label, row.backend, run.labels, run.backends).colour,
            seed=record["trial"]["seed"],
            record=record,
            arrays=folder.arrays(record["id"], "task/"),
        )
        for row in task.rows
        for record in row.ok
    ]


def _shown(section: Section, salt: str) -> ShownSection:
    if not isinstance(section, Section):
        raise PluginError(f"expected a seqbench.api.Section or None, got {type(section).__name__}")
    return ShownSection(
        plain(section.title), [_block(block, f"{salt}-{place}") for place, block in enumerate(section.blocks)]
    )


def _block(block: Block, salt: str) -> Shown:
    caption = plain(block.caption)
    if block.kind == "figure":
        if not isinstance(block.content, Figure):
            raise PluginError(f"a figure block wants a matplotlib Figure, got {type(block.content).__name__}")
        return Shown("figure", caption, to_svg(block.content, salt))
    if block.kind == "table":
        return Shown("table", caption, _table(block.content))
    if block.kind in {"text", "code"}:
        return Shown(block.kind, caption, plain(block.content))
    raise PluginError(f"unknown kind of block {block.kind!r}; expected text, code, table or figure")


def _table(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    if isinstance(rows, str) or not all(isinstance(row, list | tuple) for row in rows):
        raise PluginError("a table block wants rows of cells, the first one the header")
    return [[plain(cell) for cell in row] for row in rows]
