"""The models of several runs side by side: on which tasks, under which conditions, and what may be ranked.

Scores are ranked where everything but the model is the same, for a budget in seconds the hardware too. Speeds only on
the same hardware. Nothing is pooled: the same model in two runs is two rows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from seqbench.api import Metric
from seqbench.axes import TUNABLE
from seqbench.errors import SpecError
from seqbench.quantities import Budget, parse_budget
from seqbench.report.collect import Row, Run, TaskRun, rank_key
from seqbench.report.compare import hardware_differs
from seqbench.report.text import distinct, plain, short
from seqbench.spec import Trial
from seqbench.verdicts import Verdict, compare

Named = Mapping[str, Run]
"""Runs by the name that tables give them."""

LONGEST = 120
"""Characters of a condition that a reader sees: a search may have tried a thousand settings."""

_OWN_DROPOUT = re.compile(r"[\[,]dropout=")


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
            Its verdicts are of the pairs of different models on the same backend, over the seeds that both have.
        entries: the same rows, in that order.
        apart_from: a run in the first group of the task that this one cannot be ranked with; "" in the first.
        apart: what is not as in that run; none in the first.
        ranked_speeds: all were made on the same hardware.
    """

    task: TaskRun
    entries: tuple[Entry, ...]
    apart_from: str
    apart: tuple[str, ...]
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
    asked = {name: conditions(task, runs[name], machines[name]) for name, task in told.items()}
    groups: list[list[str]] = []
    for name in told:
        alike = (group for group in groups if not any(_apart(asked, runs, other, name) for other in group))
        group = next(alike, None)
        if group is None:
            groups.append([name])
        else:
            group.append(name)
    for names in groups:
        # what one run does not tell, another of the first group does
        against = ((other, _apart(asked, runs, other, names[0])) for other in groups[0])
        apart_from, apart = next(((other, why) for other, why in against if why), ("", []))
        yield _group({name: told[name] for name in names}, apart_from, tuple(apart), machines)


def _apart(asked: Mapping[str, Mapping[str, str]], runs: Named, one: str, other: str) -> list[str]:
    """Why scores of two runs cannot be ranked: ``budget is 1,000 steps in a, 500 steps in b``."""
    both = [(key, value, asked[other][key]) for key, value in asked[one].items() if key in asked[other]]
    found = [
        f"{key} is {short(first, LONGEST)} in {one}, {short(second, LONGEST)} in {other}"
        for key, first, second in both
        if first != second
    ]
    files = [{f["path"]: f.get("sha256") for f in runs[name].stored.get("data") or ()} for name in (one, other)]
    changed = sorted(path for path, digest in files[0].items() if files[1].get(path, digest) != digest)
    return [*found, *(f"the content of {path} is not the same in {one} and {other}" for path in changed)]


def conditions(task: TaskRun, run: Run, machine: str) -> dict[str, str]:
    """What models are compared under, as texts; what tuning chose, or a model sets for itself, is no condition.

    Args:
        task: of the run.
        run: told what was tried.
        machine: a run on the same hardware.
    """
    first, training = task.trials[0], task.trials[0].training
    tried = [trial for trial in run.planned if trial.purpose == "tuning" and trial.task_label == task.label]
    return {
        "task": task.name,
        "options": ", ".join(f"{key}={value}" for key, value in sorted(first.task_options.items())) or "none",
        "dataset": first.dataset,
        "score": task.score.name if task.score else "unknown",
        "parameters": f"{first.target_parameters:,}",
        "budget": _budget(task, run.stored.get("spec") or {}, machine),
        "batch": f"{training.batch}",
        "tuning": _tuning(tried),
        **_untuned(task.trials, {name for trial in tried for name in trial.setting}),
        "schedule": f"warm-up {training.warmup:g}, last rate {training.final_lr:g}, clip {training.clip:g}, "
                    f"{training.validations} validations",
    }  # fmt: skip


