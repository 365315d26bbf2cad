"""The example packages, installed as a stranger's would be (``tox -e examples``): they are found, and they run."""

from __future__ import annotations

import csv
import subprocess
from importlib.metadata import files
from pathlib import Path

import pytest

import seqbench_mingru
import seqbench_mqar

EXAMPLES = Path(__file__).parent
MODELS = ("mingru", "minlstm", "lstm")
SMALL = ("--seeds", "2", "--budget", "20steps", "--params", "5k")


def seqbench(*words: str) -> str:
    """What the command prints."""
    done = subprocess.run(["seqbench", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("package", [seqbench_mingru, seqbench_mqar], ids=lambda package: package.__name__)
def test_what_is_tested_is_installed_and_no_part_of_seqbench(package: object) -> None:
    assert not Path(package.__file__).is_relative_to(EXAMPLES)
    assert package.__name__ not in {path.parts[0] for path in files("seqbench")}


def test_list_says_where_they_come_from() -> None:
    lines = {line.split()[0]: line for line in seqbench("list").splitlines() if line.startswith("  ")}
    for name in ("mingru", "minlstm"):
        assert lines[name].endswith("[seqbench-mingru 0.1.0]")
    assert lines["mqar"].endswith("[seqbench-mqar 0.1.0]")
    assert "[" not in lines["lstm"]


def test_they_run_beside_the_built_in_models(tmp_path: Path) -> None:
    models = [word for name in MODELS for word in ("--model", name)]
    seqbench("run", "--task", "mqar", *models, *SMALL, "--out", str(tmp_path))
    (run,) = tmp_path.iterdir()
    with (run / "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted((row["model"], row["seed"], row["status"]) for row in rows) == sorted(
        (name, seed, "ok") for name in MODELS for seed in "01"
    )
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "Test recall by distance" in page
    assert "unbound" in page
    environment = (run / "run.json").read_text(encoding="utf-8")
    assert "seqbench-mingru" in environment
    assert "seqbench-mqar" in environment
