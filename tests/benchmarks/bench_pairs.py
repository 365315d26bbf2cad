"""The same model under two names: how far apart their speeds are, in turns and in blocks; writes docs/measuring.md.

    python tests/benchmarks/bench_pairs.py [--runs 10] [--write docs/measuring.md]

``seqbench speed`` in both cases, with the same processes and the same number of samples. In turns: as the command
does. In blocks: all samples of the first name, then all of the second. The two kinds of run alternate, so that both see
the same machine. A figure is second / first - 1 in per cent, of columns of speed.csv (``times_fastest`` as if there
were no others): anything but 0 is an error of measuring. Beside them stands the plain median of all samples. "Flagged":
of the runs in turns, those in which the spread of one name or of both was flagged.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import table, write_section

from seqbench import registry
from seqbench.environment import condition, environment
from seqbench.report.speeds.columns import noisy, with_figures
from seqbench.speed.rounds import measure
from seqbench.speed.run import make_plan
from seqbench.speed.spec import DEFAULTS, SpeedSpec, Subject, make_spec

MODELS = ("lstm", "transformer")
TWINS = """
from dataclasses import replace
from seqbench.api import hookimpl
from seqbench_models import {names}

@hookimpl
def register_models(register):
    for module in ({names},):
        for twin in ("one", "two"):
            register.model(replace(module.card, name=f"{{module.card.name}}-{{twin}}"))
"""
"""Both come from one plugin: their processes import and make the same, in the same order."""

CLOSE = 2.0
"""Per cent: what is asked of a pair."""

HEADER = ["model", "operation", "figure", f"in turns: within {CLOSE:g} %", "median", "largest",
          "flagged", f"in blocks: within {CLOSE:g} %", "median", "largest"]  # fmt: skip

Key = tuple[str, str, str]
Found = dict[Key, tuple[float, bool]]
"""Per cent between the names, and whether one was flagged; by model, operation and figure."""


def differences(group: list[Subject], blocks: bool, spec: SpeedSpec, logs: Path, order: random.Random) -> Found:
    """Of one run."""
    parts = [[subject] for subject in order.sample(group, len(group))] if blocks else [group]
    found: Found = {}
    rows = {}
    for part in parts:
        for record in with_figures(measure(part, spec.rounds, spec.starts, 600.0, logs, order)):
            assert record["status"] == "ok", record
            rows[record["label"], record["operation"]] = record
    for (twin, operation), first in rows.items():
        name, _, which = twin.rpartition("-")
        if which == "one":
            second = rows[f"{name}-two", operation]
            loud = bool(noisy(first) or noisy(second))
            for figure, ratio in _ratios(first, second).items():
                found[name, operation, figure] = 100 * (ratio - 1), loud
    return found


def _ratios(first: dict[str, Any], second: dict[str, Any]) -> dict[str, float]:
    walls = [np.array(record["samples"]["wall"]) for record in (first, second)]
    return {
        "`median_ms`": second["wall"]["median"] / first["wall"]["median"],
        "`cpu_median_ms`": second["cpu"]["median"] / first["cpu"]["median"],
        "`p10_ms`": second["wall"]["p10"] / first["wall"]["p10"],
        "`times_fastest`": float(np.median(walls[1] / walls[0])),
        "plain median": float(np.median(walls[1]) / np.median(walls[0])),
    }


def summary(values: list[float]) -> list[str]:
    """How many are close, the median and the largest size."""
    sizes = np.abs(values)
    return [f"{(sizes <= CLOSE).sum()} of {len(sizes)}", f"{np.median(sizes):.1f} %", f"{sizes.max():.1f} %"]


def row(key: Key, turns: list[tuple[float, bool]], blocks: list[tuple[float, bool]]) -> list[str]:
    """Of the table."""
    both = [summary([value for value, _ in runs]) for runs in (turns, blocks)]
    return [*key, *both[0], f"{sum(loud for _, loud in turns)} of {len(turns)}", *both[1]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=DEFAULTS["rounds"])
    parser.add_argument("--starts", type=int, default=DEFAULTS["starts"])
    parser.add_argument("--length", default="128")
    parser.add_argument("--batch", default="32")
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    found: dict[bool, dict[Key, list[tuple[float, bool]]]] = {True: defaultdict(list), False: defaultdict(list)}
    loads = []
    order = random.Random(0)
    with tempfile.TemporaryDirectory() as scratch:
        plugin = Path(scratch) / "twins.py"
        plugin.write_text(TWINS.format(names=", ".join(MODELS)), encoding="utf-8")
        models = tuple(f"{model}-{twin}" for model in MODELS for twin in ("one", "two"))
        options = {"lengths": chosen.length, "batch": chosen.batch, "operation": ("train", "infer"), "params": "50k"}
        spec = make_spec(
            {"model": models, "plugin": (str(plugin),), "rounds": chosen.rounds, "starts": chosen.starts, **options}
        )
        plan = make_plan(spec, registry.load([plugin]))
        for run in range(chosen.runs):
            for blocks in (False, True) if run % 2 else (True, False):
                loads.append(condition()["load"])
                for group in plan.groups:
                    for key, (value, loud) in differences(group, blocks, spec, Path(scratch), order).items():
                        found[blocks][key].append((value, loud))
                        words = run, "blocks" if blocks else "turns ", *key, f"{value:+.2f} %"
                        print(*words, "flagged" if loud else "", flush=True)
    rows = [row(key, found[False][key], found[True][key]) for key in sorted(found[False])]
    machine = environment()
    said = (
        f"{chosen.runs} runs of each kind, {chosen.rounds} samples of each name from {chosen.starts} processes, "
        f"T = {chosen.length}, B = {chosen.batch}, 50k parameters, 1 thread; "
        f"{machine['cpu']}, {machine['cores']} cores; load before a run from "
        f"{min(loads)} to {max(loads)}, of which our own work is up to 1."
    )
    print(text := f"{table(HEADER, rows, words=3)}\n\n{said}")
    if chosen.write:
        write_section(chosen.write, "pairs", text)


if __name__ == "__main__":
    main()
