"""``seqbench compare``: what has changed between runs, and what is only chance."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import seqbench
from seqbench.api import Metric
from seqbench.cli import cli
from seqbench.report.changes import comparison_text, verdict_of
from seqbench.report.collect import Run, read_run
from seqbench.report.compare import Change, changes, hardware_differs, specs_differ, versions_differ
from seqbench.spec import Trial, trial_to_dict
from seqbench.store import RunFolder

RECALL = Metric("recall", "share", "%", lower_is_better=False)
ERROR = Metric("mse", "error", "", lower_is_better=True)
MACHINE = {"cpu": "A", "cores": "2", "torch": "2.13", "packages": {"numpy": "2.4"}, "commit": "abc"}
Scores = Mapping[str, Sequence[float | None]]


def make_run(
    path: Path,
    example: Trial,
    scores: Scores,
    metric: Metric = RECALL,
    speed: float = 100.0,
    first: int = 0,
    **run: Any,
) -> Run:
    """A run with these scores, None where a trial failed; seeds from ``first`` on."""
    folder = RunFolder.create(path.parent, path.name)
    pairs = [
        (replace(example, label=label, model=label, seed=first + seed), score)
        for label, values in scores.items()
        for seed, score in enumerate(values)
    ]
    spec = {"task": ["copy"], "lr": None, "threads": 1, "jobs": 0, "out": str(path)}
    stored = {"spec": spec, "trials": [trial_to_dict(t) for t, _ in pairs], "environment": MACHINE, "created": "now"}
    folder.write_run({**stored, **run})
    for trial, score in pairs:
        record = {
            "trial": trial_to_dict(trial), "status": "ok" if score is not None else "diverged", "score": score,
            "task": {"name": "copy", "score": metric.name, "select": metric.name, "metrics": [asdict(metric)]},
            "metrics": {"test": {metric.name: score}}, "speed": {"train_tokens_per_s": speed},
        }  # fmt: skip
        folder.write_record(trial.id, record)
    return read_run(folder)


@pytest.fixture
def two(tmp_path: Path, example_trial: Trial) -> Any:
    def make(before: Scores, after: Scores, metric: Metric = RECALL, **other: Any) -> tuple[Run, Run]:
        first = make_run(tmp_path / "before", example_trial, before, metric)
        return first, make_run(tmp_path / "after", example_trial, after, metric, **other)

    return make


def only(runs: tuple[Run, Run]) -> Change:
    (change,) = changes(*runs)
    return change


OLD = [70.0, 72.0, 74.0, 71.0, 73.0]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (OLD, "the same"),
        ([v + 5 + 0.1 * (k % 2) for k, v in enumerate(OLD)], "better"),
        ([v - 5 - 0.1 * (k % 2) for k, v in enumerate(OLD)], "worse"),
        ([71.0, 70.0, 75.0, 70.0, 74.0], "no difference seen"),
    ],
)
def test_better_worse_or_chance(two: Any, after: list[float], said: str) -> None:
    change = only(two({"lstm": OLD}, {"lstm": after}))
    assert verdict_of(change) == said
    assert change.difference == pytest.approx(sum(after) / 5 - 72)


def test_of_an_error_less_is_better(two: Any) -> None:
    change = only(two({"lstm": OLD}, {"lstm": [v - 5 - 0.1 * (k % 2) for k, v in enumerate(OLD)]}, ERROR))
    assert verdict_of(change) == "better"
    assert not change.regression(0.0)
    assert change.difference < 0


def test_the_interval_by_hand(two: Any) -> None:
    """Differences 1, 2, 3: mean 2, deviation 1, t of two degrees of freedom 4.3027."""
    change = only(two({"lstm": [1.0, 2.0, 3.0]}, {"lstm": [2.0, 4.0, 6.0]}))
    assert change.difference == pytest.approx(2)
    assert change.half_width == pytest.approx(4.30265 / 3**0.5, rel=1e-5)


def test_many_rows_are_corrected_together(two: Any) -> None:
    """p = 0.035 alone is a difference, among six rows it is none."""
    after = [71.0, 73.5, 74.5, 73.0, 73.2]
    assert verdict_of(only(two({"m0": OLD}, {"m0": after}))) == "better"


def test_among_six_the_same_change_is_no_difference(two: Any) -> None:
    after = [71.0, 73.5, 74.5, 73.0, 73.2]
    found = changes(*two({f"m{k}": OLD for k in range(6)}, {f"m{k}": after for k in range(6)}))
    assert {verdict_of(change) for change in found} == {"no difference seen"}


@pytest.mark.parametrize(
    ("loss", "share", "regressed"), [(5.0, 0.02, True), (5.0, 0.10, False), (0.5, 0.02, False), (-5.0, 0.02, False)]
)
def test_a_regression_is_a_loss_of_more_than_the_limit(two: Any, loss: float, share: float, regressed: bool) -> None:
    after = [v - loss - 0.01 * (k % 2) for k, v in enumerate(OLD)]
    assert bool(only(two({"lstm": OLD}, {"lstm": after})).regression(share)) is regressed


def test_a_loss_that_may_be_chance_is_no_regression(two: Any) -> None:
    change = only(two({"lstm": [70.0, 90.0, 80.0]}, {"lstm": [80.0, 75.0, 70.0]}))
    assert change.difference == pytest.approx(-5)
    assert not change.regression(0.02)


def test_one_seed_has_no_test_and_any_loss_counts(two: Any) -> None:
    change = only(two({"lstm": [70.0]}, {"lstm": [60.0]}))
    assert verdict_of(change) == "one seed in common: no test"
    assert change.regression(0.02)
    assert not change.regression(0.5)


def test_failed_and_missing_rows_regress_and_new_ones_do_not(two: Any) -> None:
    runs = two({"gone": OLD, "failed": OLD, "kept": OLD}, {"kept": OLD, "failed": [None] * 5, "new": OLD})
    found = {change.key[1]: change for change in changes(*runs)}
    assert {name: verdict_of(change) for name, change in found.items()} == {
        "gone": "only in one run", "failed": "no score", "kept": "the same", "new": "only in one run"
    }  # fmt: skip
    assert {name for name, change in found.items() if change.regression(0.02)} == {"gone", "failed"}


def test_only_seeds_in_common_are_compared(two: Any) -> None:
    change = only(two({"lstm": [1.0, 2.0, 3.0]}, {"lstm": [5.0, 6.0, 7.0]}, first=2))
    assert change.difference == pytest.approx(2.0), "seed 2: 3 and 5"


def test_no_seed_in_common(two: Any) -> None:
    change = only(two({"lstm": [1.0, 2.0]}, {"lstm": [5.0, 6.0]}, first=7))
    assert verdict_of(change) == "no seed in common"
    assert change.regression(0.0) == "no seed in common: nothing can be compared"


def test_per_cent_are_of_the_seeds_that_are_compared(two: Any) -> None:
    """The third seed, which only the first run has, would make 72 of the base of 10."""
    change = only(two({"lstm": [10.0, 10.0, 196.0]}, {"lstm": [8.0, 9.0]}))
    assert change.share == pytest.approx(-0.15)


def test_a_gate_does_not_let_through_what_it_has_not_seen(two: Any) -> None:
    """Five of six seeds failed, the one that is left is as it was."""
    before, after = two({"lstm": [*OLD, 70.0]}, {"lstm": [OLD[0], None, None, None, None, None]})
    change = only((before, after))
    assert change.regression(0.02) == "no score any more of seed 1, 2, 3, 4, 5 (1 of 6 ok)"
    assert "70.00 (1 of 6 ok)" in comparison_text(("a", "b"), (before, after), [change])


def test_a_changed_plugin_and_python_are_named(two: Any, tmp_path: Path, example_trial: Trial) -> None:
    mine, yours = (replace(example_trial, plugins={f"/{k}/my.py": k * 64}) for k in "ab")
    first = make_run(tmp_path / "1", mine, {"lstm": OLD}, environment={**MACHINE, "python": "3.11"})
    second = make_run(tmp_path / "2", yours, {"lstm": OLD}, environment={**MACHINE, "python": "3.13"})
    assert versions_differ(first, second) == [
        "python was 3.11, is 3.13", f"my.py was {'a' * 12}, is {'b' * 12}"
    ]  # fmt: skip


def test_speeds_are_compared_on_the_same_hardware_alone(two: Any, tmp_path: Path, example_trial: Trial) -> None:
    before, after = two({"lstm": OLD}, {"lstm": OLD}, speed=250.0)
    assert only((before, after)).speedup == pytest.approx(2.5)
    for number, (changed, said) in enumerate(
        [
            ({"environment": {**MACHINE, "cpu": "B"}}, "cpu was A, is B"),
            ({"spec": {"threads": 2}}, "threads was 1, is 2"),
        ]
    ):
        other = make_run(tmp_path / f"other{number}", example_trial, {"lstm": OLD}, speed=250.0, **changed)
        assert not only((before, other)).speedup > 0
        assert said in hardware_differs(before, other)
        text = comparison_text(("a", "b"), (before, other), changes(before, other))
        assert "speeds are not compared" in text
        assert "x 2.50" not in text


def test_what_was_asked_for_and_versions(two: Any) -> None:
    spec = {"task": ["copy"], "lr": 0.01, "threads": 1, "jobs": 0, "out": "elsewhere"}
    before, after = two(
        {"lstm": OLD}, {"lstm": OLD}, spec=spec, environment={**MACHINE, "torch": "2.14", "commit": None}
    )
    assert specs_differ(before, after) == ["lr was not given, is 0.01"]
    assert versions_differ(before, after) == ["commit was abc, is not given", "torch was 2.13, is 2.14"]
    text = comparison_text(("a", "b"), (before, after), changes(before, after))
    assert "asked for differently: lr was not given, is 0.01" in text


def test_the_table_can_be_read(two: Any) -> None:
    after = [v - 5 - 0.1 * (k % 2) for k, v in enumerate(OLD)]
    runs = two({"lstm": OLD, "a-long-name": OLD}, {"lstm": after, "a-long-name": OLD}, speed=50.0)
    lines = comparison_text(("results/a", "results/b"), runs, changes(*runs)).splitlines()
    assert lines[0] == "before: results/a"
    (row,) = (line for line in lines if line.startswith("lstm"))
    assert re.split(r"  +", row) == ["lstm", "72.0 ± 2.0", "67.0 ± 2.0", "-5.040 ± 0.086", "-7.0", "worse", "x 0.50"]
    assert len({line.index("x 0.50") for line in lines if "x 0.50" in line}) == 1, "columns are aligned"


def test_on_the_command_line(tmp_path: Path) -> None:
    options = {"task": "copy[T=5]", "model": ["rnn", "gru"], "params": "1k", "seeds": 2}
    one = seqbench.run(**options, budget="5steps", out=tmp_path).path
    other = seqbench.run(**options, budget="6steps", out=tmp_path).path
    same = CliRunner().invoke(cli, ["compare", str(one), str(one), "--fail-on-regression", "0%"])
    assert same.exit_code == 0
    assert same.output.count("the same") == 2
    differ = CliRunner().invoke(cli, ["compare", str(one), str(other), str(one)])
    assert differ.exit_code == 0
    assert "budget was 5steps, is 6steps" in differ.output
    assert differ.output.count("before: ") == 2
    half = seqbench.run(**{**options, "model": "rnn"}, budget="5steps", out=tmp_path).path
    lost = CliRunner().invoke(cli, ["compare", str(one), str(half), "--fail-on-regression", "2%"])
    assert lost.exit_code == 1
    assert "regression of more than 2%: copy[T=5]/embedded gru torch in " in lost.output
    wrong = CliRunner().invoke(cli, ["compare", str(one), str(half), "--fail-on-regression", "much"])
    assert wrong.exit_code == 2
