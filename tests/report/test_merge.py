"""``seqbench compare --merge``: the models of several runs side by side; what is ranked, what is refused, and why."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from made_up_runs import ADDING, COPY, FakeTask, failed, make_folder, make_record, make_trial

from seqbench.axes import settings
from seqbench.cli import cli
from seqbench.quantities import Budget
from seqbench.report.collect import Run, read_run
from seqbench.report.merge import Group, merged
from seqbench.report.merged import merged_text
from seqbench.spec import RunSpec, Trial, trial_to_dict
from seqbench.stats import paired_difference
from seqbench.tuning import settled, with_setting

Scores = Mapping[str, Sequence[float | None]]
MACHINE = {"cpu": "A processor", "cores": "4 physical"}
FIRST = {"lstm": [90.0, 91.0, 92.0], "gru": [70.0, 71.0, 72.5]}
SECOND = {"mine": [80.0, 81.5, 82.0]}
Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run of such scores, None where a trial failed; seeds from ``first`` on; ``change`` makes each trial another.

    With ``tune`` every model was trained at the first of the settings that it names, as if that had been the best.
    """
    made = []

    def run(
        scores: Scores,
        task: FakeTask = COPY,
        first: int = 0,
        change: Callable[[Trial], Trial] = lambda trial: trial,
        speeds: Mapping[str, float] | None = None,
        tune: Sequence[str] = (),
        samples: int = 0,
        **stored: Any,
    ) -> Run:
        pairs = [
            (change(make_trial(task, label, first + k)), score)
            for label, values in scores.items()
            for k, score in enumerate(values)
        ]
        tried = tuning_of([trial for trial, _ in pairs], tune, samples) if tune else []
        records = [make_record(trial, task) for trial in tried]
        if tried:
            stored.setdefault("spec", {"tune": list(tune), "tune_samples": samples})
            chosen = settled([trial for trial, _ in pairs], records)
            pairs = [(trial, score) for trial, (_, score) in zip(chosen, pairs, strict=True)]
        for trial, score in pairs:
            records.append(failed(trial) if score is None else make_record(trial, task, score))
            if speeds:
                records[-1]["speed"]["train_tokens_per_s"] = speeds[trial.label]
        made.append(tmp_path / f"made-{len(made)}")
        folder = make_folder(made[-1], [*tried, *(t for t, _ in pairs)], records, **{"environment": MACHINE, **stored})
        return read_run(folder)

    return run


def tuning_of(trials: Sequence[Trial], tune: Sequence[str], samples: int) -> list[Trial]:
    """A trial of each row and setting."""
    first = {trial.row_key: trial for trial in reversed(trials)}
    return [
        replace(with_setting(trial, setting), seed=100, purpose="tuning")
        for trial in first.values()
        for setting in settings(tune, samples, trial.training.lr)
    ]


def rows_of(text: str) -> list[dict[str, str]]:
    """The tables of a text, by their headings, two blanks between columns."""
    rows, heads = [], []
    for line in text.splitlines():
        cells = re.split(r"  +", line.strip())
        if cells[0] == "Run":
            heads = cells
        elif heads and len(cells) == len(heads):
            rows.append(dict(zip(heads, cells, strict=True)))
        elif not line:
            heads = []
    return rows


def only(runs: dict[str, Run]) -> Group:
    (group,) = merged(runs)
    return group


def test_one_leaderboard_over_two_runs(make: Make) -> None:
    runs = {"one": make(FIRST), "two": make(SECOND)}
    found = [(row["Rank"], row["Run"], row["Model"]) for row in rows_of(merged_text(runs))]
    assert found == [("1", "one", "lstm"), ("2", "two", "mine"), ("3", "one", "gru")]


def test_an_error_is_ranked_the_other_way_and_a_row_without_a_score_not_at_all(make: Make) -> None:
    runs = {"one": make({"a": [0.2, 0.2], "none": [None, None]}, ADDING), "two": make({"b": [0.1, 0.1]}, ADDING)}
    found = [(row["Rank"], row["Model"]) for row in rows_of(merged_text(runs))]
    assert found == [("1", "b"), ("2", "a"), ("–", "none")]


