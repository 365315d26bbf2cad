"""Verdicts: how often they are wrong where nothing differs, and that they find what was planted."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as reference

from seqbench.api import Metric
from seqbench.verdicts import Scores, Verdict, compare, fewest_seeds, mean_ranks, solved_share

LOSS = Metric("loss", "a loss", "nats")
RECALL = Metric("recall", "a share", "%", lower_is_better=False, solved=99.0)
NAMES = "abcdef"


def scores_of(samples: np.ndarray) -> Scores:
    """``samples (models, seeds)``."""
    return dict(zip(NAMES, samples.tolist(), strict=False))


def any_differ(samples: np.ndarray, metric: Metric) -> bool:
    return any(verdict.differ for verdict in compare(scores_of(samples), metric))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_six_equal_models_rarely_differ(n: int) -> None:
    """2,000 comparisons of a model with itself under six names, seeds in common that count for all (paired data)."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        samples = rng.normal(size=(6, n)) + 2 * rng.normal(size=(1, n))
        wrong += any_differ(samples, LOSS)
    assert wrong / 2000 <= 0.06


@pytest.mark.parametrize("n", [3, 5, 10])
@pytest.mark.parametrize("p", [0.3, 0.7, 0.95])
def test_six_equal_models_that_solve_a_task_or_not_rarely_differ(n: int, p: float) -> None:
    """Student's test alone would be wrong: all seeds of one model solve it, none of another's, neither scatters."""
    rng = np.random.default_rng(6)
    wrong = 0
    for _ in range(300):
        solved = rng.random((6, n)) < p
        wrong += any_differ(np.where(solved, 99.8, 20.0) + 0.1 * rng.normal(size=(6, n)), RECALL)
    assert wrong / 300 <= 0.06


def test_a_planted_difference_is_found_as_often_as_by_scipys_test() -> None:
    n, rng, found = 10, np.random.default_rng(7), 0
    shift = _detectable_by_search(n)
    for _ in range(1000):
        a, b = rng.normal(size=n), rng.normal(size=n) + shift
        found += compare({"a": a.tolist(), "b": b.tolist()}, LOSS)[0].differ
    assert found / 1000 == pytest.approx(0.8, abs=0.04)


def _detectable_by_search(n: int) -> float:
    """By drawing, with a test of scipy's: the shift of one of two unit normals that is found in 80 of 100."""
    rng = np.random.default_rng(8)
    noise = rng.normal(size=(20_000, n)) - rng.normal(size=(20_000, n))
    low, high = 0.0, 5.0
    for _ in range(25):
        middle = (low + high) / 2
        power = np.mean(reference.ttest_1samp(noise + middle, 0, axis=1).pvalue <= 0.05)
        low, high = (middle, high) if power < 0.8 else (low, middle)
    return high


def test_better_is_first_whichever_way_is_better() -> None:
    low, high = [1.0, 1.1, 0.9, 1.05, 0.95], [2.0, 2.1, 1.9, 2.0, 2.02]
    (verdict,) = compare({"x": high, "y": low}, LOSS)
    assert (verdict.first, verdict.second, verdict.differ) == ("y", "x", True)
    (verdict,) = compare({"x": high, "y": low}, Metric("accuracy", "", "%", lower_is_better=False))
    assert (verdict.first, verdict.second, verdict.differ) == ("x", "y", True)


def test_the_interval_of_a_pair_agrees_with_its_verdict() -> None:
    rng = np.random.default_rng(9)
    for _ in range(200):
        for verdict in compare(scores_of(rng.normal(size=(4, 5)) + np.arange(4)[:, None]), LOSS):
            assert verdict.differ == (abs(verdict.difference.mean) > verdict.half_width)


def test_solved_fractions_are_compared_where_seeds_are_of_two_kinds() -> None:
    scores = {"always": [99.9] * 6, "never": [20.0, 21, 20, 22, 20, 21], "half": [99.9, 99.8, 99.9, 20, 22, 21]}
    of = {(v.first, v.second): v for v in compare(scores, RECALL)}
    assert of["always", "never"].by == "solved"
    assert of["always", "never"].differ
    assert of["always", "half"].by == "solved"
    assert not of["always", "half"].differ
    assert of["always", "half"].solved is not None
    assert [share.hits for share in of["always", "half"].solved] == [6, 3]


def test_scores_are_compared_where_all_or_none_solved() -> None:
    (verdict,) = compare({"a": [20.0, 21.0, 20.5], "b": [40.0, 41.0, 40.5]}, RECALL)
    assert (verdict.by, verdict.differ) == ("score", True)


def test_failed_seeds_are_left_out_and_lonely_ones_give_no_verdict() -> None:
    verdicts: list[Verdict] = compare({"a": [1.0, 2.0, 3.0], "b": [1.0, None, 2.0], "c": [None, None, 4.0]}, LOSS)
    assert [(v.first, v.second, v.n) for v in verdicts] == [("b", "a", 2)]
    assert compare({"a": [1.0]}, LOSS) == []


def test_solved_share() -> None:
    found = solved_share([99.5, 10.0, None, 99.0], RECALL)
    assert found is not None
    assert (found.hits, found.n) == (2, 3)
    assert solved_share([1.0], LOSS) is None
    assert solved_share([None], RECALL) is None


def test_fewest_seeds() -> None:
    assert fewest_seeds(15, by_share=True) == 6  # 2 / C(12, 6) = 0.0022 <= 0.05 / 15 < 2 / C(10, 5) = 0.0079
    assert fewest_seeds(1, by_share=True) == 4  # 2 / C(8, 4) = 0.029
    assert fewest_seeds(15, by_share=False) == 5  # Student's t of 4 degrees at 0.05 / 15: 6.25 / sqrt(5) = 2.8


def test_mean_ranks_by_hand() -> None:
    tasks = [
        ({"a": [1.0, 2.0], "b": [2.0, 1.0], "c": [3.0, None]}, LOSS),
        ({"c": [9.0, 9.0], "a": [5.0, 9.0], "b": [7.0, 1.0], "d": [0.0, 0.0]}, RECALL),
    ]
    ranks = mean_ranks(tasks)  # seed 0: 1 2 3 and 3 2 1; seed 1: 2 1 3 and 1.5 3 1.5
    assert {name: rank.mean for name, rank in ranks.items()} == {"a": 1.875, "b": 2.0, "c": 2.125}
    assert ranks["b"].half_width == 0.0
