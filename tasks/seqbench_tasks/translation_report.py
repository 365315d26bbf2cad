"""The report sections of ``translation``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.api import Block, Section, TrialView
from seqbench_tasks import bootstrap
from seqbench_tasks.report_style import by_label, figure, shown, test_metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

EXAMPLES = 6
DRAWN = 2
"""Sentences whose alignments are shown."""
PANELS = 3
"""Heatmaps side by side."""
BIN = 100
"""Sentences in a point of a curve, at least."""
THIRDS = ("shortest", "middle", "longest")


def lines(view: TrialView, name: str) -> list[str]:
    """The test lines that the task kept as bytes."""
    return bytes(view.arrays[name]).decode("utf-8").split("\n")


def has_outputs(views: Sequence[TrialView]) -> list[TrialView]:
    """The trials that kept their outputs."""
    return [view for view in views if "hypotheses" in view.arrays]


# --- outputs side by side -------------------------------------------------------------------------


def translations(views: list[TrialView]) -> Section | None:
    """Source, reference and what each model's first seed makes of it, for sentences from short to long."""
    found = by_label(has_outputs(views))
    if not found:
        return None
    firsts = {label: trials[0] for label, trials in found.items()}
    any_ = next(iter(firsts.values()))
    order = np.argsort(any_.arrays["lengths"], kind="stable")
    rows = [int(order[place]) for place in np.linspace(len(order) * 0.1, len(order) * 0.95, EXAMPLES).astype(int)]
    outputs = {label: lines(view, "hypotheses") for label, view in firsts.items()}
    table = [["", "", "text"]]
    for number, row in enumerate(rows, 1):
        reference = lines(any_, "references")[row]
        table.append([str(number), "source", lines(any_, "sources")[row]])
        table += _outputs({label: text[row] for label, text in outputs.items()}, reference)
    text = "Outputs of the beam search, first seed of each model. The sentences are chosen by their length alone."
    return Section("Translations", (Block("text", text), Block("table", table), Block("text", _small_print(firsts))))


def _outputs(texts: Mapping[str, str], reference: str) -> list[list[str]]:
    """The reference, with the models that have put out the same, then each other output with its models."""
    said: dict[str, list[str]] = {reference: ["reference"]}
    for label, text in texts.items():
        said.setdefault(text, []).append(label)
    return [["", ", ".join(who), text or "(nothing)"] for text, who in said.items()]


def _small_print(firsts: Mapping[str, TrialView]) -> str:
    """The signatures, and outputs without an end."""
    details = {label: view.record.get("details") or {} for label, view in firsts.items()}
    signatures: dict[str, str] = next((d["signatures"] for d in details.values() if d.get("signatures")), {})
    said = [f"{name}: {signature}" for name, signature in signatures.items()]
    open_ = [f"{label} {d['unfinished']}" for label, d in details.items() if d.get("unfinished")]
    return f"sacrebleu's signatures: {'; '.join(said)}." + (
        f" Outputs cut off without an end: {', '.join(open_)}." if open_ else ""
    )


# --- alignments -----------------------------------------------------------------------------------


def alignments(views: list[TrialView]) -> Section | None:
    """How each model's first seed attends to the source as it writes."""
    firsts = {label: trials[0] for label, trials in by_label(has_outputs(views)).items()}
    drawn = {label: view for label, view in firsts.items() if "alignment-0" in view.arrays}
    if not drawn:
        return None
    text = (
        "Rows are the words that a model has put out, columns those of the source; each row sums to 1. First seed of "
        "each model. The Transformer's own decoder: its last layer, mean over the heads."
    )
    without = [label for label in firsts if label not in drawn]
    blocks = [Block("text", text + (f" Without attention: {', '.join(without)}." if without else ""))]
    blocks += [Block("figure", heatmaps(drawn, n), caption=f"Sentence {n + 1}") for n in _sentences(drawn)]
    return Section("Alignments", tuple(blocks))