def _tuning(tried: Sequence[Trial]) -> str:
    """``2 settings of dropout/lr: 0/0.001, 0.1/0.001``: the values themselves, since ``--tune lr`` hangs on a rate.

    Options that a model tuned are its own affair: that all tried as many settings is the condition.
    """
    if not tried:
        return "none"
    count = max(Counter(trial.row_key for trial in tried).values())
    said = f"{count} setting{'s' * (count > 1)}"
    names = sorted(TUNABLE.keys() & tried[0].setting.keys())
    settings = sorted({tuple(trial.setting[name] for name in names) for trial in tried})
    values = ", ".join("/".join(map(_digits, setting)) for setting in settings)
    shared = f" of {'/'.join(names)}: {values}" * bool(names)
    return said + shared + ", with options of its own" * any(trial.setting.keys() - TUNABLE.keys() for trial in tried)


def _untuned(trials: Sequence[Trial], tuned: Iterable[str]) -> dict[str, str]:
    """The hyper-parameters that all models shared; of dropout what those have that set none themselves."""
    values = {
        "lr": ("learning rate", {trial.training.lr for trial in trials}),
        "weight_decay": ("weight decay", {trial.training.weight_decay for trial in trials}),
        "dropout": ("dropout", {trial.dropout for trial in trials if not _OWN_DROPOUT.search(trial.label)}),
    }
    kept = (said for name, said in values.items() if name not in tuned)
    return {name: ", ".join(map(_digits, sorted(found))) for name, found in kept if found}


def _digits(value: Any) -> str:
    """All that somebody typed: two rates that differ are two texts."""
    return f"{value:.12g}" if isinstance(value, float) else str(value)


def _budget(task: TaskRun, spec: Mapping[str, Any], machine: str) -> str:
    """As asked for: FLOPs come to other steps for each model, and seconds on each machine."""
    planned = {trial.training.budget for trial in task.trials}
    said = ", ".join(map(str, sorted(planned, key=lambda budget: (budget.kind, budget.amount))))
    if any(budget.kind == "seconds" for budget in planned):
        return f"{said} on the hardware of {machine}"
    asked = _asked(spec)
    if asked is None or asked.kind == "steps":
        return said
    # a replay has its steps from a run whose hardware is not told here
    return f"{said} ({asked} of an earlier run)" if asked.kind == "seconds" else str(asked)


def _asked(spec: Mapping[str, Any]) -> Budget | None:
    """None where nothing was asked for, or in words of another version."""
    with suppress(SpecError):
        return None if spec.get("budget") is None else parse_budget(str(spec["budget"]))
    return None


def _group(told: Mapping[str, TaskRun], apart_from: str, apart: tuple[str, ...], machines: Mapping[str, str]) -> Group:
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
    judged = () if score is None else tuple(_verdicts(score, level, entries))
    rows = tuple(entry.row for entry in entries)
    task = replace(first, rows=rows, references=references, level=level, judged=judged)
    same = len({machines[name] for name in told}) == 1
    return Group(task, tuple(entries), apart_from, apart, same)


def _named(entry: Entry, several: bool, twice: bool) -> Entry:
    name = f"{entry.row.label} · {entry.row.backend}" if several else entry.row.label
    unique = f"{name} ({entry.run})" if twice else name
    return replace(entry, name=plain(name), row=replace(entry.row, name=plain(unique)))


def rivals(entries: Sequence[Entry]) -> list[tuple[Entry, Entry]]:
    """The pairs that verdicts are of: different models on the same backend."""
    return [
        (a, b) for a, b in combinations(entries, 2) if a.row.backend == b.row.backend and a.row.label != b.row.label
    ]


def _verdicts(score: Metric, level: float, entries: Sequence[Entry]) -> list[Verdict]:
    """Each pair over the seeds that both planned: what the others have does not count."""
    scores: dict[str, list[float | None]] = {}
    names: dict[str, str] = {}
    asked = []
    for number, (a, b) in enumerate(rivals(entries)):
        seeds = [seed for seed in a.scores if seed in b.scores]
        keys = f"{number} first", f"{number} second"
        for key, entry in zip(keys, (a, b), strict=True):
            names[key], scores[key] = entry.row.name, [entry.scores[seed] for seed in seeds]
        asked.append(keys)
    found = compare(scores, score, level, asked) if asked else []
    return [replace(verdict, first=names[verdict.first], second=names[verdict.second]) for verdict in found]
