"""Run folders with made-up records: what a report is tested on, without a training."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from seqbench.api import Metric, Reference
from seqbench.quantities import Budget
from seqbench.spec import RunSpec, Training, Trial
from seqbench.store import RunFolder, write_json

MODELS = ("lstm", "gru", "janet", "tcn", "transformer", "rnn")


@dataclass(frozen=True)
class FakeTask:
    """What a record says of a task, and where its scores lie."""

    name: str
    metrics: tuple[Metric, ...]
    references: tuple[Reference, ...]
    start: float
    best: float
    select: str = "loss"


LOSS = Metric("loss", "mean cross-entropy", "nats")
COPY = FakeTask(
    "copy",
    (Metric("recall", "share of symbols recalled", "%", lower_is_better=False), LOSS),
    (
        Reference("trivial", "guessing among the eight symbols", {"recall": 12.5, "loss": 0.297}),
        Reference("optimum", "every symbol recalled", {"recall": 100.0, "loss": 0.0}),
    ),
    12.5,
    99.0,
)
ADDING = FakeTask(
    "adding",
    (Metric("mse", "mean squared error of the sum"), Metric("accuracy", "share within 0.04", "%", False)),
    (Reference("trivial", "always 1", {"mse": 1 / 6}), Reference("optimum", "the sum", {"mse": 0.0})),
    0.1667,
    0.0004,
    "mse",
)
CHARS = FakeTask(
    "char-lm",
    (Metric("bpc", "bits per character", "bits"), LOSS),
    (
        Reference("trivial", "frequencies of single characters", {"bpc": 4.1}),
        Reference("optimum", "entropy rate of the source", {"bpc": 1.62}),
    ),
    4.6,
    1.8,
    "bpc",
)


def make_trial(task: FakeTask = COPY, label: str = "lstm", seed: int = 0, **changes: Any) -> Trial:
    trial = Trial(
        task=task.name,
        task_options={"length": 100},
        dataset="embedded",
        task_label=f"{task.name}/embedded",
        model=label.partition("[")[0],
        model_options={"forget_bias": 1.0},
        label=label,
        backend="torch",
        device="cpu",
        width=96,
        layers=1,
        dropout=0.0,
        parameters=50_012,
        core_parameters=48_300,
        target_parameters=50_000,
        seed=seed,
        threads=1,
        training=Training(lr=3e-3, batch=32, budget=Budget("steps", 1000)),
    )
    return replace(trial, **changes)


def task_part(task: FakeTask) -> dict[str, Any]:
    return {
        "task": {
            "name": task.name,
            "score": task.metrics[0].name,
            "select": task.select,
            "metrics": [asdict(m) for m in task.metrics],
        },
        "references": [asdict(r) for r in task.references],
    }


def make_record(trial: Trial, task: FakeTask = COPY, score: float | None = None, **changes: Any) -> dict[str, Any]:
    """A record that ended well; its numbers follow from the trial alone."""
    place = sum(map(ord, trial.label)) % 7
    rng = np.random.default_rng([place, trial.seed, len(task.name)])
    ratio = 0.12 * place * rng.uniform(0.7, 1.3)
    near = math.exp((1 - ratio) * math.log(task.best) + ratio * math.log(task.start))
    value = near if score is None else score
    test = {task.metrics[0].name: value, task.metrics[1].name: 0.02 + 0.3 * ratio}
    speed = 180_000.0 / (1 + place) * rng.uniform(0.95, 1.05)
    record = {
        "id": trial.id,
        "trial": asdict(trial),
        "task_label": trial.task_label,
        "status": "ok",
        "cause": None,
        "notes": [trial.advice] if trial.advice else [],
        "score": value,
        **task_part(task),
        "parameters": {"network": trial.parameters, "core": trial.core_parameters},
        "steps": 1000,
        "best_step": 950,
        "metrics": {"test": test, "valid": dict(test)},
        "curve": make_curve(task, value, speed, rng),
        "speed": {
            "train_tokens_per_s": speed,
            "infer_tokens_per_s": 3 * speed,
            "train_seconds": 3.2e6 / speed,
            "seconds": 3.5e6 / speed,
        },
        "memory": {"peak_mib": 60.0 + 11 * place},
        "forward_flops_per_token": 98_000,
    }
    return record | changes


def make_curve(task: FakeTask, score: float, speed: float, rng: np.random.Generator) -> dict[str, Any]:
    steps = np.arange(50, 1001, 50)
    share = 1 - np.exp(-steps / 260)
    noise = np.exp(0.03 * rng.standard_normal(len(steps)))
    valid: dict[str, Any] = {"step": steps.tolist(), "seconds": (3200 * steps / speed).tolist()}
    for metric in task.metrics:
        start, end = (task.start, max(score, 1e-6)) if metric is task.metrics[0] else (2.3, 0.02)
        valid[metric.name] = (np.exp(np.log(start) * (1 - share) + np.log(end) * share) * noise).tolist()
    train = {"step": steps.tolist(), "seconds": valid["seconds"], "loss": valid[task.metrics[1].name]}
    return {"train": train, "valid": valid}


def failed(trial: Trial, status: str = "diverged", **changes: Any) -> dict[str, Any]:
    """A record that did not end well: as little as the harness writes then."""
    record = {"id": trial.id, "trial": asdict(trial), "task_label": trial.task_label, "status": status}
    return (
        record
        | {"cause": "The training loss is nan at step 120; try a lower --lr.", "speed": {"seconds": 3.0}}
        | changes
    )


def make_folder(out: Path, trials: Sequence[Trial], records: Sequence[Mapping[str, Any]], **run: Any) -> RunFolder:
    """A run folder as the harness leaves it."""
    folder = RunFolder.create(out, "a-run")
    tasks = tuple(dict.fromkeys(t.task for t in trials))
    stored: dict[str, Any] = {
        "spec": asdict(RunSpec(task=tasks, model=tuple(dict.fromkeys(t.label for t in trials)))),
        "trials": [asdict(t) for t in trials],
        "environment": {"cpu": "A processor", "cores": "4 physical", "packages": {"torch": "2.13.0", "numpy": "2.4.6"}},
        "created": "2026-01-02T03:04:05+00:00",
        "seqbench": "0.1.0",
        "data": [],
    }
    folder.write_run(stored | run)
    for record in records:
        folder.write_record(record["id"], record)
    return folder


def full_run(
    out: Path, tasks: Sequence[FakeTask] = (COPY,), models: Sequence[str] = MODELS, seeds: int = 3
) -> RunFolder:
    """Every trial of a grid, all of them fine."""
    pairs = [(make_trial(task, label, seed), task) for task in tasks for label in models for seed in range(seeds)]
    return make_folder(out, [t for t, _ in pairs], [make_record(t, task) for t, task in pairs])


def speed_row(label: str, operation: str, batch: int = 1, length: int = 120, **changes: Any) -> dict[str, Any]:
    """A record of a speed phase; its numbers follow from the rest of it."""
    seconds = (1 + MODELS.index(label)) * batch * length * 1e-5
    samples = {"wall": [seconds, 1.01 * seconds], "cpu": [seconds, seconds]}
    named = {"label": label, "backend": "torch", "device": "cpu", "threads": 1, "width": 96, "layers": 1}
    what = {"operation": operation, "length": length, "batch": batch, "status": "ok", "cause": "", "samples": samples}
    figures = {
        "calls": 2, "tokens": batch * length, "parameters": {"network": 50_000, "core": 48_000}, "extra_threads": 0,
        "first_call_seconds": 0.1, "memory": {"peak_mib": 20.0, "call_mib": 3.0 + length / 10},
    }  # fmt: skip
    return {**named, **what, **figures, **changes}


def with_speed(folder: RunFolder, *rows: Mapping[str, Any], **about: Any) -> RunFolder:
    """The run with a speed phase of its first task: by default every operation of each of its models."""
    trials = folder.trials()
    labels = dict.fromkeys(trial.label for trial in trials)
    given = rows or [speed_row(label, name) for name in ("infer", "step", "decode") for label in labels]
    calm = {"load": 0.1, "clock_mhz": 2500, "throttled": "no"}
    data = {
        "task": trials[0].task_label,
        "created": "2026-01-02T03:04:05+00:00",
        "spec": {"rounds": 30, "starts": 3},
        "environment": {"cpu": "A processor", "cores": "4 physical"},
        "condition": {"before": calm, "after": calm},
        "complete": True,
        "rows": list(given),
    } | about
    write_json(folder.path / "speed" / "20260102-030405-speed" / "speed.json", data)
    return folder
