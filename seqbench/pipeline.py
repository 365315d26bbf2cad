"""From a spec to results: check, size, run, report. What the command line and ``seqbench.run`` share."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from seqbench import __version__, data, registry
from seqbench.apart import sizes_of
from seqbench.api import Observer
from seqbench.errors import SeqbenchError, UsageError
from seqbench.executors.chosen import chosen
from seqbench.executors.local import Silent
from seqbench.executors.supervise import tail
from seqbench.plan import Answer, Row, rows_of, trials_of, warnings_of, with_known_steps
from seqbench.process import Limits, run_in_child
from seqbench.registry import Registry
from seqbench.report.collect import read_run
from seqbench.results import Results
from seqbench.rounds import next_look
from seqbench.spec import RunSpec, Trial, parse_seeds, spec_from_mapping, spec_to_toml, trial_to_dict
from seqbench.store import RunFolder, write_text
from seqbench.tuning import key_of, settled, tries_of, tuning_trials

Say = Callable[[str], None]
Watch = Callable[[Sequence[Trial], RunFolder], Observer]
"""Makes the observer of a run, once its folder is there."""


def _silent(_trials: Sequence[Trial], _folder: RunFolder) -> Observer:
    return Silent()


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Attributes:
        spec: what was asked for, paths made absolute.
        trials: those that tune come first, the others get their settings from them; they start task by task.
        warnings: what a reader should know first.
        torch: version and device, as the sizing process found them.
        files: path, URL and sha256 of each data file that is used.
    """

    spec: RunSpec
    trials: tuple[Trial, ...]
    warnings: tuple[str, ...]
    torch: Mapping[str, Any]
    files: tuple[Mapping[str, Any], ...]


def make_plan(spec: RunSpec, cards: Registry) -> Plan:
    """Check names and options, fetch missing data, solve the sizes in a child process.

    Raises:
        UsageError: the spec asks for something that cannot be done.
        DataError: data are missing and cannot be fetched.
    """
    check_threads(spec.threads)
    spec = with_absolute_paths(spec)
    plugins = registry.fingerprints(spec.plugin)
    rows = rows_of(spec, cards)
    chosen(spec.executor, cards)
    check_listeners(spec, cards)
    tries = tries_of(spec, rows, cards.models) if spec.tune else []
    files = obtain_data(rows, cards, spec.data_dir)
    each = {key_of(row): row for row in (*rows, *(tried.row for tried in tries))}
    answer = ask_torch(list(each.values()), spec)
    sizes = dict(zip(each, answer.sizes, strict=True))
    timed = replace(spec, steps={}) if spec.tune else spec  # what tunes has no steps before it has its setting
    spec = replace(spec, device=answer.device)

    def planned(some: Sequence[Row]) -> list[Trial]:
        return trials_of(timed, some, [sizes[key_of(row)] for row in some], answer.device, plugins)

    trials = planned(rows)
    sized = dict(zip(each, planned(list(each.values())), strict=False))  # of the first seed
    unused = max(trial.seed for trial in trials) + 1
    tuning = [with_known_steps(trial, spec.steps) for trial in tuning_trials(tries, sized, unused)]
    return Plan(spec, (*tuning, *trials), tuple(warnings_of(trials)), answer.torch or {}, files)


def check_threads(threads: int) -> None:
    """Make sure that there are cores for so many threads.

    Raises:
        UsageError: there are not.
    """
    from seqbench.environment import usable_cores

    if threads > usable_cores():
        raise UsageError(f"--threads is {threads}; this machine has {usable_cores()} usable cores.")


def check_listeners(spec: RunSpec, cards: Registry) -> None:
    """Make sure that whoever is to be told of training events can be.

    Raises:
        UsageError: a listener is unknown, or what it needs is not installed.
        SeqbenchError: importing it ended the process.
    """
    for name in spec.events:
        cards.listener(name)
    if not spec.events:
        return
    with tempfile.TemporaryDirectory(prefix="seqbench-") as scratch:
        log = Path(scratch) / "listeners.log"
        outcome = run_in_child("seqbench.listeners:check", (spec.events, spec.plugin), log, limits_of(spec))
        said = tail(log)
    if outcome.kind != "returned":
        how = f"{outcome.kind}, exit code {outcome.exitcode}"
        raise SeqbenchError(f"Importing the listeners failed ({how}):\n{said}")
    if outcome.answer:
        raise UsageError(outcome.answer)