def _sentences(drawn: Mapping[str, TrialView]) -> list[int]:
    """The shortest and the longest of the sentences kept."""
    arrays = next(iter(drawn.values())).arrays
    there = [n for n in range(10) if f"alignment-{n}" in arrays]
    return sorted({there[0], there[-1]})[:DRAWN]


def heatmaps(drawn: Mapping[str, TrialView], number: int) -> Figure:
    """One panel for each model, words on the axes."""
    source = next(iter(drawn.values())).arrays[f"alignment-source-{number}"]
    rows = -(-len(drawn) // PANELS)
    longest = max(len(view.arrays[f"alignment-target-{number}"]) for view in drawn.values())
    made, axes = figure(rows * (0.9 + 0.17 * longest + 0.05 * max(map(len, source))), PANELS, rows)
    image: Any = None
    for ax, (label, view) in zip(axes.flat, drawn.items(), strict=False):
        image = _heatmap(ax, view, number)
        ax.set_title(label, color=view.colour, fontsize=9)
    for ax in axes.flat[len(drawn) :]:
        ax.set_visible(False)
    made.colorbar(image, ax=axes, shrink=0.6, label="weight", pad=0.01)
    return made


def _heatmap(ax: Axes, view: TrialView, number: int) -> Any:
    weights = view.arrays[f"alignment-{number}"]
    source, target = (view.arrays[f"alignment-{side}-{number}"] for side in ("source", "target"))
    image = ax.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    ax.set_xticks(range(len(source)), list(source), rotation=90, fontsize=7)
    ax.set_yticks(range(len(target)), list(target), fontsize=7)
    ax.tick_params(length=0, pad=1)
    ax.grid(visible=False)
    return image


# --- score against length -------------------------------------------------------------------------


def matches(view: TrialView) -> np.ndarray:
    """Which outputs equal their reference: bool ``(n,)``."""
    pairs = zip(lines(view, "hypotheses"), lines(view, "references"), strict=True)
    return np.array([hypothesis == reference for hypothesis, reference in pairs])


def thirds(lengths: np.ndarray) -> list[np.ndarray]:
    """The sentences of the shortest, middle and longest third, as indices."""
    return [np.sort(part) for part in np.array_split(np.argsort(lengths, kind="stable"), 3)]


def bins(lengths: np.ndarray) -> list[np.ndarray]:
    """Sentences of neighbouring lengths, at least ``BIN`` in each bin, no length in two bins."""
    found: list[np.ndarray] = []
    waiting = np.empty(0, np.int64)
    for length in np.unique(lengths):
        waiting = np.concatenate([waiting, np.flatnonzero(lengths == length)])
        if len(waiting) >= BIN:
            found, waiting = [*found, waiting], np.empty(0, np.int64)
    if len(waiting) and found:
        found[-1] = np.concatenate([found[-1], waiting])
    return found or [np.arange(len(lengths))]


class Scorer:
    """A trial's score on some of its sentences: per cent of exact outputs, or corpus BLEU."""

    def __init__(self, view: TrialView, exact: bool) -> None:
        self.exact = exact
        pairs = lines(view, "hypotheses"), lines(view, "references")
        self._values = matches(view) if exact else bootstrap.counts(*pairs)

    def __call__(self, rows: np.ndarray) -> float:
        """On the sentences ``rows``."""
        part = self._values[rows]
        return 100 * float(part.mean()) if self.exact else bootstrap.bleu_of(part.sum(0))


def by_exact(views: Sequence[TrialView]) -> bool:
    """Whether exact matches tell the models apart: on real text nearly nothing is exact."""
    return max(test_metric(view, "exact") for view in views) >= 20


def score_name(exact: bool) -> str:
    """The score as axes and captions name it."""
    return "exact match [%]" if exact else "BLEU"


def score_by_length(views: list[TrialView]) -> Section | None:
    """The score against the source's length."""
    kept = has_outputs(views)
    if not kept:
        return None
    exact, lengths = by_exact(kept), kept[0].arrays["lengths"]
    name = score_name(exact)
    parts = thirds(lengths)
    scorers = {label: [Scorer(v, exact) for v in trials] for label, trials in by_label(kept).items()}
    ranges = [
        f"{t} third ({lengths[p].min()} to {lengths[p].max()} tokens)" for t, p in zip(THIRDS, parts, strict=True)
    ]
    table = [["model", *ranges]]
    table += [[label, *(shown(_mean(found, part)) for part in parts)] for label, found in scorers.items()]
    made, axes = figure(3.2)
    for label, trials in by_label(kept).items():
        _curve(axes[0, 0], lengths, scorers[label], trials[0].colour, label, "solid")
    _label(axes[0, 0], exact)
    text = f"Means over seeds on the test set; a point has at least {BIN} sentences, the band is the seeds' range."
    return Section(
        "Score by source length",
        (Block("text", text), Block("figure", made), Block("table", table, caption=f"{name}, mean over seeds")),
    )


def _mean(scorers: Sequence[Scorer], rows: np.ndarray) -> float:
    return float(np.mean([scorer(rows) for scorer in scorers]))


def _curve(ax: Axes, lengths: np.ndarray, scorers: Sequence[Scorer], colour: str, label: str, line: str) -> None:
    places = bins(lengths)
    x = [float(lengths[rows].mean()) for rows in places]
    y = np.array([[scorer(rows) for rows in places] for scorer in scorers])  # (seeds, bins)
    ax.plot(x, y.mean(0), color=colour, linestyle=line, marker="o", ms=3, lw=1.4, label=label)
    if len(y) > 1:
        ax.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.12, lw=0)


