"""Recorded trials trained again, and compared: are the numbers of a run what its spec gives?

First comes what needs no training (``seqbench.integrity``). Then each trial runs again as it ran before, in a folder of
its own that is thrown away, and its record is compared with the stored one. Nothing is written into the run's folder.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench import integrity, registry
from seqbench.executors.local import Silent, run_local
from seqbench.pipeline import ask_torch, environment_of, jobs_for, limits_of
from seqbench.spec import RunSpec, Trial, spec_from_mapping
from seqbench.stats import mean_interval
from seqbench.store import RunFolder, is_as_written, strict

if TYPE_CHECKING:
    from seqbench.registry import Registry

BIT_EQUAL, WITHIN, DIFFERENT = "bit-equal", "within the interval", "different"
INTACT, ALTERED, MISSING, NOT_REPLAYED = "intact", "altered", "missing", "not replayed"
NOTHING = "nothing to compare"
GOOD = {BIT_EQUAL, WITHIN, INTACT, NOTHING}

BY_CHANCE = {"timeout", "out_of_memory", "killed"}
"""Ends that hang on the clock and on what else the machine did: such a trial has no number, and may end well now."""

VOLATILE = {"speed", "memory", "log_tail", "checksum", "sha256", "events"}
"""Fields of a record that are clocks, gauges, about the other fields, or about listeners (a replay has none)."""

EXACT = {"status", "task", "form", "parameters", "forward_flops_per_token", "steps"}
"""Fields that follow from the plan: in another environment they are the same."""

CAUSES = (
    "commit", "system", "cpu", "cpu_capability", "architecture", "gpu", "cuda", "cudnn", "precision", "python",
    "plugins", "torch", "packages.seqbench", "packages.numba", "packages.llvmlite", "packages.numpy",
)  # fmt: skip
"""What of the environment can change a number."""


@dataclass(frozen=True)
class Finding:
    """What verifying says of a trial.

    Attributes:
        name: its id, or the file that is meant.
        verdict: ``bit-equal``, ``within the interval``, ``different``; without a replay ``intact`` (nothing seems
            to have been touched), ``altered`` (a file is not what the run wrote), ``missing`` (no record), ``not
            replayed`` (its data or plugins are not what they were), ``nothing to compare`` (time or memory ended it).
        why: what differs and why it may; "" if there is nothing to say.
    """

    name: str
    verdict: str
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether the recorded numbers stand."""
        return self.verdict in GOOD

    def __str__(self) -> str:
        return f"{self.name}: {self.verdict}" + (f": {self.why}" if self.why else "")


Tell = Callable[[Finding], None]


@dataclass(frozen=True)
class Request:
    """What to verify.

    Attributes:
        name: a trial's id, the beginning of one, or a label; None: all trials of the run.
        replay: train again; else only look at the files.
        jobs: trials that run at a time; None: as many as in the run.
        data_dir: where the data files lie now; None: where they lay then.
    """

    name: str | None = None
    replay: bool = True
    jobs: int | None = None
    data_dir: str | None = None


def verify(folder: RunFolder, request: Request, tell: Tell) -> bool:
    """Verify recorded trials; whether all of them stand.

    Args:
        folder: of the run; it is only read.
        request: which, and how.
        tell: gets each finding as soon as it is made.

    Raises:
        UsageError: no trial or several have that name, or the device of the run is not here.
    """
    findings: list[Finding] = []

    def note(finding: Finding) -> None:
        findings.append(finding)
        tell(finding)

    trials = folder.trials() if request.name is None else [folder.find(request.name)]
    if request.data_dir is not None:
        trials = [replace(trial, data_dir=str(Path(request.data_dir).resolve())) for trial in trials]
    faults = {fault.name: fault for fault in _faults(folder, trials, request)}
    for fault in faults.values():
        note(fault)
    sound = [trial for trial in trials if trial.id not in faults]
    if request.replay and sound:
        _replay(folder, sound, request.jobs, note)
    elif not request.replay:
        for trial in sound:
            note(Finding(trial.id, INTACT))
    return all(finding.good for finding in findings)