def with_absolute_paths(spec: RunSpec) -> RunSpec:
    """So that a run can be resumed from another folder."""
    data_dir = None if spec.data_dir is None else str(Path(spec.data_dir).resolve())
    return replace(spec, plugin=tuple(str(Path(path).resolve()) for path in spec.plugin), data_dir=data_dir)


def obtain_data(users: Sequence[Row | Trial], cards: Registry, data_dir: str | None) -> tuple[Mapping[str, Any], ...]:
    """The files that these need, fetched where they are missing."""
    folder = None if data_dir is None else Path(data_dir)
    found: dict[str, Mapping[str, Any]] = {}
    for task, name in dict.fromkeys((user.task, user.dataset) for user in users):
        dataset = cards.task(task).dataset(name)
        if dataset is not None and dataset.files:
            data.obtain(dataset, folder)
            found |= {file.path: asdict(file) for file in dataset.files}
    return tuple(found.values())


def ask_torch(rows: Sequence[Row], spec: RunSpec) -> Answer:
    """The sizes of the rows, the device and torch's description: from child processes.

    Raises:
        UsageError: the device is not there, or a task's data are not.
    """
    sizes, answers = sizes_of("seqbench.sizing:size_all", rows, spec)
    return replace(answers[0], sizes=sizes)


def start(plan: Plan, cards: Registry, watch: Watch = _silent, say: Say = lambda _: None) -> Results:
    """Run a plan in a new folder and write its report.

    Args:
        plan: from ``make_plan``.
        cards: the plugins.
        watch: makes the observer that is told of each trial.
        say: gets one line for the user: where the run lies.
    """
    now = datetime.now(UTC)
    tasks = "-".join(dict.fromkeys(trial.task for trial in plan.trials))
    folder = RunFolder.create(Path(plan.spec.out), f"{now:%Y%m%d-%H%M%S}-{tasks}"[:80])
    folder.write_run(
        {
            "seqbench": __version__,
            "created": now.isoformat(timespec="seconds"),
            "spec": asdict(plan.spec),
            "trials": [trial_to_dict(trial) for trial in plan.trials],
            "warnings": plan.warnings,
            "environment": environment_of(plan.trials, plan.torch, cards),
            "data": plan.files,
        }
    )
    say(f"Results go to {folder.path}")
    return _run(folder, plan.spec, cards, watch)


def environment_of(trials: Sequence[Trial], torch: Mapping[str, Any], cards: Registry) -> dict[str, Any]:
    """What the numbers of these trials depend on here, besides their spec; ``torch`` is what ``ask_torch`` said."""
    from seqbench.environment import environment

    used = {("task", trial.task) for trial in trials if trial.task} | {("model", trial.model) for trial in trials}
    used |= {key for trial in trials if (key := ("dataset", f"{trial.task}/{trial.dataset}")) in cards.origin}
    origins = {f"{kind} {name}": cards.origin[kind, name] for kind, name in sorted(used)}
    strangers = {name: str(origin) for name, origin in origins.items() if not origin.ours}
    return {**environment(), **torch, **({"plugins": strangers} if strangers else {})}


def resume(path: Path, cards: Registry, watch: Watch = _silent, say: Say = lambda _: None) -> Results:
    """Run the trials of an earlier run that have no record yet, and write its report anew.

    Args:
        path: the run's folder.
        cards: the plugins.
        watch: makes the observer that is told of each trial.
        say: gets a line for each thing that is not as it was when the run began.

    Raises:
        UsageError: there is no run at ``path``, its device is not here, or a plugin file has changed.
        DataError: its data are not here.
    """
    folder = RunFolder.open(path)
    stored = folder.run()
    spec = spec_from_mapping(stored["spec"], str(path))
    trials = folder.trials()
    waiting = [trial for trial in trials if folder.record(trial.id) is None]
    if waiting:  # what is missing here must stop us now, not become a row for each trial
        registry.check_unchanged(waiting[0].plugins)
        obtain_data(waiting, cards, spec.data_dir)
        check_listeners(spec, cards)
        _note_environment(folder, stored, environment_of(trials, ask_torch((), spec).torch or {}, cards), say)
    return _run(folder, spec, cards, watch)


