"""A trained network of a run to one file that streams without torch; torch is not needed for it either."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqbench import registry
from seqbench.errors import Refused, UsageError
from seqbench.store import RunFolder, write_atomically
from seqbench.streaming.file import Arrays, Description, shapes_of, write
from seqbench.streaming.network import recurrence_of

if TYPE_CHECKING:
    import numpy as np

    from seqbench.backends.recurrence import Names, Recurrence
    from seqbench.spec import Trial


def export(folder: RunFolder, name: str, path: Path, overwrite: bool = False) -> Description:
    """Write the weights that validation chose, and what the network is.

    Args:
        folder: of the run.
        name: the trial: its id, the beginning of its id, or its label, if no other trial has that too.
        path: the file to write.
        overwrite: replace a file that is there.

    Raises:
        UsageError: no trial or several have that name, it did not end well, or the file is there already.
        Refused: the network cannot be streamed.
    """
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already; name another file, or say --overwrite.")
    trial = folder.find(name, purpose="score")
    record = _finished(folder, trial)
    registry.check_unchanged(trial.plugins)
    recurrence = recurrence_of(registry.load(list(trial.plugins)), trial.model, trial.model_options)
    description = _described(trial, record, folder.arrays(trial.id, "form/").get("symbols"))
    weights = folder.arrays(trial.id, "weights/")
    if not weights:
        raise UsageError(f"The weights of {trial.id} are not in {folder.path / 'weights'}: they were deleted.")
    arrays = arrays_of(weights, description, recurrence)
    write_atomically(path, lambda file: write(file, description, arrays))
    return description


def _finished(folder: RunFolder, trial: Trial) -> dict[str, Any]:
    """The record of a trial that ended well."""
    record = folder.record(trial.id)
    if record is None:
        raise UsageError(f"{trial.id} has not run yet; finish the run with: seqbench run --resume {folder.path}")
    if record["status"] != "ok":
        raise UsageError(f"{trial.id} has no trained network: it ended as {record['status']}; export another trial.")
    return record


def _described(trial: Trial, record: Mapping[str, Any], symbols: np.ndarray | None) -> Description:
    """What the network is, if it can be streamed."""
    form = record.get("form")
    if not isinstance(form, Mapping):
        raise UsageError(f"{trial.id} was trained by a seqbench that kept no form of its network; run it again.")
    if form["head"] == "decoder":
        raise Refused(f"{trial.task} reads a whole source before its first output: it cannot be streamed.")
    if form["bidirectional"]:
        raise Refused(f"{trial.id} reads in both directions: it has no output before a sequence's end.")
    if form["head"] == "pooled" and form["pooling"] != "summary":
        raise Refused(f"{trial.id} takes the {form['pooling']} over all steps; only outputs of the last step stream.")
    ((kind, size),) = form["input"].items()
    return Description(
        trial=trial.id,
        task=trial.task,
        dataset=trial.dataset,
        model=trial.model,
        options=dict(trial.model_options),
        width=trial.width,
        layers=trial.layers,
        input="tokens" if kind == "vocabulary" else "vectors",
        input_size=size,
        head=form["head"],
        output=form["output"],
        target=form["target"],
        vocabulary=None if symbols is None else tuple(json.loads(str(symbols))),
    )


def arrays_of(stored: Mapping[str, np.ndarray], description: Description, recurrence: Recurrence) -> Arrays:
    """A network's parameters, by the names of its ``state_dict``, under the file's names.

    Raises:
        Refused: they are not those of a stack of such layers.
    """
    shapes = shapes_of(description, recurrence)
    keys = {name: _key(name, recurrence.names) for name in shapes}
    fits = {*keys.values()} == {*stored} and all(stored[keys[name]].shape == shape for name, shape in shapes.items())
    if not fits:
        raise Refused(
            f"{description.trial} has other parameters than {description.layers} layers of {recurrence.cell.name!r} of "
            f"width {description.width} between an input and a head: it cannot be streamed."
        )
    return {name: stored[key] for name, key in keys.items()}


def _key(name: str, names: Names) -> str:
    """``"layers.0.W"`` to the parameter's name in a network's ``state_dict``."""
    if not name.startswith("layers."):
        return name
    _, layer, own = name.split(".")
    return f"core.layers.{layer}.{getattr(names, own)}"
