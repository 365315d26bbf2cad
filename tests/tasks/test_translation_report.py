"""The report sections of translation, from made-up trials."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from seqbench.api import Section, TrialView
from seqbench_tasks import translation_report as report

N = 300
SOURCES = [" ".join(f"w{k}" for k in range(2 + i % 9)) for i in range(N)]
REFERENCES = [text.upper() for text in SOURCES]
LENGTHS = np.array([len(text.split()) + 1 for text in SOURCES])


def packed(lines: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def view(label: str = "lstm", seed: int = 0, attention: str = "dot", wrong_from: int = 99, **arrays: Any) -> TrialView:
    """A trial that is right on sources of fewer than ``wrong_from`` tokens."""
    said = [t if n < wrong_from else "?" for t, n in zip(REFERENCES, LENGTHS, strict=True)]
    right = 100 * sum(s == t for s, t in zip(said, REFERENCES, strict=True)) / N
    options = {"pair": "auto", "attention": attention}
    record = {
        "trial": {"dataset": "embedded", "task_options": options},
        "metrics": {"test": {"exact": right}},
        "details": {"signatures": {"bleu": "nrefs:1|x", "chrf": "nrefs:1|y"}, "unfinished": 7 * (wrong_from < 99)},
        "curve": {"valid": {"seconds": [1.0, 2.0, 3.0], "bleu_greedy": [None, 10.0, 20.0]}},
    }
    texts = {"sources": packed(SOURCES), "references": packed(REFERENCES), "hypotheses": packed(said)}
    kept = texts | {"lengths": LENGTHS} | arrays
    return TrialView(f"translation[attention={attention}]/embedded", label, "#0173b2", seed, record, kept)


def attending(label: str, weights: np.ndarray) -> TrialView:
    rows, columns = weights.shape
    named = {
        "alignment-source-0": np.array([f"s{i}" for i in range(columns)]),
        "alignment-target-0": np.array([f"t{i}" for i in range(rows)]),
    }
    return view(label, **{"alignment-0": weights}, **named)


def tables(section: Section | None) -> list[list[list[str]]]:
    assert section is not None
    return [block.content for block in section.blocks if block.kind == "table"]


def text_of(section: Section | None) -> str:
    assert section is not None
    return " ".join(block.content for block in section.blocks if block.kind == "text")


def figures(section: Section | None) -> list[Any]:
    assert section is not None
    return [block.content for block in section.blocks if block.kind == "figure"]


@pytest.mark.parametrize(
    "section",
    [
        report.translations,
        report.alignments,
        report.score_by_length,
        report.bleu_by_budget,
        report.attention_compared,
    ],
)
def test_trials_that_kept_nothing_make_no_section(section) -> None:
    bare = TrialView("translation/embedded", "lstm", "#000000", 0, {"trial": {}, "metrics": {}}, {})
    assert section([]) is None
    assert section([bare]) is None


def test_translations_stand_beside_their_reference() -> None:
    views = [view("gru", 1, wrong_from=5), view("lstm", 0), view("gru", 0, wrong_from=4)]
    ((header, *rows),) = tables(report.translations(views))
    assert header == ["", "", "text"]
    sentences: list[dict[str, str]] = []
    for number, who, text in rows:
        if number:
            sentences.append({})
        sentences[-1][who] = text
    assert len(sentences) == report.EXAMPLES
    for said in sentences:
        reference = said["source"].upper()
        tokens = len(said["source"].split()) + 1
        if tokens < 4:  # by seed 0 of gru, although seed 1 stands first
            assert said == {"source": said["source"], "reference, gru, lstm": reference}
        else:
            assert said == {"source": said["source"], "reference, lstm": reference, "gru": "?"}
    lengths = [len(said["source"].split()) for said in sentences]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]


def test_signatures_and_outputs_without_an_end_are_named() -> None:
    text = text_of(report.translations([view("lstm"), view("gru", wrong_from=4)]))
    assert "bleu: nrefs:1|x; chrf: nrefs:1|y" in text
    assert "without an end: gru 7." in text


def test_an_alignment_is_drawn_with_the_words_on_its_axes() -> None:
    weights = np.array([[0.9, 0.1, 0.0], [0.2, 0.3, 0.5]])
    section = report.alignments([attending("lstm", weights), view("rnn")])
    assert "Without attention: rnn." in text_of(section)
    (figure,) = figures(section)
    panel = figure.axes[0]
    np.testing.assert_array_equal(panel.images[0].get_array(), weights)
    assert [t.get_text() for t in panel.get_xticklabels()] == ["s0", "s1", "s2"]
    assert [t.get_text() for t in panel.get_yticklabels()] == ["t0", "t1"]
    assert panel.get_title() == "lstm"


def test_models_that_do_not_attend_have_no_alignments() -> None:
    assert report.alignments([view("rnn")]) is None


def test_the_score_of_each_third_is_the_mean_over_seeds() -> None:
    """Right below 6 tokens, or below 9: counted by hand."""
    section = report.score_by_length([view("gru", 0, wrong_from=6), view("gru", 1, wrong_from=9)])
    ((header, row),) = tables(section)
    assert header == [
        "model",
        "shortest third (3 to 5 tokens)",
        "middle third (5 to 8 tokens)",
        "longest third (8 to 11 tokens)",
    ]
    order = sorted(range(N), key=lambda i: LENGTHS[i])
    thirds = [order[:100], order[100:200], order[200:]]
    expected = [np.mean([[LENGTHS[i] < limit for i in part] for limit in (6, 9)]) * 100 for part in thirds]
    assert row == ["gru", *(f"{value:.1f}" for value in expected)]


def test_real_text_is_scored_by_bleu_where_nothing_is_exact() -> None:
    ((_, row),) = tables(report.score_by_length([view("gru", wrong_from=0)]))
    assert row == ["gru", "0.0", "0.0", "0.0"]
    (figure,) = figures(report.score_by_length([view("gru", wrong_from=0)]))
    assert figure.axes[0].get_ylabel() == "BLEU"
    (figure,) = figures(report.score_by_length([view("gru")]))
    assert figure.axes[0].get_ylabel() == "exact match [%]"


def test_bins_share_no_length_and_are_never_small() -> None:
    rng = np.random.default_rng(1)
    for n in (5, 100, 250, 1000):
        lengths = rng.integers(2, 40, n)
        found = report.bins(lengths)
        assert np.array_equal(np.sort(np.concatenate(found)), np.arange(n))
        assert all(len(part) >= min(n, report.BIN) for part in found)
        spans = [(lengths[part].min(), lengths[part].max()) for part in found]
        assert all(a[1] < b[0] for a, b in pairwise(spans))


def test_bleu_is_drawn_against_seconds_where_it_is_known() -> None:
    (figure,) = figures(report.bleu_by_budget([view("lstm"), view("gru")]))
    first, second = figure.axes[0].get_lines()
    np.testing.assert_array_equal(first.get_xydata(), [[2.0, 10.0], [3.0, 20.0]])
    assert (first.get_label(), second.get_label()) == ("lstm", "gru")


def test_attention_is_compared_with_none_model_by_model() -> None:
    views = [view("lstm"), view("lstm", attention="none", wrong_from=9), view("gru"), view("lstm", 1)]
    section = report.attention_compared(views)
    scores, differences = tables(section)
    assert scores[0] == ["model", "attention", "all", "shortest third", "middle third", "longest third"]
    share = 100 * np.mean(LENGTHS < 9)
    assert ["lstm", "dot", "100.0", "100.0", "100.0", "100.0"] in scores
    assert ["lstm", "none", f"{share:.1f}", "100.0"] in [row[:4] for row in scores]
    assert len(differences) == 2  # only lstm, seed 0, has a twin
    model, kind, seed, difference, interval, p, words = differences[1]
    assert (model, kind, seed, words) == ("lstm", "dot", "0", "better with")
    low, high = (float(end) for end in interval.split(" to "))
    assert 0 < low < float(difference) < high
    assert float(p) < 0.01


def test_equal_outputs_are_called_undecided() -> None:
    _, differences = tables(report.attention_compared([view(), view(attention="none")]))
    assert differences[1][3:] == ["+0.00", "+0.00 to +0.00", "1.000", "not decided"]


def test_one_kind_of_attention_or_another_pair_is_no_comparison() -> None:
    assert report.attention_compared([view(), view("gru")]) is None
    other = view(attention="none")
    other.record["trial"]["task_options"]["pair"] = "pt-en"
    assert report.attention_compared([view(), other]) is None
