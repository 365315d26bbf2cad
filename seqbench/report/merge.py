"""The models of several runs side by side: on which tasks, under which conditions, and what may be ranked.

Scores are ranked where everything that was asked for but the model is the same. Speeds only on the same hardware.
Nothing is pooled: the same model in two runs is two rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from seqbench.errors import SpecError
from seqbench.quantities import parse_budget
from seqbench.report.collect import Row, Run, TaskRun, rank_key
from seqbench.report.compare import hardware_differs
from seqbench.report.text import distinct, plain
from seqbench.verdicts import Verdict, compare

Named = Mapping[str, Run]
"""Runs by the name that tables give them."""


@dataclass(frozen=True)
class Entry:
    """A row, the run that it is from, and its name within that run; the row's own name is unique in the group."""

    run: str
    row: Row
    name: str

    @property
    def key(self) -> tuple[str, str]:
        """The same for the same model on the same backend in other runs."""
        return self.row.label, self.row.backend

    @property
    def scores(self) -> dict[int, float | None]:
        """Planned seed to score, None where there is none."""
        return dict(zip((trial.seed for trial in self.row.trials), self.row.by_seed, strict=True))


@dataclass(frozen=True)
class Group:
    """Rows whose scores can be ranked: the same task under the same conditions.

    Attributes:
        task: a task with all these rows, best score first; their names are unique, ``lstm (run)`` where they must be.
        entries: the same rows, in that order.
        apart: what is not as in the first group of the task, and why this one is apart; none in the first.
        verdicts: of the pairs of different models on the same backend, over the seeds that both have.
        ranked_speeds: all were made on the same hardware.
    """

    task: TaskRun
    entries: tuple[Entry, ...]
    apart: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    ranked_speeds: bool

    @property
    def twice(self) -> list[list[Entry]]:
        """Rows of the same model and backend, from several runs."""
        found: dict[tuple[str, str], list[Entry]] = {}
        for entry in self.entries:
            found.setdefault(entry.key, []).append(entry)
        return [entries for entries in found.values() if len(entries) > 1]


def merged(runs: Named) -> list[Group]:
    """All rows of all runs, the groups of a task one behind the other, tasks in the order of the runs."""
    machines = machines_of(runs)
    labels = distinct(task.label for run in runs.values() for task in run.tasks)
    return [group for label in labels for group in _groups(label, runs, machines)]


def machines_of(runs: Named) -> dict[str, str]:
    """Run to the first run on the same hardware, with as many threads and jobs: itself, where it is none's."""
    found: dict[str, str] = {}
    for name, run in runs.items():
        alike = (other for other in found if _same_machine(runs[other], run))
        found[name] = next(alike, name)
    return found


def _same_machine(one: Run, other: Run) -> bool:
    """Hardware that nobody knows is nobody's."""
    devices = [{trial.device for trial in run.planned} for run in (one, other)]
    known = bool((one.stored.get("environment") or {}).get("cpu"))
    return known and devices[0] == devices[1] and not hardware_differs(one, other)