def _note_environment(folder: RunFolder, stored: dict[str, Any], now: Mapping[str, Any], say: Say) -> None:
    """Say and store what differs from the environment in which the run began."""
    before = stored["environment"]
    changed = {
        key: value for key, value in now.items() if before.get(key) != value and key not in {"load_at_start", "commit"}
    }
    for key, value in changed.items():
        say(f"warning: {key} was {before.get(key)} when this run began and is {value} now: its numbers may differ")
    if changed:
        stored.setdefault("resumed", []).append(changed)
        folder.write_run(stored)


def _run(folder: RunFolder, spec: RunSpec, cards: Registry, watch: Watch) -> Results:
    execute = chosen(spec.executor, cards)
    with folder.locked():
        _write_replay(folder, spec)
        for trials in _phases(folder, spec, cards):
            with watch(trials, folder) as observer:
                execute(trials, folder, jobs_for(spec, trials[0].device), limits_of(spec), observer)
        _write_replay(folder, spec)
    results = Results(folder, cards)
    results.write_report()
    return results


def _phases(folder: RunFolder, spec: RunSpec, cards: Registry) -> Iterator[list[Trial]]:
    """With tuning, task after task, those that tune and the others with what came of it; then rounds of more seeds."""
    if spec.tune:
        for task in dict.fromkeys(trial.task_label for trial in folder.trials()):
            yield _of(folder, "tuning", task)
            _settle(folder, spec, task)
            yield _of(folder, "score", task)
    else:
        yield folder.trials()
    while spec.until_decided and (more := _next_round(folder, spec, cards)):
        folder.write_run(folder.run() | {"trials": [trial_to_dict(trial) for trial in (*folder.trials(), *more)]})
        yield more


def _next_round(folder: RunFolder, spec: RunSpec, cards: Registry) -> list[Trial]:
    """New seeds for all models of each task in which two of them cannot be told apart yet."""
    unused = max(trial.seed for trial in folder.trials()) + 1
    first, more = len(parse_seeds(spec.seeds)), []
    for task in read_run(folder, cards).tasks:
        seeds = len(task.rows[0].trials)
        end = next_look(seeds, first, spec.until_decided, task.verdicts)
        more += [replace(row.trials[0], seed=unused + k) for k in range(end - seeds) for row in task.rows]
    return more


def _of(folder: RunFolder, purpose: str, task: str) -> list[Trial]:
    return [trial for trial in folder.trials() if trial.purpose == purpose and trial.task_label == task]


def _settle(folder: RunFolder, spec: RunSpec, task: str) -> None:
    """Give the trials of a task their settings, once; a resumed run finds them there."""
    stored = folder.run()
    done: list[str] = stored.get("settled", [])
    if task in done:
        return
    records = [record for trial in _of(folder, "tuning", task) if (record := folder.record(trial.id)) is not None]
    trials = folder.trials()
    places = [n for n, trial in enumerate(trials) if trial.purpose == "score" and trial.task_label == task]
    for place, trial in zip(places, settled([trials[n] for n in places], records), strict=True):
        trials[place] = with_known_steps(trial, spec.steps)
    folder.write_run(stored | {"trials": [trial_to_dict(trial) for trial in trials], "settled": [*done, task]})


def _write_replay(folder: RunFolder, spec: RunSpec) -> None:
    """The spec file of the same run again, seconds replaced by the steps that they came to."""
    trials = folder.trials()
    known = {trial.row_id: steps for trial in trials if (steps := folder.steps(trial.row_id)) is not None}
    write_text(folder.path / "spec.toml", spec_to_toml(replace(spec, steps={**spec.steps, **known})))


def limits_of(spec: RunSpec) -> Limits:
    """Of each trial's process."""
    return Limits(spec.timeout, spec.memory)


def jobs_for(spec: RunSpec, device: str) -> int:
    """How many trials run at a time."""
    from seqbench.environment import usable_cores

    if spec.jobs:
        return spec.jobs
    return 1 if device == "cuda" else max(1, usable_cores() // spec.threads)


def run_from_python(options: Mapping[str, Any]) -> Results:
    """What ``seqbench.run`` does; warnings go to the log, which Python prints unless told otherwise."""
    log = logging.getLogger("seqbench")
    spec = spec_from_mapping(options, "seqbench.run")
    cards = registry.load(spec.plugin)
    plan = make_plan(spec, cards)
    for warning in (*cards.complaints, *plan.warnings):
        log.warning("warning: %s", warning)
    return start(plan, cards)
