"""What the figures show: aggregation and scales."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import ADDING, COPY, make_record, make_trial
from matplotlib.figure import Figure

from seqbench.report.collect import collect
from seqbench.report.figures import aggregate, cost_pictures, curve_pictures, front, score_picture, wants_log
from seqbench.report.hover import Readings, Trace, placed
from seqbench.report.look import style
from seqbench.report.svg import to_svg


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


def test_a_reference_far_from_the_scores_does_not_squeeze_them() -> None:
    """It is named with its value instead; one that is near, or beside scores that are all one number, is drawn."""
    far, near = "trivial 12.5 (off the scale)", "trivial 12.5"
    for scores, expected in (((90.0, 91.0, 92.0), far), ((40.0, 60.0, 92.0), near), ((90.0, 90.0, 90.0), near)):
        run, task = drawn(COPY, scores)
        ax = score_picture(task, run).figure.axes[0]
        assert [line.get_label() for line in ax.lines][-2] == expected
        low, high = ax.get_xlim()
        assert (low < 12.5) == (expected == near)
        assert low < min(scores) <= max(scores) < high


def test_equal_sizes_look_equal() -> None:
    run, task = drawn()
    by_size, by_training, by_inference = cost_pictures(task, run)
    low, high = by_size.figure.axes[0].get_xlim()
    assert low <= 45_100
    assert high >= 54_900
    assert "parameters" in by_size.title
    assert "training time" in by_training.title
    assert "inference time" in by_inference.title


small = st.integers(0, 4).map(float)


@given(st.lists(st.tuples(small, small), min_size=1, max_size=8), st.booleans())
def test_the_front_is_what_no_other_row_beats(points: list[tuple[float, float]], lower_is_better: bool) -> None:
    def beats(other: tuple[float, float], one: tuple[float, float]) -> bool:
        as_good = other[1] <= one[1] if lower_is_better else other[1] >= one[1]
        return other[0] <= one[0] and as_good and other != one

    unbeaten = {one for one in points if not any(beats(other, one) for other in points)}
    found = front(points, lower_is_better)
    assert set(found) == unbeaten
    assert len(found) == len(unbeaten)
    assert found == sorted(found)


def test_the_front_is_drawn_as_steps_to_the_edge() -> None:
    trials = [make_trial(COPY, label, s) for label in "abcd" for s in range(2)]
    costs = {"a": (30.0, 10.0), "b": (50.0, 20.0), "c": (40.0, 30.0), "d": (90.0, 40.0)}
    records = []
    for trial in trials:
        record = make_record(trial, COPY, costs[trial.label][0])
        records.append(record | {"speed": record["speed"] | {"train_seconds": costs[trial.label][1]}})
    run = collect(trials, records)
    ax = cost_pictures(run.tasks[0], run)[1].figure.axes[0]
    (line,) = [line for line in ax.lines if line.get_label() == "front"]
    assert line.get_drawstyle() == "steps-post"
    assert list(line.get_xdata()) == [10.0, 20.0, 40.0, ax.get_xlim()[1]]
    assert list(line.get_ydata()) == [30.0, 50.0, 90.0, 90.0]


def test_a_cost_that_nobody_recorded_has_no_figure() -> None:
    trials = [make_trial(COPY, "lstm")]
    run = collect(trials, [make_record(trials[0], COPY, speed={"train_seconds": 3.0})])
    assert [p.title for p in cost_pictures(run.tasks[0], run)] == [
        "Test recall against parameters",
        "Test recall against training time",
    ]


def test_points_are_placed_in_shares_of_the_figure_and_those_outside_left_out() -> None:
    figure = Figure(figsize=(4, 2))
    ax = figure.add_axes((0.25, 0.5, 0.5, 0.25))
    ax.set(xlim=(0, 10), ylim=(1, 100), yscale="log")
    trace = Trace('say "x"', "#0173b2", [0, 5, 10, 11, 5, 5], [1, 10, 100, 10, 0, math.nan])
    told = json.loads(placed(figure, Readings("step", "loss [nats]", (trace,))))
    assert told == {
        "x": "step",
        "y": "loss [nats]",
        "rows": [['say "x"', "#0173b2", [[0.25, 0.5, 0, 1], [0.5, 0.375, 5, 10], [0.75, 0.25, 10, 100]]]],
    }


def test_whole_numbers_are_told_exactly_and_others_to_four_digits() -> None:
    figure = Figure()
    figure.add_subplot().set(xlim=(0, 1e5), ylim=(0, 1))
    trace = Trace("a", "#0173b2", [50_012, 12_345, 1000, 98_765.4, 12.3456], [0, 1, 0.123456, 0.5, 0.000123456])
    ((_, _, points),) = json.loads(placed(figure, Readings("", "", (trace,))))["rows"]
    assert [x for _, _, x, _ in points] == [50_012, 12_345, 1000, 98_765, 12.35]
    assert [y for _, _, _, y in points] == [0, 1, 0.1235, 0.5, 0.0001235]


def svg_of(**text: object) -> str:
    with style():
        figure = Figure(figsize=(2, 2))
        figure.add_subplot().plot([1, 2], color="#0173b2")
        figure.text(0.5, 0.5, "fill: #1b1f24", **text)  # type: ignore[arg-type]
        return to_svg(figure, "x")


def test_our_figures_take_the_colours_of_the_page() -> None:
    svg = svg_of()
    assert "fill: var(--card)" in svg
    assert "stroke: var(--grid)" in svg
    assert "stroke: #0173b2" in svg, "a model's colour is the same everywhere"
    assert ">fill: #1b1f24<" in svg, "words are no colours"
    assert not re.findall(r'style="[^"]*#(?:1b1f24|ffffff|e4e6ea)', svg)


@pytest.mark.parametrize("colour", ["black", "#333333", "white"])
def test_a_figure_with_text_in_colours_of_its_own_keeps_its_paper(colour: str) -> None:
    svg = svg_of(color=colour)
    assert "var(" not in svg
    assert "fill: #ffffff" in svg


def test_a_figure_with_an_image_keeps_its_paper() -> None:
    with style():
        figure = Figure(figsize=(2, 2))
        figure.add_subplot().imshow(np.eye(2))
        assert "var(" not in to_svg(figure, "x")


def test_curves_against_steps_and_seconds() -> None:
    run, task = drawn()
    pictures = curve_pictures(task, run)
    assert [p.figure.axes[0].get_xlabel() for p in pictures] == ["training step", "training time [s]"]
    assert all(len(p.figure.axes[0].collections) == 2 for p in pictures)  # a band each
