"""``Results``: what a Python user and a notebook get."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from made_up_runs import COPY, MODELS, failed, full_run, make_folder, make_record, make_trial
from rich.console import Console

from seqbench.cli import cli
from seqbench.frame import COLUMNS
from seqbench.registry import Registry
from seqbench.results import Results


def test_frame_and_summary(tmp_path: Path, registry: Registry) -> None:
    results = Results(full_run(tmp_path), registry)
    assert results.path == tmp_path / "a-run"
    assert len(results.frame) == 18
    assert (results.summary["kind"] == "model").sum() == 6
    assert results.ok


def test_the_csv_holds_the_documented_columns(tmp_path: Path, registry: Registry) -> None:
    results = Results(full_run(tmp_path), registry)
    assert results.write_report() == results.path / "report.html"
    head = next(csv.reader((results.path / "results.csv").read_text(encoding="utf-8").splitlines()))
    metrics = [f"{split}_{m.name}" for split in ("test", "valid") for m in COPY.metrics]
    assert head == [*(column.name for column in COLUMNS), *metrics]


def test_a_trial_without_a_record_is_a_row_and_not_ok(tmp_path: Path, registry: Registry) -> None:
    trials = [make_trial(seed=s) for s in range(3)]
    results = Results(make_folder(tmp_path, trials, [make_record(trials[0]), failed(trials[2])]), registry)
    assert list(results.frame["status"]) == ["ok", "not_run", "diverged"]
    assert list(results.frame["seed"]) == [0, 1, 2]
    assert not results.ok


def test_repr_is_a_text_table(tmp_path: Path, registry: Registry) -> None:
    text = repr(Results(full_run(tmp_path), registry))
    assert text.startswith(f"Results of {tmp_path / 'a-run'}\n")
    assert all(model in text for model in MODELS)


def test_notebook_table_is_escaped(tmp_path: Path, registry: Registry) -> None:
    trial = make_trial(label="<script>x</script>")
    folder = make_folder(tmp_path, [trial], [failed(trial, cause="<img src=x>")])
    html = Results(folder, registry)._repr_html_()
    assert "<script" not in html
    assert "<img" not in html
    assert "&lt;script&gt;" in html
    assert html.startswith("<table>")


def test_print(tmp_path: Path, registry: Registry) -> None:
    file = io.StringIO()
    Results(full_run(tmp_path), registry).print(Console(file=file, width=90))
    assert "transformer" in file.getvalue()


def test_the_module_is_light() -> None:
    heavy = {"pandas", "numpy", "scipy", "matplotlib", "rich", "jinja2", "torch"}
    code = f"import sys, seqbench.results; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_report_reads_each_record_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten thousand records are seconds of reading."""
    folder = full_run(tmp_path, models=("lstm", "gru"), seeds=2)
    read: Counter[str] = Counter()
    read_text = Path.read_text

    def counted(path: Path, *arguments: Any, **named: Any) -> str:
        read[path.name] += 1
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", counted)
    done = CliRunner().invoke(cli, ["report", str(folder.path)])
    assert done.exit_code == 0
    assert {name: read[name] for name in read if name.startswith("copy-")} == {
        f"{trial.id}.json": 1 for trial in folder.trials()
    }
