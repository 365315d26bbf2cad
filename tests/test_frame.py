"""The frame and its CSV: columns, values, documentation, no formulas."""

from __future__ import annotations

import csv
import io
import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from seqbench.frame import COLUMNS, frame, to_csv

DOCS = Path(__file__).parent.parent / "docs" / "results.md"
NAMES = [column.name for column in COLUMNS]


def record(**changes: Any) -> dict[str, Any]:
    trial = {
        "label": "lstm[layers=2]",
        "backend": "torch",
        "device": "cpu",
        "seed": 3,
        "target_parameters": 50_000,
        "width": 64,
        "layers": 2,
        "model_options": {"forget_bias": 1.0, "chrono": False},
        "training": {"lr": 0.003, "batch": 32},
        "threads": 1,
    }
    return {
        "id": "copy-s3",
        "trial": trial,
        "task_label": "copy/embedded",
        "status": "ok",
        "score": 99.0,
        "task": {"score": "recall"},
        "parameters": {"network": 51_000, "core": 49_000},
        "steps": 1000,
        "metrics": {"test": {"recall": 99.0, "loss": 0.01}, "valid": {"recall": 98.0, "loss": 0.02}},
        "speed": {"train_tokens_per_s": 10.0, "seconds": 2.0},
    } | changes


def test_columns_and_values() -> None:
    table = frame([record()])
    assert list(table.columns) == [*NAMES, "test_recall", "test_loss", "valid_recall", "valid_loss"]
    row = table.iloc[0]
    assert (row["task"], row["model"], row["seed"]) == ("copy/embedded", "lstm[layers=2]", 3)
    assert row["parameters_error"] == pytest.approx(0.02)
    assert row["model_options"] == "forget_bias=1.0,chrono=False"
    assert (row["valid_recall"], row["train_tokens_per_s"]) == (98.0, 10.0)
    assert pd.isna(row["peak_memory_mib"])


def test_a_failed_trial_is_a_row() -> None:
    bare = {key: record()[key] for key in ("id", "trial", "task_label")}
    table = frame([bare | {"status": "timeout", "cause": "killed after 60 s"}, record()])
    assert list(table["status"]) == ["timeout", "ok"]
    assert pd.isna(table["score"][0])
    assert pd.isna(table["test_recall"][0])


def test_parts_may_be_null() -> None:
    table = frame([record(speed=None, metrics=None, parameters=None, score=None)])
    assert pd.isna(table["train_tokens_per_s"][0])
    assert pd.isna(table["parameters_error"][0])


def test_no_record_gives_an_empty_table_with_columns() -> None:
    assert list(frame([]).columns) == NAMES


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_cell_is_a_formula(start: str) -> None:
    hostile = f'{start}cmd|"/c calc"!A1'
    text = to_csv(frame([record(cause=hostile, status="error", task_label=hostile)]))
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["cause"] == f"'{hostile}"
    assert row["task"] == f"'{hostile}"


def test_negative_numbers_stay_numbers() -> None:
    text = to_csv(frame([record(parameters={"network": 49_000, "core": 1})]))
    (row,) = csv.DictReader(io.StringIO(text))
    assert float(row["parameters_error"]) == pytest.approx(-0.02)


def test_it_comes_back_from_csv() -> None:
    table = frame([record(), record(id="other", status="error", cause='said "no", twice\nand more')])
    back = pd.read_csv(io.StringIO(to_csv(table)))
    assert list(back.columns) == list(table.columns)
    assert back["cause"][1] == 'said "no", twice\nand more'
    assert back["score"].tolist() == table["score"].tolist()


# --- docs/results.md --------------------------------------------------------------------------------


def documented() -> dict[str, list[str]]:
    """First cell of each row of the tables in the docs, to its other cells."""
    rows = (
        line.strip().strip("|").split("|") for line in DOCS.read_text(encoding="utf-8").splitlines() if line[:1] == "|"
    )
    cells = [[cell.strip() for cell in row] for row in rows]
    return {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}


def test_every_column_is_documented_with_its_meaning_and_unit() -> None:
    rows = documented()
    for column in COLUMNS:
        assert column.name in rows, f"{column.name} is not in {DOCS.name}"
        assert rows[column.name][:2] == [column.summary, column.unit], column.name


def test_no_column_is_documented_that_is_not_there() -> None:
    text = DOCS.read_text(encoding="utf-8")
    section = re.search(r"## Columns of results.csv\n(.*?)\n## ", text, re.DOTALL)
    assert section is not None
    listed = re.findall(r"^\| `([^`]+)`", section[1], re.MULTILINE)
    assert listed == [*NAMES, "test_<metric>", "valid_<metric>"]


def test_every_status_is_documented() -> None:
    status = next(column for column in COLUMNS if column.name == "status")
    words = re.findall(r"[a-z_]+", status.summary.replace(" or ", " "))
    assert len(words) > 6
    assert set(words) <= set(documented())


def test_the_module_is_light() -> None:
    """``import seqbench.frame`` costs no pandas; checked in a fresh interpreter."""
    import subprocess

    code = "import sys, seqbench.frame; assert not {'pandas', 'numpy', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
