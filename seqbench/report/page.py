"""The report: one HTML file that opens from disk, without a network, in ten years."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from seqbench.environment import usable_cores
from seqbench.errors import SeqbenchError, SpecError
from seqbench.frame import COLUMNS
from seqbench.quantities import Budget, parse_budget
from seqbench.registry import Registry
from seqbench.report import text
from seqbench.report.collect import Row, Run, TaskRun
from seqbench.report.drawing import Drawing, drawing
from seqbench.report.fairness import Fairness, fairness
from seqbench.report.look import Look, look
from seqbench.report.messages import Failure, Note, failures, notes
from seqbench.report.noise import certificate
from seqbench.report.parallel import each
from seqbench.report.pictures import pictures_of
from seqbench.report.sections import ShownSection, sections
from seqbench.report.speeds.parts import SpeedPhase, speed_phase
from seqbench.report.table import Column, columns
from seqbench.report.verdicts import PAIRS, Said, ranks_of, said_of
from seqbench.spec import spec_from_mapping, spec_to_toml
from seqbench.store import RunFolder

FIRST = 2
"""Sentences of a task at the head of a page with several tasks."""

LARGE = 100
"""Rows of all leaderboards from which on several processes draw."""


@dataclass(frozen=True)
class Cell:
    """A cell of a leaderboard; ``value`` is the number to sort it by, empty where there is none."""

    text: str
    right: bool
    look: Look | None = None
    value: str | None = None


@dataclass(frozen=True)
class Line:
    """A row of a leaderboard; ``kind`` is ``ok``, ``partly``, ``failed``, ``waiting`` or ``reference``."""

    kind: str
    cells: list[Cell]
    title: str = ""


@dataclass(frozen=True)
class Heading:
    """Of a leaderboard's column."""

    text: str
    help: str
    right: bool


@dataclass(frozen=True)
class TaskPage:
    """Everything that the page shows of a task; ``latency``: its figure stands in place of the inference time's."""

    id: str
    label: str
    fairness: Fairness
    headings: list[Heading]
    lines: list[Line]
    references: list[tuple[str, str]]
    legend: list[tuple[str, Look]]
    score: Drawing | None
    drawings: list[Drawing]
    speed: SpeedPhase | None
    latency: bool
    noise: list[str]
    verdicts: Said | None
    looks: int
    sections: list[ShownSection]
    warnings: list[Note]
    notes: list[Note]
    failures: list[Failure]

    @property
    def first(self) -> list[str]:
        """What is to be said of it at the head of the page."""
        return self.noise[:FIRST] or (self.verdicts.summary[:FIRST] if self.verdicts else [])


def page(run: Run, folder: RunFolder, registry: Registry) -> str:
    """The report as HTML text."""
    spec = spec_text(run.stored.get("spec", {}))
    return template("report.html.j2").render(
        name=text.plain(folder.path.name),
        created=text.plain(run.stored.get("created", "")),
        version=text.plain(run.stored.get("seqbench", "")),
        counts=counts(run),
        several_backends=[(b, look(run.labels[0], b, run.labels, run.backends)) for b in run.backends],
        warnings=[text.plain(w) for w in run.stored.get("warnings") or ()],
        ranks=[(name, text.with_interval(r.mean, r.half_width)) for name, r in ranks_of(run).items()],
        pairs=PAIRS,
        tuned=any(row.tuning for task in run.tasks for row in task.rows),
        tasks=each(
            lambda n: _task(run.tasks[n], run, folder, registry, f"task-{n + 1}"), len(run.tasks), _workers(run)
        ),
        columns=COLUMNS,
        spec=text.plain(spec),
        environment=flat(run.stored.get("environment") or {}),
        data=[{k: text.plain(v) for k, v in file.items()} for file in run.stored.get("data") or ()],
        command=_command(run, folder),
    )


def _workers(run: Run) -> int:
    """Processes that draw: one where all is drawn in a few seconds."""
    return usable_cores() if sum(len(task.rows) for task in run.tasks) >= LARGE else 1


