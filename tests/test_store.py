"""The store: what is there is whole, strict, safe, and never overwritten."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.errors import UsageError
from seqbench.frame import COLUMNS, frame, to_csv
from seqbench.spec import Trial
from seqbench.store import RunFolder, is_as_written, strict, write_atomically, write_json, write_text


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


# --- files ----------------------------------------------------------------------------------------------


def files_in(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir())


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def fails(file):
        file.write(b"half of the new")
        file.flush()
        assert (tmp_path / "a").read_text() == "old", "a reader sees the old file while the new one is written"
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        write_atomically(tmp_path / "a", fails)
    assert files_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_what_is_on_disk_is_whole_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash just before the rename leaves the old file; the data are synced first."""
    write_text(tmp_path / "a", "old")
    happened = []
    monkeypatch.setattr(os, "fsync", lambda fd: happened.append("fsync"))

    def crash(self: Path, target: Path) -> None:
        happened.append("replace")
        assert self.read_text() == "new"
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a", "new")
    assert happened == ["fsync", "replace"]
    assert files_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_many_writers_of_one_file_leave_one_of_their_versions(tmp_path: Path) -> None:
    texts = [str(n) * 20_000 for n in range(8)]
    threads = [threading.Thread(target=write_text, args=(tmp_path / "a", text)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files_in(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() in texts


def test_text_keeps_its_line_ends_and_says_what_utf8_cannot(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "a", "one\r\ntwo\n😀\udc80")
    assert (tmp_path / "new" / "a").read_bytes() == "one\r\ntwo\n😀".encode() + b"\\udc80"


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not strict JSON")


def read_strictly(path: Path) -> object:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),  # lone surrogates too
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def plain(value: object) -> object:
    """What ``value`` reads as after a journey through strict JSON, said in another way."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [*map(plain, value)]
    return None if isinstance(value, float) and (value != value or value in (math.inf, -math.inf)) else value


@given(JSON)
@settings(deadline=None)
def test_json_is_strict_and_reads_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "strict.json"
    write_json(path, value)
    assert read_strictly(path) == plain(value)


def test_numpy_scalars_become_numbers() -> None:
    values = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.float64("nan"), 5: np.float32("inf")}
    assert strict(values) == {"a": 0.5, "b": 3, "c": True, "d": None, "5": None}
    assert all(type(v) in (float, int, bool, type(None)) for v in strict(values).values())


def test_what_json_cannot_say_is_an_error_not_a_broken_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "a", {"x": object()})
    assert files_in(tmp_path) == []


# --- runs -----------------------------------------------------------------------------------------------


def test_create_never_overwrites(tmp_path: Path) -> None:
    made = [RunFolder.create(tmp_path / "out", "run").path.name for _ in range(3)]
    assert made == ["run", "run-2", "run-3"]


def test_create_from_many_threads_gives_each_its_own(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [
        threading.Thread(target=lambda: made.append(RunFolder.create(tmp_path / "out", "run").path)) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 12


def test_create_where_a_file_is_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(UsageError, match="a file is in the way"):
        RunFolder.create(tmp_path, "run")
    with pytest.raises(UsageError, match=r"Cannot make the run folder .*: Not a directory; choose another --out"):
        RunFolder.create(tmp_path / "run", "x")
    assert (tmp_path / "run").read_text() == "mine"


def test_open_reads_what_write_run_wrote(folder: RunFolder) -> None:
    data = {"spec": {"task": ["copy"]}, "trials": [{}]}
    folder.write_run(data)
    found = RunFolder.open(folder.path).run()
    assert is_as_written(found)
    found.pop("checksum")
    assert found == {"format": 1, **data}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no run in .*: its run.json cannot be read"),
        (b'{"format": 1', "There is no run in"),
        (b"\xff\xfe", "There is no run in"),
        (b"[1]", "There is no run in"),
        (b'{"format": 1}', "names no spec or no trials: it is damaged"),
        (b'{"format": 2}', "has format 2; this seqbench reads format 1"),
        (b"{}", "has format None; this seqbench reads format 1"),
    ],
)
def test_open_refuses_what_is_no_run(folder: RunFolder, content: bytes | None, message: str) -> None:
    if content is not None:
        (folder.path / "run.json").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        RunFolder.open(folder.path)


def test_records_come_in_the_plans_order_and_only_if_finished(folder: RunFolder, example_trial: Trial) -> None:
    trials = [replace(example_trial, seed=seed) for seed in (2, 0, 1)]
    folder.write_run({"trials": [dataclasses.asdict(t) for t in trials]})
    assert folder.records() == []
    for trial in reversed(trials[1:]):
        folder.write_record(trial.id, {"status": "ok", "score": math.nan})
    assert [record["id"] for record in folder.records()] == [trial.id for trial in trials[1:]]
    first = folder.records()[0]
    first.pop("checksum")
    assert first == {"format": 1, "id": trials[1].id, "status": "ok", "score": None}


def test_a_half_written_record_is_never_read(folder: RunFolder, example_trial: Trial) -> None:
    """What a crash leaves: a temporary file beside the place of the record."""
    folder.write_run({"trials": [dataclasses.asdict(example_trial)]})
    (folder.path / "trials").mkdir()
    (folder.path / "trials" / f".{example_trial.id}.json.host.123.abcdef01.tmp").write_text('{"status": "ok"')
    assert folder.record(example_trial.id) is None
    assert folder.records() == []


HOSTILE = ["", ".", "..", "../x", "a/b", "/etc/passwd", ".hidden", "a\\b", "a\n", "a b", "a\x00", "ä", "~", "C:x"]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_cannot_leave_the_folder(folder: RunFolder, name: str) -> None:
    calls = [
        lambda: folder.write_record(name, {}),
        lambda: folder.record(name),
        lambda: folder.agree_on_steps(name, 1),
        lambda: folder.steps(name),
        lambda: folder.write_arrays(name, {}),
        lambda: folder.arrays(name),
        lambda: folder.log_path(name),
    ]
    for call in calls:
        with pytest.raises(UsageError, match="is not the id of a trial"):
            call()
    assert files_in(folder.path) == []


def test_steps(folder: RunFolder) -> None:
    assert folder.steps("a") is None
    assert folder.agree_on_steps("a", 321) == 321
    assert folder.agree_on_steps("a", 99) == 321, "who comes second takes the first one's number"
    assert folder.steps("a") == 321


# --- arrays ---------------------------------------------------------------------------------------------


def test_arrays_come_back_by_prefix(folder: RunFolder) -> None:
    arrays = {
        "weights/core.w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "weights/head.b": np.zeros(0),
        "task/text": np.array("olá"),
        "task/weights/x": np.int8(3),
    }
    folder.write_arrays("a", {name: np.asarray(array) for name, array in arrays.items()})
    assert sorted(folder.arrays("a", "weights/")) == ["core.w", "head.b"]
    assert sorted(folder.arrays("a")) == sorted(arrays)
    for name, array in folder.arrays("a").items():
        np.testing.assert_array_equal(array, arrays[name])
        assert array.dtype == np.asarray(arrays[name]).dtype
    assert str(folder.arrays("a", "task/")["text"]) == "olá"
    assert folder.arrays("b") == {}


def test_weights_lie_apart_and_may_be_deleted(folder: RunFolder) -> None:
    folder.write_arrays("a", {"weights/w": np.arange(3), "task/x": np.ones(2)})
    both = folder.digests("a")
    folder.write_arrays("b", {"weights/w": np.arange(3), "task/x": np.zeros(2)})
    assert folder.digests("b")["weights"] == both["weights"], "the same bytes again"
    assert folder.digests("b")["artifacts"] != both["artifacts"]
    (folder.path / "weights" / "a.npz").unlink()
    assert folder.arrays("a", "weights/") == {}
    assert sorted(folder.arrays("a")) == ["task/x"]
    assert folder.digests("a") == {"artifacts": both["artifacts"], "weights": None}


@pytest.mark.parametrize("dtype", [object, [("x", object), ("y", float)]])
def test_objects_are_neither_written_nor_read(folder: RunFolder, dtype: object) -> None:
    hidden = np.zeros(2, dtype=dtype)
    with pytest.raises(ValueError, match="array 'task/x' holds Python objects"):
        folder.write_arrays("a", {"task/y": np.zeros(1), "task/x": hidden})
    assert folder.arrays("a") == {}
    (folder.path / "artifacts").mkdir()
    np.savez(folder.path / "artifacts" / "b.npz", x=hidden)  # a stranger's run
    with pytest.raises(ValueError, match="allow_pickle"):
        folder.arrays("b")


# --- as a frame -----------------------------------------------------------------------------------------


def record_of(trial: Trial, **fields: object) -> dict[str, object]:
    return {"trial": dataclasses.asdict(trial), "task_label": trial.task_label, "id": trial.id, **fields}


def test_frame_has_a_row_for_each_trial_whatever_its_end(example_trial: Trial) -> None:
    done = record_of(
        example_trial,
        status="ok",
        score=99.0,
        task={"score": "recall"},
        parameters={"network": 49_500, "core": 48_000},
        metrics={"test": {"recall": 99.0}, "valid": {"recall": 98.0}},
        speed={"train_seconds": 2.0},
    )
    other = replace(example_trial, task="adding", task_label="adding/embedded")
    table = frame(
        [done, record_of(other, status="timeout", cause="killed"), record_of(other, status="ok", metrics=None)]
    )
    assert [*table.columns] == [*(c.name for c in COLUMNS), "test_recall", "valid_recall"]
    assert [*table.status] == ["ok", "timeout", "ok"]
    first, second = table.iloc[0], table.iloc[1]
    assert (first.score, first.test_recall, first.valid_recall, first.train_seconds) == (99.0, 99.0, 98.0, 2.0)
    assert first.parameters_error == pytest.approx(-0.01)
    assert first.model_options == "forget_bias=1.0,chrono=False"
    assert second[["score", "test_recall", "parameters", "parameters_error"]].isna().all()
    assert (second.cause, second.lr, second.id) == ("killed", 0.003, other.id)


def test_frame_of_nothing_has_all_columns() -> None:
    assert [*frame([]).columns] == [c.name for c in COLUMNS]
    assert all(c.summary for c in COLUMNS)
    assert len({c.name for c in COLUMNS}) == len(COLUMNS)


@pytest.mark.parametrize("cell", ["=1+1", "+1", "-1", "@x", "\t=1", "\r=1"])
def test_no_cell_of_the_csv_is_a_formula(cell: str) -> None:
    text = to_csv(pd.DataFrame({"a": [cell, "safe=1", -1.5]}))
    assert pd.read_csv(pd.io.common.StringIO(text), lineterminator="\n").a.tolist() == ["'" + cell, "safe=1", "-1.5"]


def test_trials_that_are_none(folder: RunFolder) -> None:
    folder.write_run({"spec": {}, "trials": [{"task": "copy"}]})
    with pytest.raises(UsageError, match=r"The trials in .*run\.json cannot be read: it is damaged"):
        RunFolder.open(folder.path).records()


def test_a_damaged_record_is_named(folder: RunFolder) -> None:
    folder.write_record("a", {"status": "ok"})
    (path,) = (folder.path / "trials").glob("*.json")
    for content in ('{"status": "o', "{}", "[]", "3"):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(UsageError, match=r"The record .*a\.json is damaged; remove it"):
            folder.record("a")
