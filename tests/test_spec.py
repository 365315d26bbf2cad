"""The spec: texts to values, files there and back, and the names of trials."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.errors import SpecError
from seqbench.quantities import Budget, parse_budget
from seqbench.spec import (
    Choice,
    RunSpec,
    Training,
    Trial,
    parse_choice,
    parse_seeds,
    read_spec_file,
    spec_from_mapping,
    spec_to_toml,
    trial_from_dict,
    trial_to_dict,
)

# --- option strings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("lstm", "lstm", {}),
        (" lstm ", "lstm", {}),
        ("lstm[]", "lstm", {}),
        ("lstm[forget_bias=1]", "lstm", {"forget_bias": "1"}),
        ("tcn[ kernel = 3 , layers=2, ]", "tcn", {"kernel": "3", "layers": "2"}),
        ("x[path=a=b]", "x", {"path": "a=b"}),
        ("x\n[a=1\n]", "x", {"a": "1"}),
    ],
)
def test_choice(text: str, name: str, options: dict[str, str]) -> None:
    assert parse_choice(text) == Choice(name, tuple(options.items()))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"Cannot read '': write name\[option=value"),
        ("[a=1]", "write name"),
        ("two words", "write name"),
        ("lstm[a=1", "write name"),
        ("lstm]", "write name"),
        ("lstm[a]", r"Cannot read option 'a' in 'lstm\[a\]': write option=value"),
        ("lstm[a=]", "Cannot read option 'a='"),
        ("lstm[=1]", "Cannot read option '=1'"),
        ("lstm[a=1,b=2,a=3]", "Option 'a' stands twice"),
    ],
)
def test_choice_that_cannot_be_read(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_choice(text)


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("3", (0, 1, 2)),
        (1, (0,)),
        ("7,", (7,)),
        ("0,1,5", (0, 1, 5)),
        (" 4 , 2 ", (4, 2)),
        ("123456789,", (123456789,)),
    ],
)
def test_seeds(text: str | int, seeds: tuple[int, ...]) -> None:
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", ",", "1,,2", "a", "1 2", "1234567890,", "٣"])
def test_seeds_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"--seeds is .*; expected how many \(5\) or which"):
        parse_seeds(text)


def test_seeds_that_stand_twice() -> None:
    with pytest.raises(SpecError, match="a seed stands twice"):
        parse_seeds("1,01")


def test_a_seed_where_a_number_of_seeds_belongs() -> None:
    """It would be a tuple of 36 GB."""
    with pytest.raises(SpecError, match="name one seed with a comma, as in '999999999,'"):
        parse_seeds("999999999")


# --- the user's spec ------------------------------------------------------------------------------------


def spec_of(**values: object) -> RunSpec:
    return spec_from_mapping({"task": "copy", **values}, "run.toml")


def test_a_lone_name_and_a_plural_stand_for_a_list() -> None:
    assert spec_of(models="lstm") == spec_of(model=["lstm"]) == spec_of(model=("lstm",))
    assert spec_from_mapping({"tasks": ["copy"]}, "f").task == ("copy",)


def test_seeds_from_a_file_or_a_call() -> None:
    assert [parse_seeds(spec_of(seeds=s).seeds) for s in (2, "2", [0, 1], (0, 1), range(2), "0,1")] == [(0, 1)] * 6
    assert parse_seeds(spec_of(seeds=[7]).seeds) == (7,), "a list of one is that seed, not seven seeds"


def test_none_is_as_if_not_given() -> None:
    assert spec_of(lr=None, model=None) == spec_of()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modelz": "lstm"}, r"run\.toml: unknown key 'modelz'\. Did you mean 'model'\? Known: aa, backend, batch,"),
        ({"seed": 3}, "Did you mean 'seeds'"),
        ({"zzz": 1}, r"unknown key 'zzz'\. Known"),
        ({"model": "a", "models": "b"}, "'model' and its plural are both given"),
        ({"model": 3}, "model is 3; expected a name or a list of names"),
        ({"model": ["a", 3]}, "expected a name or a list of names"),
        ({"threads": "2"}, "threads is '2'; expected a number"),
        ({"threads": 1.5}, "expected a number"),
        ({"threads": True}, "threads is True; expected a number"),
        ({"lr": "fast"}, "lr is 'fast'; expected a number"),
        ({"timeout": 10**400}, "timeout is 1000.*; expected a number"),
        ({"params": 1.5}, r"params is 1\.5; expected text"),
        ({"device": True}, "device is True; expected text"),
        ({"steps": {"id": 0}}, "steps is .*; expected a table of row id = number of steps"),
        ({"steps": [1]}, "expected a table of row id"),
        ({"threads": 0}, "--threads is 0; expected at least 1"),
        ({"jobs": -1}, "--jobs is -1; expected at least 0"),
        ({"batch": 0}, "--batch is 0; expected at least 1"),
        ({"lr": 0}, "--lr is 0.0; expected a number above 0"),
        ({"lr": float("nan")}, "--lr is nan"),
        ({"timeout": 0}, "--timeout is 0.0; expected seconds above 0"),
        ({"memory": -1}, "--memory is -1; expected at least 0"),
        ({"timeout": float("inf")}, "--timeout is inf"),
        ({"device": "tpu"}, "--device is 'tpu'; expected auto, cpu or cuda"),
        ({"seeds": 0}, "--seeds is '0'"),
        ({"seeds": [True]}, "--seeds is 'True,'"),
        ({"params": "many"}, "--params is 'many'"),
        ({"budget": 5}, "--budget is '5'"),
        ({"backend": []}, "No backend: say which"),
        ({"task": []}, "No task: say which, for example --task copy"),
    ],
)
def test_a_spec_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        spec_of(**values)


def test_a_spec_without_a_task() -> None:
    with pytest.raises(SpecError, match="No task"):
        spec_from_mapping({}, "f")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))  # all of Unicode that UTF-8 can say
NAMES = st.lists(TEXTS, max_size=3).map(tuple)
SPECS = st.builds(
    RunSpec,
    task=st.lists(TEXTS, min_size=1, max_size=3).map(tuple),
    model=NAMES,
    dataset=NAMES,
    seeds=st.sampled_from(["3", "7,", "0,1,5"]),
    params=st.none() | st.sampled_from(["50k", "1.5M"]),
    budget=st.none() | st.sampled_from(["60s", "2000steps"]),
    lr=st.none() | st.floats(1e-300, 99.0),
    batch=st.none() | st.integers(1, 10**9),
    backend=st.lists(TEXTS, min_size=1, max_size=2).map(tuple),
    device=st.sampled_from(["auto", "cpu", "cuda"]),
    threads=st.integers(1, 10**6),
    jobs=st.integers(0, 10**6),
    timeout=st.floats(61, allow_infinity=False),
    memory=st.integers(0, 10**6),
    data_dir=st.none() | TEXTS,
    plugin=NAMES,
    out=TEXTS,
    steps=st.dictionaries(TEXTS, st.integers(1, 10**9), max_size=3),
)


@given(SPECS)
@settings(deadline=None, max_examples=200)
def test_a_spec_file_says_the_same(spec: RunSpec) -> None:
    assert spec_from_mapping(tomllib.loads(spec_to_toml(spec)), "f") == spec


@pytest.mark.parametrize("odd", ["emoji 😀", "del \x7f", 'quote " and \\', "line\nline\r\n", "\x00\x1f", "\u2028", "é"])
def test_odd_paths_survive_a_spec_file(odd: str) -> None:
    spec = spec_of(out=odd, plugin=[odd], steps={odd: 3})
    assert spec_from_mapping(tomllib.loads(spec_to_toml(spec)), "f") == spec


@given(SPECS)
@settings(deadline=None, max_examples=50)
def test_a_spec_survives_the_record_of_its_run(spec: RunSpec) -> None:
    assert spec_from_mapping(json.loads(json.dumps(dataclasses.asdict(spec))), "run.json") == spec


def test_read_spec_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('task = "copy"\nseeds = 2\n', encoding="utf-8")
    assert read_spec_file(tmp_path / "a.toml") == {"task": "copy", "seeds": 2}


@pytest.mark.parametrize("content", [b"task = ", b"task = '\xff'", b"\x00"])
def test_a_spec_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.toml").write_bytes(content)
    with pytest.raises(SpecError, match=r"a\.toml is not TOML: "):
        read_spec_file(tmp_path / "a.toml")


def test_a_spec_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"Cannot read the spec file .*: No such file"):
        read_spec_file(tmp_path / "none.toml")


# --- trials ---------------------------------------------------------------------------------------------

PLACES = {
    "data_dir": "/elsewhere", "advice": "a remark", "blocked": {"status": "refused"}, "setting": {"lr": 3e-3},
    "parameter_tolerance": 0.01, "events": ("tensorboard",), "sources": {"model": "acme-models:plug"},
}  # fmt: skip
OTHER = {
    "purpose": "tuning",
    "plugins": {"a.py": "ab"},
    "task": "adding",
    "task_options": {"T": 51},
    "dataset": "other",
    "task_label": "copy[T=51]/embedded",
    "model": "gru",
    "model_options": {"forget_bias": 2.0, "chrono": False},
    "label": "lstm[forget_bias=2.0]",
    "backend": "numba",
    "device": "cuda",
    "width": 99,
    "layers": 2,
    "dropout": 0.1,
    "parameters": 50_001,
    "core_parameters": 48_001,
    "target_parameters": 50_002,
    "seed": 1,
    "threads": 2,
}
OTHER_TRAINING = {
    "lr": 0.001,
    "batch": 16,
    "budget": Budget("seconds", 1000),
    "warmup": 0.1,
    "final_lr": 0.1,
    "weight_decay": 0.0,
    "clip": 2.0,
    "validations": 10,
}


def test_an_id_follows_from_all_that_decides_the_numbers_and_from_nothing_else(example_trial: Trial) -> None:
    assert set(OTHER) | set(PLACES) | {"training"} == {f.name for f in dataclasses.fields(Trial)}
    assert set(OTHER_TRAINING) == {f.name for f in dataclasses.fields(Training)}
    same = [replace(example_trial, **{name: value}).id for name, value in PLACES.items()]
    assert set(same) == {example_trial.id}
    changed = [replace(example_trial, **{name: value}) for name, value in OTHER.items()]
    changed += [
        replace(example_trial, training=replace(example_trial.training, **{name: value}))
        for name, value in OTHER_TRAINING.items()
    ]
    ids = {trial.id for trial in changed} | {example_trial.id}
    assert len(ids) == len(changed) + 1
    moved = [replace(example_trial, plugins={place: "ab"}).id for place in ("a.py", "elsewhere/a.py")]
    assert len(set(moved)) == 1, "what is in a plugin file counts, not where it lies"
    rows = [replace(trial, seed=9).row_id for trial in changed]
    assert len(set(rows)) == len(rows), "all but the seed tells rows apart"


def test_an_id_is_what_it_was() -> None:
    """Runs are resumed by later versions: the id of a stored trial may not move."""
    stored = {
        "task": "copy", "task_options": {"T": 50}, "dataset": "embedded", "task_label": "copy/embedded",
        "model": "lstm", "model_options": {"forget_bias": 1.0, "chrono": False}, "label": "lstm", "backend": "torch",
        "device": "cpu", "width": 98, "layers": 1, "dropout": 0.0, "parameters": 50000, "core_parameters": 48000,
        "target_parameters": 50000, "seed": 0, "threads": 1, "plugins": {}, "data_dir": None, "advice": "",
        "blocked": None, "training": {"lr": 0.003, "batch": 32, "budget": {"kind": "steps", "amount": 1000.0},
        "warmup": 0.05, "final_lr": 0.01, "weight_decay": 0.01, "clip": 1.0, "validations": 20},
    }  # fmt: skip
    assert trial_from_dict(stored).id == "copy-embedded-lstm-torch-s0-8571535c", (
        "if this must change, so must store.FORMAT"
    )


def test_equal_trials_have_equal_ids(example_trial: Trial) -> None:
    """A task's default of 1000 steps and ``--budget 1000steps`` are one training."""
    whole, decimal = (
        replace(example_trial, training=replace(example_trial.training, budget=budget))
        for budget in (Budget("steps", 1000), parse_budget("1000steps"))
    )
    assert whole == decimal
    assert whole.id == decimal.id


