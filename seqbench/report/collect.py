"""A run's stored records, put together as tasks and rows: what every table and figure starts from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import combinations
from typing import Any, TypeVar

from seqbench.api import Metric, Reference
from seqbench.frame import look_up
from seqbench.garbage import collector_off
from seqbench.registry import Registry
from seqbench.report.speeds.stored import latencies, longest_of, stored_speeds
from seqbench.report.text import plain
from seqbench.rounds import level_of
from seqbench.spec import Trial, parse_seeds, trial_from_dict
from seqbench.stats import LEVEL, Interval, Share, finite, mean_interval, median
from seqbench.store import RunFolder
from seqbench.verdicts import Verdict, compare, solved_share

Record = Mapping[str, Any]
NOT_RUN = "not_run"
Card = TypeVar("Card", Metric, Reference)


@dataclass(frozen=True)
class Row:
    """A model on a backend on one task: all its seeds.

    Attributes:
        name: how tables and figures call it: the label, with the backend where a run has several.
        label: the model with what differs from its defaults; gives the colour.
        backend: backend name.
        trials: as planned.
        records: of those that have ended, in the plan's order.
        metric: the score; None where no record and no plugin tells.
        tuning: the records of the trials that chose its setting; none where nothing was tuned.
        latency: seconds at batch 1 by operation (``infer``, ``step``), as the run's speed phase measured them; none
            where there was none.
    """

    name: str
    label: str
    backend: str
    trials: tuple[Trial, ...]
    records: tuple[Record, ...]
    metric: Metric | None = None
    tuning: tuple[Record, ...] = ()
    latency: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def ok(self) -> tuple[Record, ...]:
        """The records of the trials that ended well: the only ones that enter a mean."""
        return tuple(r for r in self.records if r.get("status") == "ok")

    @property
    def failed(self) -> tuple[Record, ...]:
        """The other records."""
        return tuple(r for r in self.records if r.get("status") != "ok")

    def test(self, metric: str) -> Interval:
        """Mean and interval of a metric on the test set."""
        return mean_interval(look_up(r, "metrics", "test", metric) for r in self.ok)

    @cached_property
    def scores(self) -> Interval:
        """Mean and interval of the score; no interval where a seed has solved the task, since others may not have.

        Such scores are of two kinds, and Student's interval does not hold: at a probability of 0.7 it covers the mean
        of three seeds in 63 of 100 repetitions. ``solved`` is what can be said.
        """
        found = mean_interval(r.get("score") for r in self.ok)
        return replace(found, low=math.nan, high=math.nan) if self.solved and self.solved.hits else found

    @cached_property
    def solved(self) -> Share | None:
        """How many of the seeds solved the task; None where that is a matter of degree."""
        return None if self.metric is None else solved_share(self.points, self.metric)

    @property
    def steps_to_solve(self) -> float:
        """Median, over the seeds that solved the task, of the step of the first validation that said so."""
        return median(self._solved_at(record) for record in self.ok)

    def _solved_at(self, record: Record) -> float | None:
        metric, curve = self.metric, look_up(record, "curve", "valid") or {}
        if metric is None or not metric.solves(record.get("score", math.nan)):
            return None
        pairs = zip(curve.get("step") or (), curve.get(metric.name) or (), strict=False)
        return next((step for step, value in pairs if value is not None and metric.solves(value)), None)

    @property
    def by_seed(self) -> list[float | None]:
        """The score of each planned seed, None where there is none."""
        found = {_id(record): record.get("score") for record in self.ok}
        return [found.get(trial.id) for trial in self.trials]

    @property
    def points(self) -> list[float]:
        """The score of each seed that has one."""
        return finite(r.get("score") for r in self.ok)

    def median(self, *keys: str) -> float:
        """Median over the seeds of a number in the records."""
        return median(look_up(r, *keys) for r in self.ok)

    def count(self, part: str, planned: int) -> float:
        """Parameters as counted in a trial, before any has run as planned; nan if none were planned either."""
        counted = median(look_up(r, "parameters", part) for r in self.records)
        return float(planned or "nan") if math.isnan(counted) else counted

    @property
    def parameters(self) -> float:
        """Trainable parameters of the whole network."""
        return self.count("network", self.trials[0].parameters)

    @property
    def core_parameters(self) -> float:
        """Of which the core's."""
        return self.count("core", self.trials[0].core_parameters)

    @property
    def parameters_error(self) -> float:
        """Relative difference to the parameter budget."""
        target = self.trials[0].target_parameters
        return self.parameters / target - 1 if target else float("nan")

    @property
    def status(self) -> str:
        """``ok``, ``2 of 3 ok``, ``2 of 3 run``, ``not run``, or the way all of them ended, ``diverged``."""
        planned, run, ok = len(self.trials), len(self.records), len(self.ok)
        if run == 0:
            return "not run"
        if ok == planned:
            return "ok"
        if ok or run < planned:
            return f"{ok} of {planned} ok" if self.failed else f"{run} of {planned} run"
        return " / ".join(dict.fromkeys(str(r.get("status")) for r in self.failed))

    @property
    def cause(self) -> str:
        """Why trials of this row failed; empty where none did."""
        return "; ".join(dict.fromkeys(plain(r.get("cause") or "no cause known") for r in self.failed))


