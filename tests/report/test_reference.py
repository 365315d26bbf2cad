"""The published run: what is committed of it is enough to make its tables and its report again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from seqbench.integrity import record_fault
from seqbench.registry import load
from seqbench.report.collect import read_run
from seqbench.report.figure_files import named_pictures
from seqbench.report.write import REPORT, SUMMARY, TABLE
from seqbench.results import Results
from seqbench.store import RunFolder, is_as_written

REFERENCE = Path(__file__).parent.parent.parent / "results" / "reference"

SECTION = {
    "copy": "How far back it remembers",
    "adding": "How far back it remembers",
    "char-lm": "Loss by position in the context",
    "sentiment": "Word by word",
    "translation": "Score by source length",
}
"""One of the sections of each task."""

pytestmark = [
    pytest.mark.xdist_group("reference"),  # what all share takes long
    pytest.mark.skipif(not REFERENCE.is_dir(), reason="no checkout: results/reference is not in packages"),
]


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A copy without what is made from the records, made anew."""
    path = tmp_path_factory.mktemp("copy") / "reference"
    shutil.copytree(REFERENCE, path, ignore=shutil.ignore_patterns(REPORT, TABLE, SUMMARY, "weights", "logs"))
    folder = RunFolder.open(path)
    Results(folder, load()).write_report()
    return folder


@pytest.mark.parametrize("name", [TABLE, SUMMARY])
def test_its_tables_are_those_of_its_records(rebuilt: RunFolder, name: str) -> None:
    assert (rebuilt.path / name).read_text(encoding="utf-8") == (REFERENCE / name).read_text(encoding="utf-8")


def test_its_report_explains_every_task_that_has_run(rebuilt: RunFolder) -> None:
    page = (rebuilt.path / REPORT).read_text(encoding="utf-8")
    assert "could not be made" not in page
    trained = {trial.task for trial in rebuilt.trials() if (rebuilt.record(trial.id) or {}).get("score") is not None}
    assert {"copy", "sentiment"} <= trained
    for task in trained:
        assert SECTION[task] in page, task


def test_no_figure_is_cut_off_or_squeezed(rebuilt: RunFolder) -> None:
    """All that is drawn lies on the paper, and the axes have most of it."""
    registry = load()
    for name, picture in named_pictures(read_run(rebuilt, registry), rebuilt, registry):
        figure = picture.figure
        figure.draw_without_rendering()
        paper, drawn = figure.bbox_inches, figure.get_tightbbox()
        assert paper.x0 <= drawn.x0 < drawn.x1 <= paper.x1, name
        assert paper.y0 <= drawn.y0 < drawn.y1 <= paper.y1, name
        panels = [(ax, where) for ax in figure.axes if (where := ax.get_subplotspec()) is not None]  # no colour bars
        rows = len({where.rowspan.start for _, where in panels})
        assert max(ax.get_position().height for ax, _ in panels) >= 0.45 / rows, name


def test_its_records_are_as_the_trials_wrote_them(rebuilt: RunFolder) -> None:
    assert is_as_written(rebuilt.run())
    ended = [trial for trial in rebuilt.trials() if rebuilt.record(trial.id) is not None]
    assert ended
    assert {trial.id: fault for trial in ended if (fault := record_fault(rebuilt, trial))} == {}


def test_it_names_no_place_of_the_machine_that_made_it() -> None:
    """Data lie elsewhere on every machine."""
    for path in (REFERENCE / "run.json", REFERENCE / "spec.toml", REFERENCE / REPORT):
        text = path.read_text(encoding="utf-8")
        assert os.environ.get("SEQBENCH_DATA", "\0") not in text
        assert "/home/" not in text
        assert "/tmp/" not in text
