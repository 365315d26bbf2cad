"""Options of models tuned by name: who tries what, that it is fair, and that every setting has a size of its own."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from seqbench.api import Model, option
from seqbench.axes import Axis, parse_axis, settings
from seqbench.cli import cli
from seqbench.errors import SpecError, UnknownName
from seqbench.options import to_dict
from seqbench.pipeline import make_plan, resume, start
from seqbench.plan import rows_of
from seqbench.registry import Registry
from seqbench.report.collect import read_run
from seqbench.report.merge import conditions
from seqbench.report.tuning_figures import tuning_pictures
from seqbench.spec import RunSpec, Trial, read_spec_file, spec_from_mapping, trial_to_dict
from seqbench.speed.of_run import specs_of
from seqbench.speed.run import make_plan as make_speed_plan
from seqbench.store import RunFolder
from seqbench.tuning import tries_of
from seqbench.verify import Finding, Request, verify


@dataclass(frozen=True)
class Options:
    """One of each type."""

    taps: int = option(3, "a whole number", low=1, high=9)
    scale: float = option(1.0, "a number", low=-2.0)
    gate: bool = option(False, "a switch")
    norm: str = option("pre", "a word", choices=("pre", "post"))

    def __post_init__(self) -> None:
        if self.taps == 9 and not self.gate:
            raise ValueError("nine taps need the gate")


CARD = Model("mine", "A model.", "nobody", {"torch": "a:B"}, options=Options)


def axis(text: str) -> Axis:
    found = parse_axis(text, 3e-3, CARD)
    assert found is not None
    return found


# --- axes


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("taps=5,3", (3, 5)),
        ("taps=1..9", (1, 3, 5, 7, 9)),
        ("taps=3..5", (3, 4, 5)),
        ("taps=1..9:3", (1, 5, 9)),
        ("mine.taps=3,5", (3, 5)),
        ("scale=-1,0,1.5", (-1.0, 0.0, 1.5)),
        ("scale=-1..1:3", (-1.0, 0.0, 1.0)),
        ("gate=yes,no", (True, False)),
        ("norm=pre,post", ("pre", "post")),
    ],
)
def test_values_are_typed(text: str, values: tuple[Any, ...]) -> None:
    found = axis(text)
    assert found.values == values
    assert list(map(type, found.values)) == list(map(type, values))
    assert found.name in {"taps", "scale", "gate", "norm"}, "the model's name is not part of a setting"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("taps=3,x", "Option 'taps' of model 'mine' is 'x'; expected a whole number"),
        ("taps=3,10", "Option 'taps' of model 'mine' is '10'; expected from 1 to 9"),
        ("taps=1..20", "Option 'taps' of model 'mine' is .*; expected from 1 to 9"),
        ("norm=pre,past", "Option 'norm' of model 'mine' is 'past'; expected one of pre, post"),
        ("taps=3,3", r"--tune 'taps=3,3': expected taps=LOW\.\.HIGH, .* each value once"),
        ("taps=5..3", r"--tune 'taps=5\.\.3': expected taps=LOW\.\.HIGH"),
        ("taps", "--tune 'taps': expected taps=LOW"),
        ("norm=", "--tune 'norm=': expected norm=VALUE,VALUE, each value once"),
    ],
)
def test_values_that_the_card_does_not_take(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        axis(text)


def test_what_is_anothers_is_no_axis() -> None:
    assert parse_axis("other.taps=3", 3e-3, CARD) is None


def test_sobol_points_of_options_are_legal_and_each_once() -> None:
    found = settings(("taps=2..8", "scale=-1..1", "norm=pre,post"), 32, 3e-3, CARD)
    assert len({json.dumps(setting) for setting in found}) == 32
    assert {setting["taps"] for setting in found} == set(range(2, 9)), "the ends as often as the middle"
    assert all(-1 <= setting["scale"] <= 1 for setting in found)
    every = settings(("taps=2,4,6", "gate=no,yes"), 6, 3e-3, CARD)
    assert {(s["taps"], s["gate"]) for s in every} == set(itertools.product((2, 4, 6), (False, True)))
    with pytest.raises(SpecError, match="--tune-samples is 7; there are 6 settings of taps, gate"):
        settings(("taps=2,4,6", "gate=no,yes"), 7, 3e-3, CARD)


# --- fairness


def tried(cards: Registry, *tune: str, models: Sequence[str] = ("tcn", "gru"), samples: int = 0) -> dict[str, Any]:
    """What each model tries."""
    spec = RunSpec(task=("copy[T=5]",), model=tuple(models), tune=tune, tune_samples=samples)
    found: dict[str, Any] = {}
    for one in tries_of(spec, rows_of(spec, cards), cards.models):
        found.setdefault(one.row.label, []).append(one.setting)
    return found


def test_models_may_tune_options_of_their_own_if_they_try_as_many(cards: Registry) -> None:
    found = tried(cards, "lr=1e-3,1e-2", "tcn.kernel=3,5", "gru.reset_after=yes,no")
    assert {label: len(settings) for label, settings in found.items()} == {"tcn": 4, "gru": 4}
    assert found["tcn"][1] == {"lr": 1e-3, "kernel": 5}
    assert set(found["gru"][0]) == {"lr", "reset_after"}


def test_sobol_points_give_each_model_as_many_over_its_own_axes(cards: Registry) -> None:
    found = tried(cards, "lr=1e-4..1e-1", "tcn.kernel=2..9", samples=8)
    assert {label: len(settings) for label, settings in found.items()} == {"tcn": 8, "gru": 8}
    assert set(found["gru"][0]) == {"lr"}


@pytest.mark.parametrize(
    ("tune", "error", "message"),
    [
        (
            "kernel=3,5",
            SpecError,
            r"gru cannot try it, and every model must try as many settings\. Write tcn\.kernel and",
        ),
        ("tcn.kernel=3,5", SpecError, r"different numbers of settings \(tcn 2, gru 1\); every model must try as many"),
        ("kernl=3,5", UnknownName, r"no hyper-parameter 'kernl'\. Did you mean 'kernel'\? Known: .*dropout, .*lr"),
        ("tcn.kernl=3,5", UnknownName, r"no hyper-parameter 'kernl'\. Did you mean 'kernel'\?"),
        ("tnc.kernel=3,5", UnknownName, r"There is no model in this run: 'tnc'\. Did you mean 'tcn'\? Known: gru, tcn"),
        ("lstm.chrono=yes,no", UnknownName, "There is no model in this run: 'lstm'"),
    ],
)
def test_what_is_not_fair_or_not_there_is_refused(
    cards: Registry, tune: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tried(cards, tune)


def test_what_a_model_has_fixed_is_not_tuned(cards: Registry) -> None:
    with pytest.raises(SpecError, match=r"tcn\[kernel=3\] has a kernel already; leave it out, or do not --tune kernel"):
        tried(cards, "kernel=3,5", models=["tcn[kernel=3]"])


def test_a_combination_that_the_card_refuses_is_told_before_anything_runs(cards: Registry) -> None:
    spec = RunSpec(task=("copy",), model=("rnn",), tune=("taps=3,9", "gate=yes,no"))
    (row,) = rows_of(spec, cards)
    with pytest.raises(SpecError, match="model 'mine': nine taps need the gate"):
        tries_of(spec, [replace(row, model="mine", model_options=to_dict(Options()))], {"mine": CARD})


# --- a run

TUNE = ("tcn.kernel=2,3", "gru.reset_after=yes,no")
SMALL = {"seeds": "1", "params": "3k", "budget": "6steps", "batch": 8, "tune": TUNE}
SPEC = RunSpec(task=("copy[T=3]",), model=("tcn", "gru"), **SMALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, cards: Registry) -> RunFolder:
    spec = replace(SPEC, out=str(tmp_path_factory.mktemp("run")))
    return start(make_plan(spec, cards), cards).folder


def of(trials: Sequence[Trial], label: str, purpose: str) -> list[Trial]:
    return [trial for trial in trials if (trial.label, trial.purpose) == (label, purpose)]


def test_every_setting_has_the_size_that_the_budget_gives_it(run: RunFolder) -> None:
    small, large = of(run.trials(), "tcn", "tuning")
    assert (
        [t.model_options["kernel"] for t in (small, large)] == [t.setting["kernel"] for t in (small, large)] == [2, 3]
    )
    assert (small.width, small.layers) != (large.width, large.layers)
    for trial in run.trials():
        assert trial.parameters == pytest.approx(3000, rel=0.1)
        record = run.record(trial.id)
        assert record is not None
        assert record["status"] == "ok"
        assert record["parameters"]["network"] == trial.parameters, "counted in the trial"


@pytest.mark.parametrize(("label", "name"), [("tcn", "kernel"), ("gru", "reset_after")])
def test_the_choice_is_trained_with_its_own_size(run: RunFolder, label: str, name: str) -> None:
    tuning, (score,) = of(run.trials(), label, "tuning"), of(run.trials(), label, "score")
    losses = {trial.id: (run.record(trial.id) or {})["metrics"]["valid"]["loss"] for trial in tuning}
    chosen = min(tuning, key=lambda trial: losses[trial.id])
    same = ("setting", "model_options", "width", "layers", "parameters", "core_parameters")
    assert {field: getattr(score, field) for field in same} == {field: getattr(chosen, field) for field in same}
    assert score.setting == {name: score.model_options[name]}
    assert score.seed != chosen.seed


def test_the_report_shows_what_each_model_tried(run: RunFolder, cards: Registry) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    for said in ("kernel 2, 3 of tcn", "reset_after False, True of gru", ": 2 settings of each model on seed 1"):
        assert said in page
    assert "chosen of 2 settings by validation" in page
    assert "was tried: the best may lie beyond, if the model takes more" in page
    assert page.count("reset_after True is the") == page.count("reset_after False is the") == 0
    pictures = {p.title: p for p in tuning_pictures(read_run(run).tasks[0], read_run(run))}
    words = pictures["Tuning: validation loss against reset_after"].readings
    assert words.x == "reset_after (0: False, 1: True)"
    assert [(trace.name, list(trace.x)) for trace in words.traces] == [("gru", [0.0, 1.0])]
    numbers = pictures["Tuning: validation loss against kernel"].readings
    assert [(trace.name, list(trace.x)) for trace in numbers.traces] == [("tcn", [2.0, 3.0])]
    figures = [pictures[f"Tuning: validation loss against {name}"].figure for name in ("reset_after", "kernel")]
    assert figures[0].axes[0].lines[0].get_linestyle() == "None", "there is nothing between two words"
    assert all(tick == round(tick) for tick in figures[1].axes[0].get_xticks())
    tuned = conditions(read_run(run).tasks[0], read_run(run), "here")["tuning"]
    assert tuned == "2 settings, with options of its own"


def test_a_replay_and_a_dry_run_plan_the_same_trials(run: RunFolder, cards: Registry) -> None:
    spec = spec_from_mapping(read_spec_file(run.path / "spec.toml"), "spec.toml")
    plan = make_plan(spec, cards)
    planned = {trial.id for trial in plan.trials if trial.purpose == "tuning"}
    assert planned == {trial.id for trial in run.trials() if trial.purpose == "tuning"}
    done = CliRunner().invoke(cli, ["run", str(run.path / "spec.toml"), "--dry-run"])
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines() if " kernel " in line]
    widths = [str(trial.width) for trial in of(run.trials(), "tcn", "tuning")]
    assert [(line[4], line[5]) for line in lines] == list(zip(["2", "3"], widths, strict=True))


def test_an_interrupted_run_settles_on_the_same(run: RunFolder, cards: Registry, tmp_path: Path) -> None:
    copied = RunFolder(Path(shutil.copytree(run.path, tmp_path / "run")))
    ids = {trial.id for trial in run.trials()}
    stored = copied.run()
    del stored["settled"]
    copied.write_run(stored | {"trials": [trial_to_dict(trial) for trial in make_plan(SPEC, cards).trials]})
    for trial in of(run.trials(), "tcn", "score"):
        (copied.path / "trials" / f"{trial.id}.json").unlink()
    resume(copied.path, cards)
    assert {trial.id for trial in copied.trials()} == ids
    (trial,) = of(run.trials(), "tcn", "score")
    assert (copied.record(trial.id) or {})["score"] == (run.record(trial.id) or {})["score"]


def test_a_chosen_trial_can_be_verified(run: RunFolder) -> None:
    (trial,) = of(run.trials(), "tcn", "score")
    found: list[Finding] = []
    assert verify(run, Request(trial.id), found.append)
    assert [(f.name, f.verdict) for f in found] == [(trial.id, "bit-equal")]


def test_speed_measures_the_network_that_was_chosen(run: RunFolder, cards: Registry) -> None:
    trials = {trial.label: trial for trial in run.trials() if trial.purpose == "score"}
    (spec,) = specs_of(run, {"operation": "infer"})
    assert spec.chosen == tuple((label, "torch", trial.setting) for label, trial in trials.items())
    found = {s.trial.label: s.trial for s in make_speed_plan(spec, cards).subjects}
    same = ("model_options", "width", "layers", "parameters")
    for label, trial in trials.items():
        assert [getattr(found[label], field) for field in same] == [getattr(trial, field) for field in same]
    assert spec.chosen_for("tcn", "numba") == trials["tcn"].setting, "what its first backend chose"
    assert spec.chosen_for("rnn", "torch") == {}
