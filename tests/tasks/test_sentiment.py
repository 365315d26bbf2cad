"""The grammar of opinions against a second reading of its sentences, the data sets, the scores, the task."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench import data, registry
from seqbench.api import DataError
from seqbench_tasks import sentiment
from seqbench_tasks.cards.sentiment import MR, SENTIMENT, SST2, SentimentOptions
from seqbench_tasks.randomness import fixed
from seqbench_tasks.sentiment import Sentiment, confusion_of, read_labelled, scores_of
from seqbench_tasks.sentiment_grammar import (
    DEGREES,
    FILLERS,
    FLIPPING_ENDS,
    FLIPPING_OPENINGS,
    NEGATIONS,
    NEGATIVE,
    NOISE,
    OPENINGS,
    POSITIVE,
    SIZES,
    embedded_opinions,
)
from seqbench_tasks.word_by_word import examples


@pytest.fixture(scope="module")
def opinions() -> Any:
    return embedded_opinions()


@pytest.fixture(scope="module")
def task(no_files: Any) -> Sentiment:
    made = Sentiment(SentimentOptions())
    made.prepare("embedded", no_files)
    return made


# --- the grammar --------------------------------------------------------------------------------------


def verdict(text: str) -> int:
    """The class by reading the sentence, word by word and from the outside in: a second way to the same label."""
    sign = 1
    for opening in (*FLIPPING_OPENINGS, *OPENINGS):
        if text.startswith(opening):
            sign = -1 if opening in FLIPPING_OPENINGS else 1
            text = text.removeprefix(opening).strip()
    head, said, who = text.partition(", said ")
    if said:
        sign = -1 if f", said {who}" in FLIPPING_ENDS else 1
        text = head.strip()
    if text.startswith("although "):
        text = text.split(" , ", 1)[1]
    elif ", but " in text:
        text = text.split(", but ", 1)[1]
    total = 0
    for clause in text.split(" and "):
        words = clause
        for filler in FILLERS:
            words = words.replace(filler, "")
        found = [w for w in words.split() if w in POSITIVE + NEGATIVE]
        assert len(found) == 1, clause
        strength = next((DEGREES[w] for w in words.split() if w in DEGREES), 2)
        turned = -1 if set(words.split()) & set(NEGATIONS) else 1
        total += turned * strength * (1 if found[0] in POSITIVE else -1)
    assert total != 0
    return int(sign * total > 0)


def test_every_label_is_what_reading_the_sentence_gives(opinions: Any) -> None:
    for part in opinions.values():
        assert [verdict(text) for text in part.texts] == part.truth.tolist()


def test_no_sentence_twice_and_exactly_the_noise_promised(opinions: Any) -> None:
    texts = [text for part in opinions.values() for text in part.texts]
    assert len(set(texts)) == len(texts) == sum(SIZES.values())
    assert {split: len(part.texts) for split, part in opinions.items()} == SIZES
    for split, part in opinions.items():
        assert (part.label != part.truth).sum() == NOISE * SIZES[split]
        assert 0.48 < part.truth.mean() < 0.52
        lengths = [len(text.split()) for text in part.texts]
        assert min(lengths) >= 4
        assert max(lengths) <= 45


def test_the_embedded_dataset_is_the_same_bytes_for_everyone(opinions: Any) -> None:
    part = opinions["test"]
    found = hashlib.sha256("\n".join(part.texts).encode() + part.label.tobytes()).hexdigest()
    assert found[:16] == "5c17b5179e4bb08a"


# --- scores -------------------------------------------------------------------------------------------


def test_scores_against_counting() -> None:
    label, said = np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 1, 1, 1, 1, 1, 1, 0])
    confusion = confusion_of(label, said)
    assert confusion.tolist() == [[1, 2], [1, 4]]
    f0, f1 = 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3), 2 * (4 / 6) * (4 / 5) / (4 / 6 + 4 / 5)
    assert scores_of(confusion)["accuracy"] == pytest.approx(62.5)
    assert scores_of(confusion)["macro_f1"] == pytest.approx(50 * (f0 + f1))
    assert scores_of(np.array([[3, 0], [0, 0]])) == {"accuracy": 100.0, "macro_f1": 50.0}


def test_references_put_a_score_in_its_place(task: Sentiment) -> None:
    lines = {line.name: line.metrics for line in task.references()}
    assert lines["optimum"]["accuracy"] == 100 * (1 - NOISE)
    assert lines["bag-of-words"]["accuracy"] < lines["optimum"]["accuracy"] - 10
    assert lines["trivial"]["accuracy"] == pytest.approx(50, abs=2)
    assert lines["trivial"]["loss"] == pytest.approx(np.log(2), abs=1e-3)


def test_evaluate_with_a_predictor_that_knows(task: Sentiment, fake: Any) -> None:
    def knows(batch: Any) -> np.ndarray:
        return np.stack([-5.0 * batch.target, 5.0 * batch.target - 2.5], -1).astype(np.float32)

    said = task.evaluate(fake(knows), "test")
    assert said["accuracy"] == said["macro_f1"] == 100
    assert np.trace(said["confusion"]) == SIZES["test"]
    inverse = task.evaluate(fake(lambda b: -knows(b)), "test")
    assert inverse["accuracy"] == 0
    arrays = task.diagnose(fake(knows), fixed(0))
    assert ((arrays["probability"] > 0.5) == (1 - arrays["label"])).all()  # of the last evaluation
    assert [len(text.split()) for text in arrays["error-texts"]] == arrays["lengths"][arrays["errors"]].tolist()


def test_the_loss_is_the_mean_over_sentences(task: Sentiment, fake: Any) -> None:
    even = fake(lambda b: np.zeros((len(b.x), 2), np.float32))
    assert task.evaluate(even, "valid")["loss"] == pytest.approx(np.log(2))


# --- word by word -------------------------------------------------------------------------------------


def by_sum(batch: Any) -> np.ndarray:
    """Logits that follow every word that is read and no padding."""
    inside = np.arange(batch.x.shape[1]) < batch.lengths[:, None]  # (B, T)
    total = (np.cos(batch.x) * inside).sum(1)
    return np.stack([-total, total], -1).astype(np.float32)


def test_a_sentence_is_read_one_more_word_at_a_time(task: Sentiment, fake: Any) -> None:
    predict = fake(by_sum)
    task.evaluate(predict, "test")
    arrays = task.diagnose(predict, fixed(0))
    parts = np.split(arrays["running"], arrays["running-ends"][:-1])
    words = np.split(arrays["running-words"], arrays["running-ends"][:-1])
    assert len(parts) == 3
    for row, part, shown in zip(arrays["running-rows"], parts, words, strict=True):
        assert " ".join(shown) == task.splits["test"].texts[row]
        assert part[-1] == pytest.approx(arrays["probability"][row], abs=1e-6)
        sums = np.cumsum(np.cos(task.rows["test"][row]))
        assert part == pytest.approx(1 / (1 + np.exp(-2 * sums)), abs=1e-6)
    assert arrays["running-known"].all()
    assert len(predict.seen[-1].x) == len(arrays["running"])  # one batch, however long the test set


def test_words_that_training_did_not_show_are_marked(no_files: Any, fake: Any) -> None:
    task = Sentiment(SentimentOptions(min_count=1, max_words=8))
    known, strange = "a b c d e f g but", "a b c d e f nobody but z"
    task.splits = {
        "train": sentiment.Split([known], np.array([1])),
        "valid": sentiment.Split([known], np.array([1])),
        "test": sentiment.Split([known, strange], np.array([1, 0])),
    }
    task._encode(no_files)
    task.evaluate(fake(by_sum), "test")
    arrays = task.diagnose(fake(by_sum), fixed(0))
    assert arrays["running-words"].tolist() == known.split() + strange.split()[:8]  # cut, as the model reads it
    assert np.flatnonzero(~arrays["running-known"]).tolist() == [8 + 6]


def test_examples_follow_length_class_and_words_of_contrast() -> None:
    seven, plain = ["but"] * 7, ["a"] * 8
    negation, contrast, long = [*plain, "never"], [*plain, "but"], ["but"] * 17
    sentences = [seven, plain, long, negation, contrast, contrast, plain]
    label = np.array([1, 1, 1, 1, 1, 0, 0])
    assert examples(sentences, label) == [4, 5, 3]
    assert examples(sentences[:3], label[:3]) == [1]  # no such word, and only one sentence of the length
    assert examples([seven, long], label[:2]) == []


def test_a_test_set_without_such_a_sentence_has_none(no_files: Any, fake: Any) -> None:
    task = Sentiment(SentimentOptions(max_words=4))
    task.prepare("embedded", no_files)
    task.evaluate(fake(by_sum), "test")
    assert "running" not in task.diagnose(fake(by_sum), fixed(0))


# --- the task -----------------------------------------------------------------------------------------


def test_form_follows_the_options(no_files: Any) -> None:
    form = Sentiment(SentimentOptions(pooling="max", directions="both")).prepare("embedded", no_files)
    assert (form.pooling, form.bidirectional, form.causal, form.head) == ("max", True, False, "pooled")
    form = Sentiment(SentimentOptions()).prepare("embedded", no_files)
    assert (form.pooling, form.bidirectional, form.causal) == ("summary", False, True)


def test_batches_are_the_sentences(task: Sentiment) -> None:
    seen = np.concatenate([b.target for b in task.batches("test", 999, fixed(0))])
    assert sorted(seen) == sorted(task.splits["test"].label)
    batch = next(task.batches("train", 16, fixed(4)))
    again = next(task.batches("train", 16, fixed(4)))
    assert (batch.x == again.x).all()
    assert batch.lengths is not None
    assert batch.lengths.max() - batch.lengths.min() <= 3


def test_word_dropout_hides_words_of_training_alone(no_files: Any) -> None:
    task = Sentiment(SentimentOptions(word_dropout=0.5))
    task.prepare("embedded", no_files)
    batch = next(task.batches("train", 64, fixed(0)))
    assert batch.lengths is not None
    inside = np.arange(batch.x.shape[1]) < batch.lengths[:, None]
    assert 0.4 < (batch.x[inside] == 0).mean() < 0.6
    valid = next(task.batches("valid", 64, fixed(0)))
    assert (valid.x[:, 0] != 0).all()


def test_long_sentences_are_cut_and_counted(no_files: Any) -> None:
    task = Sentiment(SentimentOptions(max_words=8))
    assert task.prepare("embedded", no_files).length == 8
    (note,) = task.notes()
    assert note.endswith("sentences were cut to 8 words")


def test_words_are_coded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(data.CACHE, str(tmp_path))
    first = Sentiment(SentimentOptions())
    first.prepare("embedded", data.Files({}))
    monkeypatch.setattr(Sentiment, "_coded", None)  # a second coding would fail
    monkeypatch.setattr(Sentiment, "_bag_of_words", None)
    second = Sentiment(SentimentOptions())
    second.prepare("embedded", data.Files({}))
    assert second.references() == first.references()
    assert all((a == b).all() for a, b in zip(first.rows["test"], second.rows["test"], strict=True))
    with pytest.raises(TypeError):
        Sentiment(SentimentOptions(min_count=3)).prepare("embedded", data.Files({}))


# --- files --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ["2 a film", "good film", "1 ", "1", ""])
def test_a_line_without_label_or_sentence(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a"
    path.write_text(f"1 fine\n{line}\n0 bad\n")
    with pytest.raises(DataError, match="line 2: expected '0' or '1', a blank and a sentence"):
        read_labelled(path)


def test_a_no_break_space_is_part_of_a_word(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1 a\u00a0b c\n", encoding="utf-8")
    assert sentiment.tokenise(read_labelled(path)[0][1]) == ["a\u00a0b", "c"]


def test_a_sentence_of_ten_thousand_words_is_cut(tmp_path: Path, no_files: Any) -> None:
    path = tmp_path / "a"
    path.write_text("1 fine film\n0 " + "bad " * 10_000 + "\n")
    task = Sentiment(SentimentOptions(min_count=1))
    task.splits = dict.fromkeys(("train", "valid", "test"), sentiment.split_of(read_labelled(path)))
    task._encode(no_files)
    assert [len(row) for row in task.rows["test"]] == [2, 256]
    assert task.notes() == ["3 sentences were cut to 256 words"]


@pytest.mark.data
def test_sst2_is_what_the_trees_say(real_data: Path) -> None:
    """The binary files hold the sentences and labels of the trees, the neutral ones left out."""
    splits = sentiment.sst2(data.locate(SST2))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 6920, "valid": 872, "test": 1821}
    names = {"train": "train", "valid": "dev", "test": "test"}
    for split, name in names.items():
        trees = (real_data / "sst2" / "trees" / f"{name}.txt").read_text(encoding="utf-8").split("\n")
        from_trees = [_sentence(tree) for tree in trees if tree and tree[1] != "2"]
        assert sorted(from_trees) == sorted((label, text.lower()) for label, text in splits[split])


def _sentence(tree: str) -> tuple[int, str]:
    words = [part.rstrip(")") for part in tree.split(" ") if not part.startswith("(")]
    return int(tree[1] > "2"), " ".join(words).lower()


@pytest.mark.data
def test_mr_is_split_once_and_for_all(real_data: Path) -> None:
    splits = sentiment.mr(data.locate(MR))
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 8530, "valid": 1066, "test": 1066}
    assert all(2 * sum(label for label, _ in rows) == len(rows) for rows in splits.values())
    everything = [text for rows in splits.values() for _, text in rows]
    assert any("\u2026" in text for text in everything)  # byte 0x85 of Windows-1252
    assert "\x85" not in "".join(everything)


def test_the_card_leads_here() -> None:
    assert registry.resolve(SENTIMENT.factory) is Sentiment
