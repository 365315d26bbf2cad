"""``seqbench verify``: every planted change of a run is found, by the files or by training again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import seqbench
from seqbench.cli import cli
from seqbench.store import RunFolder, checksum, is_as_written
from seqbench.verify import differences, said

PLUGIN = '''
import numpy as np
from pathlib import Path
from seqbench.api import Batch, DataFile, Dataset, Form, Metric, Task, TaskCard, Vectors, hookimpl


class Last(Task):
    """Repeat the last number, scaled by what a file says."""

    def __init__(self, options):
        pass

    def prepare(self, dataset, files):
        self.scale = float(files.path("scale/one.txt").read_text()) if dataset == "file" else 1.0
        return Form(Vectors(1), output=1, head="pooled", target="value", length=4)

    def batches(self, split, size, rng):
        while True:
            x = rng.normal(size=(size, 4, 1)).astype(np.float32)
            yield Batch(x, np.float32(self.scale) * x[:, -1])
            if split != "train":
                return

    def evaluate(self, predict, split):
        done = predict(next(self.batches(split, 8, np.random.default_rng(0))))
        return {"mse": done.loss / done.weight}

    def references(self):
        return []


FILE = DataFile("scale/one.txt", "https://example.org/one.txt", DIGEST, 4)


@hookimpl
def register_tasks(register) -> None:
    sets = (Dataset("made", "from a seed"), Dataset("file", "from a file", (FILE,)))
    metrics = (Metric("mse", "mean squared error"),)
    register.task(TaskCard("last", "Repeat.", f"{__name__}:Last", metrics=metrics, datasets=sets, select="mse"))
'''
CONTENT = b"0.5\n"

pytestmark = pytest.mark.xdist_group("verify")  # what all share takes long


@dataclass(frozen=True)
class Place:
    """A run, with the plugin and data file that it used, in a folder that may be spoiled."""

    root: Path

    @property
    def folder(self) -> RunFolder:
        (path,) = (self.root / "out").iterdir()
        return RunFolder.open(path)

    @property
    def plugin(self) -> Path:
        return self.root / "last_task.py"

    @property
    def file(self) -> Path:
        return self.root / "data" / "scale" / "one.txt"

    def id(self, words: str) -> str:
        (found,) = (trial.id for trial in self.folder.trials() if words in trial.id)
        return found

    def edit(self, words: str, change: Callable[[Any], object], reseal: bool = False) -> None:
        path = self.folder.path / "trials" / f"{self.id(words)}.json"
        edit(path, change, reseal)

    def verify(self, *arguments: str) -> tuple[int, list[str]]:
        return verify(self.folder, *arguments)

    def verdicts(self, *arguments: str) -> dict[str, str]:
        return verdicts_of(self.folder, *arguments)


def verify(folder: RunFolder, *arguments: str) -> tuple[int, list[str]]:
    """Exit code and lines of ``seqbench verify``."""
    done = CliRunner().invoke(cli, ["verify", str(folder.path), *arguments], catch_exceptions=False)
    return done.exit_code, done.output.splitlines()


def verdicts_of(folder: RunFolder, *arguments: str) -> dict[str, str]:
    """Name to verdict and reason, and the exit code, which is checked against them."""
    code, lines = verify(folder, *arguments)
    found = dict(line.split(": ", 1) for line in lines[:-1])
    good = all(v == "intact" or v.startswith(("bit-equal", "within the interval")) for v in found.values())
    assert code == (0 if good else 1), lines
    assert lines[-1].startswith(f"{len(found)} checked: ")
    return found


def edit(path: Path, change: Callable[[Any], object], reseal: bool) -> None:
    """As with an editor; ``reseal`` computes the checksum anew."""
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    if reseal:
        data["checksum"] = checksum(data)
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("verify") / "place")
    place.file.parent.mkdir(parents=True)
    place.file.write_bytes(CONTENT)
    place.plugin.write_text(PLUGIN.replace("DIGEST", repr(hashlib.sha256(CONTENT).hexdigest())), encoding="utf-8")
    results = seqbench.run(
        task="last", dataset=["file", "made"], model="gru[dropout=0.2]", backend=["torch", "numba"], seeds=2,
        params=500, budget="25steps", plugin=place.plugin, data_dir=place.root / "data", out=place.root / "out",
    )  # fmt: skip
    assert results.ok
    return place


@pytest.fixture
def place(original: Place) -> Place:
    """The run, to be spoiled; what lies where is in the records, so it is put back afterwards."""
    kept = original.root.with_name("kept")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(original.root, kept)
    yield original
    shutil.rmtree(original.root)
    kept.rename(original.root)


def content(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


# --- nothing has changed ----------------------------------------------------------------------------


def test_a_replay_is_bit_equal_and_leaves_the_run_alone(place: Place) -> None:
    before = content(place.folder.path)
    found = place.verdicts()
    assert found == {trial.id: "bit-equal" for trial in place.folder.trials()}
    assert {words for id_ in found for words in ("torch", "numba") if words in id_} == {"torch", "numba"}
    assert content(place.folder.path) == before


def test_one_trial_by_the_beginning_of_its_id(place: Place) -> None:
    name = place.id("made-gru-dropout=0.2-numba-s1")
    assert place.verdicts(name[:-3]) == {name: "bit-equal"}
    assert place.verdicts(name, "--no-replay") == {name: "intact"}


def test_names_of_trials_are_looked_up_as_export_does(place: Place) -> None:
    assert place.verify("gru[dropout=0.2]")[0] == 2
    assert place.verify("nobody")[0] == 2


def test_seconds_are_replayed_as_the_steps_that_they_came_to(tmp_path: Path) -> None:
    results = seqbench.run(task="copy[T=5]", model="rnn", params=1500, budget="0.2s", seeds=1, out=tmp_path)
    assert verify(RunFolder.open(results.path))[1][-1] == "1 checked: 1 bit-equal"


@pytest.mark.slow
def test_a_tuned_run_and_its_rounds_stand(tmp_path: Path) -> None:
    """Tuning trials have neither score nor artifacts; run.json was written again when they and each round ended."""
    results = seqbench.run(
        task="copy[T=5]", model=["rnn", "gru"], params=1500, budget="0.2s", seeds=2, tune="lr=0.001,0.01",
        until_decided=3, out=tmp_path,
    )  # fmt: skip
    folder = RunFolder.open(results.path)
    purposes = [trial.purpose for trial in folder.trials()]
    assert (purposes.count("tuning"), purposes.count("score")) in {(4, 4), (4, 6)}
    found = verdicts_of(folder)
    assert found == {trial.id: "bit-equal" for trial in folder.trials()}
    id_ = next(trial.id for trial in folder.trials() if trial.purpose == "tuning")
    edit(folder.path / "trials" / f"{id_}.json", lambda record: record.update(score=1.0), reseal=True)
    assert "validation alone" in verdicts_of(folder, "--no-replay")[id_]


# --- found without training -------------------------------------------------------------------------


def add_one(*keys: str) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] += 1

    return change


@pytest.mark.parametrize(
    "change",
    [
        add_one("score"),
        add_one("metrics", "test", "mse"),
        add_one("metrics", "valid", "mse"),
        add_one("parameters", "network"),
        add_one("speed", "train_seconds"),
        lambda record: record["curve"]["train"]["loss"].pop(),
        lambda record: record.update(cause="a new field"),
    ],
)
def test_an_edited_record_is_found_before_any_replay(place: Place, change: Callable[[Any], object]) -> None:
    place.edit("made-gru-dropout=0.2-torch-s0", change)
    found = place.verdicts("--no-replay")
    edited = found.pop(place.id("made-gru-dropout=0.2-torch-s0"))
    assert edited.startswith("altered: its checksum is not that of its content")
    assert {*found.values()} == {"intact"}


def test_other_spaces_and_order_are_no_edit(place: Place) -> None:
    """The checksum is of the content."""
    path = place.folder.path / "trials" / f"{place.id('made-gru-dropout=0.2-torch-s0')}.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(dict(reversed(data.items()))), encoding="utf-8")
    assert {*place.verdicts("--no-replay").values()} == {"intact"}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda record: record.update(checksum="0" * 64), "its checksum is not that of its content"),
        (lambda record: record.pop("checksum"), "it has no checksum"),
    ],
)
def test_a_checksum_that_is_wrong_or_gone(place: Place, change: Callable[[Any], object], why: str) -> None:
    place.edit("made-gru-dropout=0.2-torch-s0", change)
    assert f"altered: {why}" in place.verdicts("--no-replay")[place.id("made-gru-dropout=0.2-torch-s0")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (add_one("score"), "its score is not the test metric"),
        (lambda record: record["trial"]["training"].update(lr=0.5), "of another trial than run.json planned"),
        (lambda record: record.pop("metrics"), "lacks what every record"),
    ],
)
def test_a_record_that_contradicts_itself_though_its_checksum_is_right(
    place: Place, change: Callable[[Any], object], why: str
) -> None:
    place.edit("made-gru-dropout=0.2-torch-s0", change, reseal=True)
    assert why in place.verdicts("--no-replay")[place.id("made-gru-dropout=0.2-torch-s0")]


def test_artifacts_that_are_gone_or_not_those_of_the_trial(place: Place) -> None:
    one, other = place.id("made-gru-dropout=0.2-torch-s0"), place.id("made-gru-dropout=0.2-torch-s1")
    artifacts = place.folder.path / "artifacts"
    (artifacts / f"{one}.npz").unlink()
    weights = place.folder.arrays(other)
    place.folder.write_arrays(other, {name: array + np.float32(1e-6) for name, array in weights.items()})
    found = place.verdicts("--no-replay")
    assert found[one] == f"altered: artifacts/{one}.npz is not there"
    assert found[other] == f"altered: weights/{other}.npz is not the file that the trial wrote"


def test_weights_that_were_deleted_to_save_space_are_no_fault(place: Place) -> None:
    one = place.id("made-gru-dropout=0.2-torch-s0")
    (place.folder.path / "weights" / f"{one}.npz").unlink()
    assert place.verdicts("--no-replay", one) == {one: "intact"}
    assert place.verdicts(one) == {one: "bit-equal"}


def test_missing_damaged_and_unplanned_records(place: Place) -> None:
    gone, torn = place.id("made-gru-dropout=0.2-torch-s0"), place.id("made-gru-dropout=0.2-torch-s1")
    trials = place.folder.path / "trials"
    shutil.copy(trials / f"{gone}.json", trials / "stranger.json")
    (trials / f"{gone}.json").unlink()
    (trials / f"{torn}.json").write_text('{"status": "o', encoding="utf-8")
    found = place.verdicts("--no-replay")
    assert found[gone].startswith("missing: no record; finish the run with: seqbench run --resume ")
    assert found[torn].startswith("altered: The record ")
    assert found["stranger"].startswith("altered: run.json plans no such trial")
    assert [*found.values()].count("intact") == 6


def test_an_edited_run_json(place: Place) -> None:
    edit(place.folder.path / "run.json", lambda run: run["environment"].update(cpu="a faster one"), reseal=False)
    assert place.verdicts("--no-replay")["run.json"].startswith("altered: its checksum is not that of its content")


def test_a_data_file_that_changed_is_named_and_its_trials_are_not_replayed(place: Place) -> None:
    place.file.write_bytes(b"0.7\n")
    found = place.verdicts()
    for id_, verdict in found.items():
        if "last-made" in id_:
            assert verdict == "bit-equal", "what needs no file stands"
        else:
            assert verdict.startswith(f"not replayed: The data file {place.file} is not the one expected")
    assert len(found) == 8


def test_data_files_that_moved_or_are_gone(place: Place) -> None:
    moved = place.root / "elsewhere"
    place.file.parent.parent.rename(moved)
    name = place.id("file-gru-dropout=0.2-torch-s0")
    assert place.verdicts(name)[name].startswith("not replayed: The data folder")
    assert place.verdicts(name, "--data-dir", str(moved)) == {name: "bit-equal"}


def test_a_plugin_that_now_declares_another_file(place: Place) -> None:
    """Both the file and the plugin's word for it were changed, so that the plugin finds what it expects."""
    edit(place.folder.path / "run.json", lambda run: run["data"][0].update(sha256="0" * 64), reseal=True)
    name = place.id("file-gru-dropout=0.2-torch-s0")
    assert place.verdicts(name)[name] == "not replayed: seqbench now declares another scale/one.txt than the run read"