@dataclass(frozen=True)
class TaskRun:
    """All rows of one task with its options and dataset, best score first, rows without one last.

    Attributes:
        label: ``"copy[T=100]/embedded"``.
        name: the task's name.
        metrics: of the task, the score first.
        select: name of the metric whose validation value chose the checkpoint.
        references: trivial baseline, optimum and others.
        rows: of its models.
        level: of its verdicts, all pairs together: lower where seeds came in rounds, each of which was looked at.
        speed: the newest speed phase of its networks, as ``speed.json`` holds it; None where there was none.
        judged: verdicts on its rows from elsewhere, where the rows are not of one run and seeds are not common to all.
    """

    label: str
    name: str
    metrics: tuple[Metric, ...]
    select: str
    references: tuple[Reference, ...]
    rows: tuple[Row, ...]
    level: float = LEVEL
    speed: Mapping[str, Any] | None = None
    judged: tuple[Verdict, ...] | None = None

    @property
    def looks(self) -> int:
        """How often verdicts may be looked at, at growing numbers of seeds: what ``level`` allows for."""
        return round(LEVEL / self.level)

    @property
    def score(self) -> Metric | None:
        """The metric by which models are compared; None where no trial ended well and the plugin is not there."""
        return self.metrics[0] if self.metrics else None

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """Of all pairs of models on the same backend, surest first."""
        if self.judged is not None:
            return self.judged
        pairs = [(a.name, b.name) for a, b in combinations(self.rows, 2) if a.backend == b.backend]
        if self.score is None or not pairs:
            return ()
        return tuple(compare({row.name: row.by_seed for row in self.rows}, self.score, self.level, pairs))

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """The best and the worst place that the verdicts leave to each row with a score, among those of its backend.

        A row is behind those that were found better and before those that were found worse; nothing else is known.
        """
        better = [(v.first, v.second) for v in self.verdicts if v.differ]
        found = {}
        for row in (row for row in self.rows if row.scores.n):
            rivals = {other.name for other in self.rows if other.scores.n and other.backend == row.backend}
            above = sum(second == row.name and first in rivals for first, second in better)
            below = sum(first == row.name and second in rivals for first, second in better)
            found[row.name] = (1 + above, len(rivals) - below)
        return found

    def metric(self, name: str) -> Metric | None:
        """The metric of that name."""
        return next((m for m in self.metrics if m.name == name), None)

    @property
    def has_latency(self) -> bool:
        """Whether a speed phase has measured inference."""
        return any("infer" in row.latency for row in self.rows)

    @property
    def trials(self) -> list[Trial]:
        """Of all rows."""
        return [trial for row in self.rows for trial in row.trials]


@dataclass(frozen=True)
class Run:
    """Everything that a report says.

    Attributes:
        tasks: in the plan's order.
        records: of all trials that have ended, in the plan's order.
        planned: all trials.
        labels: models in the plan's order; a model's place gives its colour.
        backends: in the plan's order; a backend's place gives its line style.
        stored: ``run.json``.
    """

    tasks: tuple[TaskRun, ...]
    records: tuple[Record, ...]
    planned: tuple[Trial, ...]
    labels: tuple[str, ...]
    backends: tuple[str, ...]
    stored: Mapping[str, Any] = field(default_factory=dict)

    @property
    def all_ok(self) -> bool:
        """Every planned trial has run, and all that give a score ended well: a setting that does not is a finding."""
        scores = [record for record in self.records if look_up(record, "trial", "purpose") != "tuning"]
        return len(self.records) == len(self.planned) and all(r.get("status") == "ok" for r in scores)


def read_run(folder: RunFolder, registry: Registry | None = None) -> Run:
    """The run in a folder, whatever of it is there already."""
    with collector_off():
        trials = folder.trials()
        run = collect(trials, folder.records(trials), registry, folder.run())
    speeds = stored_speeds(folder.path)
    return replace(run, tasks=tuple(_with_speed(task, speeds.get(task.label)) for task in run.tasks))


