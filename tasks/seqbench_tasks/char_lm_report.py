"""The report sections of ``char-lm``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from seqbench.api import Block, Section, TrialView
from seqbench_tasks.report_style import by_label, figure, line, shown, test_metric, with_key

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PER_OCTAVE = 3
"""Points of the curve of losses for each doubling of the position; fewer where positions are fewer."""
FULL = 6.0
"""Nats at which the colour behind a character is strongest: a probability of 0.25 %."""
SURPRISES = 8
BEFORE = 24
"""Characters shown before a surprising one."""
VISIBLE = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


def _firsts(views: Sequence[TrialView], *names: str) -> dict[str, TrialView]:
    """The first seed of each model that kept one of the arrays."""
    kept = [view for view in views if any(name in view.arrays for name in names)]
    return {label: found[0] for label, found in by_label(kept).items()}


def _score(view: TrialView) -> str:
    nats = test_metric(view, "nats")
    return "" if nats != nats else f", {nats:.3f} nats per character"


# --- loss by position -----------------------------------------------------------------------------


def loss_by_position(views: list[TrialView]) -> Section | None:
    """What a character costs by how much of the text before it the model has read."""
    groups = by_label([view for view in views if "position-nats" in view.arrays])
    if not groups:
        return None
    one = next(iter(groups.values()))[0]
    text = (
        "Mean cross-entropy of the test characters by their place in the window, which is how many characters the "
        f"model has read; over all {int(one.arrays['windows']):,} full windows. A curve that still falls at the right "
        "makes use of text that lies far back; the first characters cost most, for nothing is known of them."
    )
    if "position-best" in one.arrays:
        text += " Dotted: what nobody can beat on the same windows, for the source of this text is known exactly."
    caption = "Cross-entropy by position: means over seeds, bands from the smallest to the largest"
    drawn = Block("figure", _curves(groups), caption=caption)
    table = Block("table", _positions_table(groups), caption="Cross-entropy by characters read [nats], mean over seeds")
    return Section("Loss by position in the context", (Block("text", text), drawn, table))


def octaves(window: int, per_octave: int) -> list[np.ndarray]:
    """Positions 1 to ``window``, cut behind those nearest to ``2 ** (k / per_octave)``: 1, 2, 3 to 4, 5 to 8 for 1."""
    ends = np.unique(np.round(2.0 ** (np.arange(per_octave * 20) / per_octave)).astype(int))
    return np.split(np.arange(1, window + 1), ends[ends < window])


def _binned(nats: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of each part's positions: ``(parts,)``."""
    return np.array([nats[part - 1].mean() for part in parts])


def _curves(groups: Mapping[str, Sequence[TrialView]]) -> Figure:
    arrays = next(iter(groups.values()))[0].arrays
    parts = octaves(len(arrays["position-nats"]), PER_OCTAVE)
    x = np.array([np.exp(np.log(part).mean()) for part in parts])  # the middle on a log axis
    made, axes = figure(3.4)
    ax = axes[0, 0]
    for label, found in groups.items():
        y = np.array([_binned(view.arrays["position-nats"], parts) for view in found])  # (seeds, parts)
        line(ax, x, y, label, found[0].colour, marker="o", ms=3)
    if "position-best" in arrays:
        best = _binned(arrays["position-best"], parts)
        ax.plot(x, best, color="#5c636e", ls="dotted", lw=1.4, label="best possible")
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("characters of the window read before the prediction")
    ax.set_ylabel("cross-entropy [nats]")
    return with_key(made, ax)


def _positions_table(groups: Mapping[str, Sequence[TrialView]]) -> list[list[str]]:
    arrays = next(iter(groups.values()))[0].arrays
    parts = _merged(octaves(len(arrays["position-nats"]), 1))
    ranges = [f"{part[0]} to {part[-1]}" if len(part) > 1 else f"{part[0]}" for part in parts]
    table = [["model", *ranges]]
    for label, found in groups.items():
        mean = np.mean([_binned(view.arrays["position-nats"], parts) for view in found], axis=0)
        table.append([label, *(shown(value, 3) for value in mean)])
    if "position-best" in arrays:
        table.append(["best possible", *(shown(value, 3) for value in _binned(arrays["position-best"], parts))])
    return table