def test_a_changed_or_missing_plugin_file(place: Place) -> None:
    with place.plugin.open("a", encoding="utf-8") as file:
        file.write("raise RuntimeError('must not be imported')\n")
    why = f"not replayed: the plugin file {place.plugin} has changed since the run was planned"
    assert {*place.verdicts().values()} == {why}
    place.plugin.unlink()
    assert all("cannot be read" in verdict for verdict in place.verdicts().values())


# --- found by training again ------------------------------------------------------------------------


def test_an_edit_with_its_checksum_is_found_by_the_replay(place: Place) -> None:
    """Both within the interval of the seeds: on the same machine with the same versions that is no excuse."""

    def change(record: Any) -> None:
        record["score"] += 1e-9
        record["metrics"]["test"]["mse"] += 1e-9

    name = place.id("made-gru-dropout=0.2-torch-s0")
    place.edit(name, change, reseal=True)
    assert place.verdicts(name, "--no-replay") == {name: "intact"}, "the files cannot tell"
    found = place.verdicts(name)[name]
    assert found.startswith("different: score was ")
    assert "1 more differ (metrics)" in found
    assert "edited together with its checksum" in found


def test_edited_curves_and_counts_are_found_by_the_replay(place: Place) -> None:
    curve, count = place.id("made-gru-dropout=0.2-torch-s0"), place.id("made-gru-dropout=0.2-numba-s1")

    def lower(record: Any) -> None:
        record["curve"]["train"]["loss"][3] = 0.0

    place.edit(curve, lower, reseal=True)
    place.edit(count, add_one("parameters", "core"), reseal=True)
    assert place.verdicts(curve)[curve].startswith("different: curve.train.loss.3 was 0.0, is ")
    assert place.verdicts(count)[count].startswith("different: parameters.core was ")


