"""The models of several runs side by side, as tables and sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from seqbench.report.compare import hardware_differs, versions_differ
from seqbench.report.formats import Board, board, written
from seqbench.report.merge import Entry, Group, Named, machines_of, merged, rivals
from seqbench.report.summary import as_table, model_row, reference_row
from seqbench.report.text import DASH, plain
from seqbench.report.verdicts import said_of

if TYPE_CHECKING:
    import pandas as pd

PRIORITY = 2
"""Columns of the leaderboard that are shown: the score, sizes, speeds, status."""


def merged_text(runs: Named, form: str = "text") -> str:
    """All there is to say.

    Args:
        runs: by name.
        form: ``"text"`` or ``"markdown"``.
    """
    groups, machines = merged(runs), machines_of(runs)
    parts: list[Board | str] = list(map(plain, _head(runs, machines)))
    for group in groups:
        parts += ["", _board(group, machines), "", *map(plain, _below(group, runs))]
    return written(parts, form)


def _head(runs: Named, machines: Mapping[str, str]) -> list[str]:
    """What is not the same between the runs, and what that forbids."""
    (first, base), *others = runs.items()
    lines = [f"{len(runs)} runs: {', '.join(runs)}; nothing is pooled"]
    for name, run in others:
        versions = versions_differ(base, run)
        lines += [f"{name}, other versions than {first}: {'; '.join(versions)}"] * bool(versions)
        if machines[name] != machines[first]:
            why = "; ".join(hardware_differs(base, run)) or "not known, or another device"
            lines.append(f"{name}, other hardware than {first}: {why}")
    if len(set(machines.values())) > 1:
        lines.append("speeds of different hardware are shown beside one another and not ranked")
    return lines


def _board(group: Group, machines: Mapping[str, str]) -> Board:
    """The leaderboard with the run in front, and the rank of the training speed where it may be given."""
    models = board(group.task, PRIORITY)
    if group.ranked_speeds:
        about, places = "Speed rank", _speed_ranks(group)
    else:
        about, places = "Machine", [machines[entry.run] for entry in group.entries]
    rows = [
        [plain(entry.run), plain(place), entry.name, *cells]  # the run is told: its name need not be unique here
        for entry, place, (_, *cells) in zip(group.entries, places, models.rows, strict=True)
    ]
    return replace(
        models,
        heads=["Run", about, *models.heads],
        right=[False, group.ranked_speeds, *models.right],
        rows=rows,
        references=[["", "", *line] for line in models.references],
    )


def _speed_ranks(group: Group) -> list[str]:
    """1 for the fastest, equal ones share theirs; a dash where there is no number."""
    rates = [entry.row.median("speed", "train_tokens_per_s") for entry in group.entries]
    return [DASH if math.isnan(rate) else str(1 + sum(other > rate for other in rates)) for rate in rates]


def _below(group: Group, runs: Named) -> list[str]:
    lines = []
    if group.apart:
        lines.append(f"not ranked with {group.apart_from}: {'; '.join(group.apart)}")
    there = {entry.run for entry in group.entries}
    label = group.task.label
    without = [name for name, run in runs.items() if label not in {task.label for task in run.tasks}]
    lines += [f"not in {', '.join(without)}"] * bool(without and not group.apart)
    lines += [_twice(entries) for entries in group.twice]
    said = said_of(group.task)
    if said is not None:
        pairs = f", all {len(said.pairs)} pairs together (Holm)" if len(said.pairs) > 1 else ""
        lines += [*said.summary, f"verdicts: over the seeds that both models of a pair have{pairs}"]
    elif len(there) > 1:
        lines.append(f"no verdict: {_no_verdict(group)}")
    return lines


def _no_verdict(group: Group) -> str:
    if group.task.score is None:
        return "no score is known"
    if len({entry.row.label for entry in group.entries}) == 1:
        return "all rows are of the same model"
    if not rivals(group.entries):
        return "no two models have a backend in common, and a model is not told from another by its backend"
    return "no two models on the same backend have scores of two seeds in common"


def _twice(entries: Sequence[Entry]) -> str:
    """``lstm is in a and b: a duplicate, with seeds 0, 1 in common; not pooled``."""
    times = [seed for entry in entries for seed in entry.scores]
    common = sorted({seed for seed in times if times.count(seed) > 1})
    where = " and ".join(entry.run for entry in entries)
    name = entries[0].name
    if not common:
        return f"{name} is in {where}, with other seeds: not pooled"
    return f"{name} is in {where}: a duplicate, with seeds {', '.join(map(str, common))} in common; not pooled"


def merged_frame(runs: Named) -> pd.DataFrame:
    """One row a model, backend, task and run: ``summary.csv`` with five columns in front.

    ``run``; ``group``, a number: rows of a task with the same one are ranked together; ``rank_best`` and
    ``rank_worst``, what the verdicts leave open in it; ``machine``, a run on the same hardware. Reference rows have a
    group alone.
    """
    machines = machines_of(runs)
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(merged(runs), 1):
        for entry in group.entries:
            best, worst = group.task.places.get(entry.row.name, (None, None))
            front = {"run": entry.run, "group": number, "rank_best": best, "rank_worst": worst}
            rows.append({**front, "machine": machines[entry.run], **model_row(group.task, entry.row)})
        front = {"run": None, "group": number, "rank_best": None, "rank_worst": None, "machine": None}
        rows += [{**front, **reference_row(group.task, reference)} for reference in group.task.references]
    table = as_table(rows)
    return table.astype({"rank_best": "Int64", "rank_worst": "Int64"}) if rows else table