def _groups(label: str, runs: Named, machines: Mapping[str, str]) -> Iterable[Group]:
    told = {name: task for name, run in runs.items() for task in run.tasks if task.label == label}
    groups: list[list[str]] = []
    for name in told:
        alike = (group for group in groups if not any(_apart(told, runs, other, name) for other in group))
        group = next(alike, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    for names in groups:
        apart = () if names is groups[0] else tuple(_apart(told, runs, groups[0][0], names[0]))
        yield _group({name: told[name] for name in names}, apart, machines)


def _apart(tasks: Mapping[str, TaskRun], runs: Named, one: str, other: str) -> list[str]:
    """Why scores of two runs cannot be ranked: ``budget is 1,000 steps in a, 500 steps in b``."""
    asked = [conditions(tasks[name], runs[name]) for name in (one, other)]
    found = [f"{key} is {value} in {one}, {asked[1][key]} in {other}" for key, value in asked[0].items()
             if value != asked[1][key]]  # fmt: skip
    files = [{f["path"]: f.get("sha256") for f in runs[name].stored.get("data") or ()} for name in (one, other)]
    changed = sorted(path for path, digest in files[0].items() if files[1].get(path, digest) != digest)
    return [*found, *(f"the content of {path} is not the same in {one} and {other}" for path in changed)]


def conditions(task: TaskRun, run: Run) -> dict[str, str]:
    """What models are compared under, as texts: what was asked for, not what tuning chose."""
    trials, spec = task.trials, run.stored.get("spec") or {}
    first, training = trials[0], trials[0].training
    tuned = "; ".join(spec.get("tune") or ())
    rates = ", ".join(distinct(f"{trial.training.lr:g}" for trial in trials))
    settings = f"tuned ({tuned}; {spec.get('tune_samples') or 'all'} settings)"
    return {
        "task": task.name,
        "options": ", ".join(f"{key}={value}" for key, value in sorted(first.task_options.items())) or "none",
        "dataset": first.dataset,
        "score": task.score.name if task.score else "unknown",
        "parameters": f"{first.target_parameters:,}",
        "budget": _budget(task, spec),
        "batch": f"{training.batch}",
        "learning rate": settings if tuned else rates,
        "schedule": f"warm-up {training.warmup:g}, last rate {training.final_lr:g}, clip {training.clip:g}, "
                    f"{training.validations} validations",
    }  # fmt: skip


def _budget(task: TaskRun, spec: Mapping[str, Any]) -> str:
    """As asked for: FLOPs come to other steps for each model."""
    with suppress(SpecError):  # of another version: what it came to
        asked = None if spec.get("budget") is None else parse_budget(str(spec["budget"]))
        if asked is not None and asked.kind != "steps":
            return str(asked)
    return ", ".join(distinct(str(trial.training.budget) for trial in task.trials))


def _group(told: Mapping[str, TaskRun], apart: tuple[str, ...], machines: Mapping[str, str]) -> Group:
    tasks = list(told.values())
    first = next((task for task in tasks if task.score is not None), tasks[0])
    entries = [Entry(name, row, row.label) for name, task in told.items() for row in task.rows]
    several = len({entry.row.backend for entry in entries}) > 1
    often = [entry.key for entry in entries]
    entries = [_named(entry, several, often.count(entry.key) > 1) for entry in entries]
    score = first.score
    if score is not None:
        entries.sort(key=lambda entry: rank_key(entry.row, score))
    references = next((task.references for task in tasks if task.references), ())
    level = min(task.level for task in tasks)
    task = replace(first, rows=tuple(entry.row for entry in entries), references=references, level=level)
    same = len({machines[name] for name in told}) == 1
    return Group(task, tuple(entries), apart, tuple(_verdicts(task, entries)), same)


def _named(entry: Entry, several: bool, twice: bool) -> Entry:
    name = f"{entry.row.label} · {entry.row.backend}" if several else entry.row.label
    unique = f"{name} ({entry.run})" if twice else name
    return replace(entry, name=plain(name), row=replace(entry.row, name=plain(unique)))


def _verdicts(task: TaskRun, entries: Sequence[Entry]) -> list[Verdict]:
    """Each pair over the seeds that both planned: what the others have does not count."""
    pairs = [
        (a, b) for a, b in combinations(entries, 2) if a.row.backend == b.row.backend and a.row.label != b.row.label
    ]
    if task.score is None or not pairs:
        return []
    scores: dict[str, list[float | None]] = {}
    names: dict[str, str] = {}
    asked = []
    for number, (a, b) in enumerate(pairs):
        seeds = [seed for seed in a.scores if seed in b.scores]
        keys = f"{number} first", f"{number} second"
        for key, entry in zip(keys, (a, b), strict=True):
            names[key], scores[key] = entry.row.name, [entry.scores[seed] for seed in seeds]
        asked.append(keys)
    found = compare(scores, task.score, task.level, asked)
    return [replace(verdict, first=names[verdict.first], second=names[verdict.second]) for verdict in found]
