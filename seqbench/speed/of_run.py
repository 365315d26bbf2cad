"""The speed phase of a run: its networks on each of its tasks, at the lengths and batches of their training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from seqbench import registry
from seqbench.axes import TUNABLE
from seqbench.errors import UsageError
from seqbench.report.speeds.stored import FOLDER, longest_of
from seqbench.spec import Trial
from seqbench.speed.spec import SpeedSpec, make_spec
from seqbench.store import RunFolder

OWN = ("model", "task", "dataset", "params", "device", "threads", "plugin", "out")
"""What the run says; naming it again would measure other networks than those whose scores it has."""


def specs_of(
    folder: RunFolder, values: Mapping[str, Any], say: Callable[[str], None] = lambda _: None
) -> list[SpeedSpec]:
    """What to measure for each task of a run that has a finished trial, in the run's order.

    Args:
        folder: the run's.
        values: what the user asks for, as ``speed.spec.make_spec`` takes it; the length and the batches of training,
            and 1, where nothing is said, and the run's backends.
        say: gets a line for each task that is left out.

    Raises:
        UsageError: the run fixes what ``values`` say, none of its trials has ended well, or a plugin file is not what
            it was then.
    """
    taken = [name for name in OWN if values.get(name) not in (None, ())]
    if taken:
        raise UsageError(f"--{taken[0].replace('_', '-')} is what the run says; leave it out, or leave out the run.")
    if folder.run()["spec"].get("aa"):
        raise UsageError("A run of --aa has one model under two names; measure it by seqbench speed --model.")
    trials: dict[str, list[Trial]] = {}
    for trial in folder.trials():
        trials.setdefault(trial.task_label, []).append(trial)
    specs = []
    for label, of_task in trials.items():
        length = _length(folder, of_task)
        if length is None:
            say(f"{label} is left out: none of its trials has ended well yet")
        else:
            specs.append(_spec(folder, of_task, length, values))
    if not specs:
        raise UsageError(f"No trial of {folder.path} has ended well yet; finish the run first.")
    return specs


def _spec(folder: RunFolder, trials: list[Trial], length: int, values: Mapping[str, Any]) -> SpeedSpec:
    first, spec = trials[0], folder.run()["spec"]
    registry.check_unchanged(first.plugins)
    task, _, dataset = first.task_label.rpartition("/")
    own = {
        "task": task,
        "dataset": dataset,
        "model": list(dict.fromkeys(trial.label for trial in trials)),
        "backend": list(dict.fromkeys(trial.backend for trial in trials)),
        "params": str(first.target_parameters),
        "device": first.device,
        "threads": first.threads,
        "data_dir": spec.get("data_dir"),
        "plugin": list(spec.get("plugin") or ()),
        "out": str(folder.path / FOLDER),
        "lengths": [length],
        "batch": sorted({1, first.training.batch}),
    }
    given = {name: value for name, value in values.items() if value not in (None, ())}
    asked = make_spec({name: value for name, value in {**own, **given}.items() if value not in (None, [])})
    tuned = {(trial.label, trial.backend): options for trial in trials if (options := _tuned(trial))}
    asked = replace(asked, chosen=tuple((*key, options) for key, options in tuned.items()))
    return asked if "backend" in given else replace(asked, rows=tuple({(t.label, t.backend): None for t in trials}))


def _tuned(trial: Trial) -> dict[str, Any]:
    """The options of the model that tuning chose for a trial with a score."""
    names = trial.setting.keys() - TUNABLE.keys() if trial.purpose == "score" else ()
    return {name: trial.model_options[name] for name in sorted(names)}


def _length(folder: RunFolder, trials: list[Trial]) -> int | None:
    """The longest of training, on either side; None where no record tells."""
    forms = ((folder.record(trial.id) or {}).get("form") for trial in trials)
    return next((longest_of(form) for form in forms if form), None)
