"""One trial under supervision: a child process, a limit, and a record whatever happens."""

from __future__ import annotations

import re
import signal
import threading
from pathlib import Path
from typing import Any

from seqbench.process import Limits, Outcome, run_in_child
from seqbench.registry import blame
from seqbench.spec import FIRST_STEP, STEP, Trial, record_of
from seqbench.store import RunFolder

TAIL = 4000
_STEP = re.compile(rf"^{re.escape(STEP)} (\d+)/(\d+)", re.MULTILINE)


def run_trial_supervised(
    trial: Trial, folder: RunFolder, limits: Limits, stop: threading.Event | None = None
) -> dict[str, Any] | None:
    """Run a trial unless its record is there already.

    Args:
        trial: what to run.
        folder: where its record goes.
        limits: of its process.
        stop: set to have it killed at once.

    Returns:
        The record; None if the trial was stopped (it will run when the run is resumed).
    """
    finished = folder.record(trial.id)
    if finished is not None:
        return finished
    if trial.blocked is not None:
        record = record_of(trial, **trial.blocked)
    else:
        log = folder.log_path(trial.id)
        outcome = run_in_child("seqbench.trial:run_trial", (trial, folder), log, limits, stop)
        if outcome.kind == "stopped":
            return None
        finished = folder.record(trial.id)  # the child wrote it, unless it died before
        record = finished or record_of(trial, **death(outcome, limits.seconds))
    if record["status"] != "ok":
        log_tail = tail(folder.log_path(trial.id))
        cause = blame(trial, record["cause"])
        folder.write_record(trial.id, {**_last_step(log_tail), "log_tail": log_tail, **record, "cause": cause})
    return folder.record(trial.id)


def progress(folder: RunFolder, trial: Trial) -> tuple[int, int] | None:
    """The step at which a running trial last reported, and how many it has; None before the first.

    While kernels are compiled for the first step it is at step 0 of 0.
    """
    log = tail(folder.log_path(trial.id))
    found = _STEP.findall(log)
    if found:
        return int(found[-1][0]), int(found[-1][1])
    return (0, 0) if FIRST_STEP in log.splitlines() else None


def death(outcome: Outcome, limit: float | None, cheaper: str = "lower --budget") -> dict[str, Any]:
    """Status and cause of what a process should have done that has died; ``cheaper`` is what would shorten it."""
    if outcome.kind == "timeout":
        return {"status": "timeout", "cause": f"killed after {limit:g} s; raise --timeout or {cheaper}"}
    if outcome.kind in {"memory", "output"}:
        status = "out_of_memory" if outcome.kind == "memory" else "killed"
        return {"status": status, "cause": f"killed: {outcome.cause}"}
    if outcome.out_of_memory:
        return {"status": "out_of_memory", "cause": "the kernel killed the process for memory; lower --batch or --jobs"}
    code = outcome.exitcode or 0
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return {"status": "killed", "cause": f"the process was killed by signal {name}"}
    return {"status": "error", "cause": f"the process left with exit code {code} before its end; see the log"}


def _last_step(log_tail: str) -> dict[str, Any]:
    found = _STEP.findall(log_tail)
    return {"failed_step": int(found[-1][0])} if found else {}


def tail(log: Path) -> str:
    """The end of a log, as text, whatever bytes are in it."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
