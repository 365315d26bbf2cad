"""The paired bootstrap, against sacrebleu's own and against what must hold."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest

from seqbench_tasks.bootstrap import bleu_of, compare, counts

WORDS = ("the", "a", "small", "old", "cat", "dog", "house", "sees", "finds", "of", "in", "with", "and")


def spoilt(rng: np.random.Generator, sentence: str, share: float) -> str:
    words = [str(rng.choice(WORDS)) if rng.random() < share else word for word in sentence.split()]
    return " ".join(words)


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    rng = np.random.default_rng(0)
    references = [" ".join(rng.choice(WORDS, rng.integers(4, 20))) for _ in range(120)]
    shares = {"good": 0.2, "fair": 0.25, "bad": 0.6}
    return {"references": references} | {
        name: [spoilt(rng, text, share) for text in references] for name, share in shares.items()
    }


def test_counts_added_up_give_the_corpus_score(texts: dict[str, list[str]]) -> None:
    for name in ("good", "bad"):
        found = bleu_of(counts(texts[name], texts["references"]).sum(0))
        assert found == pytest.approx(sacrebleu.corpus_bleu(texts[name], [texts["references"]]).score, abs=1e-9)


def test_the_verdict_is_sacrebleus(texts: dict[str, list[str]]) -> None:
    """The same differences and, within the noise of resampling, the same p."""
    systems = [(name, texts[name]) for name in ("bad", "good", "fair")]
    test = PairedTest(systems, {"BLEU": BLEU()}, [texts["references"]], test_type="bs", n_samples=1000, n_jobs=1)
    _, scores = test()
    baseline, *others = scores["BLEU"]
    bad = counts(texts["bad"], texts["references"])
    for (name, _), theirs in zip(systems[1:], others, strict=True):
        ours = compare(counts(texts[name], texts["references"]), bad)
        assert ours.value == pytest.approx(theirs.score - baseline.score, abs=1e-9)
        assert ours.p == pytest.approx(theirs.p_value, abs=0.02)
        assert ours.low < ours.value < ours.high
        assert ours.decided


def test_a_close_pair_has_sacrebleus_p(texts: dict[str, list[str]]) -> None:
    pair = [("fair", texts["fair"]), ("good", texts["good"])]
    test = PairedTest(pair, {"BLEU": BLEU()}, [texts["references"]], test_type="bs", n_samples=1000, n_jobs=1)
    _, scores = test()
    ours = compare(*(counts(texts[name], texts["references"]) for name in ("good", "fair")))
    assert ours.p == pytest.approx(scores["BLEU"][1].p_value, abs=0.06)


def test_equal_outputs_are_not_told_apart(texts: dict[str, list[str]]) -> None:
    same = counts(texts["good"], texts["references"])
    found = compare(same, same)
    assert (found.value, found.low, found.high, found.p, found.decided) == (0, 0, 0, 1, False)


def test_the_other_way_round_has_the_other_sign(texts: dict[str, list[str]]) -> None:
    good, fair = (counts(texts[name], texts["references"]) for name in ("good", "fair"))
    one, other = compare(good, fair), compare(fair, good)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


def test_the_interval_is_as_wide_as_the_outputs_vary() -> None:
    """Half right against none right on n sentences of one 4-gram each: a closed form, for BLEU is then a count."""
    n, right = 400, 200
    sentence = "a b c d"
    references = [sentence] * n
    half = [sentence] * right + ["w x y z"] * (n - right)
    found = compare(counts(half, references), counts(["w x y z"] * n, references))
    assert found.value == pytest.approx(50, abs=0.1)
    deviation = 100 * (0.25 / n) ** 0.5
    assert found.high - found.low == pytest.approx(2 * 1.96 * deviation, rel=0.1)
