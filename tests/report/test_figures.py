"""What the figures show: aggregation and scales."""

from __future__ import annotations

import numpy as np
import pytest
from made_up_runs import ADDING, COPY, make_record, make_trial

from seqbench.report.collect import collect
from seqbench.report.figures import aggregate, cost_pictures, curve_pictures, score_picture, wants_log


def curves(*pairs: tuple[list[float], list[float | None]]):
    return [{"curve": {"valid": {"step": x, "loss": y}}} for x, y in pairs]


def test_a_curve_is_the_mean_with_its_range() -> None:
    found = aggregate(curves(([1, 2], [1.0, 4.0]), ([1, 2], [3.0, 8.0])), "step", "loss")
    assert found is not None
    assert (found.x.tolist(), found.mean.tolist()) == ([1, 2], [2.0, 6.0])
    assert (found.low.tolist(), found.high.tolist()) == ([1.0, 4.0], [3.0, 8.0])


def test_curves_of_different_lengths_meet_at_the_ends() -> None:
    found = aggregate(curves(([1, 2, 3], [0.0, 5.0, 10.0]), ([1, 3], [2.0, 4.0])), "step", "loss")
    assert found is not None
    assert (found.x.tolist(), found.mean.tolist()) == ([1, 3], [1.0, 7.0])


def test_points_that_are_no_numbers_are_left_out() -> None:
    found = aggregate(curves(([1, 2, 3], [0.0, None, 10.0])), "step", "loss")
    assert found is not None
    assert found.x.tolist() == [1, 3]
    assert aggregate(curves(([1, 2], [None, None])), "step", "loss") is None
    assert aggregate([{"curve": None}, {}], "step", "loss") is None


@pytest.mark.parametrize(
    ("values", "log"),
    [([0.001, 0.1], True), ([0.1, 0.2], False), ([0.0, 0.001, 0.1], True), ([-1.0, 0.001, 0.1], False), ([0.0], False)],
)
def test_log_scale_for_errors_that_span_decades(values: list[float], log: bool) -> None:
    assert wants_log(ADDING.metrics[0], values) is log
    assert not wants_log(COPY.metrics[0], values)


def drawn(task=ADDING, scores=(0.001, 0.002, 0.004)):
    trials = [make_trial(task, label, s) for label in ("lstm", "gru") for s in range(3)]
    run = collect(trials, [make_record(t, task, scores[t.seed]) for t in trials])
    return run, run.tasks[0]


def test_the_score_figure_shows_seeds_mean_interval_and_references() -> None:
    run, task = drawn()
    ax = score_picture(task, run).figure.axes[0]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["lstm", "gru"]
    shown = [line.get_xdata() for line in ax.lines]
    interval = task.rows[0].scores
    assert any(np.array_equal(x, [0.001, 0.002, 0.004]) for x in shown)
    assert any(np.array_equal(x, [interval.low, interval.high]) for x in shown)
    assert any(np.array_equal(x, [interval.mean]) for x in shown)
    assert [line.get_label() for line in ax.lines][-2:] == ["trivial 0.1667", "optimum 0 (off the scale)"]
    assert ax.get_xscale() == "log"


def test_a_very_wide_interval_does_not_squeeze_the_rest() -> None:
    run, task = drawn(COPY, (10.0, 90.0, 90.0))
    low, high = score_picture(task, run).figure.axes[0].get_xlim()
    assert task.rows[0].scores.high > 150
    assert high < 150
    assert low > -50


def test_equal_sizes_look_equal() -> None:
    run, task = drawn()
    by_size, by_training, by_inference = cost_pictures(task, run)
    low, high = by_size.figure.axes[0].get_xlim()
    assert low <= 45_100
    assert high >= 54_900
    assert "parameters" in by_size.title
    assert "training time" in by_training.title
    assert "inference time" in by_inference.title


def test_curves_against_steps_and_seconds() -> None:
    run, task = drawn()
    pictures = curve_pictures(task, run)
    assert [p.figure.axes[0].get_xlabel() for p in pictures] == ["training step", "training time [s]"]
    assert all(len(p.figure.axes[0].collections) == 2 for p in pictures)  # a band each
