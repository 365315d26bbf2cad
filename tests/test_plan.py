"""The plan: which trials a spec becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seqbench.errors import SpecError, UnknownName, UsageError
from seqbench.plan import Row, Sized, label_of, rows_of, trials_of, warnings_of
from seqbench.quantities import Budget, Target
from seqbench.registry import Registry
from seqbench.spec import RunSpec, Trial

SIZE = Sized(98, 2, {}, 49_500, 48_000)


def rows(cards: Registry, **values: object) -> list[Row]:
    return rows_of(RunSpec(**{"task": ("copy",), "model": ("lstm", "tcn"), **values}), cards)


def names(found: list[Row]) -> list[tuple[str, str, str]]:
    return [(row.task_label, row.label, row.backend) for row in found]


def test_every_task_with_every_model_in_the_order_given(cards: Registry) -> None:
    found = rows(cards, task=("adding", "copy[T=7]"), model=("tcn[kernel=5]", "lstm"))
    assert names(found) == [
        ("adding/embedded", "tcn[kernel=5]", "torch"),
        ("adding/embedded", "lstm", "torch"),
        ("copy[T=7]/embedded", "tcn[kernel=5]", "torch"),
        ("copy[T=7]/embedded", "lstm", "torch"),
    ]
    assert found[0].model_options == {"kernel": 5, "weight_norm": True, "last_channels": 0}
    assert found[2].task_options == {"T": 7}


def test_no_model_means_all(cards: Registry) -> None:
    assert [row.model for row in rows(cards, model=())] == list(cards.models)


def test_a_task_takes_those_datasets_that_it_has(cards: Registry) -> None:
    found = rows(cards, task=("copy", "char-lm"), model=("lstm",), dataset=("machado", "shakespeare"))
    assert [row.task_label for row in found] == ["copy/embedded", "char-lm/machado", "char-lm/shakespeare"]


def test_labels_say_what_differs_from_the_defaults_alone(cards: Registry) -> None:
    same = ("lstm[forget_bias=1]", "lstm[chrono=false]")
    assert [rows(cards, model=(text,))[0].label for text in same] == ["lstm", "lstm"]
    assert rows(cards, model=("lstm[layers=2,forget_bias=0]",))[0].label == "lstm[forget_bias=0.0,layers=2]"
    assert label_of("a", {"z": 1, "b": True}) == "a[b=True,z=1]"
    assert label_of("a", {}) == "a"


def test_options_that_every_model_has(cards: Registry) -> None:
    (row,) = rows(cards, model=("lstm[width=64,layers=3,dropout=0.5]",))
    assert (row.width, row.layers, row.dropout) == (64, 3, 0.5)
    (row,) = rows(cards, model=("lstm",))
    assert (row.width, row.layers, row.dropout) == (None, None, 0.0)


def test_protocol_is_the_tasks_own_where_nothing_is_said(cards: Registry) -> None:
    defaults = cards.task("char-lm").defaults
    (row,) = rows(cards, task=("char-lm",), model=("lstm",))
    plan = row.training
    assert (row.target, plan.lr, plan.batch) == (Target(defaults.parameters, 0.02), defaults.lr, defaults.batch)
    assert plan.budget == Budget("steps", defaults.steps)
    dropping = cards.task("translation").dataset("multi30k").defaults
    (row,) = rows(cards, task=("translation",), dataset=("multi30k",), model=("lstm",))
    assert (row.target.count, row.training.lr, row.dropout) == (dropping.parameters, dropping.lr, dropping.dropout)
    assert dropping.dropout > 0
    (row,) = rows(cards, task=("translation",), dataset=("multi30k",), model=("lstm[dropout=0]",))
    assert row.dropout == 0
    (row,) = rows(cards, model=("lstm",), params="1.5M±1%", lr=0.1, batch=3, budget="5min")
    assert (row.target, row.training.lr, row.training.batch) == (Target(1_500_000, 0.01), 0.1, 3)
    assert row.training.budget == Budget("seconds", 300)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"model": ("lsmt",)}, UnknownName, "There is no model 'lsmt'. Did you mean 'lstm'"),
        ({"task": ("copi",)}, UnknownName, "There is no task 'copi'. Did you mean 'copy'"),
        ({"backend": ("tocrh",)}, UnknownName, "There is no backend 'tocrh'. Did you mean 'torch'"),
        ({"dataset": ("shakespeare",)}, UnknownName, r"no dataset 'shakespeare'\. Known: embedded\."),
        (
            {"model": ("lstm[forget=1]",)},
            UnknownName,
            "no option of model 'lstm': 'forget'. Did you mean 'forget_bias'",
        ),
        ({"task": ("copy[T=0]",)}, SpecError, "Option 'T' of task 'copy' is '0'; expected from 1"),
        ({"model": ("lstm[width=0]",)}, SpecError, "'width' of model 'lstm' is '0'; expected a whole number above 0"),
        ({"model": ("lstm[layers=1.5]",)}, SpecError, "expected a whole number above 0"),
        ({"model": ("lstm[layers=9999999]",)}, SpecError, "expected a whole number above 0"),
        ({"model": ("lstm[dropout=1]",)}, SpecError, "expected a number from 0 to below 1"),
        ({"model": ("lstm[dropout=nan]",)}, SpecError, "expected a number from 0 to below 1"),
        ({"model": ("lstm[dropout=x]",)}, SpecError, "expected a number from 0 to below 1"),
        ({"model": ("lstm", "lstm[forget_bias=1.0]")}, SpecError, "lstm on copy/embedded .torch. is asked for twice"),
        ({"task": ("copy", "copy[T=50]")}, SpecError, "is asked for twice"),
        ({"backend": ("torch", "torch")}, SpecError, "is asked for twice"),
        ({"model": ("lstm[",)}, SpecError, "Cannot read 'lstm"),
    ],
)
def test_what_cannot_be_planned(cards: Registry, values: dict[str, object], error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        rows(cards, **values)


def test_all_models_of_a_seed_come_before_the_next_seed(cards: Registry) -> None:
    spec = RunSpec(task=("copy",), model=("lstm", "tcn"), seeds="5,2", threads=3, data_dir="/d", plugin=("/p.py",))
    trials = trials_of(spec, rows_of(spec, cards), [SIZE, replace(SIZE, width=64)], "cpu", {"/p.py": "ab"})
    assert [(t.seed, t.label, t.width) for t in trials] == [
        (5, "lstm", 98),
        (5, "tcn", 64),
        (2, "lstm", 98),
        (2, "tcn", 64),
    ]
    assert {(t.threads, t.device, t.data_dir) for t in trials} == {(3, "cpu", "/d")}
    assert all(t.plugins == {"/p.py": "ab"} for t in trials)
    assert len({t.row_id for t in trials}) == 2
    assert len({t.id for t in trials}) == 4


def test_options_that_the_solver_set_are_the_trials(cards: Registry) -> None:
    spec = RunSpec(task=("copy",), model=("tcn",), seeds="1")
    solved = {"kernel": 3, "weight_norm": True, "last_channels": 17}
    (trial,) = trials_of(spec, rows_of(spec, cards), [replace(SIZE, model_options=solved)], "cpu", {})
    assert trial.model_options == solved
    assert trial.label == "tcn", "the label says what the user chose"


def test_a_replay_turns_seconds_into_the_steps_of_the_earlier_run(cards: Registry) -> None:
    spec = RunSpec(task=("copy",), model=("lstm", "tcn"), seeds="1", budget="60s")
    first, second = trials_of(spec, rows_of(spec, cards), [SIZE, SIZE], "cpu", {})
    again = replace(spec, steps={first.row_id: 321})
    replayed, other = trials_of(again, rows_of(again, cards), [SIZE, SIZE], "cpu", {})
    assert replayed.training.budget == Budget("steps", 321)
    assert replayed.seed == first.seed
    assert other == second


def test_a_replay_of_rows_that_are_not_there_stops(cards: Registry) -> None:
    spec = RunSpec(task=("copy",), model=("lstm",), steps={"copy-embedded-gru-torch-00000000": 5})
    with pytest.raises(SpecError, match="names 'copy-embedded-gru-torch-00000000', which is no row of this run"):
        trials_of(spec, rows_of(spec, cards), [SIZE], "cpu", {})


def test_a_replay_with_one_size_for_two_rows_is_a_fault_of_ours(cards: Registry) -> None:
    spec = RunSpec(task=("copy",), model=("lstm", "tcn"))
    with pytest.raises(ValueError, match="shorter"):
        trials_of(spec, rows_of(spec, cards), [SIZE], "cpu", {})


def warned(trial: Trial, **changes: object) -> list[str]:
    return warnings_of([replace(trial, **changes), replace(trial, seed=1, **changes)])


def test_warnings_say_each_thing_once(example_trial: Trial) -> None:
    assert warned(example_trial) == []
    assert warned(example_trial, parameters=50_990) == [], "just under 2 % is within the tolerance"
    (off,) = warned(example_trial, parameters=48_900)
    assert (
        off
        == f"lstm on copy/embedded: 48,900 parameters at width {example_trial.width}, -2.2% from the target of 50,000"
    )
    assert warned(example_trial, parameters=48_900, parameter_tolerance=0.03) == []
    (tight,) = warned(example_trial, parameters=50_600, parameter_tolerance=0.01)
    assert tight == off.replace("48,900", "50,600").replace("-2.2%", "+1.2%")
    (blocked,) = warned(example_trial, parameters=0, blocked={"status": "refused", "cause": "too long"})
    assert blocked == "lstm on copy/embedded: refused: too long"
    assert warned(example_trial, advice="warning: too short") == ["lstm on copy/embedded: too short"]
    assert warned(example_trial, advice="receptive field 63") == []


def test_usage_errors_are_all_one_line(cards: Registry) -> None:
    for values in ({"model": ("lsmt",)}, {"task": ("copi",)}, {"model": ("lstm[x=1]",)}):
        with pytest.raises(UsageError) as caught:
            rows(cards, **values)
        assert "\n" not in str(caught.value)


def test_a_model_against_itself_has_two_names_and_no_seed_twice(cards: Registry) -> None:
    first, second = rows(cards, model=(), aa="lstm[forget_bias=2]", seeds="1,4,")
    assert (first.label, second.label) == ("lstm[forget_bias=2.0] (first)", "lstm[forget_bias=2.0] (second)")
    assert (first.seeds, second.seeds) == ((1, 4), (6, 9))
    assert replace(first, label="", seeds=()) == replace(second, label="", seeds=())
    with pytest.raises(SpecError, match="--aa lstm compares one model with itself; leave out --model gru"):
        RunSpec(task=("copy",), aa="lstm", model=("gru",))
