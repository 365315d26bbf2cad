"""From a run to a file to a stream: `seqbench export` as a user calls it, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from seqbench.api import Form
from seqbench.cli import cli
from seqbench.spec import Trial, trial_from_dict, trial_to_dict
from seqbench.store import RunFolder
from seqbench.streaming import Stream
from seqbench.trial import find, make_network


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory, plugins: Path) -> RunFolder:
    """A tiny run of three tasks; the models are trained by both backends, one of them has no cell."""
    import seqbench

    out = tmp_path_factory.mktemp("run")
    results = seqbench.run(
        task=["char-lm[window=16,sample=0]", "adding[T=8]", "copy[T=5]"],
        models=["lstm", "gru[reset_after=false,layers=2]", "running-mean"],
        seeds=1, params="4k", budget="12steps", jobs=1, out=out, plugin=plugins / "running_mean.py",
    )  # fmt: skip
    assert results.ok
    return results.folder


@pytest.fixture
def copied(run_folder: RunFolder, tmp_path: Path) -> RunFolder:
    """The same, to be spoiled."""
    shutil.copytree(run_folder.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")


def trial_of(folder: RunFolder, task: str, model: str) -> Trial:
    return next(trial for trial in folder.trials() if trial.task == task and trial.model == model)


def export(*words: Any) -> Any:
    return CliRunner().invoke(cli, ["export", *map(str, words)])


def refused(*words: Any) -> str:
    result = export(*words)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("seqbench: ")
    assert "\n" not in result.stderr.strip()
    return str(result.stderr.strip())


def network_of(folder: RunFolder, trial: Trial) -> tuple[torch.nn.Module, Form, Any]:
    """The trained network of torch, as a trial would test it, and the task."""
    cast = find(trial)
    network = make_network(trial, cast)
    stored = folder.arrays(trial.id, "weights/")
    network.load_state_dict({name: torch.from_numpy(array) for name, array in stored.items()})
    return network.eval(), cast.form, cast.task


@pytest.mark.parametrize("model", ["lstm", "gru"])
@pytest.mark.parametrize("task", ["char-lm", "adding", "copy"])
def test_a_stream_says_what_the_trained_network_says(
    run_folder: RunFolder, tmp_path: Path, task: str, model: str
) -> None:
    trial = trial_of(run_folder, task, model)
    path = tmp_path / "model.npz"
    result = export(run_folder.path, trial.id, "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{path}: {model} on {task}/embedded\n"
    network, form, data = network_of(run_folder, trial)
    x = next(data.batches("test", 1, np.random.default_rng(0))).x  # (1, T) or (1, T, size)
    with torch.no_grad():
        want = network(torch.from_numpy(x))[0].numpy()  # (T, N), or pooled (N,)
    stream = Stream.load(path)
    got = np.array([stream.step(x_t) for x_t in x[0]])
    got = got if form.head == "step" else got[-1]
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)


def test_characters_travel_with_the_network(run_folder: RunFolder, tmp_path: Path) -> None:
    trial, path = trial_of(run_folder, "char-lm", "lstm"), tmp_path / "model.npz"
    assert export(run_folder.path, trial.id, "-o", path).exit_code == 0
    _, form, data = network_of(run_folder, trial)
    d = Stream.load(path).description
    assert d.vocabulary == tuple(data.vocabulary.characters)
    assert (d.input_size, d.output, d.options) == (form.input.vocabulary, form.output, trial.model_options)
    assert export(run_folder.path, trial_of(run_folder, "copy", "lstm").id, "-o", tmp_path / "copy.npz").exit_code == 0
    assert Stream.load(tmp_path / "copy.npz").description.vocabulary is None


def test_a_trial_has_several_names(run_folder: RunFolder, copied: RunFolder, tmp_path: Path) -> None:
    trial = trial_of(run_folder, "adding", "lstm")
    assert export(run_folder.path, trial.id[:-4], "-o", tmp_path / "a.npz").exit_code == 0
    data = run_folder.run()
    data["trials"] = [trial_to_dict(trial)]
    copied.write_run(data)
    assert export(copied.path, "lstm", "-o", tmp_path / "b.npz").exit_code == 0
    assert (tmp_path / "a.npz").read_bytes()
    ids = [trial.id for trial in run_folder.trials()]
    message = refused(run_folder.path, "lstm", "-o", tmp_path / "c.npz")
    assert "'lstm' could be 3 trials; name one: " in message
    assert all(name in message for name in ids if "lstm" in name)
    message = refused(run_folder.path, "nothing", "-o", tmp_path / "c.npz")
    assert "There is no trial 'nothing'." in message
    assert all(name in message for name in ids)


def test_a_file_is_replaced_only_when_asked(run_folder: RunFolder, tmp_path: Path) -> None:
    trial, path = trial_of(run_folder, "adding", "lstm"), tmp_path / "model.npz"
    path.write_text("precious", encoding="utf-8")
    assert f"{path} is there already; name another file, or say --overwrite." in refused(
        run_folder.path, trial.id, "-o", path
    )
    assert path.read_text(encoding="utf-8") == "precious"
    assert export(run_folder.path, trial.id, "-o", path, "--overwrite").exit_code == 0
    assert Stream.load(path).description.trial == trial.id


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    assert "There is no run in" in refused(tmp_path, "lstm", "-o", tmp_path / "model.npz")


def test_a_model_without_a_cell_is_refused(run_folder: RunFolder, tmp_path: Path) -> None:
    trial = trial_of(run_folder, "copy", "running-mean")
    message = refused(run_folder.path, trial.id, "-o", tmp_path / "model.npz")
    assert "running-mean cannot be streamed without torch: its card names no recurrence" in message


FORMS = [
    ({"head": "decoder"}, "reads a whole source before its first output"),
    ({"bidirectional": True, "causal": False}, "reads in both directions"),
    ({"head": "pooled", "pooling": "mean"}, "takes the mean over all steps"),
    (None, "kept no form of its network; run it again"),
]


@pytest.mark.parametrize(("form", "message"), FORMS)
def test_networks_that_have_no_steps_are_refused(
    copied: RunFolder, tmp_path: Path, form: dict[str, Any] | None, message: str
) -> None:
    trial = trial_of(copied, "copy", "lstm")
    record: Any = copied.record(trial.id)
    record["form"] = None if form is None else record["form"] | form
    copied.write_record(trial.id, record)
    assert message in refused(copied.path, trial.id, "-o", tmp_path / "model.npz")


def test_other_parameters_are_refused(copied: RunFolder, tmp_path: Path) -> None:
    trial = trial_of(copied, "copy", "lstm")
    arrays = copied.arrays(trial.id)
    arrays["weights/core.norm.weight"] = np.ones(3)
    copied.write_arrays(trial.id, arrays)
    assert "has other parameters than 1 layers of 'lstm'" in refused(copied.path, trial.id, "-o", tmp_path / "m.npz")


def test_deleted_weights_are_missed(copied: RunFolder, tmp_path: Path) -> None:
    trial = trial_of(copied, "copy", "lstm")
    (copied.path / "weights" / f"{trial.id}.npz").unlink()
    assert f"The weights of {trial.id} are not in" in refused(copied.path, trial.id, "-o", tmp_path / "model.npz")


def test_trials_without_a_trained_network_are_refused(copied: RunFolder, tmp_path: Path) -> None:
    trial = trial_of(copied, "copy", "lstm")
    record: Any = copied.record(trial.id)
    copied.write_record(trial.id, record | {"status": "diverged", "cause": "nan"})
    assert "has no trained network: it ended as diverged" in refused(copied.path, trial.id, "-o", tmp_path / "m.npz")
    (copied.path / "trials" / f"{trial.id}.json").unlink()
    message = refused(copied.path, trial.id, "-o", tmp_path / "model.npz")
    assert f"has not run yet; finish the run with: seqbench run --resume {copied.path}" in message


def test_a_changed_plugin_file_is_refused(copied: RunFolder, tmp_path: Path) -> None:
    """What a network computes is in that file."""
    plugin = tmp_path / "own.py"
    plugin.write_text("# changed", encoding="utf-8")
    data = copied.run()
    trial = replace(trial_of(copied, "copy", "lstm"), plugins={str(plugin): "0" * 64})
    record: Any = copied.record(trial_from_dict(data["trials"][0]).id)
    copied.write_run(data | {"trials": [trial_to_dict(trial)]})
    copied.write_record(trial.id, record | {"status": "ok"})
    assert "has changed since the run was planned" in refused(copied.path, trial.id, "-o", tmp_path / "model.npz")


def test_exporting_needs_no_torch(copied: RunFolder, tmp_path: Path) -> None:
    """Unless a plugin file of the run does."""
    trained = trial_of(copied, "adding", "lstm")
    trial = replace(trained, plugins={})
    copied.write_run(copied.run() | {"trials": [trial_to_dict(trial)]})
    copied.write_record(trial.id, copied.record(trained.id) or {})
    copied.write_arrays(trial.id, copied.arrays(trained.id))
    program = "import sys; sys.modules['torch'] = None\nfrom seqbench.cli import main\nmain()"
    words = ["export", copied.path, trial.id, "-o", tmp_path / "model.npz"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(str(np.load(tmp_path / "model.npz")["description"]))["task"] == "adding"