def older_torch(run: Any) -> None:
    run["environment"]["torch"] = "1.0"


@pytest.mark.parametrize(("nudge", "verdict"), [(1e-9, "within the interval"), (1e9, "different")])
def test_other_versions_excuse_what_lies_within_the_interval(place: Place, nudge: float, verdict: str) -> None:
    """The one record is nudged, or both seeds are far away: as another version of torch might have given."""

    def change(record: Any) -> None:
        record["score"] = record["metrics"]["test"]["mse"] = record["score"] + nudge

    for seed in (0, 1):
        place.edit(f"made-gru-dropout=0.2-torch-s{seed}", change, reseal=True)
    edit(place.folder.path / "run.json", older_torch, reseal=True)
    name = place.id("made-gru-dropout=0.2-torch-s0")
    found = place.verdicts(name)[name]
    assert found.startswith(f"{verdict}: score was ")
    assert "it may be because torch was 1.0, is " in found


def test_other_versions_excuse_all_that_leaves_the_score_alone(place: Place) -> None:
    """One seed is left in the row, so there is no interval to lie in."""
    name = place.id("made-gru-dropout=0.2-torch-s0")
    place.edit(name, add_one("metrics", "valid", "mse"), reseal=True)
    place.edit("made-gru-dropout=0.2-torch-s1", lambda record: record.update(status="error"), reseal=True)
    edit(place.folder.path / "run.json", older_torch, reseal=True)
    assert place.verdicts(name)[name].startswith("within the interval: metrics.valid.mse was ")


