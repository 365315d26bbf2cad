"""A report is rebuilt from the stored records alone: the same bytes in other processes, without torch."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_up_runs import ADDING, CHARS, COPY, failed, make_folder, make_record, make_trial

from seqbench.store import RunFolder

REBUILD = '''
import sys


class Away:
    """As if they were not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "numba", "llvmlite"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Away())
from seqbench.cli import main
sys.argv = ["seqbench", "report", sys.argv[1], "--figures"]
main()
'''
MADE = ("report.html", "results.csv", "summary.csv", "figures")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Three tasks, two backends, tuning, a failure, a trial not run, and text that a section of a plugin shows."""
    trials = [
        make_trial(task, label, seed, backend=backend)
        for task in (COPY, ADDING, CHARS)
        for label in ("lstm", "tcn", "rnn")
        for backend in ("torch", "numba")
        for seed in range(3)
    ]
    trials = [make_trial(purpose="tuning", seed=9, setting={"lr": lr}) for lr in (1e-3, 1e-2)] + trials
    tasks = {task.name: task for task in (COPY, ADDING, CHARS)}
    records = [make_record(trial, tasks[trial.task]) for trial in trials[:-2]] + [failed(trials[-2])]
    folder = make_folder(tmp_path, trials, records)
    written = {"prompt": "the ", "sample": "cat sat", "temperature": 0.8}
    for trial in trials[:-2]:
        if trial.task == CHARS.name:
            folder.write_arrays(trial.id, {f"task/{name}": np.array(value) for name, value in written.items()})
    return folder


def rebuilt(folder: RunFolder, hash_seed: int) -> dict[str, str]:
    """The digest of each file that is made anew; sets have another order in each process."""
    for path in files(folder):
        path.unlink()
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, "-c", REBUILD, str(folder.path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    assert not done.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files(folder)}


def files(folder: RunFolder) -> list[Path]:
    return [path for name in MADE for path in sorted(folder.path.rglob(f"{name}/*" if name == "figures" else name))]


@pytest.mark.slow
def test_the_same_bytes_in_any_process_without_torch(run: RunFolder) -> None:
    first, second = rebuilt(run, 1), rebuilt(run, 2)
    assert {Path(name).suffix for name in first} == {".html", ".csv", ".svg", ".png"}
    assert len(first) > 3 + 2 * 3 * 5
    assert {name for name in first if first[name] != second.get(name)} == set()
    assert first.keys() == second.keys()
    page = (run.path / "report.html").read_text(encoding="utf-8")
    assert "Generated text" in page, "sections of plugins are there"
    assert "could not be made" not in page
