"""What the report says was held equal, and what not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up_runs import failed, make_folder, make_record, make_trial

from seqbench.quantities import Budget
from seqbench.registry import Registry
from seqbench.report.collect import read_run
from seqbench.report.fairness import Fairness, fairness
from seqbench.spec import Trial

USUAL = {"steps": 1000, "train_tokens": 3_200_000, "train_flops": 4.0e12, "speed": {"train_seconds": 10.0}}


def told(tmp_path: Path, trials: list[Trial], records: list[dict[str, Any]], asked: Budget | None = None) -> Fairness:
    (task,) = read_run(make_folder(tmp_path, trials, records), Registry()).tasks
    return fairness(task, asked)


def two(tmp_path: Path, changes: dict[str, Any], asked: Budget | None = None, **trial: Any) -> Fairness:
    """An LSTM that took the usual, a GRU that took something else or had other conditions."""
    trials = [make_trial(label="lstm"), make_trial(label="gru", **trial)]
    lstm, gru = trials
    records = [make_record(lstm, **USUAL), make_record(gru, **{**USUAL, **changes})]
    return told(tmp_path, trials, records, asked)


def test_all_is_equal(tmp_path: Path) -> None:
    found = two(tmp_path, {})
    assert found.unequal == []
    assert found.equal == [
        "parameters (50.0k)", "parameters of the core (48.3k)", "steps (1,000)", "tokens (3.20M)",
        "FLOPs of training (4.00T)", "seconds of training (10 s)", "batch", "optimiser", "schedule", "dropout",
        "device", "seeds and their data",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 1100}, "steps, 1,000 (lstm) to 1,100 (gru)"),
        ({"train_tokens": 2_900_000}, "tokens, 2.90M (gru) to 3.20M (lstm)"),
        ({"train_flops": 8e12}, "FLOPs of training, 4.00T (lstm) to 8.00T (gru)"),
        ({"speed": {"train_seconds": 31.4}}, "seconds of training, 10 s (lstm) to 31 s (gru)"),
        ({"parameters": {"network": 50_012, "core": 40_000}}, "parameters of the core, 40.0k (gru) to 48.3k (lstm)"),
    ],
)
def test_what_differs_is_named_with_whose_it_is(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    found = two(tmp_path, changes)
    assert found.unequal == [said]
    assert not any(said.split(",")[0] == line.partition(" (")[0] for line in found.equal)


def test_what_is_close_counts_as_equal_and_shows_its_range(tmp_path: Path) -> None:
    found = two(tmp_path, {"train_flops": 4.1e12})
    assert "FLOPs of training (4.00T to 4.10T)" in found.equal


@pytest.mark.parametrize(("parameters", "equal"), [(51_900, True), (52_100, False), (48_000, False)])
def test_parameters_are_equal_within_twice_the_tolerance_asked_for(
    tmp_path: Path, parameters: int, equal: bool
) -> None:
    found = two(tmp_path, {"parameters": {"network": parameters, "core": 48_300}})
    assert any(line.startswith("parameters (") for line in found.equal) == equal
    assert any(line.startswith("parameters, ") for line in found.unequal) != equal
    tight = {"parameters": {"network": 51_200, "core": 48_300}}
    for tolerance, within in ((0.02, True), (0.01, False)):
        lines = two(tmp_path / str(tolerance), tight, parameter_tolerance=tolerance).equal
        assert any(line.startswith("parameters (") for line in lines) == within


def test_twins_that_miss_the_target_alike_are_equal(tmp_path: Path) -> None:
    first, second = (make_trial(label=f"gru ({k})", seed=seed, parameters=51_500) for k, seed in (("a", 0), ("b", 1)))
    found = told(tmp_path, [first, second], [make_record(first, **USUAL), make_record(second, **USUAL)])
    assert "parameters (51.5k)" in found.equal
    assert found.unequal == ["seeds and their data"]


def test_conditions_that_differ(tmp_path: Path) -> None:
    found = two(tmp_path, {}, threads=2)
    assert found.unequal == ["device"]
    assert ("device", "differs: cpu, 1 thread; cpu, 2 threads") in found.facts
    assert ("parameters asked for", "50,000 ± 2 %") in found.facts


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (None, "1,000 steps"),
        (Budget("steps", 1000), "1,000 steps"),
        (Budget("flops", 4e12), "4e+12 FLOPs, which came to 1,000 to 1,234 steps"),
    ],
)
def test_the_budget_as_asked_and_what_it_came_to(tmp_path: Path, asked: Budget | None, said: str) -> None:
    assert (
        dict(two(tmp_path, {} if asked is None or asked.kind == "steps" else {"steps": 1234}, asked).facts)["training"]
        == said
    )


def test_rows_that_failed_are_left_out(tmp_path: Path) -> None:
    good, bad = make_trial(label="lstm"), make_trial(label="gru", parameters=9)
    found = told(tmp_path, [good, bad], [make_record(good, **USUAL), failed(bad)])
    assert "parameters (50.0k)" in found.equal
    assert found.unequal == []
    nothing = told(tmp_path / "none", [good, bad], [failed(replace(good)), failed(bad)], Budget("seconds", 60))
    assert dict(nothing.facts)["training"] == "60 seconds"
