"""The sections of copy and adding that say how far back a model remembers, from made-up trials."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seqbench.api import Section, TrialView
from seqbench_tasks.memory_report import adding_memory, copy_memory

DELAYS = np.array([1, 2, 4])
T = 2


def view(label: str = "gru", seed: int = 0, trained: float = 0.5, **arrays: Any) -> TrialView:
    recall = np.full((3, 10), 50.0)
    recall[1] = np.arange(10, 110, 10)
    kept = {
        "untrained/gradient": 7 * 0.1 ** np.arange(22),
        "trained/gradient": 3 * trained ** np.arange(22),
        "delays": DELAYS,
        "recall": recall + seed,
        "lengths": DELAYS,
        "mse": np.array([0.1, 0.2, np.nan]) + seed,
        "lag": np.arange(20)[::-1],
        "error": np.arange(20)[::-1] / 100 + seed,
    }
    record = {"trial": {"task_options": {"T": T}}}
    return TrialView("copy/embedded", label, "#0173b2", seed, record, kept | arrays)


def figures(section: Section | None) -> list[Any]:
    assert section is not None
    return [block.content for block in section.blocks if block.kind == "figure"]


def table(section: Section | None) -> list[list[str]]:
    assert section is not None
    return next(block.content for block in section.blocks if block.kind == "table")


@pytest.mark.parametrize("make", [copy_memory, adding_memory])
def test_trials_without_finite_gradients_make_no_section(make) -> None:
    assert make([]) is None
    assert make([TrialView("copy/embedded", "gru", "#000000", 0, {}, {})]) is None
    assert make([view(**{"trained/gradient": np.full(22, np.nan)})]) is None


def test_a_model_without_finite_gradients_is_named() -> None:
    sick = view("relu", **{"untrained/gradient": np.full(22, np.inf)})
    for make in (copy_memory, adding_memory):
        section = make([view(), sick])
        assert section is not None
        assert section.blocks[0].content.endswith("Not shown, for want of finite gradients: relu.")
        assert [row[0] for row in table(section)[1:]] == ["gru"]
        whole = make([view()])
        assert whole is not None
        assert "Not shown" not in whole.blocks[0].content


def test_memory_lengths_are_medians_over_seeds() -> None:
    found = table(copy_memory([view(), view(seed=1, trained=1.0), view(seed=2), view("rnn", trained=0.0)]))
    assert [row[0] for row in found] == ["model", "gru", "rnn"]
    assert found[1][1:] == ["2", "6", "under 1e-10", "2.4e-04"]  # 0.1**2, 0.5**6 >= 0.01; 0.5**12 at k = T + 10
    assert found[2][1:3] == ["2", "0"]


def test_gradients_are_drawn_as_shares_with_their_band() -> None:
    at_start, after = figures(copy_memory([view(), view(seed=1, trained=0.25), view(seed=2, trained=0.4)]))[0].axes
    np.testing.assert_allclose(at_start.get_lines()[0].get_ydata()[:9], 0.1 ** np.arange(9))
    np.testing.assert_allclose(after.get_lines()[0].get_ydata()[:9], 0.4 ** np.arange(9))  # the median
    (band,) = after.collections
    np.testing.assert_allclose(band.get_paths()[0].get_extents().ymax, 1.0)
    assert {tuple(point) for point in band.get_paths()[0].vertices} >= {(2.0, 0.25**2), (2.0, 0.5**2)}
    (needed,) = {line.get_xdata()[0] for line in after.get_lines()[1:]}
    assert needed == T + 10


def test_recall_is_drawn_by_delay_and_by_place_at_the_delay_of_training() -> None:
    by_delay, by_place = figures(copy_memory([view(), view(seed=1)]))[1].axes
    np.testing.assert_allclose(by_delay.get_lines()[0].get_xdata(), DELAYS)
    np.testing.assert_allclose(by_delay.get_lines()[0].get_ydata(), [50.5, 55.5, 50.5])
    np.testing.assert_allclose(by_place.get_lines()[0].get_ydata(), np.arange(10, 110, 10) + 0.5)


def test_errors_are_drawn_by_length_and_by_lag() -> None:
    by_length, by_lag = figures(adding_memory([view()]))[1].axes
    np.testing.assert_allclose(by_length.get_lines()[0].get_ydata(), [0.1, 0.2, np.nan])
    np.testing.assert_allclose(by_lag.get_lines()[0].get_xdata(), np.arange(10) * 2 + 0.5)
    np.testing.assert_allclose(by_lag.get_lines()[0].get_ydata(), np.arange(10) / 50 + 0.005)
    assert by_lag.get_yscale() == "log"
    assert [by_lag.yaxis.get_major_formatter()(value) for value in (1e-10, 0.1, 1.0, 100.0)] == [
        "10⁻¹⁰",
        "10⁻¹",
        "1",
        "10²",
    ]


def test_a_gradient_that_is_zero_everywhere_can_be_drawn() -> None:
    section = copy_memory([view(**{"trained/gradient": np.zeros(22)})])
    assert table(section)[1][2] == "0"
    figures(section)[0].canvas.draw()