def template(name: str) -> jinja2.Template:
    """A template of this folder: all that it is given is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("seqbench.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = breakable
    environment.filters["svg"] = Markup  # only ever applied to what matplotlib wrote
    environment.globals["script"] = script
    return environment.get_template(name)


@dataclass(frozen=True)
class Script:
    """The page's own script.

    Attributes:
        text: JavaScript.
        digest: what the page's policy names it by: no other script runs on the page.
    """

    text: Markup
    digest: str


@cache
def script() -> Script:
    """Sorting, filtering, hover, one task or all, light or dark; the page is complete without."""
    source = resources.files("seqbench.report").joinpath("report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return Script(Markup(source), f"sha256-{digest}")  # noqa: S704 - a file of this package


def breakable(label: str) -> Markup:
    """Escaped text that may be broken behind the commas and brackets of a label."""
    safe = str(escape(label))
    for sign in "[,/":
        safe = safe.replace(sign, f"{sign}<wbr>")
    return Markup(safe)  # noqa: S704 - escaped two lines above


def counts(run: Run) -> str:
    """``18 trials: 16 ok, 1 diverged, 1 not run``."""
    of: dict[str, int] = {}
    for record in run.records:
        status = text.plain(record.get("status"))
        of[status] = of.get(status, 0) + 1
    waiting = len(run.planned) - len(run.records)
    parts = [f"{n} {status.replace('_', ' ')}" for status, n in of.items()] + ([f"{waiting} not run"] * bool(waiting))
    return f"{len(run.planned)} trial{'s' if len(run.planned) != 1 else ''}: {', '.join(parts) or 'none'}"


def _command(run: Run, folder: RunFolder) -> str:
    out = str((run.stored.get("spec") or {}).get("out") or "results")
    return text.plain(f"seqbench run {shlex.quote((Path(out) / folder.path.name / 'spec.toml').as_posix())}")


def spec_text(stored: Mapping[str, Any]) -> str:
    """The spec as TOML; as JSON if another version wrote it."""
    try:
        return spec_to_toml(spec_from_mapping(stored, "run.json"))
    except (SeqbenchError, TypeError):
        return json.dumps(stored, indent=1, ensure_ascii=False)


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested tables as rows ``packages.torch = 2.13``."""
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        name = text.plain(f"{prefix}{key}")
        rows += flat(value, f"{name}.") if isinstance(value, Mapping) else [(name, _said(value))]
    return rows


def _said(value: object) -> str:
    return text.plain(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)


# --- a task -----------------------------------------------------------------------------------------


def _task(task: TaskRun, run: Run, folder: RunFolder, registry: Registry, name: str) -> TaskPage:
    score, others = pictures_of(task, run)
    said = notes(task)
    return TaskPage(
        id=name,
        label=text.plain(task.label),
        fairness=fairness(task, _budget(run)),
        headings=[Heading(c.head, text.plain(c.help), c.align == "right") for c in columns(task)],
        lines=_lines(task, run),
        references=[(text.plain(r.name), text.plain(r.summary)) for r in task.references],
        legend=[(row.name, look(row.label, row.backend, run.labels, run.backends)) for row in task.rows if row.ok],
        score=None if score is None else drawing(score, f"{name}-score"),
        drawings=[drawing(picture, f"{name}-{n}") for n, picture in enumerate(others)],
        speed=_speed(task, run, f"{name}-speed"),
        latency=task.has_latency,
        noise=certificate(task, run),
        verdicts=said_of(task),
        looks=task.looks,
        sections=sections(task, run, folder, registry, f"{name}-section"),
        warnings=[note for note in said if note.warning],
        notes=[note for note in said if not note.warning],
        failures=failures(task),
    )


def _speed(task: TaskRun, run: Run, salt: str) -> SpeedPhase | None:
    trained_on = run.stored.get("environment") or {}
    return None if task.speed is None else speed_phase(task.speed, salt, run.labels, run.backends, trained_on)


def _budget(run: Run) -> Budget | None:
    """As the user asked for it; another version may have taken what this one cannot read."""
    with suppress(SpecError):
        return parse_budget(str((run.stored.get("spec") or {}).get("budget")))
    return None


def _lines(task: TaskRun, run: Run) -> list[Line]:
    found = []
    for row in task.rows:
        how = look(row.label, row.backend, run.labels, run.backends)
        kind = "waiting" if not row.records else "ok" if row.status == "ok" else "partly" if row.ok else "failed"
        found.append(Line(kind, [_cell(column, row, how) for column in columns(task)], row.cause))
    for reference in task.references:
        cells = [Cell(c.reference(reference), c.align == "right") for c in columns(task)]
        found.append(Line("reference", cells, text.plain(reference.summary)))
    return found


def _cell(column: Column, row: Row, how: Look) -> Cell:
    value = None if column.value is None else column.value(row)
    sort_by = None if value is None else f"{value:.12g}" if math.isfinite(value) else ""
    return Cell(column.cell(row), column.align == "right", how if column.head == "Model" else None, sort_by)
