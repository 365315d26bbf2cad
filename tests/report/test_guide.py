"""docs/reading-a-report.md leaves out nothing that a report has."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from made_up_runs import COPY, make_folder, make_record, make_trial, with_speed

from seqbench.registry import load
from seqbench.report.collect import Run, read_run
from seqbench.report.summary import summary_of
from seqbench.report.table import columns
from seqbench.report.verdicts import PAIRS

GUIDE = (Path(__file__).parent.parent.parent / "docs" / "reading-a-report.md").read_text(encoding="utf-8")


def first_cells(heading: str, place: int = 0) -> list[str]:
    """A column of the table below a heading, its head left out."""
    section = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    assert section, heading
    lines = [line for line in section[1].splitlines() if line.startswith("| ")]
    return [line.strip("| ").split(" | ")[place] for line in lines[2:]]


def a_run(tmp_path: Path) -> Run:
    solvable = replace(COPY, metrics=(replace(COPY.metrics[0], solved=99.0), *COPY.metrics[1:]))
    trials = [make_trial(solvable, seed=seed) for seed in range(2)]
    trials += [make_trial(solvable, "gru", seed) for seed in range(2)]
    records = [make_record(trial, solvable, 99.5 - trial.seed) for trial in trials]
    return read_run(with_speed(make_folder(tmp_path, trials, records)))


def test_every_column_of_the_leaderboard_is_explained(tmp_path: Path) -> None:
    (task,) = a_run(tmp_path).tasks
    names = [column.title.partition(" [")[0].removesuffix(" %") for column in columns(task)]
    metrics = {metric.name for metric in task.metrics}
    own = [name for name in names if name.split()[0] not in metrics]
    assert [name for name in first_cells("The leaderboard") if name != "the task's metrics"] == own


def test_every_column_of_the_summary_is_explained(tmp_path: Path) -> None:
    told = [name for cell in first_cells("summary.csv") for name in re.findall(r"`([^`]+)`", cell)]
    found = list(summary_of(a_run(tmp_path)).columns)
    assert [name for name in found if not name.startswith("test_")] == [n for n in told if n != "test_<metric>"]


def test_every_column_of_the_pairs_is_explained() -> None:
    assert first_cells("Verdicts") == [name for name, _ in PAIRS]


def test_every_section_of_a_task_is_explained() -> None:
    tasks = [cell.strip("`") for cell in first_cells("What a task adds")]
    cards = load()
    expected = {name: len(cards.sections_of(name)) for name in cards.tasks}
    assert {name: tasks.count(name) for name in cards.tasks} == expected
