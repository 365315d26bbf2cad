"""Tables to paste and figures as files."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from click.testing import CliRunner
from made_up_runs import (
    ADDING,
    COPY,
    failed,
    full_run,
    make_folder,
    make_record,
    make_trial,
    speed_row,
    with_speed,
)
from matplotlib import image
from matplotlib.figure import Figure

from seqbench.api import Block, Section
from seqbench.cli import cli
from seqbench.errors import UnknownName
from seqbench.registry import Registry
from seqbench.report.collect import read_run
from seqbench.results import Results
from seqbench.store import RunFolder

NASTY = r"a|b_c*[x=1]`<i>&%$#{}~^\end"


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    trials = [
        make_trial(task, label, seed) for task in (COPY, ADDING) for label in ("lstm", NASTY) for seed in range(3)
    ]
    return make_folder(tmp_path, trials, [make_record(t, COPY if t.task == COPY.name else ADDING) for t in trials])


def table_of(folder: RunFolder, form: str) -> str:
    return Results(folder, Registry()).table(form)


def cells_of(line: str) -> list[str]:
    """What a reader of Markdown sees in the cells of a line."""
    cells = re.split(r"(?<!\\)\|", line)[1:-1]
    return [re.sub(r"\\(.)", r"\1", cell.strip()) for cell in cells]


def test_markdown_has_a_table_a_task_and_nothing_breaks_it(run: RunFolder) -> None:
    text = table_of(run, "markdown")
    parts = text.split("\n\n")
    assert [part for part in parts if part.startswith("### ")] == ["### copy/embedded", "### adding/embedded"]
    for table in (part for part in parts if part.startswith("| ")):
        lines = [cells_of(line) for line in table.splitlines()]
        assert {len(line) for line in lines} == {len(lines[0])}
        assert lines[0][0] == "Model"
        assert lines[1][:2] == ["---", "---:"]
        models = [line[0] for line in lines[2:]]
        assert {"lstm", NASTY, "trivial", "optimum"} <= set(models)


def test_the_numbers_are_those_of_the_leaderboard(run: RunFolder) -> None:
    (task, _) = read_run(run, Registry()).tasks
    row = next(row for row in task.rows if row.label == "lstm")
    line = next(line for line in table_of(run, "markdown").splitlines() if line.startswith("| lstm |"))
    mean, half = map(float, cells_of(line)[1].split(" ± "))
    assert mean == pytest.approx(row.scores.mean, abs=0.51 * 10 ** -len(str(mean).partition(".")[2]))
    assert half == pytest.approx(row.scores.half_width, rel=0.05)


def test_latex_escapes_everything_and_its_rows_are_complete(run: RunFolder) -> None:
    text = table_of(run, "latex")
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    for body in re.findall(r"\\begin\{tabular\}\{([lr]+)\}\n(.*?)\\end\{tabular\}", text, re.DOTALL):
        shape, lines = body[0], [line for line in body[1].splitlines() if line.endswith(r"\\")]
        assert len(lines) >= 5
        for line in lines:
            assert len(re.split(r"(?<!\\)&", line)) == len(shape)
    bare = re.sub(r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater)\{\}|\\[{}$&#%_\\]", "", text)
    outside = re.sub(r"\\(begin|end|caption)\{[^{}]*\}(\{[lr]+\})?|\{\[\}|\{\]\}|\$\\\w+\$|\$-\$|&", "", bare)
    assert not set("{}$#%_^~<>[]") & set(outside)
    assert not re.search(r"[^\x00-\x7f]", text.replace("ü", "")), "any LaTeX reads it"


def test_a_minus_is_one_in_latex(tmp_path: Path) -> None:
    trial = make_trial(parameters=49_500)
    assert "& $-$1.0 &" in table_of(make_folder(tmp_path, [trial], [make_record(trial)]), "latex")


def test_csv_is_the_summary(run: RunFolder) -> None:
    rows = list(csv.DictReader(io.StringIO(table_of(run, "csv"))))
    results = Results(run, Registry())
    assert len(rows) == len(results.summary)
    assert float(rows[0]["score"]) == pytest.approx(results.summary["score"].iloc[0])
    results.write_report()
    assert (run.path / "summary.csv").read_text(encoding="utf-8") == table_of(run, "csv")


@pytest.mark.parametrize("label", ["=1+1", "=cmd|' /C calc'!A0"])
def test_a_formula_in_a_cell_is_text(tmp_path: Path, label: str) -> None:
    trial = make_trial(label=label)
    folder = make_folder(tmp_path, [trial], [make_record(trial)])
    (row, *_) = csv.DictReader(io.StringIO(table_of(folder, "csv")))
    assert row["model"] == f"'{label}"
    Results(folder, Registry()).write_report()
    for name in ("results.csv", "summary.csv"):
        text = (folder.path / name).read_text(encoding="utf-8")
        assert f"'{label}" in text
        assert not re.search(r"(?:^|[,\"])=", text, re.MULTILINE), "no cell begins with it"


@pytest.mark.parametrize("form", ["markdown", "latex", "csv"])
def test_nothing_but_failures(tmp_path: Path, form: str) -> None:
    trial = make_trial()
    assert "diverged" in table_of(make_folder(tmp_path, [trial], [failed(trial)]), form)


def test_an_unknown_form(run: RunFolder) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'latex'"):
        table_of(run, "latx")


def test_figures_are_files_in_two_kinds_the_same_every_time(tmp_path: Path) -> None:
    folder = full_run(tmp_path, models=("lstm", "tcn"), seeds=2)
    paths = Results(folder, Registry()).write_figures()
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.parent for path in paths} == {folder.path / "figures"}
    assert len(first) == len(paths), "no name is used twice"
    stems = {path.stem for path in paths}
    assert {f"{stem}.{kind}" for stem in stems for kind in ("svg", "png")} == set(first)
    assert any("against-parameters" in stem for stem in stems)
    for path in paths:
        if path.suffix == ".svg":
            assert ET.parse(path).getroot().tag.endswith("svg")
        else:
            assert np.ptp(image.imread(path)) > 0.5, "something is drawn"
            assert image.imread(path).shape[1] > 700
    again = Results(folder, Registry()).write_figures()
    assert {path.name: path.read_bytes() for path in again} == first


def test_two_tasks_whose_names_look_alike_keep_their_figures_apart(tmp_path: Path) -> None:
    one, other = make_trial(task_label="copy[T=1]"), make_trial(task_label="copy(T=1)")
    records = [make_record(trial) | {"task_label": trial.task_label} for trial in (one, other)]
    paths = Results(make_folder(tmp_path, [one, replace(other)], records), Registry()).write_figures()
    assert len({path.name for path in paths}) == len(paths)
    assert len(paths) % 4 == 0


def test_figures_of_sections_are_files_too(tmp_path: Path, registry: Registry, section: Callable[..., None]) -> None:
    def make(_views: object) -> Section:
        figure = Figure()
        figure.add_subplot().plot([1, 2])
        return Section("Why", (Block("text", "words"), Block("figure", figure, caption="Gradient / time")))

    def broken(_views: object) -> Section:
        raise ValueError

    section(make)
    section(broken, "other")
    trial = make_trial()
    paths = Results(make_folder(tmp_path, [trial], [make_record(trial)]), registry).write_figures()
    assert {"copy-embedded-gradient-time.svg", "copy-embedded-gradient-time.png"} < {path.name for path in paths}


def test_figures_of_a_speed_phase_are_files_too(tmp_path: Path) -> None:
    rows = [speed_row("gru", "infer", length=length) for length in (64, 128)]
    folder = with_speed(full_run(tmp_path, models=("gru",), seeds=1), *rows)
    names = {path.name for path in Results(folder, Registry()).write_figures()}
    assert "copy-embedded-time-against-length-ms-a-call-infer-batch-1.svg" in names
    assert "copy-embedded-memory-of-a-call-against-length-mib-infer-batch-1.png" in names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "parqet"], "Did you mean 'parquet'"),
        (["--format", "csv", "-o", "."], "--output . is a folder; name a file in it"),
    ],
)
def test_what_cannot_be_written_is_said(run: RunFolder, words: list[str], said: str) -> None:
    done = CliRunner().invoke(cli, ["report", str(run.path), *words])
    assert done.exit_code == 2
    assert said in done.output
