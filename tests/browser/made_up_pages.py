"""Reports that have one of everything, from made-up runs."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from made_up_runs import ADDING, CHARS, COPY, MODELS, FakeTask, failed, make_folder, make_record, make_trial
from matplotlib.figure import Figure

from seqbench.api import Block, Section, SectionCard, TrialView
from seqbench.registry import Registry
from seqbench.report import text
from seqbench.results import Results
from seqbench.store import RunFolder

SENTIMENT = FakeTask(
    "sentiment",
    (replace(COPY.metrics[0], name="accuracy", summary="share of sentences called right"), COPY.metrics[1]),
    (
        replace(COPY.references[0], name="trivial", metrics={"accuracy": 50.0}),
        replace(COPY.references[0], name="bag-of-words", summary="which knows no order", metrics={"accuracy": 81.2}),
    ),
    50.0,
    92.0,
    "accuracy",
)
SOLVABLE = replace(COPY, metrics=(replace(COPY.metrics[0], solved=98.0), COPY.metrics[1]))
TASKS = (SOLVABLE, ADDING, CHARS, SENTIMENT)
LABELS = (*MODELS[:4], "transformer[heads=8,positions=sinusoidal,norm=pre,feed_forward=4]", "rnn")

VALUES = [5e-7, 0.00123, 0.5, 1.0, 9.99, 49.6, 612.0, 999.6, 12_345.0, 49_900.0, 1_250_000.0, 3.2e9]
FORMATS: Mapping[str, Sequence[str]] = {
    "number": [text.number(v) for v in VALUES],
    "interval": [text.with_interval(v, v / 30) for v in VALUES],
    "kilo": [text.kilo(v) for v in VALUES],
    "percent": [text.percent(v) for v in [-3.0, -0.012, *VALUES[2:8]]] + [text.DASH] * 4,
    "share": [f"{v:.1f} %" for v in (0.4, 3.0, 9.9, 10.0, 22.0, 100.0)] + [text.DASH] * 6,
    "p": ["< 0.0001", *(text.number(v, 2) for v in (0.00012, 0.003, 0.04, 0.5, 1.0))] + [""] * 6,
    "words": ["a2", "a10", "b", "ba", "Bb", "c", "d", "e", "f", "g", "h", "i"],
}
"""Cells as the report writes them, ascending, what is missing last."""

SHUFFLED = np.random.default_rng(3).permutation(len(VALUES))


def write(folder: RunFolder, *cards: SectionCard) -> Path:
    registry = Registry()
    registry.sections.update({card.name: card for card in cards})
    return Results(folder, registry).write_report()


def section_card(make: object, task: str = "copy") -> SectionCard:
    """A section of a module that exists in memory alone."""
    module = types.ModuleType("browser_section")
    module.make = make  # type: ignore[attr-defined]
    sys.modules[module.__name__] = module
    return SectionCard("browser", task, f"{module.__name__}:make")


def everything(_views: list[TrialView]) -> Section:
    """A block of every kind, wider than a page where it can be."""
    figure = Figure(figsize=(9, 3))
    heat, line = figure.subplots(1, 2)
    heat.imshow(np.eye(4))
    line.plot([1, 2, 3])
    cells = [[FORMATS[name][place] for name in FORMATS] for place in SHUFFLED]
    return Section(
        "What explains it",
        (
            Block("text", "signature:" + "nrefs1|case:mixed|" * 12, "A word as wide as the page"),
            Block("code", "to be or not to be " * 12 + "\n  indented", "What it writes"),
            Block("marked", [(f"at {n / 20:g}\n", n / 20, f"{n} of 20") for n in range(21)], "How strong a mark is"),
            Block("table", [list(FORMATS), *cells], "Every form of number"),
            Block(
                "table", [["", "who", "text"], *(["" if n % 3 else "1", f"w{n}", "x"] for n in range(12))], "Together"
            ),
            Block("table", [["source", "output"], ["ein Haus steht " * 9, "a house stands " * 9]], "Sentences"),
            Block("figure", figure, "Drawn"),
        ),
    )


def four_tasks(out: Path) -> RunFolder:
    """Six models on four tasks, three seeds: one row has failed, one seed of another, one never ran."""
    trials, records = [], []
    for task in TASKS:
        for label in LABELS:
            for seed in range(3):
                advice = "warning: receptive field 61 of 100 steps" if label == "tcn" and task is ADDING else ""
                parameters = 50_012 + (3, 1, 4, 2, 6, 5)[LABELS.index(label)]  # all of them 50.0k
                trial = make_trial(task, label, seed, advice=advice, parameters=parameters)
                trials.append(trial)
                if task is ADDING and label == "rnn":
                    records.append(failed(trial, log_tail="Traceback (most recent call last):\n  last words " * 9))
                elif task is SOLVABLE and label == "gru" and seed == 2:
                    records.append(failed(trial, "timeout", cause="killed after 7 s", log_tail="step 10 of 90"))
                elif not (task is CHARS and label == "janet"):
                    records.append(make_record(trial, task))
    data = [{"path": "char-lm/some/where/input.txt", "sha256": "0123456789abcdef" * 4, "url": "https://x.example/i"}]
    folder = make_folder(out, trials, records, data=data, warnings=["tcn: receptive field 61 of 100 steps"])
    write_speeds(folder, "char-lm/embedded")
    return folder


def many_tasks(out: Path) -> RunFolder:
    """So many tasks that their names alone fill a window; nothing has run yet."""
    labels = (f"copy[length={n},symbols=8]/embedded" for n in range(101, 133))
    return make_folder(out, [make_trial(task_label=label, label=model) for label in labels for model in MODELS], [])


def write_speeds(folder: RunFolder, task: str) -> None:
    """A speed phase of one operation; a model has failed."""
    rows: list[dict[str, Any]] = []
    for place, label in enumerate(LABELS):
        for length in (16, 64, 256):
            wall = [1e-4 * (1 + place) * length * share for share in (0.8, 0.9, 1.0, 1.1, 1.3)]
            row = {"label": label, "backend": "torch", "operation": "infer", "length": length, "batch": 1}
            well = {"status": "ok", "memory": {"peak_mib": 40.0 + place, "call_mib": 0.2 * length}}
            well |= {"samples": {"wall": wall, "cpu": wall}}
            badly = {"status": "out_of_memory", "cause": "9 GiB asked for", "samples": {}}
            rows.append(row | (well if label != "tcn" else badly))
    condition = {"load": 0.1, "clock_mhz": 2600, "throttled": "no"}
    data = {
        "task": task,
        "created": "2026-01-02T03:04:05+00:00",
        "environment": {"cpu": "A processor", "cores": "4 physical"},
        "complete": True,
        "rows": rows,
        "spec": {"rounds": 20, "starts": 4},
        "condition": {"before": condition, "after": condition},
    }
    path = folder.path / "speed" / "20260102-030405-speed" / "speed.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(data), encoding="utf-8")