def test_ranks_are_what_the_verdicts_between_runs_leave_open(make: Make) -> None:
    """Of a and c, with the same mean, none was found better; of d, which comes with other seeds, nothing is known."""
    first = make({"a": [5.0, 7.0, 6.0], "b": [90.0, 91.0, 92.0]})
    runs = {"one": first, "two": make({"c": [6.0, 6.0, 6.0]}), "three": make({"d": [1.0, 1.0]}, first=7)}
    ranks = {row["Model"]: row["Rank"] for row in rows_of(merged_text(runs))}
    assert ranks == {"b": "1–2", "a": "2–4", "c": "2–4", "d": "1–4"}


def test_on_the_same_hardware_speeds_are_ranked(make: Make) -> None:
    runs = {"one": make(FIRST, speeds={"lstm": 5e3, "gru": 9e3}), "two": make(SECOND, speeds={"mine": 7e3})}
    text = merged_text(runs)
    assert {row["Model"]: row["Speed rank"] for row in rows_of(text)} == {"gru": "1", "mine": "2", "lstm": "3"}
    assert "hardware" not in text


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"environment": {**MACHINE, "cpu": "Another"}}, "cpu was A processor, is Another"),
        ({"environment": {**MACHINE, "cores": "8 physical"}}, "cores was 4 physical, is 8 physical"),
        ({"spec": {"threads": 2, "jobs": 0}}, "threads was 1, is 2"),
        ({"change": lambda trial: replace(trial, device="cuda")}, "not known, or another device"),
        ({"environment": {}}, "cpu was A processor, is not given"),
    ],
)
def test_on_other_hardware_speeds_are_shown_and_not_ranked(make: Make, other: dict[str, Any], why: str) -> None:
    runs = {"one": make(FIRST, speeds={"lstm": 5e3, "gru": 9e3}), "two": make(SECOND, speeds={"mine": 7e3}, **other)}
    text = merged_text(runs)
    assert f"two, other hardware than one: {why}" in text
    assert "speeds of different hardware are shown beside one another and not ranked" in text
    rows = rows_of(text)
    assert {(row["Model"], row["Machine"], row["Train tok/s"]) for row in rows} == {
        ("lstm", "one", "5.00k"), ("gru", "one", "9.00k"), ("mine", "two", "7.00k")
    }  # fmt: skip
    assert "Speed rank" not in text
    assert [row["Rank"] for row in rows] == ["1", "2", "3"], "scores do not hang on hardware"


def test_hardware_that_nobody_knows_is_nobodys(make: Make) -> None:
    assert not only({"one": make(FIRST, environment={}), "two": make(SECOND, environment={})}).ranked_speeds


def trained(**changes: Any) -> dict[str, Any]:
    return {"change": lambda trial: replace(trial, training=replace(trial.training, **changes))}


ASIDE: list[tuple[dict[str, Any], str]] = [
    (trained(budget=Budget("steps", 500)), "budget is 1,000 steps in one, 500 steps in two"),
    ({"spec": {"budget": "1e9flops"}}, "budget is 1,000 steps in one, 1e+09 FLOPs in two"),
    (trained(batch=64), "batch is 32 in one, 64 in two"),
    (trained(lr=0.1), "learning rate is 0.003 in one, 0.1 in two"),
    (trained(warmup=0.5), "schedule is warm-up 0.05,"),
    (trained(lr=0.003 + 1e-10), "learning rate is 0.003 in one, 0.0030000001 in two"),
    (trained(weight_decay=1.0), "weight decay is 0.01 in one, 1 in two"),
    ({"change": lambda t: replace(t, dropout=0.5)}, "dropout is 0 in one, 0.5 in two"),
    ({"tune": ["lr=1e-3,1e-2"]}, "tuning is none in one, 2 settings of lr: 0.001, 0.01 in two"),
    ({"change": lambda t: replace(t, target_parameters=9)}, "parameters is 50,000 in one, 9 in two"),
    ({"change": lambda t: replace(t, task_options={"length": 9})}, "options is length=100 in one, length=9 in two"),
    ({"data": [{"path": "a.txt", "sha256": "22"}]}, "the content of a.txt is not the same in one and two"),
]


