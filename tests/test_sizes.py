"""docs/sizes.md: the sizes that the solver finds for every model on every task; run, this file writes it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from seqbench.api import Form
from seqbench.budget import Question, Size, solve
from seqbench.options import build_options
from seqbench.plan import Row, rows_of
from seqbench.quantities import Target, parse_count
from seqbench.registry import load
from seqbench.sizing import scene_of
from seqbench.spec import RunSpec

DOCUMENT = Path(__file__).parent.parent / "docs" / "sizes.md"
TARGETS = ("10k", "30k", "100k", "300k", "1M", "3M", "10M")
TOLERANCE = 0.01
FEW = ("10k", "1M")
"""All of them take half a minute."""


@cache
def rows() -> list[Row]:
    """Every model on every task, on the task's first dataset, which needs no download."""
    cards = load()
    return rows_of(RunSpec(task=tuple(cards.tasks), seeds="1"), cards)


@cache
def question(place: int) -> Question:
    row, cards = rows()[place], load()
    form = form_of(row.task_label)
    card = cards.model(row.model)
    options = build_options(card.options, row.model_options, row.model)
    return Question(card, "torch", form, options, card.default_layers(options, form.longest))


@cache
def solved(place: int, name: str) -> Size:
    return solve(question(place), Target(parse_count(name, "size"), TOLERANCE))


@cache
def form_of(label: str) -> Form:
    form = scene_of(next(row for row in rows() if row.task_label == label), load(), None).form
    assert isinstance(form, Form)
    return form


def cell(size: Size, target: int) -> str:
    """``-0.12 (65)``; bold where it misses."""
    error = size.parameters / target - 1
    text = f"{100 * error:+.2f} ({size.width})"
    return f"**{text}**" if abs(error) > TOLERANCE else text


def beside(asked: Question, size: Size, target: int) -> Size:
    """The next width on the other side of the target."""
    step = asked.card.width_multiple(asked.options)
    return asked.sized(size.width + (step if size.parameters < target else -step))


def document(targets: tuple[str, ...] = TARGETS) -> tuple[dict[str, dict[str, dict[str, str]]], list[str]]:
    """Task to model to size to cell; and a sentence for each miss."""
    cells: dict[str, dict[str, dict[str, str]]] = {}
    misses = []
    for place, row in enumerate(rows()):
        asked = question(place)
        for name in targets:
            target, size = parse_count(name, "size"), solved(place, name)
            cells.setdefault(row.task_label, {}).setdefault(row.model, {})[name] = cell(size, target)
            if abs(size.parameters / target - 1) > TOLERANCE:
                other = beside(asked, size, target)
                misses.append(
                    f"{row.model} on {row.task_label}, {name}: width {size.width} misses by "
                    f"{100 * (size.parameters / target - 1):+.2f} %, width {other.width} by "
                    f"{100 * (other.parameters / target - 1):+.2f} %"
                )
    return cells, misses


def written() -> str:
    """The whole document."""
    cells, misses = document()
    lines = [INTRODUCTION.strip(), ""]
    for task, models in cells.items():
        lines += [f"## {task}", "", f"| model | {' | '.join(TARGETS)} |", f"| --- |{' ---: |' * len(TARGETS)}"]
        lines += [f"| {model} | {' | '.join(found[name] for name in TARGETS)} |" for model, found in models.items()]
        lines.append("")
    total = len(rows()) * len(TARGETS)
    lines += [
        "## Misses",
        "",
        f"{total - len(misses)} of {total} sizes are within 1 %. The others, and the width beside:",
        "",
    ]
    return "\n".join([*lines, *(f"- {miss}" for miss in misses), ""])


INTRODUCTION = """
# Sizes that the solver finds

`--params 50k±1%` gives every model a network of that many trainable parameters. Embedding and head are counted too; the
solver looks for the width and, where a card names one, for a second size: the Transformer's `feed_forward`, the TCN's
`last_channels`. The recurrent models have the width alone, so that a small network may miss: one more unit of an LSTM
of 10,000 parameters is 5 to 6 %. Then the nearest width is taken, the run says by how much it misses, before it starts
and in its report, and the tables mark it with `!`. Without a tolerance it is 2 %.

A cell is the relative error in per cent and, in brackets, the width. More than 1 % is bold. Made by
`python tests/test_sizes.py`; a test compares.
"""


@pytest.mark.parametrize("name", FEW)
def test_the_document_is_what_the_solver_finds(name: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    cells, misses = document((name,))
    for task, models in cells.items():
        part = text.split(f"## {task}\n")[1].split("\n## ")[0]
        for model, found in models.items():
            (line,) = (line for line in part.splitlines() if line.startswith(f"| {model} |"))
            assert line.split(" | ")[1 + TARGETS.index(name)].removesuffix(" |") == found[name]
    assert [line for line in text.splitlines() if f", {name}: width" in line] == [f"- {miss}" for miss in misses]


@pytest.mark.parametrize("name", FEW)
def test_where_it_misses_no_width_is_nearer(name: str) -> None:
    """Only models without a second size miss, and both widths beside are further away."""
    target = parse_count(name, "size")
    for place, row in enumerate(rows()):
        asked, size = question(place), solved(place, name)
        miss = abs(size.parameters - target)
        if miss > TOLERANCE * target:
            assert asked.card.fine is None, row.model
            for width in (size.width - 1, size.width + 1):
                assert abs(asked.sized(width).parameters - target) >= miss


if __name__ == "__main__":
    DOCUMENT.write_text(written(), encoding="utf-8")