def summary(findings: Iterable[Finding]) -> str:
    """``6 trials: 5 bit-equal, 1 altered``."""
    counts = Counter(finding.verdict for finding in findings)
    total = sum(counts.values())
    return f"{total} checked: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}"


# --- before a replay --------------------------------------------------------------------------------


def _faults(folder: RunFolder, trials: Sequence[Trial], request: Request) -> Iterator[Finding]:
    """Whatever stands in the way of believing or replaying a trial."""
    stored = folder.run()
    if not is_as_written(stored):
        yield Finding("run.json", ALTERED, integrity.why_not_as_written(stored))
    if request.name is None:
        for name in integrity.unplanned(folder):
            yield Finding(name, ALTERED, "run.json plans no such trial: it was edited, or the record is from elsewhere")
    plugins = integrity.plugin_faults(trials[0].plugins)
    cards = registry.load([path for path in trials[0].plugins if not plugins])
    for trial in trials:
        if trial.id not in folder.recorded():
            yield Finding(trial.id, MISSING, f"no record; finish the run with: seqbench run --resume {folder.path}")
        elif fault := integrity.record_fault(folder, trial):
            yield Finding(trial.id, ALTERED, fault)
        elif changed := plugins or integrity.data_faults(stored.get("data", ()), trial, cards, trial.data_dir):
            yield Finding(trial.id, NOT_REPLAYED, "; ".join(changed))
        elif request.replay and (status := (folder.record(trial.id) or {}).get("status")) in BY_CHANCE:
            yield Finding(trial.id, NOTHING, f"it ended as {status}, so it has no numbers")


# --- the replay -------------------------------------------------------------------------------------


def _replay(folder: RunFolder, trials: Sequence[Trial], jobs: int | None, note: Tell) -> None:
    """Train the trials again and compare; each finding is told when its trial ends."""
    stored = folder.run()
    spec = spec_from_mapping(stored["spec"], str(folder.path))
    judge = _Judge(folder, _causes(folder, spec, registry.load(list(trials[0].plugins))), note)
    with tempfile.TemporaryDirectory(prefix="seqbench-verify-") as scratch:
        again = RunFolder(Path(scratch))
        for trial in trials:
            _keep_steps(folder, again, trial)
        trials = [replace(trial, events=()) for trial in trials]  # they change no number, and may not be here
        run_local(trials, again, jobs or jobs_for(spec, trials[0].device), limits_of(spec), judge.reading(again))


def _keep_steps(folder: RunFolder, again: RunFolder, trial: Trial) -> None:
    """What a budget in seconds came to then it comes to now."""
    steps = folder.steps(trial.row_id) or (folder.record(trial.id) or {}).get("steps")
    if trial.training.budget.kind == "seconds" and isinstance(steps, int) and steps > 0:
        again.agree_on_steps(trial.row_id, steps)