@pytest.mark.parametrize(("other", "why"), ASIDE)
def test_scores_under_other_conditions_stand_apart(make: Make, other: dict[str, Any], why: str) -> None:
    runs = {"one": make(FIRST, data=[{"path": "a.txt", "sha256": "11"}]), "two": make(SECOND, **other)}
    text = merged_text(runs)
    assert f"not ranked with one: {why}" in text
    found = [(row.get("Rank"), row["Model"]) for row in rows_of(text)]
    assert found == [("1", "lstm"), ("2", "gru"), (None, "mine")], "a row by itself has no rank"
    assert not any({"mine"} & {v.first, v.second} for group in merged(runs) for v in group.task.verdicts)


AROUND_HUNDREDTH = "5 settings of lr: 0.001, 0.00316, 0.01, 0.0316, 0.1"
TUNED: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    # the rate is not tuned
    ({"tune": ["dropout=0,0.1"], **trained(lr=0.01)}, {"tune": ["dropout=0,0.1"], **trained(lr=1e-5)},
     "learning rate is 0.01 in one, 1e-05 in two"),
    # the same words, around another rate
    ({"tune": ["lr"], **trained(lr=0.01)}, {"tune": ["lr"], **trained(lr=1e-5)},
     f"tuning is {AROUND_HUNDREDTH} in one, 5 settings of lr: 1e-06, 3.16e-06, 1e-05, 3.16e-05, 0.0001 in two"),
    # the same values, one by one
    ({"tune": ["lr=1e-3,1e-2", "dropout=0,0.1"]}, {"tune": ["lr=1e-3,1e-2", "dropout=0,0.1"], "samples": 3},
     "tuning is 4 settings of dropout/lr: 0/0.001, 0/0.01, 0.1/0.001, 0.1/0.01 in one, 3 settings of dropout/lr: "),
    ({"tune": ["lr=1e-3,1e-2"]}, {"tune": ["lr=1e-3,1e-2"], **trained(weight_decay=1.0)},
     "weight decay is 0.01 in one, 1 in two"),
]  # fmt: skip


@pytest.mark.parametrize(("one", "two", "why"), TUNED)
def test_what_tuning_tried_is_a_condition(make: Make, one: dict[str, Any], two: dict[str, Any], why: str) -> None:
    assert f"\nnot ranked with one: {why}" in merged_text({"one": make(FIRST, **one), "two": make(SECOND, **two)})


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"tune": ["lr=1e-3..1e-2:2"]}, {"tune": ["lr=1e-2,1e-3"], **trained(lr=0.5)}),
        ({"tune": ["lr=1e-3,1e-2", "dropout=0.1,0"]}, {"tune": ["dropout=0,0.1", "lr=1e-3,1e-2"]}),
        ({"tune": ["weight_decay=1e-3,1e-2"]}, {"tune": ["weight_decay=1e-3,1e-2"], **trained(weight_decay=1.0)}),
    ],
)
def test_the_same_settings_in_other_words(make: Make, one: dict[str, Any], two: dict[str, Any]) -> None:
    assert only({"one": make(FIRST, **one), "two": make(SECOND, **two)}).apart == ()


def test_a_long_search_is_not_written_out(make: Make) -> None:
    runs = {"one": make(FIRST), "two": make(SECOND, tune=["lr=1e-4..1e-2:99"])}
    (line,) = (line for line in merged_text(runs).splitlines() if line.startswith("not ranked"))
    assert "99 settings of lr: 0.0001, " in line
    assert len(line) < 200


def test_a_dropout_in_a_models_name_is_the_models(make: Make) -> None:
    """Of a run whose models all have their own, nothing is known of the one that it would have given."""

    def changed(trial: Trial) -> Trial:
        own = re.search(r"dropout=([0-9.]+)", trial.label)
        return replace(trial, dropout=float(own[1]) if own else 0.25)

    runs = {
        "own": make({"lstm[dropout=0.3,layers=2]": [90.0, 91.0], "gru[dropout=0.3]": [80.0, 81.0]}, change=changed),
        "two": make({"mine": [70.0, 71.0], "gru[dropout=0.9]": [80.0, 81.0]}, change=changed),
        "three": make({"rnn[inner_dropout=0.4]": [5.0, 6.0]}),
    }
    groups = merged(runs)
    assert [[e.run for e in group.entries] for group in groups] == [["own", "own", "two", "two"], ["three"]]
    assert "not ranked with two: dropout is 0.25 in two, 0 in three" in merged_text(runs)


