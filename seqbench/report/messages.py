"""What must be said beside a task's table: notes, warnings, failures. Each once."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from seqbench.axes import TUNABLE, is_number, shown
from seqbench.frame import look_up
from seqbench.report.collect import Record, Row, TaskRun
from seqbench.report.table import off_budget
from seqbench.report.text import percent, plain
from seqbench.stats import two_groups

WARNING = "warning: "


@dataclass(frozen=True)
class Note:
    """A remark and the rows that it is about (none: about all of the task's)."""

    text: str
    rows: tuple[str, ...]
    warning: bool

    def __str__(self) -> str:
        about = f"{', '.join(self.rows)}: " if self.rows else ""
        return f"{WARNING if self.warning else ''}{about}{self.text}"


@dataclass(frozen=True)
class Failure:
    """Trials of a row that ended in the same way."""

    row: str
    seeds: tuple[int, ...]
    status: str
    cause: str
    step: int | None
    log: str

    @property
    def where(self) -> str:
        """`` at step 120``; empty where it is not known, or the cause says it."""
        return "" if self.step is None or f"step {self.step}" in self.cause else f" at step {self.step}"

    def __str__(self) -> str:
        seeds = f"seed{'s' if len(self.seeds) > 1 else ''} {', '.join(map(str, self.seeds))}"
        return f"{self.row}, {seeds}: {self.status}{self.where}: {self.cause}"


def notes(task: TaskRun) -> list[Note]:
    """Warnings first; the same remark about several models is one remark, and about all of them names none."""
    rows_of: dict[str, dict[str, None]] = {}
    for row in sorted(task.rows, key=lambda row: row.name):
        for remark in _remarks(row):
            rows_of.setdefault(remark, {})[row.name] = None
    everybody = {row.name for row in task.rows}
    found = [
        _note(remark, () if everybody == set(rows) and len(rows) > 1 else tuple(rows))
        for remark, rows in rows_of.items()
    ] + [*_seeds(task), *_groups(task)]
    return sorted(found, key=lambda note: not note.warning)


def _note(remark: str, rows: tuple[str, ...]) -> Note:
    return Note(remark.removeprefix(WARNING), rows, remark.startswith(WARNING))


def _remarks(row: Row) -> Iterable[str]:
    yield from (plain(trial.advice) for trial in row.trials if trial.advice)
    for record in row.records:
        yield from map(plain, [*(record.get("notes") or ()), *(record.get("events") or ())])
    if off_budget(row):
        target, width = row.trials[0].target_parameters, row.trials[0].width
        error = percent(row.parameters_error)
        yield f"{WARNING}parameters miss the budget of {target:,} by {error} %, at width {width}"
    yield from _tuning(row)
    dropped = row.scores.dropped
    if dropped:
        yield f"{WARNING}the score of {dropped} of {len(row.ok)} trials is not a number; the mean leaves it out"


def _tuning(row: Row) -> Iterable[str]:
    """What was chosen, of how many; a warning for each value at the edge of what was tried."""
    chosen = next((trial.setting for trial in row.trials if trial.setting), None)
    if chosen is None or not row.tuning:
        return
    said = ", ".join(f"{name} {shown(value)}" for name, value in chosen.items())
    bad = [str(record.get("status")) for record in row.tuning if record.get("status") != "ok"]
    ended = f"; {len(bad)} of them did not end well ({', '.join(dict.fromkeys(bad))})" if bad else ""
    yield plain(f"{said}: chosen of {len(row.tuning)} settings by validation{ended}")
    for name, value in chosen.items():
        tried = {record["trial"]["setting"][name] for record in row.tuning}
        if len(tried) == 1 or not all(map(is_number, tried)) or (name == "dropout" and value == 0):
            continue
        edge = {min(tried): "smallest", max(tried): "largest"}.get(value)
        if edge:
            own = "" if name in TUNABLE else ", if the model takes more"
            yield plain(f"{WARNING}{name} {shown(value)} is the {edge} that was tried: the best may lie beyond{own}")


def _seeds(task: TaskRun) -> list[Note]:
    most = max((len(row.trials) for row in task.rows), default=0)
    if most != 1:
        return []
    return [Note("one seed: no interval can be given, and differences may be chance", (), warning=True)]


def _groups(task: TaskRun) -> list[Note]:
    """Rows with an interval whose seeds are of two kinds; one of which a seed has solved the task has none."""
    if task.score is None:
        return []
    known = {r.name: r.metrics.get(task.score.name) for r in task.references}
    trivial, optimum = known.get("trivial"), known.get("optimum")
    if trivial is None or optimum is None:
        return []
    told = [row for row in task.rows if math.isfinite(row.scores.half_width)]
    rows = tuple(row.name for row in told if two_groups(row.points, abs(optimum - trivial)))
    text = "the seeds fall into two groups far apart: intervals and verdicts do not hold; look at the single seeds"
    return [Note(text, rows, warning=True)] if rows else []


def failures(task: TaskRun) -> list[Failure]:
    """Trials that did not end well, those of a row with the same end together."""
    found = []
    for row in task.rows:
        groups: dict[tuple[str, str, int | None], list[Record]] = {}
        for record in row.failed:
            cause = plain(record.get("cause") or "no cause known")
            key = (plain(record.get("status")), cause, record.get("failed_step"))
            groups.setdefault(key, []).append(record)
        for (status, cause, step), records in groups.items():
            seeds = tuple(look_up(r, "trial", "seed") for r in records)
            log = next((r["log_tail"] for r in records if r.get("log_tail")), "")
            found.append(Failure(row.name, seeds, status, cause, step, plain(log).strip("\n")))
    return found
