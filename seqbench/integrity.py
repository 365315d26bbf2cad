"""What can be said of a run without training: whether its files, and those that it read, are what they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqbench import data, registry
from seqbench.api import DataFile, Dataset
from seqbench.errors import DataError, UsageError
from seqbench.registry import Registry
from seqbench.spec import Trial, trial_to_dict
from seqbench.store import ARCHIVES, RunFolder, is_as_written, strict

EDITED = "its checksum is not that of its content: it was edited or damaged after it was written"


def record_fault(folder: RunFolder, trial: Trial) -> str:
    """Why the record of a finished trial, or its artifacts, cannot be what the trial wrote; "" if they can.

    Who edits a record and computes its checksum anew is not found here.
    """
    try:
        record = folder.record(trial.id) or {}
    except UsageError as error:
        return str(error)
    if not is_as_written(record):
        return why_not_as_written(record)
    planned = strict(trial_to_dict(trial))
    if {**record.get("trial", {}), "data_dir": None} != {**planned, "data_dir": None}:  # where files lie may change
        return "it says that it is of another trial than run.json planned under its name"
    if record["status"] != "ok":
        return ""
    if trial.purpose == "tuning":  # never tested, nothing kept
        return "" if record.get("score") is None else "it has a score, though tuning looks at validation alone"
    try:
        if record["score"] != record["metrics"]["test"][record["task"]["score"]]:
            return "its score is not the test metric that it is said to be"
        written = {archive: record["sha256"][archive] for archive in ARCHIVES}
    except (KeyError, TypeError):
        return "it lacks what every record of a finished trial has"
    return archive_fault(trial.id, written, folder.digests(trial.id))


def archive_fault(trial_id: str, written: Mapping[str, str], now: Mapping[str, str | None]) -> str:
    """Which archive is not the file that the trial wrote; weights may be deleted, for no number is read off them."""
    for archive, digest in written.items():
        file = f"{archive}/{trial_id}.npz"
        if now[archive] is None and archive != "weights":
            return f"{file} is not there"
        if now[archive] not in {None, digest}:
            return f"{file} is not the file that the trial wrote"
    return ""


def why_not_as_written(data: Mapping[str, Any]) -> str:
    """Of a record or a run.json whose checksum is not that of its content."""
    return EDITED if "checksum" in data else "it has no checksum: it was taken out, or an old seqbench wrote it"


def unplanned(folder: RunFolder) -> list[str]:
    """The ids of records that no trial of run.json has: run.json was edited, or they are from elsewhere."""
    return sorted(folder.recorded() - {trial.id for trial in folder.trials()})


def plugin_faults(files: Mapping[str, str]) -> list[str]:
    """Plugin files that are not what they were when the run was planned, each with what is wrong."""
    faults = []
    for path, digest in files.items():
        try:
            if registry.fingerprints([path])[path] != digest:
                faults.append(f"the plugin file {path} has changed since the run was planned")
        except UsageError as error:
            faults.append(str(error))
    return faults


def data_faults(
    recorded: Sequence[Mapping[str, Any]], trial: Trial, cards: Registry, data_dir: str | None
) -> list[str]:
    """Data files of the trial's dataset that are not those that the run read, each with what is wrong.

    Args:
        recorded: path, URL, sha256 and size of each file that the run read (run.json's ``data``).
        trial: whose dataset.
        cards: the plugins as they are now.
        data_dir: where the files lie now; None: the default places.
    """
    dataset = cards.task(trial.task).dataset(trial.dataset) if trial.task in cards.tasks else None
    if dataset is None:
        return [f"no installed plugin has the dataset {trial.task}/{trial.dataset}"]
    then = {file["path"]: DataFile(**file) for file in recorded}
    faults = []
    for file in dataset.files:
        if then.get(file.path) != file:
            faults.append(f"seqbench now declares another {file.path} than the run read")
            continue
        try:
            data.locate(Dataset(dataset.name, dataset.summary, (file,)), None if data_dir is None else Path(data_dir))
        except DataError as error:
            faults.append(str(error))
    return faults
