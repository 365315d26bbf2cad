"""Tuning: what is tried, that it is the same for all, what is chosen, and that nobody looks at the test set."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqbench
from seqbench.api import Model
from seqbench.axes import parse_axis, settings
from seqbench.errors import SpecError
from seqbench.pipeline import make_plan
from seqbench.plan import Row
from seqbench.quantities import Budget, Target
from seqbench.registry import Registry
from seqbench.spec import RunSpec, Training, Trial, read_spec_file
from seqbench.store import RunFolder
from seqbench.tuning import best, expected_best, key_of, settled, tries_of, tuning_trials, with_setting


def trial_of(label: str = "lstm", seed: int = 0, **changes: Any) -> Trial:
    trial = Trial(
        task="copy", task_options={}, dataset="embedded", task_label="copy/embedded", model=label, model_options={},
        label=label, backend="torch", device="cpu", width=8, layers=1, dropout=0.0, parameters=100, core_parameters=90,
        target_parameters=100, seed=seed, threads=1, training=Training(3e-3, 32, Budget("steps", 10)),
    )  # fmt: skip
    return replace(trial, **changes)


CARDS = {name: Model(name, "A model.", "nobody", {"torch": "a:B"}) for name in ("lstm", "gru")}


def row_of(trial: Trial) -> Row:
    names = ("task", "task_options", "dataset", "task_label", "model", "model_options", "label", "backend", "dropout")
    own = {name: getattr(trial, name) for name in names}
    return Row(**own, width=None, layers=None, target=Target(100), training=trial.training, seeds=(trial.seed,))


def tuning_of(trials: list[Trial], *tune: str) -> list[Trial]:
    """Those that choose for these, on the seed behind the last."""
    first: dict[tuple[str, ...], Trial] = {}
    for trial in trials:
        first.setdefault(key_of(row_of(trial)), trial)
    tries = tries_of(RunSpec(task=("copy",), tune=tune), [row_of(trial) for trial in first.values()], CARDS)
    return tuning_trials(tries, first, max(trial.seed for trial in trials) + 1)


def record_of(trial: Trial, value: float | None, lower: bool = True, status: str = "ok") -> dict[str, Any]:
    metric = {"name": "loss", "lower_is_better": lower}
    record = {"trial": json.loads(json.dumps(trial.__dict__, default=lambda v: v.__dict__)), "status": status}
    if status == "ok":
        record |= {"task": {"select": "loss", "metrics": [metric]}, "metrics": {"valid": {"loss": value}}}
    return record | {"cause": None if status == "ok" else "it burst"}


# --- what is tried


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("lr=1e-4..1e-2", (1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2)),
        ("lr=0.001..0.004:3", (0.001, 0.002, 0.004)),
        ("lr", (3e-4, 9.49e-4, 3e-3, 9.49e-3, 3e-2)),
        ("dropout=0,0.3,0.1", (0.0, 0.1, 0.3)),
        ("dropout=0..0.4", (0.0, 0.1, 0.2, 0.3, 0.4)),
        ("weight_decay=0.01", (0.01,)),
    ],
)
def test_axes(text: str, values: tuple[float, ...]) -> None:
    assert parse_axis(text, lr=3e-3).values == pytest.approx(values)


@pytest.mark.parametrize(
    "text",
    [
        "lr=",
        "lr=0..1e-2",
        "lr=1e-2..1e-4",
        "lr=1e-4..1e-2:1",
        "lr=a,b",
        "lr=0.1,0.1",
        "dropout=0..1",
        "lr=1e-3,",
        "lr=-1",
    ],
)
def test_axes_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"expected (lr|dropout)=LOW\.\.HIGH"):
        parse_axis(text, lr=3e-3)


def test_what_cannot_be_tuned_is_named() -> None:
    with pytest.raises(SpecError, match="'breadth' cannot be tuned; expected one of lr, weight_decay, dropout"):
        parse_axis("breadth=3", lr=3e-3)
    with pytest.raises(SpecError, match="names 'lr' twice"):
        settings(("lr", "lr=1e-3,1e-2"), 0, 3e-3)
    with pytest.raises(SpecError, match="asks for 10,000 settings"):
        settings(("lr=1e-4..1e-2:100", "dropout=0..0.5:100"), 0, 3e-3)
    with pytest.raises(SpecError, match="--tune-samples is 4; expected a number above 0, beside --tune"):
        RunSpec(task=("copy",), tune_samples=4)


def test_the_grid_is_every_pair() -> None:
    found = settings(("lr=0.001,0.01", "dropout=0,0.1,0.2"), 0, 3e-3)
    assert len(found) == 6
    assert {(s["lr"], s["dropout"]) for s in found} == set(itertools.product((0.001, 0.01), (0.0, 0.1, 0.2)))


@hypothesis.settings(deadline=None)  # the first call imports scipy
@given(st.integers(1, 40))
def test_sobol_points_lie_in_the_ranges_and_are_the_same_each_time(count: int) -> None:
    tune = ("lr=1e-4..1e-2", "dropout=0,0.1,0.3", "weight_decay=1e-3..1e-1:2")
    found = settings(tune, count, 3e-3)
    assert found == settings(tune, count, 3e-3)
    assert len(found) == count
    for setting in found:
        assert 1e-4 <= setting["lr"] <= 1e-2
        assert setting["dropout"] in {0.0, 0.1, 0.3}
        assert 1e-3 <= setting["weight_decay"] <= 1e-1


def test_sobol_points_fill_each_axis_evenly() -> None:
    """Sixteen points: one in each sixteenth of the way, on either axis (what 16 random points hardly ever do)."""
    found = settings(("lr=1e-4..1e-2", "dropout=0..0.8"), 16, 3e-3)
    for shares in ([(math.log10(s["lr"]) + 4) / 2 for s in found], [s["dropout"] / 0.8 for s in found]):
        middles = (np.arange(16) + 0.5) / 16
        assert np.abs(np.sort(shares) - middles).max() <= 0.5 / 16 + 0.002  # values have three digits


def test_all_rows_try_the_same_on_a_seed_of_its_own() -> None:
    trials = [trial_of(label, seed) for seed in (0, 7) for label in ("lstm", "gru")]
    found = tuning_of(trials, "lr=0.001,0.01")
    assert [(t.label, t.training.lr, t.seed, t.purpose) for t in found] == [
        (label, lr, 8, "tuning") for lr in (0.001, 0.01) for label in ("lstm", "gru")
    ]
    assert len({t.id for t in found} | {t.id for t in trials}) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.1}, "--lr 0.1 and a range of --tune lr are both given; leave one out"),
        ({"model": ("gru", "lstm[dropout=0.1]")}, r"lstm\[dropout=0.1\] has a dropout already"),
        ({"tune": ("lr=high",)}, "--tune 'lr=high': expected lr=LOW"),
    ],
)
def test_what_is_fixed_elsewhere_is_not_tuned(changes: dict[str, Any], message: str) -> None:
    spec = RunSpec(**{"task": ("copy",), "tune": ("lr=1e-3,1e-2", "dropout=0,0.1"), **changes})
    with pytest.raises(SpecError, match=message):
        tries_of(spec, [row_of(trial_of("gru")), row_of(trial_of("lstm"))], CARDS)


def test_a_rate_may_be_the_middle_of_those_that_are_tried() -> None:
    row = replace(row_of(trial_of()), training=Training(0.1, 32, Budget("steps", 10)))
    tries = tries_of(RunSpec(task=("copy",), tune=("lr",), lr=0.1), [row], CARDS)
    assert [tried.setting["lr"] for tried in tries][2] == 0.1


def test_a_setting_reaches_the_training() -> None:
    trial = with_setting(trial_of(), {"lr": 0.5, "dropout": 0.25, "weight_decay": 0.125})
    assert (trial.training.lr, trial.dropout, trial.training.weight_decay) == (0.5, 0.25, 0.125)
    assert with_setting(trial_of(), {"dropout": 0.1}).training == trial_of().training


# --- the choice


@pytest.mark.parametrize(("lower", "lr"), [(True, 0.01), (False, 0.001)])
def test_validation_chooses_for_each_row(lower: bool, lr: float) -> None:
    trials = [trial_of(label, seed) for seed in (0, 1) for label in ("lstm", "gru")]
    tuning = tuning_of(trials, "lr=0.001,0.01,0.1")
    values = {("lstm", 0.001): 3.0, ("lstm", 0.01): 1.0, ("lstm", 0.1): 2.0}
    records = [record_of(t, values.get((t.label, t.training.lr), t.training.lr), lower) for t in tuning]
    chosen = settled(trials, records)
    assert [t.training.lr for t in chosen if t.label == "lstm"] == [lr, lr]
    assert [t.training.lr for t in chosen if t.label == "gru"] == [0.001 if lower else 0.1] * 2
    assert [t.seed for t in chosen] == [t.seed for t in trials]


def test_the_choice_brings_its_size_and_the_steps_that_its_size_came_to() -> None:
    """A budget in FLOPs is other steps at another size; one in seconds is timed anew."""
    planned, seconds = trial_of(), trial_of(training=Training(3e-3, 32, Budget("seconds", 5)))
    setting, options = {"lr": 0.01, "taps": 5}, {"taps": 5}
    size = {"width": 4, "layers": 2, "parameters": 99, "core_parameters": 88, "advice": "far", "model_options": options}
    tried = replace(with_setting(planned, setting), purpose="tuning", seed=5, **size)
    tried = replace(tried, training=replace(tried.training, budget=Budget("steps", 7)))
    blocked = replace(planned, blocked={"status": "refused", "cause": "not with its default"})
    for trial, budget in (
        (planned, Budget("steps", 7)),
        (seconds, Budget("seconds", 5)),
        (blocked, Budget("steps", 7)),
    ):
        (chosen,) = settled([trial], [record_of(tried, 1.0)])
        assert chosen == replace(
            trial, training=Training(0.01, 32, budget), setting=setting, blocked=None, seed=trial.seed, **size
        )


def test_what_did_not_end_well_is_not_chosen() -> None:
    tuning = tuning_of([trial_of()], "lr=0.001,0.01,0.1")
    records = [record_of(tuning[0], 0.5), record_of(tuning[1], None), record_of(tuning[2], None, status="diverged")]
    assert best(records) is records[0]
    (chosen,) = settled([trial_of()], records)
    assert chosen.training.lr == 0.001


def test_a_row_without_any_good_setting_is_blocked_and_says_why() -> None:
    tuning = tuning_of([trial_of()], "lr=0.001,0.01")
    (chosen,) = settled([trial_of()], [record_of(t, None, status="diverged") for t in tuning])
    assert chosen.blocked == {"status": "diverged", "cause": "none of the 2 settings of tuning ended well: it burst"}


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=7), st.booleans())
def test_expected_best_is_the_mean_over_all_subsets(values: list[float], lower: bool) -> None:
    choose = min if lower else max
    brute = [np.mean([choose(s) for s in itertools.combinations(values, k)]) for k in range(1, len(values) + 1)]
    assert expected_best(values, lower) == pytest.approx(brute)


# --- a run


def test_a_run_tunes_then_trains_fresh_seeds_with_the_choice(tmp_path: Path) -> None:
    options = {
        "tune": "lr=1e-5,1e-2",
        "seeds": 2,
        "params": "2k",
        "budget": "40steps",
        "batch": 8,
        "out": str(tmp_path),
    }
    results = seqbench.run(tasks=["copy[T=3]", "adding[T=4]"], models=["gru", "rnn"], **options)
    assert results.ok
    assert results.folder.run()["settled"] == ["copy[T=3]/embedded", "adding[T=4]/embedded"]
    ended = {p.stem: p.stat().st_mtime_ns for p in (results.path / "trials").glob("*.json")}
    of_task = [max(t for name, t in ended.items() if name.startswith(task)) for task in ("copy", "adding")]
    first = min(t for name, t in ended.items() if name.startswith("adding"))
    assert of_task[0] < first, "a task is whole before the next one begins"
    adding = results.frame[results.frame["task"] == "adding[T=4]/embedded"]
    assert len(adding) == 8
    frame = results.frame[results.frame["task"] == "copy[T=3]/embedded"]
    tuning, scores = (frame[frame["purpose"] == purpose] for purpose in ("tuning", "score"))
    assert (len(tuning), len(scores)) == (4, 4)
    assert set(tuning["seed"]) == {2}
    assert set(scores["seed"]) == {0, 1}
    assert set(scores["lr"]) == {1e-2}  # with the other one nothing moves in 40 steps
    assert tuning["test_recall"].isna().all()
    assert tuning["score"].isna().all()
    assert scores["test_recall"].notna().all()
    page = (results.path / "report.html").read_text(encoding="utf-8")
    assert "lr 1e-05, 0.01: 2 settings of each model on seed 2, chosen by validation loss" in page
    assert "lr 0.01 is the largest that was tried" in page


def test_an_interrupted_tuning_goes_on_and_the_choice_is_made_once(tmp_path: Path) -> None:
    from seqbench.pipeline import resume, start
    from seqbench.registry import load

    values = {"tune": ("lr=1e-5,1e-2",), "seeds": "1", "params": "2k", "budget": "20steps", "batch": 8}
    spec = RunSpec(task=("copy[T=3]",), model=("rnn",), out=str(tmp_path), **values)
    cards = load()
    path = start(make_plan(spec, cards), cards).path
    folder = RunFolder.open(path)
    whole = {trial.id: folder.record(trial.id) for trial in folder.trials()}
    stored = folder.run()
    for trial in stored["trials"]:
        if trial["purpose"] == "score":
            trial["setting"], trial["training"]["lr"] = {}, 3e-3
    del stored["settled"]
    folder.write_run(stored)
    for name, record in whole.items():
        if record is not None and record["trial"]["purpose"] == "score":
            (path / "trials" / f"{name}.json").unlink()
    again = RunFolder.open(resume(path, cards).path)
    assert {trial.id for trial in again.trials()} == set(whole)
    scores = [record["score"] for record in again.records() if record["trial"]["purpose"] == "score"]
    assert scores == [r["score"] for r in whole.values() if r is not None and r["trial"]["purpose"] == "score"]


def test_a_replay_tunes_with_the_steps_that_seconds_came_to(tmp_path: Path) -> None:
    options = {"tune": "lr=1e-3,1e-2", "seeds": 1, "params": "2k", "batch": 8, "out": tmp_path}
    first = seqbench.run(task="copy[T=3]", models=["rnn"], budget="0.1s", **options)
    spec = read_spec_file(first.path / "spec.toml")
    assert len(spec["steps"]) == 3  # two settings and the choice, each timed by itself
    again = seqbench.run(**spec)
    assert list(again.frame["steps"]) == list(first.frame["steps"])
    assert {trial.training.budget.kind for trial in RunFolder.open(again.path).trials()} == {"steps"}


def test_a_replay_gives_each_setting_the_steps_that_it_came_to(cards: Registry) -> None:
    """Those of the choice are not those of the settings, though the choice may be what nobody tunes."""
    usual = cards.task("copy").defaults.lr
    spec = RunSpec(
        task=("copy[T=3]",), model=("rnn",), seeds="1", params="2k", budget="1s", tune=(f"lr={usual / 2},{usual}",)
    )
    *tuning, score = make_plan(spec, cards).trials
    steps = {trial.row_id: 10 + n for n, trial in enumerate(tuning)}
    again = make_plan(replace(spec, steps={**steps, score.row_id: 99}), cards).trials
    assert [trial.training.budget for trial in again] == [
        Budget("steps", 10),
        Budget("steps", 11),
        Budget("seconds", 1),
    ]
