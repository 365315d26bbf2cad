"""From what is asked to figures in a folder: plan, measure group by group, store."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench import __version__, registry
from seqbench.apart import sizes_of
from seqbench.environment import condition, usable_cores
from seqbench.errors import UsageError
from seqbench.frame import to_csv
from seqbench.pipeline import check_threads, environment_of, obtain_data, with_absolute_paths
from seqbench.plan import rows_of, rows_on, trials_of, warnings_of
from seqbench.registry import Registry
from seqbench.report.speeds.columns import frame, with_figures
from seqbench.speed.rounds import Record, measure
from seqbench.speed.spec import PLAIN, SpeedAnswer, SpeedPlan, SpeedSpec, make_spec, subjects_of
from seqbench.store import RunFolder, write_json, write_text

if TYPE_CHECKING:
    import pandas as pd

FORMAT = 1
BUSY = 0.5
"""A load above this share of the cores is said: others are at work."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Speeds:
    """What was measured.

    Attributes:
        path: of the folder with ``speed.json``, ``speed.csv``, ``speed.html`` and the logs.
        data: what ``speed.json`` holds; ``data["rows"]`` is a record for each subject.
    """

    path: Path
    data: Mapping[str, Any]

    @property
    def frame(self) -> pd.DataFrame:
        """One row a subject; ``docs/measuring.md`` lists the columns."""
        return frame(self.data["rows"])

    @property
    def ok(self) -> bool:
        """Every subject was measured."""
        return all(record["status"] == "ok" for record in self.data["rows"])


def make_plan(spec: SpeedSpec, cards: Registry) -> SpeedPlan:
    """Check names and options, fetch a task's missing data, solve the sizes in a child process.

    Raises:
        UsageError: something is asked for that cannot be done.
        DataError: the task's data are missing and cannot be fetched.
    """
    check_threads(spec.run.threads)
    run = with_absolute_paths(spec.run)
    plugins = registry.fingerprints(run.plugin)
    plain = run.task == (PLAIN.label,)
    rows = rows_on([PLAIN], run, cards) if plain else rows_of(run, cards)
    rows = [row for row in rows if not spec.rows or (row.label, row.backend) in spec.rows]
    rows = [
        replace(row, model_options={**row.model_options, **spec.chosen_for(row.label, row.backend)}) for row in rows
    ]
    if len({row.task_label for row in rows}) > 1:
        raise UsageError("seqbench speed measures on one task and dataset at a time; name one --dataset.")
    if not plain:
        obtain_data(rows, cards, run.data_dir)
    sizes, answers = sizes_of("seqbench.speed.sizing:size_networks", rows, run, spec.longest)
    run = replace(run, device=answers[0].device)
    trials = trials_of(run, rows, sizes, run.device, plugins)
    warnings = warnings_of(trials)
    form = next((answer.form for answer in answers if isinstance(answer, SpeedAnswer) and answer.form), None)
    if form is None:
        raise UsageError(f"Nothing can be measured: {warnings[0]}")
    spec = replace(spec, run=run)
    can_step = {name: "step" in card.can for name, card in cards.models.items()}
    subjects = subjects_of(spec, trials, form, can_step)
    if not subjects:
        asked = ", ".join(spec.operations)
        raise UsageError(f"Nothing to measure: {asked} does not apply to {rows[0].task_label}; leave out --operation.")
    return SpeedPlan(spec, tuple(subjects), answers[0].torch or {}, tuple(warnings))


def run(plan: SpeedPlan, cards: Registry, say: Say = lambda _: None) -> Speeds:
    """Measure, and write the results into a new folder, after each group: an interruption loses no group.

    Args:
        plan: from ``make_plan``.
        cards: the plugins.
        say: gets lines for the user: how the machine is, how far we are.
    """
    now, spec = datetime.now(UTC), plan.spec
    folder = RunFolder.create(Path(spec.run.out), f"{now:%Y%m%d-%H%M%S}-speed").path
    before = condition()
    _warn_of_load(before["load"], say)
    about = {
        "format": FORMAT,
        "seqbench": __version__,
        "created": now.isoformat(timespec="seconds"),
        "task": plan.subjects[0].trial.task_label,
        "spec": asdict(spec),
        "environment": environment_of([subject.trial for subject in plan.subjects], plan.torch, cards),
    }
    order = random.Random(0)  # noqa: S311 - shuffles, guards nothing
    records: list[Record] = []
    speeds = Speeds(folder, {})
    try:
        for number, group in enumerate(plan.groups, 1):
            length, batch = group[0].length, group[0].batch
            say(f"[{number}/{len(plan.groups)}] length {length}, batch {batch}: {len(group)} in turns")
            records += measure(group, spec.rounds, spec.starts, spec.run.timeout, folder / "logs", order)
            state = {"condition": {"before": before, "after": condition()}, "complete": number == len(plan.groups)}
            data = {**about, **state, "rows": with_figures(records)}
            speeds = Speeds(folder, data)
            _store(speeds)
    except KeyboardInterrupt:
        if records:
            _write_page(speeds)
            say(f"Interrupted; what was measured is in {folder}")
        raise
    _write_page(speeds)
    return speeds


def _store(speeds: Speeds) -> None:
    write_json(speeds.path / "speed.json", speeds.data)
    write_text(speeds.path / "speed.csv", to_csv(speeds.frame))


def _write_page(speeds: Speeds) -> None:
    from seqbench.report.speeds.page import page  # matplotlib, which must not run beside a measurement

    write_text(speeds.path / "speed.html", page(speeds.path.name, speeds.data))


def run_from_python(options: Mapping[str, Any]) -> Speeds:
    """What ``seqbench.measure_speed`` does; how far it is and warnings go to the log."""
    log = logging.getLogger("seqbench")
    spec = make_spec(options, "seqbench.measure_speed")
    cards = registry.load(spec.run.plugin)
    plan = make_plan(spec, cards)
    for warning in (*cards.complaints, *plan.warnings):
        log.warning("warning: %s", warning)
    return run(plan, cards, log.info)


def _warn_of_load(load: float | str, say: Say) -> None:
    if isinstance(load, float) and load > BUSY * usable_cores():
        say(f"warning: the load is {load} on {usable_cores()} cores: others are at work, which spreads the times")
