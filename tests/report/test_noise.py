"""The certificate of an A/A run: from made-up records with known scatter, and rows only where they belong."""

from __future__ import annotations

import math
from dataclasses import replace

from made_up_runs import COPY, FakeTask, make_record, make_trial

from seqbench.report.collect import Run, collect
from seqbench.report.noise import certificate

SOLVABLE = replace(COPY, metrics=(replace(COPY.metrics[0], solved=99.0), COPY.metrics[1]))


def aa_run(
    first: list[float],
    second: list[float],
    speeds: tuple[list[float], list[float]] | None = None,
    task: FakeTask = COPY,
) -> Run:
    trials, records = [], []
    for half, (name, scores) in enumerate((("lstm (first)", first), ("lstm (second)", second))):
        for place, score in enumerate(scores):
            trial = make_trial(task, name, seed=place + half * len(first))
            record = make_record(trial, task, score)
            if speeds:
                record["speed"]["train_tokens_per_s"] = speeds[half][place]
            trials.append(trial)
            records.append(record)
    return collect(trials, records, stored={"spec": {"aa": "lstm"}})


def test_a_tie_and_its_floor_by_hand() -> None:
    run = aa_run([50.0, 52.0, 54.0], [51.0, 51.0, 51.0])
    said = certificate(run.tasks[0], run)
    assert said[0] == "A/A of lstm, the same model on other seeds: a tie, as it should be"
    # differences -1, 1, 3: mean 1, deviation 2, and t of two degrees of freedom is 4.30
    half = f"{4.3027 * 2 / 3**0.5:.1f}"
    assert said[1] == f"noise of the score: means of 3 seeds were 1.0 points apart; up to {half} points is chance"


def test_a_false_difference_is_called_one() -> None:
    run = aa_run([50.0, 50.1, 50.0, 50.1], [60.0, 60.1, 60.1, 60.0])
    assert certificate(run.tasks[0], run)[0].endswith("a false difference: one in twenty such runs has one")


def test_where_seeds_solve_a_task_or_not_there_are_shares_instead() -> None:
    run = aa_run([99.9, 20.0, 99.8], [20.0, 21.0, 20.0], task=SOLVABLE)
    said = certificate(run.tasks[0], run)
    assert said[0].endswith("a tie, as it should be")
    assert said[1].startswith("noise of the score: solved 2/3 [9, 99] and 0/3 [0, 71]")


def test_speeds_are_compared_as_factors() -> None:
    run = aa_run([1.0, 2.0], [2.0, 1.0], ([100.0, 200.0], [110.0, 220.0]))
    assert certificate(run.tasks[0], run)[2] == "noise of training speed: 10.0 % apart; up to 0.0 % is chance"


def test_one_seed_is_said_to_be_too_few() -> None:
    run = aa_run([1.0], [2.0])
    assert certificate(run.tasks[0], run) == [
        "A/A of lstm: fewer than two seeds ended well in both halves; nothing can be said of noise"
    ]


def test_other_runs_get_none() -> None:
    run = aa_run([1.0, 2.0], [2.0, math.nan])
    assert certificate(run.tasks[0], replace(run, stored={})) == []
