"""What has changed between two runs, in words and as tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seqbench.report.collect import Row, Run
from seqbench.report.compare import Change, hardware_differs, specs_differ, versions_differ
from seqbench.report.formats import Board, written
from seqbench.report.text import DASH, plain, with_interval

if TYPE_CHECKING:
    import pandas as pd

HEADS = ("Model", "before", "after", "change", "in %", "", "train tok/s")


def comparison_text(names: tuple[str, str], runs: tuple[Run, Run], found: Sequence[Change], form: str = "text") -> str:
    """All there is to say of two runs.

    Args:
        names: of their folders.
        runs: as read.
        found: from ``compare.changes``.
        form: ``"text"`` or ``"markdown"``.
    """
    parts: list[Board | str] = [f"before: {plain(names[0])}", f"after:  {plain(names[1])}"]
    for title, differences in (
        ("asked for differently", specs_differ(*runs)),
        ("other versions", versions_differ(*runs)),
        ("other hardware: speeds are not compared", hardware_differs(*runs)),
    ):
        parts += [f"{title}: {plain('; '.join(differences))}"] * bool(differences)
    for task in dict.fromkeys(change.key[0] for change in found):
        parts += ["", _board(task, [change for change in found if change.key[0] == task])]
    tested = sum(change.verdict is not None for change in found)
    if tested:
        parts += ["", f"change: mean over the seeds that both have ± its interval, all {tested} rows together (Holm)"]
    return written(parts, form)


def _board(task: str, found: Sequence[Change]) -> Board:
    metric = next((change.metric for change in found if change.metric is not None), None)
    unit = f" [{metric.unit}]" if metric is not None and metric.unit else ""
    title = plain(f"{task}: {metric.name}{unit}" if metric is not None else task)
    several = len({change.key[2] for change in found}) > 1
    right = [place not in {0, 5} for place in range(len(HEADS))]
    return Board(title, list(HEADS), right, [list(_cells(change, several)) for change in found])


def comparison_frame(names: tuple[str, str], found: Sequence[Change]) -> pd.DataFrame:
    """The same as numbers, one row a change, ``before`` and ``after`` the mean scores over all seeds of each run."""
    import pandas as pd

    rows = []
    for change in found:
        task, model, backend = change.key
        means = [math.nan if row is None else row.scores.mean for row in (change.before, change.after)]
        rows.append(
            {
                "before_run": names[0],
                "after_run": names[1],
                "task": task,
                "model": model,
                "backend": backend,
                "score_metric": None if change.metric is None else change.metric.name,
                "before": means[0],
                "after": means[1],
                "change": change.difference,
                "half_width": change.half_width,
                "share": change.share,
                "verdict": verdict_of(change),
                "train_speedup": change.speedup,
            }
        )
    return pd.DataFrame(rows)


def _cells(change: Change, several: bool) -> tuple[str, ...]:
    _, label, backend = change.key
    name = plain(f"{label} · {backend}" if several else label)
    return (
        name,
        _score(change.before),
        _score(change.after),
        _signed(change),
        f"{100 * change.share:+.1f}" if math.isfinite(change.share) else DASH,
        verdict_of(change),
        f"x {change.speedup:.2f}" if math.isfinite(change.speedup) else DASH,
    )


def _score(row: Row | None) -> str:
    if row is None:
        return "not there"
    if not row.points:
        return row.status
    text = with_interval(row.scores.mean, row.scores.half_width)
    return text if len(row.ok) == len(row.trials) else f"{text} ({row.status})"


def _signed(change: Change) -> str:
    if not math.isfinite(change.difference):
        return DASH
    text = with_interval(change.difference, change.half_width)
    return text if text.startswith(("-", "(-")) or change.difference == 0 else f"+{text}"


def verdict_of(change: Change) -> str:
    """``better``, ``worse``, ``the same``, ``no difference seen``, or why nothing can be said."""
    if change.before is None or change.after is None:
        return "only in one run"
    if not (change.before.points and change.after.points):
        return "no score"
    if math.isnan(change.difference):
        return "no seed in common"
    if change.verdict is None:
        return "one seed in common: no test"
    if not change.verdict.differ:
        equal = change.difference == 0 and change.verdict.difference.deviation == 0
        return "the same" if equal else "no difference seen"
    return "better" if change.verdict.first == "after" else "worse"