@given(st.text(max_size=200), st.text(max_size=200))
@settings(deadline=None, max_examples=200)
def test_an_id_is_a_safe_file_name_whatever_the_options_are(example_trial: Trial, task: str, model: str) -> None:
    trial = replace(example_trial, task_label=f"copy[x={task}]/embedded", label=f"lstm[y={model}]")
    kept = set(trial.id) - set("=._-")
    assert all(c.isascii() and c.isalnum() for c in kept)
    assert not trial.id.startswith((".", "-"))
    assert len(trial.id) < 120


@pytest.mark.parametrize("blocked", [None, {"status": "refused", "cause": "too long"}])
def test_a_trial_survives_json(example_trial: Trial, blocked: dict[str, str] | None) -> None:
    more = {"data_dir": "/data", "advice": "field 63", "sources": {"model": "acme-models:plug"}}
    trial = replace(example_trial, plugins={"a.py": "ab", "b.py": "cd"}, blocked=blocked, **more)
    back = trial_from_dict(json.loads(json.dumps(trial_to_dict(trial))))
    assert back == trial
    assert back.id == trial.id


def test_a_trial_without_strangers_is_stored_as_it_was_before_strangers_were_told_apart(example_trial: Trial) -> None:
    """Otherwise a replay of an older run would differ from its records."""
    assert "sources" not in trial_to_dict(example_trial)