def _merged(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Every two neighbours as one, the first, a single position, left alone."""
    return [parts[0], *(np.concatenate(parts[n : n + 2]) for n in range(1, len(parts), 2))]


# --- surprises ------------------------------------------------------------------------------------


def surprises(views: list[TrialView]) -> Section | None:
    """A passage of the test text, each character coloured by what it cost each model."""
    firsts = _firsts(views, "passage-nats")
    if not firsts:
        return None
    text = (
        "The beginning of the test text as each model's first seed reads it. The stronger the colour, the more a "
        "character surprised the model; a pointer on it shows by how much and what was likeliest. Every character is "
        "predicted from at least half a window of text before it, part of which lies before the passage."
    )
    legend = [(f" {nats:g} ", nats / FULL, "") for nats in range(int(FULL) + 1)]
    passages = [
        Block("marked", _spans(view), caption=f"{label}, seed {view.seed}{_score(view)}")
        for label, view in firsts.items()
    ]
    caption = f"The {SURPRISES} characters that surprised the models most on average"
    said = (
        "A model's column has what the character that came cost it in nats, what was likeliest in its place and with "
        "which probability. ␣ is a blank, ↵ the end of a line."
    )
    return Section(
        "The most surprising characters",
        (
            Block("text", text),
            Block("marked", legend, caption=f"Nats; {FULL:g} and more look alike"),
            *passages,
            Block("table", _surprises_table(firsts), caption=caption),
            Block("text", said),
        ),
    )


def _rows(view: TrialView) -> Iterable[tuple[str, float, str, float]]:
    """Of each character of the passage: itself, its nats, the likeliest one and its probability."""
    names = ("passage", "passage-nats", "passage-likeliest", "passage-probability")
    for char, nats, likeliest, probability in zip(*(view.arrays[name] for name in names), strict=True):
        yield str(char), float(nats), str(likeliest), float(probability)


def _spans(view: TrialView) -> list[tuple[str, float, str]]:
    spans = []
    for char, nats, likeliest, probability in _rows(view):
        title = (
            f"{char.translate(VISIBLE)}: {nats:.2f} nats ({_percent(np.exp(-nats))}); "
            f"likeliest {likeliest.translate(VISIBLE)} ({_percent(probability)})"
        )
        spans.append(("↵\n" if char == "\n" else char, min(nats / FULL, 1.0), title))
    return spans


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 else "under 0.1 %"


def _surprises_table(firsts: Mapping[str, TrialView]) -> list[list[str]]:
    """The characters of the largest mean loss over models, the largest first."""
    passage = "".join(next(iter(firsts.values())).arrays["passage"].tolist())
    mean = np.mean([view.arrays["passage-nats"] for view in firsts.values()], axis=0)  # (n,)
    told = {label: list(_rows(view)) for label, view in firsts.items()}
    table = [["after", "came", *told]]
    for place in np.argsort(-mean, kind="stable")[:SURPRISES]:
        before, char = passage[max(0, place - BEFORE) : place], passage[place]
        cells = [
            f"{nats:.1f}, {likeliest.translate(VISIBLE)} {_percent(probability)}"
            for _, nats, likeliest, probability in (rows[place] for rows in told.values())
        ]
        table.append([before.translate(VISIBLE), char.translate(VISIBLE), *cells])
    return table


# --- generated text -------------------------------------------------------------------------------

INTRODUCTION = (
    "Each model (its first seed) continues the same prompt, the beginning of the validation text. "
    "Samples show what a model has learned; they are no measure of it."
)


def generated_text(views: list[TrialView]) -> Section | None:
    """What each model writes."""
    firsts = _firsts(views, "sample", "refused")
    if not firsts:
        return None
    return Section("Generated text", (Block("text", INTRODUCTION), *map(_sample, firsts.values())))


def _sample(view: TrialView) -> Block:
    if "refused" in view.arrays:
        return Block("text", f"No sample: {view.arrays['refused']}.", caption=view.label)
    caption = f"{view.label}{_score(view)}, temperature {float(view.arrays['temperature']):g}"
    return Block("code", f"{view.arrays['prompt']}▌{view.arrays['sample']}", caption=caption)
