"""The report sections of ``sentiment``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Block, Section, TrialView
from seqbench_tasks.report_style import by_label, figure, line, shown, test_metric, with_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 8
"""Points of the curve of accuracy against length: each has as many sentences, nearly."""
ERRORS = 6


def right_and_wrong(views: list[TrialView]) -> Section | None:
    """Who loses to the bag of words; confusion; accuracy against length; the worst errors of the best model."""
    kept = [view for view in views if "probability" in view.arrays]
    if not kept:
        return None
    groups = by_label(kept)
    blocks = [Block("text", against_bag_of_words(groups)), Block("table", _confusions(groups), caption="Confusion")]
    blocks.append(Block("figure", _by_length(groups), caption="Test accuracy by sentence length"))
    best = max(kept, key=lambda view: test_metric(view, "accuracy"))
    if best.arrays["errors"].size:
        caption = f"Surest errors of {best.label}, seed {best.seed}"
        blocks.append(Block("table", _errors(best), caption=caption))
    return Section("Right and wrong", tuple(blocks))


def against_bag_of_words(groups: Mapping[str, Sequence[TrialView]]) -> str:
    """A sentence that names the models that a bag of words beats."""
    references = next(iter(groups.values()))[0].record.get("references") or []
    lines = [r["metrics"].get("accuracy") for r in references if r["name"] == "bag-of-words"]
    if not lines:
        return "No bag-of-words baseline is known here."
    means = {label: float(np.mean([test_metric(v, "accuracy") for v in found])) for label, found in groups.items()}
    losers = [f"{label} ({shown(mean, 2)} %)" for label, mean in means.items() if mean < lines[0]]
    said = f"A bag of words, which knows no order, reaches {shown(lines[0], 2)} %. "
    return said + (f"Models that lose to it: {', '.join(losers)}." if losers else "Every model beats it.")


def _confusions(groups: Mapping[str, Sequence[TrialView]]) -> list[list[str]]:
    """Per cent of the sentences of a class, all seeds together."""
    table = [["model", "negative called negative", "called positive", "positive called negative", "called positive"]]
    for label, found in groups.items():
        total = np.sum([view.record["details"]["confusion"] for view in found], axis=0)  # (2, 2)
        share = 100 * total / total.sum(1, keepdims=True)
        table.append([label, *(f"{value:.1f} %" for value in share.ravel())])
    return table


def _by_length(groups: Mapping[str, Sequence[TrialView]]) -> Figure:
    made, axes = figure(3.2)
    ax = axes[0, 0]
    for label, found in groups.items():
        lengths = found[0].arrays["lengths"]
        parts = np.array_split(np.argsort(lengths, kind="stable"), POINTS)
        y = np.array([[100 * _right(view)[part].mean() for part in parts] for view in found])  # (seeds, points)
        x = np.array([lengths[part].mean() for part in parts])
        line(ax, x, y, label, found[0].colour, marker="o", ms=3)
    ax.set_xlabel("words")
    ax.set_ylabel("accuracy [%]")
    return with_key(made, ax)


def _right(view: TrialView) -> np.ndarray:
    return np.asarray((view.arrays["probability"] > 0.5) == (view.arrays["label"] == 1))


def _errors(view: TrialView) -> list[list[str]]:
    table = [["label", "probability of positive", "sentence"]]
    for row, text in list(zip(view.arrays["errors"], view.arrays["error-texts"], strict=True))[:ERRORS]:
        name = "positive" if view.arrays["label"][row] else "negative"
        table.append([name, f"{view.arrays['probability'][row]:.3f}", str(text)])
    return table


# --- word by word ---------------------------------------------------------------------------------


def word_by_word(views: list[TrialView]) -> Section | None:
    """What each model thinks of some sentences after each of their words."""
    groups = by_label([view for view in views if "running" in view.arrays])
    if not groups:
        return None
    text = (
        "The probability of positive that each model gives when a sentence ends after the word below: where its mind "
        "changes, and whether a contrast or a negation changes it. Means over seeds, bands from the smallest to the "
        "largest. The first test sentences of 8 to 16 words: a positive and a negative one with a contrast (but, "
        "although) and a positive one with a negation, where the test set has them. In brackets: words that training "
        "has not shown often enough to have a place in the vocabulary."
    )
    return Section("Word by word", (Block("text", text), Block("figure", _running(groups))))


def _running(groups: Mapping[str, Sequence[TrialView]]) -> Figure:
    """A panel for each sentence."""
    arrays = next(iter(groups.values()))[0].arrays
    ends = arrays["running-ends"].tolist()
    made, axes = figure(2.1 * len(ends), rows=len(ends), sharey=True)
    for ax, row, start, end in zip(axes[:, 0], arrays["running-rows"], [0, *ends], ends, strict=False):
        x = np.arange(end - start)
        for label, found in groups.items():
            y = np.array([view.arrays["running"][start:end] for view in found])  # (seeds, words)
            line(ax, x, y, label, found[0].colour, marker="o", ms=3)
        ax.axhline(0.5, color="#5c636e", ls=(0, (4, 3)), lw=1)
        words = zip(arrays["running-words"][start:end], arrays["running-known"][start:end], strict=True)
        ax.set_xticks(x, [_tick(str(word), bool(known)) for word, known in words], rotation=35, ha="right")
        ax.set_ylim(-0.04, 1.04)
        ax.set_title(f"labelled {'positive' if arrays['label'][row] else 'negative'}", loc="left")
        ax.set_ylabel("p(positive)")
    return with_key(made, axes[0, 0])


def _tick(word: str, known: bool) -> str:
    """A word below its point; a dollar stays a dollar, no mathematics begins there."""
    text = word.replace("$", r"\$")
    return text if known else f"({text})"
