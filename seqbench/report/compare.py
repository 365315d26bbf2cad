"""Two runs of the same models and tasks: what has changed, by how much, and whether it may be chance.

Scores are compared seed by seed, as models are within a run. Speeds only where both were made on the same hardware.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from seqbench.api import Metric
from seqbench.report.collect import Row, Run, TaskRun
from seqbench.report.text import number
from seqbench.stats import LEVEL, holm, mean_interval
from seqbench.verdicts import Verdict, compare

HARDWARE = ("cpu", "cores", "architecture", "cpu_capability", "gpu")
"""What of the environment must be the same for speeds to be compared."""

NOT_ASKED = ("out", "jobs", "timeout", "data_dir", "steps", "plugin", "events", "executor")
"""Of a spec: what changes no number, or is told apart by content."""

SOFTWARE = ("commit", "torch", "python", "system", "cuda", "cudnn", "precision")
"""What of the environment is named besides packages and plugins."""

Key = tuple[str, str, str]
"""Task, model and backend as tables name them."""


@dataclass(frozen=True)
class Change:
    """A row of the one run and the same row of the other.

    Attributes:
        key: task, model and backend.
        metric: the score; None where neither run knows one.
        before: of the first run; None where it has no such row.
        after: of the other run; None likewise.
        verdict: of ``before`` and ``after`` over the seeds that both have, corrected for all rows; None with fewer
            than two such seeds.
        same_hardware: speeds may be compared.
    """

    key: Key
    metric: Metric | None
    before: Row | None
    after: Row | None
    verdict: Verdict | None
    same_hardware: bool

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """Both scores of each seed that has two."""
        return [(a, b) for a, b in _paired(self.before, self.after).values() if a is not None and b is not None]

    @property
    def difference(self) -> float:
        """Of the mean scores over the seeds that both have, ``after - before``; nan where there is none."""
        return mean_interval(b - a for a, b in self.pairs).mean

    @property
    def base(self) -> float:
        """The size of the mean score before, over the seeds that both have; nan where there is none."""
        return abs(mean_interval(a for a, _ in self.pairs).mean)

    @property
    def share(self) -> float:
        """The difference as a share of ``base``; nan where that is 0 or unknown."""
        return self.difference / self.base if self.base else math.nan

    @property
    def half_width(self) -> float:
        """Of its interval, at the level of this row among all; nan where there is none."""
        return math.nan if self.verdict is None else self.verdict.half_width

    @property
    def speedup(self) -> float:
        """``after / before`` of the tokens trained on per second; nan where the hardware is not the same."""
        if not self.same_hardware or self.before is None or self.after is None:
            return math.nan
        speeds = [row.median("speed", "train_tokens_per_s") for row in (self.before, self.after)]
        return speeds[1] / speeds[0]

    def regression(self, share: float) -> str:
        """What is worse by more than a share of what it was, and no chance; "" if nothing is.

        Seeds that have lost their score, and a row of which nothing can be compared, are regressions too: a gate must
        not let through what it has not seen. With one seed in common there is no test: any loss counts.
        """
        if self.metric is None or self.before is None or not self.before.points:
            return ""
        if self.after is None:
            return "the row is gone"
        lost = [seed for seed, (a, b) in _paired(self.before, self.after).items() if a is not None and b is None]
        if lost:
            return f"no score any more of seed {', '.join(map(str, lost))} ({self.after.status})"
        if not self.pairs:
            return "no seed in common: nothing can be compared"
        loss = self.difference if self.metric.lower_is_better else -self.difference
        real = self.verdict is None or self.verdict.differ
        return f"worse by {number(loss)}, of {number(self.base)}" if real and loss > share * self.base else ""


def changes(before: Run, after: Run) -> list[Change]:
    """Every row of either run, in the order of the first; what only the other has comes last."""
    rows = [_rows(run) for run in (before, after)]
    same = not hardware_differs(before, after)
    found = []
    for key in {**rows[0], **rows[1]}:
        (task, first), (other, second) = rows[0].get(key, (None, None)), rows[1].get(key, (None, None))
        metric = next((t.score for t in (task, other) if t is not None and t.score is not None), None)
        found.append(Change(key, metric, first, second, _verdict(first, second, metric), same))
    return _corrected(found)


def _rows(run: Run) -> dict[Key, tuple[TaskRun, Row]]:
    return {(task.label, row.label, row.backend): (task, row) for task in run.tasks for row in task.rows}


def _paired(before: Row | None, after: Row | None) -> dict[int, tuple[float | None, float | None]]:
    """Seed to both scores, of the seeds that both rows planned."""
    if before is None or after is None:
        return {}
    first, second = (
        dict(zip((trial.seed for trial in row.trials), row.by_seed, strict=True)) for row in (before, after)
    )
    return {seed: (first[seed], second[seed]) for seed in first if seed in second}


def _verdict(before: Row | None, after: Row | None, metric: Metric | None) -> Verdict | None:
    pairs = _paired(before, after).values()
    if metric is None or not pairs:
        return None
    scores = {"before": [a for a, _ in pairs], "after": [b for _, b in pairs]}
    return next(iter(compare(scores, metric)), None)


def _corrected(found: list[Change]) -> list[Change]:
    """With the verdicts corrected for the number of rows (Holm)."""
    tested = [(change, change.verdict) for change in found if change.verdict is not None]
    by_key = {
        change.key: replace(verdict, p=one.p, level=one.level, differ=one.p <= LEVEL)
        for (change, verdict), one in zip(tested, holm([verdict.p for _, verdict in tested]), strict=True)
    }
    return [replace(change, verdict=by_key.get(change.key)) for change in found]


def hardware_differs(before: Run, after: Run) -> list[str]:
    """What makes speeds incomparable, each as ``cpu was X, is Y``; threads and jobs too."""
    machine = machines_differ(*(run.stored.get("environment") or {} for run in (before, after)))
    load = [{key: (run.stored.get("spec") or {}).get(key) for key in ("threads", "jobs")} for run in (before, after)]
    return [*machine, *differing(*load)]


def machines_differ(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What hardware two environments have not in common, each as ``cpu was X, is Y``."""
    return list(differing(*({key: environment.get(key) for key in HARDWARE} for environment in (before, after))))


def specs_differ(before: Run, after: Run) -> list[str]:
    """What was asked for differently and can change a number."""
    asked = [run.stored.get("spec") or {} for run in (before, after)]
    kept = [{key: value for key, value in spec.items() if key not in NOT_ASKED} for spec in asked]
    return list(differing(*kept))


def versions_differ(before: Run, after: Run) -> list[str]:
    """Versions, the commit and plugins, where they are not the same."""
    return list(differing(*map(_software, (before, after))))


def _software(run: Run) -> dict[str, Any]:
    environment = run.stored.get("environment") or {}
    told = {key: environment.get(key) for key in SOFTWARE} | dict(environment.get("packages") or {})
    files = {Path(path).name: digest[:12] for trial in run.planned for path, digest in trial.plugins.items()}
    return told | dict(environment.get("plugins") or {}) | files


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """``lr was 0.003, is 0.01``."""
    for key in {**before, **after}:
        if before.get(key) != after.get(key):
            yield f"{key} was {_said(before.get(key))}, is {_said(after.get(key))}"


def _said(value: Any) -> str:
    if value is None or value in ((), [], ""):
        return "not given"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
