"""The rows as a Parquet file, read back by pyarrow itself; and any table into a file."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from made_up_runs import ADDING, COPY, failed, make_folder, make_record, make_trial
from pyarrow import parquet

from seqbench.cli import cli
from seqbench.store import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Two tasks, a failure, a trial that has not run, a label that is a formula."""
    trials = [make_trial(task, label, seed) for task in (COPY, ADDING) for label in ("lstm", "=1+1") for seed in (0, 1)]
    records = [make_record(t, COPY if t.task == COPY.name else ADDING) for t in trials[:6]] + [failed(trials[6])]
    return make_folder(tmp_path, trials, records)


def report(*words: object) -> Result:
    return CliRunner().invoke(cli, ["report", *map(str, words)])


def test_it_holds_what_the_csv_holds(run: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "new" / "r.parquet"
    assert report(run.path, "--format", "parquet", "-o", path).output == ""
    report(run.path)
    with (run.path / "results.csv").open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    table = parquet.read_table(path)
    assert table.column_names == list(written[0])
    found = table.to_pylist()
    assert len(found) == len(written) == 8
    assert {row["model"] for row in found} == {"lstm", "=1+1"}, "no spreadsheet reads it: no apostrophe"
    for row, texts in zip(found, written, strict=True):
        for name, value in row.items():
            text = texts[name].removeprefix("'")
            assert (value is None) == (text == ""), name
            assert value is None or type(value)(float(text) if isinstance(value, int) else text) == value, name


def test_types_do_not_hang_on_what_is_missing(tmp_path: Path) -> None:
    """A run of nothing but ``not_run`` has the columns of one that is complete, of the same types."""
    trial = make_trial()
    types = []
    for name, records in (("full", [make_record(trial)]), ("empty", [])):
        folder = make_folder(tmp_path / name, [trial], records)
        report(folder.path, "--format", "parquet", "-o", tmp_path / f"{name}.parquet")
        schema = parquet.read_schema(tmp_path / f"{name}.parquet")
        types.append({f.name: str(f.type).removeprefix("large_") for f in schema})
    full, empty = types
    assert {name: full[name] for name in ("seed", "steps", "score", "cause", "train_flops", "test_loss")} == {
        "seed": "int64", "steps": "int64", "score": "double", "cause": "string", "train_flops": "double",
        "test_loss": "double",
    }  # fmt: skip
    assert empty == {name: full[name] for name in empty}
    assert set(full) - set(empty) == {"test_recall", "test_loss", "valid_recall", "valid_loss"}


def test_without_pyarrow_one_line_says_what_to_install(run: RunFolder, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    done = report(run.path, "--format", "parquet", "-o", tmp_path / "r.parquet")
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert "pip install 'seqbench[parquet]'" in line
    assert not (tmp_path / "r.parquet").exists()


def test_it_never_goes_to_the_terminal(run: RunFolder) -> None:
    done = report(run.path, "--format", "parquet")
    assert done.exit_code == 2
    assert "--output results.parquet" in done.output
    assert len(done.output.splitlines()) == 1


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_a_text_goes_into_a_file_too(run: RunFolder, tmp_path: Path, form: str) -> None:
    path = tmp_path / "table"
    assert report(run.path, "--format", form, "--output", path).output == ""
    assert path.read_text(encoding="utf-8") == report(run.path, "--format", form).output
    assert report(run.path, "-o", path).exit_code == 2, "what would be written?"
