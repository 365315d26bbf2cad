"""What is said of pairs: true to the numbers, one sentence each, and nothing where nothing can be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_up_runs import ADDING, CHARS, COPY, FakeTask, full_run, make_record, make_trial

from seqbench.api import Metric
from seqbench.report.collect import Run, TaskRun, collect, read_run
from seqbench.report.messages import notes
from seqbench.report.summary import summary_of
from seqbench.report.terminal import text_tables
from seqbench.report.verdicts import PAIRS, ranks_of, said_of, sentence
from seqbench.verdicts import compare

ACCURACY = Metric("accuracy", "", "%", lower_is_better=False)
SOLVABLE = replace(COPY, metrics=(replace(COPY.metrics[0], solved=99.0), COPY.metrics[1]))


def run_of(scores: dict[str, list[float]], task: FakeTask = COPY, backends: tuple[str, ...] = ("torch",)) -> Run:
    trials = [
        (make_trial(task, label, seed, backend=backend), score)
        for label, values in scores.items()
        for backend in backends
        for seed, score in enumerate(values)
    ]
    return collect([t for t, _ in trials], [make_record(t, task, score) for t, score in trials])


def task_of(scores: dict[str, list[float]], task: FakeTask = COPY) -> TaskRun:
    return run_of(scores, task).tasks[0]


def test_sentence_of_a_difference() -> None:
    (verdict,) = compare({"gru": [80.0, 82.0, 81.0], "lstm": [70.0, 71.0, 72.0]}, ACCURACY)
    # differences 10, 11, 9: 10 ± 4.3027 / sqrt(3), t = 17.3, p of two degrees of freedom
    assert sentence(verdict, ACCURACY) == "gru is better than lstm by 10 ± 2.5 points (n = 3, p = 0.0033)"


def test_sentence_of_a_tie_says_what_would_have_been_seen() -> None:
    (verdict,) = compare({"gru": [80.0, 82.0, 81.0, 79.0], "lstm": [80.5, 81.0, 81.2, 79.3]}, ACCURACY)
    told = sentence(verdict, ACCURACY)
    assert told.startswith("gru and lstm tie at n = 4: difference 0")
    assert told.endswith(f"{verdict.detectable:.2g} would have been detected")


def test_sentence_of_solved_fractions() -> None:
    metric = replace(ACCURACY, solved=99.0)
    (verdict,) = compare({"tcn": [100.0] * 5, "rnn": [12.0, 13, 12, 14, 12]}, metric)
    assert sentence(verdict, metric) == "tcn solved 5 of 5, rnn 0 of 5: better (p = 0.0079)"


def test_equal_scores_are_called_equal() -> None:
    (verdict,) = compare({"a": [100.0] * 3, "b": [100.0] * 3}, ACCURACY)
    assert sentence(verdict, ACCURACY) == "a and b are equal on all 3 seeds"


def test_summary_and_pairs() -> None:
    scores = {"best": [90.0, 91, 90.5, 91.2], "mid": [50.0, 51, 50.2, 51.3], "same": [50.1, 50.8, 50.3, 51.0]}
    said = said_of(task_of(scores))
    assert said is not None
    assert said.summary == ["best is better than mid and same", "not told apart: mid from same"]
    assert len(said.pairs) == 3
    assert all(len(row) == len(PAIRS) for row in said.pairs)


def test_too_few_seeds_are_named() -> None:
    said = said_of(task_of({name: [1.0, 2.0, k] for k, name in enumerate("abcdef")}))
    assert said is not None
    assert said.summary[-1].startswith(
        "3 seeds decide next to nothing over 15 pairs: the surest pair must differ by 10 "
    )
    assert said.summary[-1].endswith("use --seeds 5 or more")


def test_shares_need_more_seeds_than_scores() -> None:
    scores = {name: [20.0 + k, 21.0, 22.0, 20.5, 21.5 - k] for k, name in enumerate("abcde")} | {"tcn": [100.0] * 5}
    said = said_of(task_of(scores, SOLVABLE))
    assert said is not None
    assert said.summary[-1] == "5 seeds cannot tell all solved from none solved over 15 pairs; use --seeds 6 or more"


def test_nothing_is_said_of_one_model_or_of_one_seed() -> None:
    assert said_of(task_of({"a": [1.0, 2.0, 3.0]})) is None
    assert said_of(task_of({"a": [1.0], "b": [2.0]})) is None


def test_backends_are_not_compared_with_each_other() -> None:
    task = run_of({"a": [1.0, 2.0], "b": [2.0, 4.0]}, backends=("torch", "numba")).tasks[0]
    pairs = {(v.first, v.second) for v in task.verdicts}
    assert pairs == {("b · torch", "a · torch"), ("b · numba", "a · numba")}


def test_a_solved_task_shows_fractions_and_no_interval_of_the_mean() -> None:
    run = run_of({"a": [99.5, 99.9, 30.0], "b": [30.0, 31.0, 32.0]}, SOLVABLE)
    table = summary_of(run).set_index("model")
    assert table.loc["a", "solved"] == pytest.approx(2 / 3)
    assert table.loc["b", "solved"] == 0
    assert table["score_half_width"].isna().to_dict() == {"a": True, "b": False, "trivial": True, "optimum": True}
    shown = text_tables(run, 120)
    assert "2/3 [9, 99]" in shown
    assert "0/3 [0, 71]" in shown


def test_steps_to_solve_are_those_of_the_first_validation_that_solved_it() -> None:
    run = run_of({"a": [99.5, 30.0]}, SOLVABLE)
    record = run.records[0]
    curve = record["curve"]["valid"]
    curve["recall"] = [20.0] * 5 + [99.2] + [98.0] * 4 + [99.5] * 10
    assert run.tasks[0].rows[0].steps_to_solve == curve["step"][5]


def test_two_groups_of_seeds_are_warned_of() -> None:
    apart, near = {"a": [95.0, 94.0, 20.0]}, {"a": [50.0, 60.0, 40.0]}
    assert any("two groups" in note.text for note in notes(task_of(apart)))
    assert not any("two groups" in note.text for note in notes(task_of(near)))
    assert any("two groups" in note.text for note in notes(task_of(apart, SOLVABLE)))
    solved = {"a": [99.5, 99.4, 20.0]}  # its row has a share instead of an interval
    assert not any("two groups" in note.text for note in notes(task_of(solved, SOLVABLE)))


def test_ranks_over_tasks(tmp_path: Path) -> None:
    ranks = ranks_of(read_run(full_run(tmp_path, (COPY, ADDING, CHARS), ("lstm", "gru", "tcn"), seeds=4)))
    assert list(ranks) == sorted(ranks, key=lambda name: ranks[name].mean)
    assert sum(rank.mean for rank in ranks.values()) == pytest.approx(6.0)  # 1 + 2 + 3 in each task
    assert all(rank.n == 4 for rank in ranks.values())
    one_task = read_run(full_run(tmp_path / "one", (COPY,), ("lstm", "gru")))
    assert ranks_of(one_task) == {}


def test_a_task_that_has_not_run_to_the_end_is_not_ranked(tmp_path: Path) -> None:
    folder = full_run(tmp_path, (COPY, ADDING, CHARS), ("lstm", "gru"), seeds=2)
    gone = next(trial for trial in folder.trials() if trial.task == "char-lm" and trial.label == "lstm")
    (folder.path / "trials" / f"{gone.id}.json").unlink()
    part = ranks_of(read_run(folder))
    two = ranks_of(read_run(full_run(tmp_path / "two", (COPY, ADDING), ("lstm", "gru"), seeds=2)))
    assert part == two, "lstm, always first, would be last in one seed of one task"
    assert part["lstm"].mean == 1.0
    assert "Mean rank over 2 tasks, 1 is best" in text_tables(read_run(folder))