SECONDS = trained(budget=Budget("seconds", 60.0)) | {"spec": {"budget": "60s", "threads": 1, "jobs": 0}}
OTHER = {**MACHINE, "cpu": "Another"}


def test_seconds_are_the_same_budget_on_the_same_hardware_alone(make: Make) -> None:
    runs = {"one": make(FIRST, **SECONDS), "two": make(SECOND, **SECONDS, environment=OTHER)}
    why = "budget is 60 seconds on the hardware of one in one, 60 seconds on the hardware of two in two"
    assert f"not ranked with one: {why}" in merged_text(runs)
    assert only({"one": make(FIRST, **SECONDS), "two": make(SECOND, **SECONDS)}).ranked_speeds


def test_a_replay_of_seconds_is_ranked_by_its_steps(make: Make) -> None:
    replay = {**SECONDS, **trained(budget=Budget("steps", 812))}
    runs = {"one": make(FIRST, **SECONDS), "two": make(SECOND, **replay), "three": make({"b": [1.0, 2.0]}, **replay)}
    groups = merged(runs)
    assert [[e.run for e in group.entries] for group in groups] == [["one", "one"], ["two", "three"]]
    assert groups[1].apart == (
        "budget is 60 seconds on the hardware of one in one, 812 steps (60 seconds of an earlier run) in two",
    )


def test_other_hardware_keeps_nothing_but_seconds_apart(make: Make) -> None:
    asked = {"spec": {"budget": "1000steps"}}
    only({"one": make(FIRST, **asked), "two": make(SECOND, **asked, environment=OTHER)})


def test_a_group_is_apart_from_the_run_that_tells_why(make: Make) -> None:
    """The first run has no such file: it does not tell why the third is not ranked with it, the second does."""
    files = [[{"path": "x", "sha256": digest}] for digest in ("1", "2")]
    runs = {"a": make(FIRST), "b": make(SECOND, data=files[0]), "c": make({"m": [1.0, 2.0]}, data=files[1])}
    assert [[e.run for e in group.entries] for group in merged(runs)] == [["a", "b", "a"], ["c"]]
    assert "not ranked with b: the content of x is not the same in b and c" in merged_text(runs)


def test_a_third_group_is_apart_from_a_run_of_the_first(make: Make) -> None:
    runs = {"a": make(FIRST), "b": make(SECOND, **trained(batch=64)), "c": make({"m": [1.0, 2.0]}, **trained(batch=2))}
    lines = [line for line in merged_text(runs).splitlines() if line.startswith("not ranked")]
    assert lines == ["not ranked with a: batch is 32 in a, 64 in b", "not ranked with a: batch is 32 in a, 2 in c"]


def test_what_changes_no_number_keeps_nothing_apart(make: Make) -> None:
    spec = {"out": "elsewhere", "timeout": 9.0, "budget": "1000steps", "model": ["mine"], "seeds": "3"}
    two = make(SECOND, spec=spec, data=[{"path": "of-another-task.txt", "sha256": "22"}])
    assert len(merged({"one": make(FIRST, data=[{"path": "a.txt", "sha256": "11"}]), "two": two})) == 1


def test_a_third_run_goes_where_it_belongs(make: Make) -> None:
    other = {"b": [1.0, 2.0]}
    runs = {"one": make(FIRST), "two": make(SECOND, **trained(batch=64)), "three": make(other, **trained(batch=64))}
    assert [[entry.run for entry in group.entries] for group in merged(runs)] == [["one", "one"], ["two", "three"]]


def test_the_same_model_twice_is_named_and_never_pooled(make: Make) -> None:
    runs = {"one": make({"lstm": [90.0, 91.0, 92.0]}), "two": make({"lstm": [50.0, 51.0], "gru": [1.0, 2.0]}, first=1)}
    text = merged_text(runs)
    assert "lstm is in one and two: a duplicate, with seeds 1, 2 in common; not pooled" in text
    rows = [(row["Run"], row["Model"], row["recall [%] ↑"].partition(" ")[0]) for row in rows_of(text)]
    assert rows[:2] == [("one", "lstm", "91.0"), ("two", "lstm", "50.5")]
    pairs = {frozenset((v.first, v.second)) for v in only(runs).task.verdicts}
    assert frozenset(("lstm (one)", "lstm (two)")) not in pairs, "a model is not tested against itself"
    assert frozenset(("lstm (two)", "gru")) in pairs


