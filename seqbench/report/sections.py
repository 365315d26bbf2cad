"""The sections that plugins add to a task: called with stored data, guarded, turned into escaped blocks."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from matplotlib.figure import Figure

from seqbench.api import Block, PluginError, Section, SectionCard, TrialView
from seqbench.aside import output_aside
from seqbench.registry import Registry, resolve
from seqbench.report.collect import Run, TaskRun
from seqbench.report.figures import Picture
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
    made = []
    for place, (card, tasks) in enumerate(_cards(task, run, registry)):
        try:
            with output_aside(), style(formulas=True):
                section = _made(card, tasks, run, folder)
                if section is not None:
                    made.append(_shown(section, f"{salt}-{place}"))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything; the report goes on
            made.append(
                ShownSection(card.name, error=plain(f"{_stranger(card, registry)}{type(error).__name__}: {error}"))
            )
    return made


def _stranger(card: SectionCard, registry: Registry) -> str:
    """``"acme-models 1.2: "``; nothing where the section is ours."""
    source = registry.origin.get(("section", card.name))
    return "" if source is None or source.ours else f"{source}: "


def section_pictures(task: TaskRun, run: Run, folder: RunFolder, registry: Registry) -> list[Picture]:
    """The figures of the same sections; what cannot be made is left out, the page says why."""
    found = []
    for card, tasks in _cards(task, run, registry):
        with suppress(Exception, SystemExit), output_aside(), style(formulas=True):
            section = _made(card, tasks, run, folder)
            if section is not None:
                drawn = [block for block in section.blocks if isinstance(block.content, Figure)]
                found += [Picture(plain(block.caption or section.title), block.content) for block in drawn]
    return found


def _cards(task: TaskRun, run: Run, registry: Registry) -> list[tuple[SectionCard, Sequence[TaskRun]]]:
    """The cards for a task, each with the settings of the task that it is about."""
    alike = [other for other in run.tasks if other.name == task.name]
    return [
        (card, alike if card.across else [task])
        for card in registry.sections_of(task.name)
        if not card.across or task is alike[-1]
    ]


def _made(card: SectionCard, tasks: Sequence[TaskRun], run: Run, folder: RunFolder) -> Section | None:
    section = resolve(card.factory)([view for task in tasks for view in views(task, run, folder)])
    if section is not None and not isinstance(section, Section):
        raise PluginError(f"expected a seqbench.api.Section or None, got {type(section).__name__}")
    return section


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
    if block.kind == "marked":
        return Shown("marked", caption, _marked(block.content))
    raise PluginError(f"unknown kind of block {block.kind!r}; expected text, code, table, figure or marked")


def _table(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    if isinstance(rows, str) or not all(isinstance(row, list | tuple) for row in rows):
        raise PluginError("a table block wants rows of cells, the first one the header")
    return [[plain(cell) for cell in row] for row in rows]


def _marked(spans: Sequence[tuple[str, float, str]]) -> list[tuple[str, str, str]]:
    """Text, strength as CSS reads it, title."""
    if not all(isinstance(span, list | tuple) and len(span) == 3 for span in spans):
        raise PluginError("a marked block wants spans of (text, strength, title)")
    if not all(0 <= float(strength) <= 1 for _, strength, _ in spans):
        raise PluginError("the strength of a span in a marked block must be from 0 to 1")
    return [(plain(text), f"{float(strength):.2f}", plain(title)) for text, strength, title in spans]
