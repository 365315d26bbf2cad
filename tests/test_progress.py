"""What the user sees while trials run."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from seqbench.progress import Lines, Table
from seqbench.spec import FIRST_STEP, STEP, Trial
from seqbench.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


def record(**speed: float) -> dict[str, Any]:
    metrics = [{"name": "recall", "unit": "%"}]
    return {"status": "ok", "trial": {}, "score": 99.5, "task": {"score": "recall", "metrics": metrics}, "speed": speed}


@pytest.mark.parametrize(
    ("speed", "ending"),
    [
        ({"seconds": 14.04, "first_step_seconds": 9.8}, " (14.0 s, 9.8 s of it compiling)"),
        ({"seconds": 14.04, "first_step_seconds": 0.3}, " (14.0 s)"),
        ({"seconds": 14.04}, " (14.0 s)"),
        ({}, ""),
    ],
)
def test_a_line_says_how_long_it_took_and_how_much_of_it_was_compiling(
    folder: RunFolder, example_trial: Trial, speed: dict[str, float], ending: str
) -> None:
    said: list[str] = []
    Lines([example_trial], folder, said.append).finished(example_trial, record(**speed))
    assert said == [f"[1/1] copy/embedded lstm torch seed 0: recall 99.5 %{ending}"]


def shown(trials: list[Trial], folder: RunFolder, running: Trial) -> str:
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=False)
    table = Table(trials, folder, console)
    table.started(running)
    console.print(table._render())
    return out.getvalue()


def test_the_table_says_that_kernels_are_compiled(folder: RunFolder, example_trial: Trial) -> None:
    log = folder.log_path(example_trial.id)
    log.parent.mkdir()
    assert "starting" in shown([example_trial], folder, example_trial)
    log.write_text(f"{FIRST_STEP}\n")
    assert "compiling" in shown([example_trial], folder, example_trial)
    log.write_text(f"{FIRST_STEP}\n{STEP} 30/200 loss 1.0\n")
    assert "15%" in shown([example_trial], folder, example_trial)


def test_the_table_names_the_backend_where_there_are_two(folder: RunFolder, example_trial: Trial) -> None:
    other = replace(example_trial, backend="numba")
    assert "lstm · torch" not in shown([example_trial], folder, example_trial)
    both = shown([example_trial, other], folder, other)
    assert "lstm · torch" in both
    assert "lstm · numba" in both
