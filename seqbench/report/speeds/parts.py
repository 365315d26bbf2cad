"""A speed phase on a page: tables, and time and memory against length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from seqbench.frame import look_up
from seqbench.report import text
from seqbench.report.compare import machines_differ
from seqbench.report.drawing import Drawing, drawing
from seqbench.report.figures import PANEL, Picture, finish, mark, plain_ticks
from seqbench.report.hover import Readings, Trace
from seqbench.report.look import Look, look, style
from seqbench.report.speeds.columns import LEAST_MEMORY_MIB, OPERATIONS, seconds
from seqbench.report.speeds.tables import UNITS, Table, causes, meanings, tables

Record = Mapping[str, Any]
Read = Callable[[Record], tuple[float, float, float] | None]
"""Middle, lower and upper end of what a record says; None where it says nothing."""

Line = Sequence[tuple[int, tuple[float, float, float]]]
"""The same of each length that has it."""


@dataclass(frozen=True)
class Part:
    """A table, its figures and the looks of its rows."""

    table: Table
    looks: list[Look]
    drawings: list[Drawing]


@dataclass(frozen=True)
class SpeedPhase:
    """A speed phase as a page shows it.

    Attributes:
        operations: name and meaning of those that were measured.
        rounds: samples of each network.
        starts: processes of each, which shared the rounds.
        machine: what it was measured on, and when.
        elsewhere: what of it is not as where the run was trained.
        condition: of the machine, ``before`` and ``after``.
        parts: a table and its figures for each operation and batch.
        causes: why there are rows without figures.
        below: what cells and columns mean.
    """

    operations: list[tuple[str, str]]
    rounds: int
    starts: int
    machine: str
    elsewhere: list[str]
    condition: Mapping[str, Any]
    parts: list[Part]
    causes: list[str]
    below: list[str]


def speed_phase(
    data: Mapping[str, Any],
    salt: str,
    labels: Sequence[str] = (),
    backends: Sequence[str] = (),
    trained_on: Mapping[str, Any] | None = None,
) -> SpeedPhase:
    """What ``speed.json`` holds, for a page.

    Args:
        data: what it holds.
        salt: makes ids unique on the page.
        labels: models, in the order that gives them their colours on this page; others follow.
        backends: likewise.
        trained_on: the environment of the run whose networks these are, if there is one.
    """
    here = data["environment"]
    rows = data["rows"]
    labels, backends = _known(data, labels, backends)
    parts = [_part(table, labels, backends, f"{salt}-{n}") for n, table in enumerate(tables(rows))]
    return SpeedPhase(
        operations=[(key, OPERATIONS[key]) for key in text.distinct(record["operation"] for record in rows)],
        rounds=data["spec"]["rounds"],
        starts=min(data["spec"]["starts"], data["spec"]["rounds"]),
        machine=text.plain(f"{here.get('gpu') or here.get('cpu')}, {here.get('cores')} cores, {data['created']}"),
        elsewhere=[] if trained_on is None else [text.plain(line) for line in machines_differ(trained_on, here)],
        condition=data["condition"],
        parts=parts,
        causes=causes(rows),
        below=meanings(head for part in parts for head in part.table.head),
    )


def _part(table: Table, labels: Sequence[str], backends: Sequence[str], salt: str) -> Part:
    looks = _looks(table, labels, backends)
    return Part(table, looks, [drawing(picture, f"{salt}-{n}") for n, picture in enumerate(_pictures(table, looks))])


def _looks(table: Table, labels: Sequence[str], backends: Sequence[str]) -> list[Look]:
    return [look(records[0]["label"], records[0]["backend"], labels, backends) for records in table.records]


def _pictures(table: Table, looks: Sequence[Look]) -> list[Picture]:
    """Time and memory against length, where there are two lengths at least."""
    unit, scale = UNITS[table.operation]
    found = [
        _picture("Time against length", unit, table, looks, lambda record: _time(record, scale)),
        _picture("Memory of a call against length", "MiB", table, looks, _memory),
    ]
    return [picture for picture in found if picture is not None]


def speed_pictures(data: Mapping[str, Any], labels: Sequence[str], backends: Sequence[str]) -> list[Picture]:
    """The figures of ``speed_phase``, their titles with operation and batch."""
    labels, backends = _known(data, labels, backends)
    return [
        replace(picture, title=f"{picture.title} {table.operation} batch {table.batch}")
        for table in tables(data["rows"])
        for picture in _pictures(table, _looks(table, labels, backends))
    ]


def _known(data: Mapping[str, Any], labels: Sequence[str], backends: Sequence[str]) -> tuple[list[str], list[str]]:
    """All labels and backends, those that are given first."""
    rows = data["rows"]
    return (
        text.distinct([*labels, *(record["label"] for record in rows)]),
        text.distinct([*backends, *(record["backend"] for record in rows)]),
    )


def _time(record: Record, scale: float) -> tuple[float, float, float] | None:
    """Median and quartiles."""
    if "wall" not in record:
        return None
    middle, wall = scale * seconds(record), record["wall"]
    return middle, middle * wall["q1"] / wall["median"], middle * wall["q3"] / wall["median"]


def _memory(record: Record) -> tuple[float, float, float] | None:
    mib = look_up(record, "memory", "call_mib")
    return None if mib is None or mib < LEAST_MEMORY_MIB else (mib, mib, mib)


def _picture(title: str, unit: str, table: Table, looks: Sequence[Look], read: Read) -> Picture | None:
    """None where no row has two lengths."""
    lines = [[(record["length"], value) for record in records if (value := read(record))] for records in table.records]
    if max(map(len, lines)) < 2:
        return None
    traces = [
        Trace(row[0], how.colour, [length for length, _ in line], [middle for _, (middle, _, _) in line])
        for row, how, line in zip(table.rows, looks, lines, strict=True)
    ]
    return Picture(f"{title}, {unit}", _draw(lines, looks, unit), Readings("length", unit, tuple(traces)))


def _draw(lines: Sequence[Line], looks: Sequence[Look], unit: str) -> Figure:
    """Both axes logarithmic: a power law is a line."""
    with style():
        figure = Figure(figsize=PANEL, layout="constrained")
        ax = figure.add_subplot()
        for found, how in zip(lines, looks, strict=True):
            for length, (_, low, high) in found:
                ax.plot([length] * 2, [low, high], color=how.colour, lw=1.3, alpha=0.8)
            ax.plot(
                [n for n, _ in found], [v[0] for _, v in found], color=how.colour, ls=how.line, lw=1.6, **mark(how, 7)
            )
        ax.set(xscale="log", yscale="log", xlabel="length T", ylabel=unit)
        plain_ticks(ax, "y")
        ax.xaxis.set_major_locator(FixedLocator(sorted({length for found in lines for length, _ in found})))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(text.tick)
        finish(ax)
    return figure