def _causes(folder: RunFolder, spec: RunSpec, cards: Registry) -> list[str]:
    """What is not as it was when the run was made, of all that can change a number."""
    stored = folder.run()
    now = _flat(environment_of(folder.trials(), ask_torch((), spec).torch or {}, cards))
    before = _flat(stored.get("environment") or {})
    found = [
        f"{key} was {before.get(key, 'not recorded')}, is {now.get(key, 'not here')}"
        for key in sorted({*before, *now})
        if key.startswith(CAUSES) and before.get(key) != now.get(key)
    ]
    return found + ["the run was resumed in another environment"] * bool(stored.get("resumed"))


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables and lists as one table: ``curve.train.loss.3``."""
    if isinstance(values, Mapping):
        pairs: Iterable[tuple[Any, Any]] = values.items()
    elif isinstance(values, list):
        pairs = enumerate(values)
    else:
        return {prefix: values}
    flat: dict[str, Any] = {}
    for key, value in pairs:
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


class _Judge(Silent):
    """Compares each trial that has run again with its stored record."""

    def __init__(self, folder: RunFolder, causes: Sequence[str], note: Tell) -> None:
        self._folder, self._causes, self._note = folder, causes, note
        self._again = folder

    def reading(self, again: RunFolder) -> _Judge:
        """With the folder that the replays are written into."""
        self._again = again
        return self

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        """Compare, and tell."""
        stored = self._folder.record(trial.id) or {}
        different = differences(stored, record) + self._arrays(trial)
        if not different:
            self._note(Finding(trial.id, BIT_EQUAL))
            return
        causes = self._causes or ["CUDA kernels that are not deterministic"] * (trial.device == "cuda")
        near = causes and not {_field(name) for name, _, _ in different} & EXACT and self._within(trial, stored, record)
        self._note(Finding(trial.id, WITHIN if near else DIFFERENT, f"{said(different)}; {_because(causes)}"))

    def _arrays(self, trial: Trial) -> list[tuple[str, Any, Any]]:
        """The weights, if they were kept, and the task's arrays that are not the same bytes."""
        before, now = (
            {name: (str(array.dtype), array.shape, array.tobytes()) for name, array in folder.arrays(trial.id).items()}
            for folder in (self._folder, self._again)
        )
        if not any(name.startswith("weights/") for name in before):
            now = {name: array for name, array in now.items() if not name.startswith("weights/")}
        return [(name, None, None) for name in sorted({*before, *now}) if before.get(name) != now.get(name)]

    def _within(self, trial: Trial, stored: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
        """Whether the score is the recorded one, or lies where one more seed of the row would."""
        score = record.get("score")
        if score is None or score == stored.get("score"):
            return score is not None
        row = [t.id for t in self._folder.trials() if t.row_id == trial.row_id]
        records = [found for id_ in row if (found := self._folder.record(id_)) is not None]
        scores = mean_interval(r.get("score") for r in records if r["status"] == "ok")
        return bool(abs(score - scores.mean) <= scores.reach)


def differences(stored: Mapping[str, Any], again: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Name, stored value and new value of all that two records of a trial do not share; the score first."""
    before, now = (_flat(strict(_comparable(record))) for record in (stored, again))
    names = [name for name in {**before, **now} if _of(before, name) != _of(now, name)]
    names.sort(key=lambda name: (not name.startswith("score"), not name.startswith("metrics.test"), name))
    return [(name, before.get(name), now.get(name)) for name in names]


def _of(values: Mapping[str, Any], name: str) -> tuple[str, Any]:
    """With its type: 1 and 1.0 are not the same record."""
    value = values.get(name)
    return type(value).__name__, value


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what may differ between two runs of the same trial."""
    kept = {key: value for key, value in record.items() if key not in VOLATILE}
    kept["trial"] = {k: value for k, value in record.get("trial", {}).items() if k not in {"data_dir", "events"}}
    kept["curve"] = {
        part: {key: value for key, value in columns.items() if key != "seconds"}
        for part, columns in record.get("curve", {}).items()
    }
    return kept


def _field(name: str) -> str:
    return name.partition(".")[0]


def said(different: Sequence[tuple[str, Any, Any]]) -> str:
    """``score was 24.7, is 21.5 in the replay; 41 more differ (metrics, curve, weights)``."""
    (name, before, now), *others = different
    first = f"{name} differs" if before is now is None else f"{name} was {before}, is {now} in the replay"
    if not others:
        return first
    fields = dict.fromkeys(_field(other).partition("/")[0] for other, _, _ in others)
    return f"{first}; {len(others)} more differ ({', '.join(fields)})"


def _because(causes: Sequence[str]) -> str:
    if causes:
        return f"it may be because {', '.join(causes)}"
    return (
        "nothing that is recorded of machine and versions has changed: the record was edited together with its "
        "checksum, or the training is not deterministic, or seqbench's code was edited"
    )