@pytest.mark.parametrize("status", ["timeout", "out_of_memory", "killed"])
def test_what_time_or_memory_ended_has_nothing_to_compare(place: Place, status: str) -> None:
    name = place.id("made-gru-dropout=0.2-torch-s0")
    place.edit(name, lambda record: record.update(status=status, cause="", score=None), reseal=True)
    code, lines = place.verify(name)
    assert lines[0] == f"{name}: nothing to compare: it ended as {status}, so it has no numbers"
    assert code == 0
    assert place.verdicts(name, "--no-replay") == {name: "intact"}


def test_a_run_json_without_a_checksum(place: Place) -> None:
    edit(place.folder.path / "run.json", lambda run: run.pop("checksum"), reseal=False)
    assert place.verdicts("--no-replay")["run.json"].startswith("altered: it has no checksum")


def test_other_versions_do_not_excuse_another_network(place: Place) -> None:
    name = place.id("made-gru-dropout=0.2-torch-s0")
    place.edit(name, add_one("parameters", "core"), reseal=True)
    edit(place.folder.path / "run.json", older_torch, reseal=True)
    assert place.verdicts(name)[name].startswith("different: parameters.core was ")


# --- the parts --------------------------------------------------------------------------------------


def test_clocks_and_gauges_are_not_compared() -> None:
    record = {"status": "ok", "score": 1.0, "curve": {"train": {"step": [1.0], "seconds": [0.5], "loss": [2.0]}}}
    again = {**record, "speed": {"seconds": 1}, "memory": {}, "checksum": "x", "artifacts": {}, "log_tail": ""}
    again["curve"] = {"train": {"step": [1.0], "seconds": [9.9], "loss": [2.0]}}
    assert differences(record, again) == []


@pytest.mark.parametrize(
    ("before", "now"), [(1.0, np.nextafter(1.0, 2)), (1, 1.0), (0.0, None), (None, 0.0), ("a", "b")]
)
def test_the_smallest_difference_is_one(before: object, now: object) -> None:
    (found,) = differences({"details": {"x": [before]}}, {"details": {"x": [now]}})
    assert found[0] == "details.x.0"


def test_the_score_is_named_first_and_the_rest_is_counted() -> None:
    before = {"score": 2.0, "curve": {"train": {"loss": [1.0, 2.0]}}, "metrics": {"test": {"mse": 2.0}}}
    now = {"score": 3.0, "curve": {"train": {"loss": [1.5, 2.5]}}, "metrics": {"test": {"mse": 3.0}}}
    assert said(differences(before, now)) == "score was 2.0, is 3.0 in the replay; 3 more differ (metrics, curve)"


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
@settings(deadline=None)
def test_what_is_written_reads_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]
) -> None:
    folder = RunFolder(tmp_path_factory.getbasetemp() / "sealed")
    folder.write_record("a", {**fields, "status": "ok"})
    record = folder.record("a")
    assert record is not None
    assert is_as_written(record)
    folder.write_record("a", record)
    assert folder.record("a") == record, "writing a record again changes nothing"
