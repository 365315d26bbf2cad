"""The whole speed phase, with models that are odd by a known amount: it shows in the right column and nowhere else."""

from __future__ import annotations

import csv
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import seqbench
from seqbench import registry
from seqbench.cli import cli
from seqbench.report.speeds.columns import COLUMNS
from seqbench.speed.run import Speeds, make_plan, run
from seqbench.speed.spec import make_spec

pytestmark = pytest.mark.xdist_group("speed phase")  # what all share takes long

ODD = Path(__file__).parent.parent / "plugins" / "odd_speeds.py"
SPIN_MS, NAP_US = 30.0, 4000.0  # as the plugin has them
ROUNDS = 3

Rows = dict[tuple[str, str, int], dict[str, Any]]


def measured(out: Path, *models: str, **options: Any) -> Speeds:
    given = {
        "lengths": "4",
        "batch": "1",
        "params": "500",
        "rounds": ROUNDS,
        "starts": 1,
        "plugin": (str(ODD),),
        **options,
    }
    spec = make_spec({"model": models, "out": str(out), **given})
    cards = registry.load(spec.run.plugin)
    return run(make_plan(spec, cards), cards)


def table(speeds: Speeds) -> Rows:
    with (speeds.path / "speed.csv").open(encoding="utf-8") as file:
        return {(row["model"], row["operation"], int(row["length"])): row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Speeds:
    """A run with every oddity."""
    models = ("even", "slow", "peckish", "leaky", "sleepy", "greedy", "mortal", "raising", "stepless")
    return measured(tmp_path_factory.mktemp("odd"), *models, lengths="16")


@pytest.fixture(scope="module")
def rows(odd: Speeds) -> Rows:
    return table(odd)


def value(rows: Rows, model: str, operation: str, column: str, length: int = 16) -> float:
    return float(rows[model, operation, length][column])


@pytest.mark.parametrize("operation", ["train", "infer"])
def test_a_slow_model_is_slow_and_works_all_the_time(rows: Rows, operation: str) -> None:
    slow, even = (value(rows, model, operation, "median_ms") for model in ("slow", "even"))
    assert slow >= SPIN_MS
    assert value(rows, "slow", operation, "cpu_median_ms") >= 0.2 * SPIN_MS, "the rest is what others took"
    assert even < SPIN_MS / 2
    assert value(rows, "slow", "step", "us_per_token") < 1e3 * SPIN_MS / 2, "its step is as fast as any"


def test_sleeping_in_a_step_is_latency_without_work(rows: Rows) -> None:
    assert NAP_US <= value(rows, "sleepy", "step", "us_per_token") < 4 * NAP_US
    assert value(rows, "sleepy", "step", "busy") < 0.5
    for operation in ("train", "infer"):
        assert value(rows, "sleepy", operation, "us_per_token") < NAP_US / 2
    assert value(rows, "even", "step", "us_per_token") < NAP_US / 2


def test_a_nap_in_each_step_does_not_grow_with_the_length(tmp_path: Path) -> None:
    speeds = measured(tmp_path, "sleepy", operation=("step",), lengths="1..16")
    found = [record["growth"]["time"]["exponent"] for record in speeds.data["rows"]]
    assert found == pytest.approx([0.0] * 5, abs=0.2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark of the whole process is used")
def test_an_allocation_is_in_the_memory_columns(rows: Rows) -> None:
    for operation in ("train", "infer"):
        assert 64 <= value(rows, "peckish", operation, "call_memory_mib") < 70
        assert value(rows, "even", operation, "call_memory_mib") < 10
        peckish, even = (value(rows, model, operation, "peak_memory_mib") for model in ("peckish", "even"))
        assert peckish - even == pytest.approx(64, abs=16)  # the rest is libraries that a first call loads, in both
    peckish, even = (value(rows, model, "step", "peak_memory_mib") for model in ("peckish", "even"))
    assert peckish - even == pytest.approx(0, abs=16), "each operation has a process of its own"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the mark of the whole process is used")
def test_two_gibibytes_are_in_the_memory_columns(tmp_path: Path) -> None:
    rows = table(measured(tmp_path, "hungry", "even", operation=("train", "infer"), rounds=1))
    for operation in ("train", "infer"):
        assert 2048 <= value(rows, "hungry", operation, "call_memory_mib", 4) < 2054
        hungry, even = (value(rows, model, operation, "peak_memory_mib", 4) for model in ("hungry", "even"))
        assert hungry - even == pytest.approx(2048, abs=16)


def test_threads_that_are_left_behind_are_counted(rows: Rows, odd: Speeds) -> None:
    """One for each call: two first ones, those of calibration, those of the samples."""
    for operation in ("train", "infer"):
        row = rows["leaky", operation, 16]
        calls = int(row["calls"])
        in_samples = ROUNDS * (calls + (calls > 1))
        assert int(row["extra_threads"]) >= 2 + in_samples
        assert int(rows["even", operation, 16]["extra_threads"]) == 0
    assert int(rows["leaky", "step", 16]["extra_threads"]) == 0


def test_changed_threads_are_an_error(rows: Rows) -> None:
    for operation in ("train", "infer"):
        row = rows["greedy", operation, 16]
        assert (row["status"], row["median_ms"]) == ("error", "")
        assert "a plugin set them" in row["cause"]
    assert rows["greedy", "step", 16]["status"] == "ok"


def test_a_death_between_two_samples_leaves_the_others_alone(rows: Rows, odd: Speeds) -> None:
    row = rows["mortal", "infer", 16]
    assert row["status"] == "error"
    assert "exit code 7" in row["cause"]
    assert rows["even", "infer", 16]["status"] == "ok"


def test_an_exception_has_its_cause_and_its_log(rows: Rows, odd: Speeds) -> None:
    assert rows["raising", "train", 16]["cause"] == "raising of odd_speeds.py: ValueError: on purpose"
    assert "on purpose" in (odd.path / "logs" / "raising-torch-train-T16-B1-1.log").read_text(encoding="utf-8")


def test_what_cannot_step_is_refused_by_name(rows: Rows) -> None:
    assert rows["stepless", "step", 16]["status"] == "refused"
    assert "does not declare 'step'" in rows["stepless", "step", 16]["cause"]
    assert rows["stepless", "infer", 16]["status"] == "ok"


def test_the_columns_are_the_documented_ones_and_no_row_is_missing(rows: Rows) -> None:
    assert list(rows["even", "train", 16]) == [column.name for column in COLUMNS]
    assert len(rows) == 9 * 3


def test_every_raw_sample_is_there(odd: Speeds, rows: Rows) -> None:
    stored = json.loads((odd.path / "speed.json").read_text(encoding="utf-8"))
    assert {"load", "clock_mhz", "throttled"} <= set(stored["condition"]["before"])
    assert stored["environment"]["cpu"]
    for record in stored["rows"]:
        if record["status"] == "ok":
            assert len(record["samples"]["wall"]) == len(record["samples"]["cpu"]) == ROUNDS
            csv_row = rows[record["label"], record["operation"], record["length"]]
            wall = record["samples"]["wall"]
            for percent, name in ((10, "p10_ms"), (25, "q1_ms"), (75, "q3_ms")):
                assert float(csv_row[name]) == pytest.approx(1e3 * np.percentile(wall, percent))
            assert float(csv_row["q1_ms"]) <= float(csv_row["median_ms"]) <= float(csv_row["q3_ms"])


def test_models_take_turns(odd: Speeds) -> None:
    """All take their first sample before any takes its second, in another order each round."""
    group = [r for r in odd.data["rows"] if r["length"] == 16 and r["status"] == "ok"]
    places = [[record["samples"]["place"][k] for record in group] for k in range(ROUNDS)]
    for earlier, later in itertools.pairwise(places):
        assert max(earlier) < min(later)
    orders = {tuple(sorted(range(len(group)), key=lambda i, k=k: places[k][i])) for k in range(ROUNDS)}
    assert len(orders) > 1


def test_samples_are_shared_by_processes_one_after_the_other(tmp_path: Path) -> None:
    speeds = measured(tmp_path, "even", "gru", operation=("infer",), rounds=5, starts=2)
    for record in speeds.data["rows"]:
        assert record["samples"]["process"] == [1, 1, 1, 2, 2]
        assert sorted(record["samples"]["place"]) == record["samples"]["place"]
    assert {path.name for path in (speeds.path / "logs").iterdir()} == {
        f"{model}-torch-infer-T4-B1-{number}.log" for model in ("even", "gru") for number in (1, 2)
    }


def test_an_interruption_loses_no_group(tmp_path: Path) -> None:
    said = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("[2/"):
            raise KeyboardInterrupt

    given = {"lengths": "4,8", "batch": "1", "params": "500", "rounds": 1, "operation": "infer", "model": "gru"}
    cards = registry.load()
    with pytest.raises(KeyboardInterrupt):
        run(make_plan(make_spec({**given, "out": str(tmp_path)}), cards), cards, say)
    (folder,) = tmp_path.iterdir()
    assert said[-1] == f"Interrupted; what was measured is in {folder}"
    (record,) = json.loads((folder / "speed.json").read_text(encoding="utf-8"))["rows"]
    assert (record["length"], record["status"]) == (4, "ok")
    assert len((folder / "speed.csv").read_text(encoding="utf-8").splitlines()) == 2
    assert "</html>" in (folder / "speed.html").read_text(encoding="utf-8")


def test_from_python(tmp_path: Path) -> None:
    speeds = seqbench.measure_speed(
        models=["gru", "rnn"], lengths=[4, 8], batch=2, params=500, rounds=1, operations=["infer"], out=tmp_path
    )
    assert speeds.ok
    assert list(speeds.frame["model"]) == ["gru", "rnn"] * 2
    assert (speeds.frame["median_ms"] > 0).all()


def test_a_hang_ends_at_the_limit(tmp_path: Path) -> None:
    speeds = measured(tmp_path, "endless", operation=("infer",), timeout=4.0)
    (record,) = speeds.data["rows"]
    assert record["status"] == "timeout"
    assert "killed after 4 s" in record["cause"]
    assert not speeds.ok


def test_on_the_command_line(tmp_path: Path) -> None:
    words = ["--model", "gru", "--model", "stepless", "--plugin", str(ODD), "--lengths", "2..8", "--batch", "2"]
    result = CliRunner().invoke(cli, ["speed", *words, "--params", "500", "--rounds", "2", "--out", str(tmp_path)])
    assert result.exit_code == 1, "one was refused"
    assert "train, batch 2: ms a step" in result.stdout
    assert "step, batch 1: µs a step" in result.stdout
    assert "failed: stepless (torch), step: refused: " in result.stdout
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"logs", "speed.csv", "speed.html", "speed.json"}


@pytest.mark.parametrize(
    ("task", "operations"),
    [
        ("copy[T=5]", {"train", "infer", "step"}),
        ("sentiment", {"train", "infer"}),
        ("translation", {"train", "infer", "decode"}),
    ],
)
def test_on_a_task_with_what_applies_to_it(tmp_path: Path, task: str, operations: set[str]) -> None:
    speeds = measured(tmp_path, "gru", task=task, lengths="4", params="20k", rounds=2)
    assert speeds.ok, speeds.data["rows"]
    assert {record["operation"] for record in speeds.data["rows"]} == operations
    for record in speeds.data["rows"]:
        both = 2 if task == "translation" and record["operation"] != "decode" else 1
        assert record["tokens"] == 4 * both