def test_the_same_model_with_other_seeds(make: Make) -> None:
    runs = {"one": make({"lstm": [90.0, 91.0]}), "two": make({"lstm": [50.0, 51.0]}, first=5)}
    text = merged_text(runs)
    assert "lstm is in one and two, with other seeds: not pooled" in text
    assert "no verdict: all rows are of the same model" in text


def on_numba(trial: Trial) -> Trial:
    return replace(trial, backend="numba")


@pytest.mark.parametrize(
    ("one", "two", "why"),
    [
        ({"lstm": [90.0, 91.0]}, ({"gru": [1.0, 2.0]}, {"first": 1}),
         "no two models on the same backend have scores of two seeds in common"),
        ({"lstm": [90.0, 91.0, 92.0]}, ({"gru": [1.0, None, None]}, {}),
         "no two models on the same backend have scores of two seeds in common"),
        ({"lstm": [90.0, 91.0, 92.0]}, ({"gru": [1.0, 2.0, 3.0]}, {"change": on_numba}),
         "no two models have a backend in common, and a model is not told from another by its backend"),
        ({"lstm": [90.0, 91.0, 92.0]}, ({"lstm": [1.0, 2.0, 3.0]}, {}), "all rows are of the same model"),
        ({"lstm": [90.0, 91.0, 92.0]}, ({"lstm": [1.0, 2.0, 3.0]}, {"change": on_numba}),
         "all rows are of the same model"),
        ({"lstm": [None, None]}, ({"gru": [None, None]}, {}), "no score is known"),
    ],
)  # fmt: skip
def test_why_there_is_no_verdict(make: Make, one: Scores, two: tuple[Scores, dict[str, Any]], why: str) -> None:
    (line,) = (
        line
        for line in merged_text({"one": make(one), "two": make(two[0], **two[1])}).splitlines()
        if line.startswith("no verdict")
    )
    assert line == f"no verdict: {why}"


def test_verdicts_take_the_seeds_that_both_have(make: Make) -> None:
    """Seeds 2 and 3 are in both runs; what stands at the same place of the lists is another seed."""
    group = only({"one": make({"a": [90.0, 10.0, 60.0, 63.0]}), "two": make({"b": [50.0, 52.0, 99.0]}, first=2)})
    (verdict,) = group.task.verdicts
    by_hand = paired_difference([60.0, 63.0], [50.0, 52.0])
    assert (verdict.first, verdict.n) == ("a", 2)
    assert (verdict.difference.mean, verdict.difference.p) == (by_hand.mean, by_hand.p)


def test_all_pairs_of_a_group_are_corrected_together(make: Make) -> None:
    runs = {"one": make(FIRST), "two": make(SECOND)}
    group = only(runs)
    assert len(group.task.verdicts) == 3
    assert group.task.verdicts[0].level == pytest.approx(0.05 / 3)


def test_a_task_that_a_run_has_not_is_named(make: Make) -> None:
    runs = {"one": make(FIRST), "two": make({"mine": [0.1, 0.2]}, ADDING)}
    text = merged_text(runs)
    copy, adding = text.index("copy/embedded"), text.index("adding/embedded")
    assert copy < text.index("not in two") < adding < text.index("not in one")
    assert [row["Model"] for row in rows_of(text)] == ["lstm", "gru", "mine"]


def test_two_backends_are_two_names(make: Make) -> None:
    runs = {"one": make(FIRST), "two": make(SECOND, change=lambda trial: replace(trial, backend="numba"))}
    assert [row["Model"] for row in rows_of(merged_text(runs))] == ["lstm · torch", "mine · numba", "gru · torch"]
    pairs = [{v.first, v.second} for v in only(runs).task.verdicts]
    assert pairs == [{"lstm · torch", "gru · torch"}], "a model is not told from another by its backend"


# --- on the command line ----------------------------------------------------------------------------


def compared(*words: object) -> Result:
    return CliRunner().invoke(cli, ["compare", *map(str, words)])


@pytest.fixture
def paths(make: Make, tmp_path: Path) -> list[Path]:
    make({**FIRST, "=1+1": [1.0, 2.0, 3.0]})
    make({**SECOND, "a|b": [4.0, 5.0, 6.0], "lstm": [60.0, 61.0, 62.0]}, environment={**MACHINE, "cpu": "Another"})
    return [tmp_path / f"made-{n}" / "a-run" for n in (0, 1)]


