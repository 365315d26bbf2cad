"""What ``seqbench report`` costs on large runs with made-up records.

    python tests/benchmarks/bench_report.py [--rounds 3]

Three runs: one task's, a wide one of 10,000 trials that score, and one of 10,000 trials most of which tune. Records are
as large as those of a thousand steps: 200 points of the training loss, 20 validations. The first seed of each model has
artifacts. Seconds are of the whole command in a process of its own, start and imports included: wall time and CPU time;
beside them the largest resident size of that process; medians over the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from interleaved import table

from seqbench.spec import Trial
from seqbench.store import FORMAT, RunFolder, checksum, strict

sys.path.insert(0, str(Path(__file__).parent.parent / "report"))
from made_up_runs import ADDING, CHARS, COPY, MODELS, FakeTask, make_folder, make_record, make_trial

SOLVED_COPY = replace(COPY, metrics=(replace(COPY.metrics[0], solved=97.0), *COPY.metrics[1:]))
TASKS = (SOLVED_COPY, ADDING, CHARS)
HEADER = ["run", "trials", "tasks", "models", "wall, s", "CPU, s", "peak, MiB", "report.html, MB"]
Pairs = list[tuple[Trial, FakeTask]]


def grid(tasks: int, models: int, seeds: int, tuning: int = 0) -> Pairs:
    """Every trial of so many tasks, models and seeds, behind those that tune: so many for each task and model."""
    pairs = []
    for number in range(tasks):
        task = TASKS[number % len(TASKS)]
        label = f"{task.name}[length={100 + number}]/embedded"
        for model in (MODELS[k % len(MODELS)] + f"[layers={k}]" * (k >= len(MODELS)) for k in range(models)):
            rates = np.geomspace(1e-4, 1e-1, tuning or 1)
            for lr in rates[:tuning]:
                tried = make_trial(task, model, 99, task_label=label, purpose="tuning", setting={"lr": float(lr)})
                pairs.append((replace(tried, training=replace(tried.training, lr=float(lr))), task))
            setting = {"lr": float(rates[tuning // 2])} if tuning else {}
            pairs += [(make_trial(task, model, s, task_label=label, setting=setting), task) for s in range(seeds)]
    return pairs


RUNS: dict[str, Callable[[], Pairs]] = {
    "one task": lambda: grid(1, 6, 5),
    "many tasks and models": lambda: grid(20, 25, 20),
    "much tuning": lambda: grid(4, 6, 16, 400),
}


def write(out: Path, pairs: Pairs) -> RunFolder:
    """The run's folder; the records are not synced one by one, as a run does it."""
    folder = make_folder(out, [trial for trial, _ in pairs], [])
    (folder.path / "trials").mkdir()
    rng = np.random.default_rng(0)
    for trial, task in pairs:
        record = {"format": FORMAT, **record_of(trial, task, rng)}
        text = json.dumps({**record, "checksum": checksum(record)}, indent=1)
        (folder.path / "trials" / f"{trial.id}.json").write_text(text, encoding="utf-8")
        if trial.seed == 0:
            folder.write_arrays(trial.id, artifacts(task, rng))
    return folder


def record_of(trial: Trial, task: FakeTask, rng: np.random.Generator) -> dict[str, object]:
    record = make_record(trial, task)
    losses = (np.geomspace(2, 0.02, 200) * rng.uniform(0.9, 1.1, 200)).tolist()
    steps = list(range(5, 1001, 5))
    record["curve"]["train"] = {"step": steps, "seconds": [0.0173 * step for step in steps], "loss": losses}
    if trial.purpose == "tuning":
        record |= {"score": None, "metrics": {"valid": record["metrics"]["valid"]}}
    plain: dict[str, object] = strict({**record, "trial": asdict(trial)})
    return plain


def artifacts(task: FakeTask, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights, and a sample where the task has one."""
    arrays = {"weights/core": rng.normal(size=(200, 250)).astype(np.float32)}
    if task is CHARS:
        words = {"prompt": "the cat ", "sample": "sat on the mat. " * 20, "temperature": 0.8}
        arrays |= {f"task/{name}": np.array(value) for name, value in words.items()}
    return arrays


def cost(arguments: Sequence[str]) -> tuple[float, float, float]:
    """Wall seconds, CPU seconds and the peak in MiB of a command, in a process of its own."""
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, sys.executable, *arguments], capture_output=True, text=True, check=True
    )
    wall, cpu, peak = map(float, measured.stdout.split())
    return wall, cpu, peak


MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
wall, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
print(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)
"""


def row(name: str, out: Path, rounds: int) -> list[str]:
    pairs = RUNS[name]()
    folder = write(out / name.replace(" ", "-"), pairs)
    found = np.median([cost(["-m", "seqbench", "report", str(folder.path)]) for _ in range(rounds)], axis=0)
    sizes = [len(pairs), *(len({read(t) for t, _ in pairs}) for read in (lambda t: t.task_label, lambda t: t.label))]
    size = (folder.path / "report.html").stat().st_size / 1e6
    return [name, *(f"{n:,}" for n in sizes), *(f"{v:.1f}" for v in found[:2]), f"{found[2]:,.0f}", f"{size:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--runs", default=",".join(RUNS))
    parser.add_argument("--keep", type=Path, help="make the run folders here, and leave them")
    chosen = parser.parse_args()
    os.environ["COLUMNS"] = "120"
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen.runs.split(","):
            rows.append(row(name, chosen.keep or Path(scratch), chosen.rounds))
            print(" | ".join(rows[-1]), flush=True)
    print(table(HEADER, rows, words=1))


if __name__ == "__main__":
    main()
