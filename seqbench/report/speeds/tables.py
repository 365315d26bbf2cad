"""What the terminal and the page show: a table for each operation and batch, models down, lengths across."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seqbench.frame import look_up
from seqbench.report import text
from seqbench.report.speeds.columns import noisy, seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Printed

Record = Mapping[str, Any]

UNITS = {"train": ("ms a step", 1e3), "infer": ("ms a call", 1e3), "step": ("µs a step", 1e6),
         "decode": ("ms a call", 1e3)}  # fmt: skip
"""What the cells show, and by how much seconds are multiplied."""

WORDS = ("Model", "Status")
SOMETIMES = ("Times\nfastest", "Time\nT^p", "Memory\nT^p")
"""Left out where there is no other model to compare with, or too few lengths to fit anything."""
LEAST_IMPORTANT = ("Params", "First\ncall s", "Extra\nthreads", "Peak\nMiB", "Memory\nT^p", "Call\nMiB", "Time\nT^p",
                   "Times\nfastest")  # fmt: skip
"""Columns that a narrow terminal does without, the first to go first."""

GAP = 2
"""Spaces between two columns."""

CELLS = (
    "a cell is the median wall time, less what slowed all models of a round; ! behind it: the quartiles are further "
    "apart than 10 % of it"
)
MEANINGS = {
    "Times\nfastest": (
        "times fastest: its time by that of its backend's fastest model in the same round, at the longest T; "
        "median over the rounds"
    ),
    "Time\nT^p": (
        "T^p: exponent of a power law over the lengths ± its standard error; "
        "memory is that of a call, weights not counted"
    ),
}
"""What a heading of a column means that not every table has."""


@dataclass(frozen=True)
class Table:
    """Cells of text.

    Attributes:
        operation: what was timed.
        batch: sequences of a call.
        title: both, and the unit of the times.
        head: the columns' headings, in one or two lines each.
        rows: a list of cells for each network; the first is its name.
        records: those of each row, by length ascending.
    """

    operation: str
    batch: int
    title: str
    head: list[str]
    rows: list[list[str]]
    records: list[list[Record]]


def tables(records: Sequence[Record]) -> list[Table]:
    """A table for each operation and batch, in the order of measuring.

    Args:
        records: from ``columns.with_figures``.
    """
    groups: dict[tuple[str, int], dict[str, list[Record]]] = {}
    several = len({record["backend"] for record in records}) > 1
    for record in records:
        name = f"{record['label']} ({record['backend']})" if several else record["label"]
        rows = groups.setdefault((record["operation"], record["batch"]), {})
        rows.setdefault(text.plain(name), []).append(record)
    order = list(UNITS)
    return [_table(*key, groups[key]) for key in sorted(groups, key=lambda key: (order.index(key[0]), key[1]))]


def _table(operation: str, batch: int, rows: Mapping[str, list[Record]]) -> Table:
    lengths = sorted({record["length"] for records in rows.values() for record in records})
    head = ["Model", *(f"T={length}" for length in lengths), *SOMETIMES, "Peak\nMiB", "Call\nMiB"]
    head += ["First\ncall s", "Extra\nthreads", "Params", "Status"]
    cells = [_row(name, operation, records, lengths) for name, records in rows.items()]
    empty = {name for place, name in enumerate(head) if all(row[place] == text.DASH for row in cells)} & set(SOMETIMES)
    kept = [place for place, name in enumerate(head) if name not in empty]
    cells = [[row[place] for place in kept] for row in cells]
    title = f"{operation}, batch {batch}: {UNITS[operation][0]}"
    return Table(operation, batch, title, [head[place] for place in kept], cells, [*rows.values()])


def _row(name: str, operation: str, records: Sequence[Record], lengths: Sequence[int]) -> list[str]:
    by_length = {record["length"]: record for record in records}
    longest = by_length[max(by_length)]
    bad = [record for record in records if record["status"] != "ok"]
    return [
        name,
        *(_time(by_length.get(length), UNITS[operation][1]) for length in lengths),
        text.number(look_up(longest, "times_fastest", "median"), 3),
        _exponent(longest, "time"),
        _exponent(longest, "memory"),
        text.kilo(look_up(longest, "memory", "peak_mib")),
        text.kilo(look_up(longest, "memory", "call_mib")),
        text.number(max(record.get("first_call_seconds") or 0.0 for record in records), 2),
        str(max(record.get("extra_threads") or 0 for record in records)),
        text.kilo(next((found for r in records if (found := look_up(r, "parameters", "network"))), None)),
        "ok" if not bad else bad[0]["status"] if len(bad) == len(records) else f"{bad[0]['status']} (T={_of(bad)})",
    ]


def _of(records: Sequence[Record]) -> str:
    return ",".join(str(record["length"]) for record in records)


def _time(record: Record | None, scale: float) -> str:
    if record is None or "wall" not in record:
        return text.DASH
    return text.number(scale * seconds(record), 3) + ("!" if noisy(record) else "")


def _exponent(record: Record, of: str) -> str:
    found = look_up(record, "growth", of)
    return text.DASH if found is None else f"{found['exponent']:.2f} ± {found['error']:.2f}"


def meanings(heads: Iterable[str]) -> list[str]:
    """What is said below tables with these headings."""
    shown = set(heads)
    return [CELLS, *(said for head, said in MEANINGS.items() if head in shown)]


def causes(records: Sequence[Record]) -> list[str]:
    """Why there are no figures, each reason once."""
    found: dict[str, list[str]] = {}
    for record in records:
        if record["status"] != "ok":
            said = (
                f"{record['label']} ({record['backend']}), {record['operation']}: {record['status']}: {record['cause']}"
            )
            found.setdefault(text.plain(said), []).append(str(record["length"]))
    return [f"{said} (T={','.join(dict.fromkeys(lengths))})" for said, lengths in found.items()]


def print_tables(records: Sequence[Record], console: Console | None = None) -> None:
    """Print all tables, as many columns as fit, and the failures below."""
    from rich.console import Console
    from rich.text import Text

    out = console or Console()
    hidden: dict[str, None] = {}
    seen: set[str] = set()
    for table in tables(records):
        shown = _fitting(table, out.width)
        seen |= set(shown)
        hidden |= {head: None for head in table.head if head not in shown}
        out.print()
        out.print(Text(table.title, style="bold"))
        out.print(_printed(table, shown))
    if hidden:
        names = ", ".join(head.replace("\n", " ") for head in hidden)
        out.print(Text(f"not shown at this width, in speed.csv: {names}", style="dim"), soft_wrap=True)
    for line in meanings(seen):
        out.print(Text(line, style="dim"), soft_wrap=True)
    for line in causes(records):
        out.print(Text(f"failed: {line}", style="red"), soft_wrap=True)


def _printed(table: Table, shown: Sequence[str]) -> Printed:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table as Printed
    from rich.text import Text

    printed = Printed(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, GAP - 1, 0, 0), header_style="bold")
    for head in shown:
        printed.add_column(Text(head), justify="left" if head in WORDS else "right", no_wrap=True)
    places = [table.head.index(head) for head in shown]
    for row in table.rows:
        printed.add_row(*(Text(row[place]) for place in places), style="" if row[-1] == "ok" else "yellow")
    return printed


def _fitting(table: Table, width: int) -> list[str]:
    """The headings of the columns that fit: the least important ones go first."""
    shown = list(table.head)
    for head in LEAST_IMPORTANT:
        if head in shown and sum(GAP + _width(table, head) for head in shown) - GAP > width:
            shown.remove(head)
    return shown


def _width(table: Table, head: str) -> int:
    place = table.head.index(head)
    return max(map(len, [*head.split("\n"), *(row[place] for row in table.rows)]))