def test_folders_of_one_name_are_called_by_their_paths(paths: list[Path]) -> None:
    done = compared(*paths, "--merge")
    assert done.exit_code == 0
    assert {row["Run"] for row in rows_of(done.output)} == {str(path) for path in paths}


def test_folders_of_other_names_are_called_by_them(paths: list[Path]) -> None:
    moved = paths[1].rename(paths[1].with_name("b-run"))
    assert {row["Run"] for row in rows_of(compared(paths[0], moved, "--merge").output)} == {"a-run", "b-run"}


def test_as_csv(paths: list[Path]) -> None:
    rows = list(csv.DictReader(io.StringIO(compared(*paths, "--merge", "--format", "csv").output)))
    models = [row for row in rows if row["kind"] == "model"]
    ranks = [(int(row["rank_best"]), int(row["rank_worst"])) for row in models]
    assert all(1 <= best <= place <= worst <= 6 for place, (best, worst) in enumerate(ranks, 1))
    assert ranks[0][1] < 6, "the first is better than some"
    assert [float(row["score"]) for row in models] == sorted((float(row["score"]) for row in models), reverse=True)
    assert {row["model"] for row in models} == {"lstm", "gru", "mine", "a|b", "'=1+1"}
    assert {row["machine"] for row in models} == {str(path) for path in paths}
    assert [(row["model"], row["rank_best"]) for row in rows if row["kind"] == "reference"] == [
        ("trivial", ""), ("optimum", "")
    ]  # fmt: skip


def test_as_markdown(paths: list[Path]) -> None:
    lines = compared(*paths, "--merge", "--format", "markdown").output.splitlines()
    table = [re.split(r"(?<!\\)\|", line) for line in lines if line.startswith("|")]
    assert {len(cells) for cells in table} == {len(table[0])}
    assert any(cells[3].strip() == r"a\|b" for cells in table)
    assert "### copy/embedded" in lines
    assert any(line.startswith("- ") and "not ranked" in line for line in lines)


def test_changes_as_markdown_and_csv(paths: list[Path]) -> None:
    text = compared(*paths, "--format", "markdown").output
    assert "| Model | before | after | change | in % |  | train tok/s |" in text
    done = compared(*paths, "--format", "csv", "--fail-on-regression", "2%")
    (row,) = [row for row in csv.DictReader(io.StringIO(done.stdout)) if row["model"] == "lstm"]
    assert done.exit_code == 1
    assert "regression of more than 2%" in done.stderr
    assert (float(row["before"]), float(row["after"]), float(row["change"])) == (91.0, 61.0, -30.0)
    assert (row["verdict"], row["train_speedup"]) == ("worse", "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "marcdown"], "Did you mean 'markdown'"),
        (["--merge", "--fail-on-regression", "2%"], "leave out --merge"),
    ],
)
def test_calls_that_make_no_sense(paths: list[Path], words: list[str], said: str) -> None:
    done = compared(*paths, *words)
    assert done.exit_code == 2
    assert said in done.output


def test_a_run_is_not_merged_with_itself(paths: list[Path]) -> None:
    done = compared(paths[0], paths[0], "--merge")
    assert done.exit_code == 2
    assert "named twice" in done.output


def test_names_cannot_steer_the_terminal(make: Make) -> None:
    runs = {"one\x1b[2J": make(FIRST), "two": make({"m\x1b[31m": [1.0, 2.0]})}
    assert "\x1b" not in merged_text(runs)


def test_a_spec_of_another_version_is_no_obstacle(make: Make) -> None:
    spec = {k: v for k, v in vars(RunSpec(task=("copy",))).items() if k != "jobs"} | {"budget": "3 fortnights"}
    text = merged_text({"one": make(FIRST), "two": make(SECOND, spec=spec)})
    assert [row["Rank"] for row in rows_of(text)] == ["1", "2", "3"]


def test_the_trials_are_as_planned(make: Make) -> None:
    """The maker of these runs: what it changes arrives."""
    run = make(SECOND, **trained(batch=64))
    assert {trial_to_dict(trial)["training"]["batch"] for trial in run.planned} == {64}
