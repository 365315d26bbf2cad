"""The report section of sentiment, from made-up trials."""

from __future__ import annotations

from typing import Any

import numpy as np

from seqbench.api import TrialView
from seqbench_tasks.sentiment_report import right_and_wrong, word_by_word

LABEL = np.array([0, 1] * 40)
LENGTHS = np.arange(80) // 10 + 3


def view(label: str, accuracy: float, seed: int = 0, bag: float | None = 60.0, **arrays: Any) -> TrialView:
    probability = np.where(LENGTHS < 7, LABEL * 0.8 + 0.1, 0.9)  # right on short ones, "positive" on long ones
    references = [{"name": "trivial", "metrics": {"accuracy": 50.0}}]
    references += [] if bag is None else [{"name": "bag-of-words", "metrics": {"accuracy": bag}}]
    record = {
        "references": references,
        "metrics": {"test": {"accuracy": accuracy}},
        "details": {"confusion": [[30, 10], [4, 36]]},
    }
    kept = {
        "lengths": LENGTHS,
        "label": LABEL,
        "probability": probability,
        "errors": np.array([78, 76]),
        "error-texts": np.array([f"{label} says one thing", "and another"]),
    }
    return TrialView("sentiment/embedded", label, "#0173b2", seed, record, kept | arrays)


def test_trials_that_kept_nothing_make_no_section() -> None:
    assert right_and_wrong([]) is None
    assert right_and_wrong([TrialView("sentiment/embedded", "gru", "#000000", 0, {}, {})]) is None


def test_models_below_the_bag_of_words_are_named_with_their_mean() -> None:
    section = right_and_wrong([view("gru", 59.0), view("gru", 60.5, 1), view("lstm", 61.0)])
    assert section is not None
    said = section.blocks[0].content
    assert "reaches 60.00 %" in said
    assert said.endswith("Models that lose to it: gru (59.75 %).")


def test_it_is_said_when_none_loses_and_when_nothing_is_known() -> None:
    for bag, said in ((60.0, "Every model beats it."), (None, "No bag-of-words baseline is known here.")):
        section = right_and_wrong([view("gru", 90.0, bag=bag)])
        assert section is not None
        assert section.blocks[0].content.endswith(said)


def test_confusion_is_in_per_cent_of_a_class_over_all_seeds() -> None:
    other = view("gru", 90.0, 1)
    other.record["details"]["confusion"] = [[40, 0], [0, 40]]
    section = right_and_wrong([view("gru", 90.0), other])
    assert section is not None
    (table,) = [block.content for block in section.blocks if block.caption == "Confusion"]
    assert table[1] == ["gru", "87.5 %", "12.5 %", "5.0 %", "95.0 %"]


def test_accuracy_is_drawn_against_length() -> None:
    section = right_and_wrong([view("gru", 90.0)])
    assert section is not None
    (figure,) = [block.content for block in section.blocks if block.kind == "figure"]
    (line,) = figure.axes[0].get_lines()
    np.testing.assert_allclose(line.get_xdata(), np.arange(3, 11))
    np.testing.assert_allclose(line.get_ydata(), [100] * 4 + [50] * 4)


def test_errors_are_those_of_the_best_trial() -> None:
    section = right_and_wrong([view("gru", 90.0), view("lstm", 95.0), view("lstm", 94.0, 1)])
    assert section is not None
    block = section.blocks[-1]
    assert block.caption == "Surest errors of lstm, seed 0"
    assert block.content[1:] == [
        ["negative", "0.900", "lstm says one thing"],
        ["negative", "0.900", "and another"],
    ]


# --- word by word ---

RUNNING = {
    "running-words": np.array(["not", "$x$", "but", "good", "bad"]),
    "running-known": np.array([True, False, True, True, True]),
    "running-rows": np.array([1, 0]),
    "running-ends": np.array([3, 5]),
}


def reader(label: str, seed: int, running: list[float]) -> TrialView:
    return view(label, 90.0, seed, running=np.array(running), **RUNNING)


def test_each_sentence_has_a_panel_with_a_point_for_each_word() -> None:
    views = [reader("gru", 1, [0.1, 0.2, 0.3, 0.4, 0.5]), reader("gru", 0, [0.3, 0.4, 0.5, 0.6, 0.7])]
    section = word_by_word([*views, reader("lstm", 0, [1, 1, 1, 0, 0])])
    assert section is not None
    first, second = section.blocks[1].content.axes
    assert [ax.get_title(loc="left") for ax in (first, second)] == ["labelled positive", "labelled negative"]
    assert [tick.get_text() for tick in first.get_xticklabels()] == ["not", r"(\$x\$)", "but"]
    assert [tick.get_text() for tick in second.get_xticklabels()] == ["good", "bad"]
    drawn = [[line.get_ydata() for line in ax.get_lines()[:2]] for ax in (first, second)]
    np.testing.assert_allclose(drawn[0], [[0.2, 0.3, 0.4], [1, 1, 1]])
    np.testing.assert_allclose(drawn[1], [[0.5, 0.6], [0, 0]])


def test_trials_that_read_nothing_word_by_word_have_no_such_section() -> None:
    assert word_by_word([view("gru", 90.0)]) is None
