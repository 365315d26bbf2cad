"""The section of the report, from made-up trials."""

from __future__ import annotations

import numpy as np

from seqbench.api import TrialView
from seqbench_mqar.report import RANGES, equal_parts, recall_by_distance

DISTANCE = np.arange(2, 34, 2).repeat(10).reshape(10, 16)  # 16 distances, ten queries each


def view(label: str, seed: int, far: float) -> TrialView:
    """Right up to a distance of ``far``."""
    arrays = {"distance": DISTANCE, "right": far >= DISTANCE}
    return TrialView("mqar/embedded", label, "#0173b2", seed, {}, arrays)


def test_trials_without_arrays_make_no_section() -> None:
    assert recall_by_distance([]) is None
    assert recall_by_distance([TrialView("mqar/embedded", "rnn", "#000000", 0, {}, {})]) is None


def test_parts_have_as_many_queries_and_hold_each_distance_once() -> None:
    ranges = equal_parts(DISTANCE)
    assert ranges == [(low, low + 2) for low in range(2, 34, 4)]
    skewed = np.array([2] * 90 + list(range(4, 24, 2)))
    found = equal_parts(skewed)
    assert len(found) <= RANGES
    assert sum(((skewed >= low) & (skewed <= high)).sum() for low, high in found) == skewed.size
    assert found[0] == (2, 2)


def test_curve_and_table_are_means_over_seeds_and_the_band_their_range() -> None:
    section = recall_by_distance([view("lstm", 0, 10), view("lstm", 1, 17), view("transformer", 0, 99)])
    assert section is not None
    _, figure, table = (block.content for block in section.blocks)
    assert table[0] == ["steps", "lstm", "transformer"]
    assert table[1] == ["2 to 4", "100.0", "100.0"]
    assert table[3] == ["10 to 12", "75.0", "100.0"]  # 10 steps: both seeds; 12 steps: one
    assert table[8] == ["30 to 32", "0.0", "100.0"]
    (ax,) = figure.axes
    curve = ax.get_lines()[0]
    assert ax.get_lines()[-1].get_ydata() == [100 / 16] * 2
    assert curve.get_xdata().tolist() == [3, 7, 11, 15, 19, 23, 27, 31]
    assert curve.get_ydata().tolist() == [100, 100, 75, 50, 0, 0, 0, 0]
    band = {tuple(point) for point in ax.collections[0].get_paths()[0].vertices.tolist()}
    assert band >= {(11, 50), (11, 100), (15, 0), (15, 100)}
    assert not band & {(11, 75), (15, 50)}
    figure.canvas.draw()