def _label(ax: Axes, exact: bool) -> None:
    ax.set_xlabel("source length [tokens, the end included]")
    ax.set_ylabel(score_name(exact))
    if exact:
        ax.set_ylim(-2, 102)
    else:
        ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)


# --- with attention and without -------------------------------------------------------------------


def setting(view: TrialView) -> tuple[str, str]:
    """The kind of attention, and all that must be equal for a comparison of kinds."""
    trial = view.record["trial"]
    options = dict(trial["task_options"])
    return options.pop("attention"), repr((trial["dataset"], sorted(options.items())))


def attention_compared(views: list[TrialView]) -> Section | None:
    """The same models with attention and without, where a run has both."""
    kept = has_outputs(views)
    groups: dict[str, list[TrialView]] = {}
    for view in kept:
        groups.setdefault(setting(view)[1], []).append(view)
    blocks = [block for group in groups.values() for block in _compared(group)]
    return Section("With attention and without", tuple(blocks)) if blocks else None


def _compared(group: Sequence[TrialView]) -> list[Block]:
    kinds = list(dict.fromkeys(setting(view)[0] for view in group))
    if len(kinds) < 2 or "none" not in kinds:
        return []
    exact = by_exact(group)
    scorers = {key: Scorer(key.view, exact) for key in map(_Key, group)}
    lengths = group[0].arrays["lengths"]
    dataset = group[0].record["trial"]["dataset"]
    name = score_name(exact)
    text = (
        "Difference of corpus BLEU on the same test sentences, seed by seed, with its 95 % interval by the paired "
        f"bootstrap (Koehn 2004; {bootstrap.SAMPLES:,} resampled test sets): how sure the test set makes us, not "
        "how seeds vary. A model with a decoder of its own (the Transformer) attends by that, whatever kind is named."
    )
    return [
        Block("table", _kinds_table(scorers, kinds, lengths), caption=f"{dataset}: {name} by attention and length"),
        Block("figure", _kinds_figure(scorers, lengths, exact), caption="solid: with attention, dashed: without"),
        Block("table", _differences(group, kinds), caption="BLEU with attention minus BLEU without"),
        Block("text", text),
    ]


