"""Records to rows: grouping, order, status; and the summary against hand calculation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up_runs import ADDING, COPY, MODELS, failed, full_run, make_folder, make_record, make_trial

from seqbench.api import Dataset, Metric, TaskCard
from seqbench.registry import Registry
from seqbench.report.collect import collect, read_run
from seqbench.report.messages import notes
from seqbench.report.summary import summary_of


def test_the_summary_by_hand() -> None:
    trials = [make_trial(seed=seed) for seed in range(3)]
    records = [make_record(t, score=score) for t, score in zip(trials, (90.0, 92.0, 97.0), strict=True)]
    for record, speed in zip(records, (10.0, 30.0, 20.0), strict=True):
        record["speed"]["train_tokens_per_s"] = speed
    row = summary_of(collect(trials, records)).iloc[0]
    half = 4.302653 * math.sqrt(13.0) / math.sqrt(3)
    assert row["score"] == pytest.approx(93.0)
    assert row["score_half_width"] == pytest.approx(half, rel=1e-6)
    assert (row["score_low"], row["score_high"]) == pytest.approx((93 - half, 93 + half), rel=1e-6)
    assert (row["ok"], row["trials"], row["status"]) == (3, 3, "ok")
    assert row["train_tokens_per_s"] == 20.0
    assert row["test_recall"] == pytest.approx(93.0)
    assert (row["parameters"], row["core_parameters"]) == (50_012, 48_300)
    assert row["parameters_error"] == pytest.approx(12 / 50_000)


@pytest.mark.parametrize(("task", "order"), [(COPY, ["b", "c", "a"]), (ADDING, ["a", "c", "b"])])
def test_best_first_whichever_way_is_better(task, order) -> None:
    trials = [make_trial(task, label) for label in "abc"]
    records = [make_record(t, task, score) for t, score in zip(trials, (0.1, 0.9, 0.5), strict=True)]
    table = summary_of(collect(trials, records))
    assert list(table[table["kind"] == "model"]["model"]) == order


def test_rows_without_a_score_come_last_in_the_plans_order() -> None:
    trials = [make_trial(label=label) for label in ("a", "b", "c", "d")]
    records = [failed(trials[0]), make_record(trials[2], score=None) | {"score": None}, make_record(trials[3])]
    table = summary_of(collect(trials, records))
    assert list(table["model"][:4]) == ["d", "a", "b", "c"]
    assert list(table["status"][:4]) == ["ok", "diverged", "not run", "ok"]


def test_failed_seeds_do_not_enter_the_mean() -> None:
    trials = [make_trial(seed=seed) for seed in range(3)]
    records = [make_record(trials[0], score=10.0), failed(trials[1], "timeout"), make_record(trials[2], score=20.0)]
    row = summary_of(collect(trials, records)).iloc[0]
    assert (row["score"], row["ok"], row["trials"]) == (15.0, 2, 3)
    assert row["status"] == "2 of 3 ok"
    assert "loss is nan" in row["cause"]


def statuses(*ends: str) -> str:
    trials = [make_trial(seed=seed) for seed in range(len(ends))]
    made = {"ok": make_record, "-": lambda _: None}
    records = [made.get(end, lambda t, end=end: failed(t, end))(t) for t, end in zip(trials, ends, strict=True)]
    return collect(trials, [r for r in records if r]).tasks[0].rows[0].status


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (("ok", "ok"), "ok"),
        (("-", "-"), "not run"),
        (("ok", "-", "ok"), "2 of 3 run"),
        (("ok", "error", "-"), "1 of 3 ok"),
        (("error", "-"), "0 of 2 ok"),
        (("error", "error"), "error"),
        (("error", "killed"), "error / killed"),
    ],
)
def test_status(ends: tuple[str, ...], status: str) -> None:
    assert statuses(*ends) == status


def test_references_stand_behind_the_models_of_their_task() -> None:
    table = summary_of(collect([make_trial()], [make_record(make_trial())]))
    assert list(table["kind"]) == ["model", "reference", "reference"]
    assert table["score"][1] == 12.5
    assert table["test_loss"][2] == 0.0


def test_two_backends_are_two_rows() -> None:
    trials = [make_trial(backend=b, seed=s) for b in ("torch", "numba") for s in range(2)]
    run = collect(trials, [make_record(t) for t in trials])
    assert sorted(row.name for row in run.tasks[0].rows) == ["lstm · numba", "lstm · torch"]
    assert set(summary_of(run)["backend"].dropna()) == {"torch", "numba"}


def test_tasks_with_other_options_are_apart() -> None:
    trials = [make_trial(), replace(make_trial(), task_label="copy[length=9]/embedded", task_options={"length": 9})]
    assert [task.label for task in collect(trials, []).tasks] == ["copy/embedded", "copy[length=9]/embedded"]


def test_all_failed_takes_the_metrics_from_the_card(registry: Registry) -> None:
    trial = make_trial()
    run = collect([trial], [failed(trial)], registry)
    assert run.tasks[0].score is None
    registry.tasks["copy"] = TaskCard(
        "copy", "s", "m:T", (Metric("recall", "s"),), (Dataset("embedded", "s"),), "recall"
    )
    run = collect([trial], [failed(trial)], registry)
    assert run.tasks[0].score.name == "recall"
    assert pd.isna(summary_of(run)["score"][0])


def test_the_score_is_first_of_the_metrics_as_the_record_says() -> None:
    record = make_record(make_trial())
    record["task"]["metrics"].reverse()
    assert collect([make_trial()], [record]).tasks[0].score.name == "recall"


def test_read_from_a_folder(tmp_path: Path) -> None:
    folder = full_run(tmp_path, (COPY, ADDING))
    run = read_run(folder)
    assert run.labels == MODELS
    assert run.all_ok
    assert len(run.records) == len(run.planned) == 2 * 6 * 3


def test_not_all_ok() -> None:
    trials = [make_trial(seed=s) for s in range(2)]
    assert not collect(trials, [make_record(trials[0])]).all_ok
    assert not collect(trials, [make_record(trials[0]), failed(trials[1])]).all_ok


def test_an_empty_summary() -> None:
    assert summary_of(collect([], [])).empty


def test_unknown_keys_of_a_newer_version_are_left_out(tmp_path: Path) -> None:
    record = make_record(make_trial())
    record["references"][0]["colour"] = "red"
    record["task"]["metrics"][0]["scale"] = "log"
    folder = make_folder(tmp_path, [make_trial()], [record])
    assert read_run(folder).tasks[0].references[0].name == "trivial"


def test_a_setting_that_does_not_end_well_fails_no_run() -> None:
    chosen = {"lr": 1e-3}
    trials = [
        make_trial(purpose="tuning", setting={"lr": 10.0}, seed=9),
        make_trial(purpose="tuning", setting=chosen, seed=8),
        make_trial(setting=chosen),
    ]
    tried, good = failed(trials[0]), make_record(trials[1], score=None)
    run = collect(trials, [tried, good, make_record(trials[2])])
    assert run.all_ok
    (row,) = run.tasks[0].rows
    assert (len(row.trials), len(row.tuning)) == (1, 2)
    said = [note.text for note in notes(run.tasks[0])]
    assert "lr 0.001: chosen of 2 settings by validation; 1 of them did not end well (diverged)" in said
    assert not collect(trials, [tried, good]).all_ok, "one has not run"
    assert not collect(trials, [tried, good, failed(trials[2])]).all_ok


# --- places -----------------------------------------------------------------------------------------


def places_of(scores: dict[tuple[str, str], tuple[float, ...]]) -> dict[str, tuple[int, int]]:
    pairs = [
        (make_trial(ADDING, label, seed, backend=backend), score)
        for (label, backend), found in scores.items()
        for seed, score in enumerate(found)
    ]
    run = collect([t for t, _ in pairs], [make_record(t, ADDING, score) for t, score in pairs])
    return run.tasks[0].places


NEAR = (0.10, 0.11, 0.12, 0.10, 0.11)
FAR = (0.50, 0.51, 0.52, 0.51, 0.50)


def test_places_are_those_that_the_verdicts_leave_open() -> None:
    alike = tuple(value + shift for value, shift in zip(NEAR, (0.01, -0.01, 0.0, 0.01, -0.01), strict=True))
    found = places_of({("a", "torch"): FAR, ("b", "torch"): NEAR, ("c", "torch"): alike})
    assert found == {"a": (3, 3), "b": (1, 2), "c": (1, 2)}  # an error: lower is better


def test_one_seed_leaves_all_places_open_and_backends_have_their_own() -> None:
    assert places_of({("a", "torch"): (0.1,), ("b", "torch"): (0.2,)}) == {"a": (1, 2), "b": (1, 2)}
    scores = {(label, backend): found for label, found in (("a", NEAR), ("b", FAR)) for backend in ("torch", "numba")}
    assert set(places_of(scores).values()) == {(1, 1), (2, 2)}
