"""An executor that starts with the last trial and runs one at a time; and faulty ones."""

from __future__ import annotations

from seqbench.api import ExecutorCard, UsageError, hookimpl
from seqbench.executors import run_trial_supervised


def backwards(trials, folder, jobs, limits, observer):
    for trial in reversed(trials):
        if folder.record(trial.id) is None:
            observer.started(trial)
            record = run_trial_supervised(trial, folder, limits)
            if record is not None:
                observer.finished(trial, record)


def absent(trials, folder, jobs, limits, observer):
    raise UsageError("The cluster cannot be reached; try again.")


def broken(trials, folder, jobs, limits, observer):
    raise KeyError("a planted fault")


def lazy(trials, folder, jobs, limits, observer):
    """Runs nothing."""


@hookimpl
def register_executors(register):
    for function in (backwards, absent, broken, lazy):
        register.executor(ExecutorCard(function.__name__, "An executor.", f"{__name__}:{function.__name__}"))
    register.executor(ExecutorCard("nowhere", "Its module is not there.", "no_such_package:run"))