def _with_speed(task: TaskRun, speed: Mapping[str, Any] | None) -> TaskRun:
    if speed is None:
        return task
    forms = (record["form"] for row in task.rows for record in row.ok if record.get("form"))
    trained = next(map(longest_of, forms), None)
    rows = (replace(row, latency=latencies(speed, row.label, row.backend, trained)) for row in task.rows)
    return replace(task, speed=speed, rows=tuple(rows))


def collect(
    trials: Iterable[Trial],
    records: Iterable[Record],
    registry: Registry | None = None,
    stored: Mapping[str, Any] | None = None,
) -> Run:
    """Put planned trials and records together.

    Args:
        trials: all that were planned.
        records: of those that have ended.
        registry: tells of a task's metrics where no record does.
        stored: ``run.json``.
    """
    planned, ended = tuple(trials), tuple(records)
    by_task: dict[str, list[Trial]] = {}
    for trial in planned:
        by_task.setdefault(trial.task_label, []).append(trial)
    backends = tuple(dict.fromkeys(t.backend for t in planned))
    several, level = len(backends) > 1, _level((stored or {}).get("spec") or {})
    by_id = {_id(r): r for r in ended}
    return Run(
        tasks=tuple(replace(_task(group, by_id, registry, several), level=level) for group in by_task.values()),
        records=ended,
        planned=planned,
        labels=tuple(dict.fromkeys(t.label for t in planned)),
        backends=backends,
        stored=stored or {},
    )


def _level(spec: Mapping[str, Any]) -> float:
    """Of the verdicts, by the rule that was fixed when the run began."""
    most = spec.get("until_decided") or 0
    return level_of(len(parse_seeds(spec["seeds"])), most) if most else LEVEL


def _id(record: Record) -> str:
    return str(record.get("id") or trial_from_dict(record["trial"]).id)


def _task(trials: Sequence[Trial], by_id: Mapping[str, Record], registry: Registry | None, several: bool) -> TaskRun:
    records = [by_id[t.id] for t in trials if t.id in by_id]
    name = trials[0].task
    metrics, select = _metrics(name, records, registry)
    rows = _rows(trials, by_id, several, metrics[0] if metrics else None)
    if metrics:
        rows.sort(key=lambda row: rank_key(row, metrics[0]))
    references: list[Any] = next((r["references"] for r in records if r.get("references")), [])
    found = tuple(_rebuild(Reference, given) for given in references)
    return TaskRun(trials[0].task_label, name, metrics, select, found, tuple(rows))


def _rows(trials: Sequence[Trial], by_id: Mapping[str, Record], several: bool, metric: Metric | None) -> list[Row]:
    groups: dict[tuple[str, str], dict[str, list[Trial]]] = {}
    for trial in trials:
        groups.setdefault((trial.label, trial.backend), {"score": [], "tuning": []})[trial.purpose].append(trial)
    return [
        Row(
            name=plain(f"{label} · {backend}" if several else label),
            label=label,
            backend=backend,
            trials=tuple(group["score"]),
            records=tuple(by_id[t.id] for t in group["score"] if t.id in by_id),
            metric=metric,
            tuning=tuple(by_id[t.id] for t in group["tuning"] if t.id in by_id),
        )
        for (label, backend), group in groups.items()
    ]


def rank_key(row: Row, score: Metric) -> tuple[bool, float]:
    """Sorts rows: best score first, rows without one last."""
    mean = row.scores.mean
    missing = row.scores.n == 0
    return missing, 0.0 if missing else (mean if score.lower_is_better else -mean)


def _metrics(task: str, records: Sequence[Record], registry: Registry | None) -> tuple[tuple[Metric, ...], str]:
    """From a record that tells; else from the task's card, if its plugin is installed."""
    told = next((r["task"] for r in records if look_up(r, "task", "metrics")), None)
    if told is not None:
        metrics = tuple(_rebuild(Metric, given) for given in told["metrics"])
        ordered = sorted(metrics, key=lambda m: m.name != told.get("score"))
        return tuple(ordered), str(told.get("select"))
    card = registry.tasks.get(task) if registry else None
    return (card.metrics, card.select) if card else ((), "")


def _rebuild(card: type[Card], given: Mapping[str, Any]) -> Card:
    """A card from its stored form; keys that this version does not know are left out."""
    known = {f.name for f in fields(card)}
    return card(**{k: v for k, v in given.items() if k in known})