class _Key:
    """A view that can be a key: its arrays cannot."""

    def __init__(self, view: TrialView) -> None:
        self.view, self.kind = view, setting(view)[0]
        self.label, self.seed, self.colour = view.label, view.seed, view.colour


def _of(scorers: Mapping[_Key, Scorer], label: str, kind: str) -> list[Scorer]:
    return [scorer for key, scorer in scorers.items() if (key.label, key.kind) == (label, kind)]


def _labels(scorers: Mapping[_Key, Scorer]) -> dict[str, str]:
    """Models and their colours."""
    return {key.label: key.colour for key in scorers}


def _kinds_table(scorers: Mapping[_Key, Scorer], kinds: Sequence[str], lengths: np.ndarray) -> list[list[str]]:
    parts = [np.arange(len(lengths)), *thirds(lengths)]
    table = [["model", "attention", "all", *(f"{name} third" for name in THIRDS)]]
    for label in _labels(scorers):
        for kind in kinds:
            found = _of(scorers, label, kind)
            if found:
                table.append([label, kind, *(shown(_mean(found, part)) for part in parts)])
    return table


def _kinds_figure(scorers: Mapping[_Key, Scorer], lengths: np.ndarray, exact: bool) -> Figure:
    made, axes = figure(3.2)
    for label, colour in _labels(scorers).items():
        for kind in dict.fromkeys(key.kind for key in scorers):
            found, none = _of(scorers, label, kind), kind == "none"
            if found:
                _curve(axes[0, 0], lengths, found, colour, f"{label}, {kind}", "dashed" if none else "solid")
    _label(axes[0, 0], exact)
    return made


def _differences(group: Sequence[TrialView], kinds: Sequence[str]) -> list[list[str]]:
    """Every model, seed and kind of attention that has a twin without."""
    table = [["model", "attention", "seed", "difference", "95 % interval", "p", "in words"]]
    twins = {(v.label, v.seed): v for v in group if setting(v)[0] == "none"}
    for view in sorted(group, key=lambda v: kinds.index(setting(v)[0])):
        twin, kind = twins.get((view.label, view.seed)), setting(view)[0]
        if twin is None or kind == "none":
            continue
        both = (bootstrap.counts(lines(v, "hypotheses"), lines(v, "references")) for v in (view, twin))
        found = bootstrap.compare(*both)
        words = ("better with" if found.value > 0 else "worse with") if found.decided else "not decided"
        interval = f"{found.low:+.2f} to {found.high:+.2f}"
        table.append([view.label, kind, str(view.seed), f"{found.value:+.2f}", interval, f"{found.p:.3f}", words])
    return table


# --- BLEU against the budget ----------------------------------------------------------------------


def bleu_by_budget(views: list[TrialView]) -> Section | None:
    """BLEU of greedy decoding on validation, against the seconds of training."""
    groups = {label: found for label, found in by_label(views).items() if _bleu_curve(found[0])[1].size}
    if not groups:
        return None
    made, axes = figure(3.2)
    ax = axes[0, 0]
    for label, trials in groups.items():
        for place, view in enumerate(trials):
            seconds, bleu = _bleu_curve(view)
            ax.plot(seconds, bleu, color=view.colour, lw=1.3, alpha=0.85, label=label if place == 0 else None)
    ax.set_xlabel("training time [s], validation left out")
    ax.set_ylabel("BLEU on valid, greedy")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    text = (
        "Each line is a seed. The schedule ends at the right end, so a point on the way is not what a run of that "
        "length would reach: its learning rate would have come down by then."
    )
    return Section("BLEU against training time", (Block("figure", made), Block("text", text)))


def _bleu_curve(view: TrialView) -> tuple[np.ndarray, np.ndarray]:
    curve = (view.record.get("curve") or {}).get("valid") or {}
    bleu = np.array([np.nan if v is None else v for v in curve.get("bleu_greedy", ())], float)
    seconds = np.array(curve.get("seconds", ()), float)
    known = np.isfinite(bleu)
    return seconds[known], bleu[known]
