from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench_tasks.cards.char_lm import CharLmOptions
from seqbench_tasks.char_lm import (
    EMBEDDED_SIZES,
    PROMPT,
    UNKNOWN,
    CharLm,
    Vocabulary,
    by_position,
    embedded_text,
    machado_text,
    shakespeare_text,
    stream_batches,
    streams,
    windows,
)
from seqbench_tasks.randomness import fixed
from seqbench_tasks.word_source import embedded_source

TEXT = {"train": "to be or not to be, that is the question\n" * 5, "valid": "to be the bee\n", "test": "that is not it"}


def small(text=TEXT, **options) -> CharLm:
    """The task on a text of a few words."""
    task = CharLm(CharLmOptions(**options))
    task._take(text)
    return task


def flat(batch) -> np.ndarray:
    """Logits of a uniform guess."""
    return np.zeros((*batch.x.shape, 20), np.float32)


def counted(task: CharLm, order: int):
    """A predictor by add-one counts of the training split, made with plain loops."""
    V, train = len(task.vocabulary), task.codes["train"].tolist()
    counts = np.ones((V, V))
    if order == 1:
        counts += np.bincount(train, minlength=V)
    else:
        for a, b in itertools.pairwise(train):
            counts[a, b] += 1
    return lambda batch: np.log(counts)[batch.x]


def best_logits(source, V: int):
    """A predictor that gives each target the probability that nobody can beat, and shares out the rest."""

    def outputs(batch):
        p = np.exp(-source.best_nats(np.concatenate([batch.x, batch.target[:, -1:]], axis=1)))  # (B, T)
        logits = np.repeat(np.log(np.maximum(1 - p, 1e-300) / (V - 1))[..., None], V, axis=-1)
        np.put_along_axis(logits, batch.target[..., None], np.log(p)[..., None], axis=-1)
        return logits

    return outputs


# --- cutting ---


@given(st.integers(2, 300), st.integers(1, 40))
def test_windows_hold_every_target_exactly_once(n, window):
    codes = np.arange(n)
    parts = windows(codes, window)
    assert all(part.shape[1] <= window + 1 for part in parts)
    assert np.concatenate([part[:, :-1].ravel() for part in parts]).tolist() == list(range(n - 1))
    assert np.concatenate([part[:, 1:].ravel() for part in parts]).tolist() == list(range(1, n))


@given(st.integers(2, 300), st.integers(1, 20), st.integers(1, 40))
def test_streams_hold_every_target_exactly_once_in_order(n, count, window):
    pieces = streams(np.arange(n), count)
    chunks = list(stream_batches(pieces, window))
    x, target, weight = (np.concatenate([getattr(c, k) for c in chunks], axis=1) for k in ("x", "target", "weight"))
    rows = [row[w > 0].tolist() for row, w in zip(target, weight, strict=True)]
    assert list(itertools.chain(*rows)) == list(range(1, n))
    assert (x[weight > 0] + 1 == target[weight > 0]).all()
    assert (np.diff(weight, axis=1) <= 0).all()  # padding comes last, where it can disturb nothing
    assert all(chunk.x.shape[1] <= window for chunk in chunks)


@given(st.integers(2, 50), st.integers(1, 9))
def test_valid_batches_pass_once_over_the_split(window, size):
    task = small(window=window)
    targets = [b.target.ravel() for b in task.batches("valid", size, fixed(0))]
    assert np.concatenate(targets).tolist() == task.codes["valid"][1:].tolist()
    assert all(b.x.dtype == b.target.dtype == np.int64 for b in task.batches("valid", size, fixed(0)))


def test_train_windows_are_successive_characters_and_reach_both_ends():
    task = small(window=8)
    train = task.codes["train"]
    starts, batches = set(), task.batches("train", 64, np.random.default_rng(0))
    for batch in itertools.islice(batches, 100):
        assert batch.x.shape == batch.target.shape == (64, 8)
        assert batch.x.dtype == batch.target.dtype == np.int64
        assert (batch.x[:, 1:] == batch.target[:, :-1]).all()
    task.codes["train"] = np.arange(len(train))  # codes that tell their place
    for batch in itertools.islice(task.batches("train", 64, np.random.default_rng(0)), 100):
        assert (np.diff(batch.x, axis=1) == 1).all()
        assert (batch.target == batch.x + 1).all()
        starts |= set(batch.x[:, 0].tolist())
    assert starts == set(range(len(train) - 8))  # the last target is the last character


def test_train_follows_the_generator_alone():
    task = small(window=8)
    first, again, other = (
        list(itertools.islice(task.batches("train", 8, np.random.default_rng(seed)), 3)) for seed in (1, 1, 2)
    )
    assert all((a.x == b.x).all() and (a.target == b.target).all() for a, b in zip(first, again, strict=True))
    assert not (first[0].x == other[0].x).all()


def test_train_batches_do_not_depend_on_what_was_drawn_before():
    one, two = small(window=8), small(window=8)
    next(one.batches("train", 8, np.random.default_rng(5)))
    a, b = (next(task.batches("train", 8, np.random.default_rng(1))) for task in (one, two))
    assert (a.x == b.x).all()


# --- codes ---


@given(st.text(min_size=1))
def test_codes_and_text_are_one_to_one(text):
    vocabulary = Vocabulary(text)
    codes = vocabulary.encode(text)
    assert codes.dtype == np.int64
    assert vocabulary.decode(codes) == text
    assert vocabulary.characters == "".join(sorted(set(text)))
    assert 0 <= codes.min() <= codes.max() < len(vocabulary)


@given(st.text(min_size=1), st.text(), st.text())
def test_unknown_code_only_where_another_split_needs_it(train, valid, test):
    vocabulary = Vocabulary(train, valid, test)
    unknown = set(valid + test) - set(train)
    assert len(vocabulary) == len(set(train)) + bool(unknown)
    shown = vocabulary.decode(vocabulary.encode(valid))
    assert shown == "".join(c if c in train else UNKNOWN for c in valid)


def test_vocabulary_comes_from_training_alone():
    task = small({"train": "abcabc", "valid": "abx", "test": "yab"}, window=2)
    assert task.vocabulary.characters == "abc" + UNKNOWN
    assert task.codes["valid"].tolist() == [0, 1, 3]
    assert task.codes["test"].tolist() == [3, 0, 1]


# --- scoring ---


@pytest.mark.parametrize("window", [2, 3, 5, 13, 14, 50])
def test_a_uniform_guess_costs_the_logarithm_of_its_choices(window, fake):
    scores = small(window=window, carried=True).evaluate(fake(flat), "test")
    assert scores["nats"] == pytest.approx(math.log(20))
    assert scores["bits"] == pytest.approx(math.log2(20))
    assert scores["nats_carried"] == pytest.approx(math.log(20))


@pytest.mark.parametrize("window", [2, 4, 5, 128])
@pytest.mark.parametrize(("name", "order"), [("trivial", 1), ("bigram", 2)])
def test_references_are_what_counting_predictors_score(name, order, window, fake):
    # The costs of the targets differ, so a window left out, counted twice or weighted wrongly would show.
    task = small(window=window, carried=True)
    scores = task.evaluate(fake(counted(task, order)), "test")
    line = next(line for line in task.references() if line.name == name)
    assert scores == pytest.approx(dict(line.metrics), rel=1e-12)


def test_carried_is_scored_only_when_asked(fake):
    predict = fake(flat)
    assert math.isnan(small().evaluate(predict, "test")["nats_carried"])
    assert not predict.streamed
    assert all("nats_carried" not in line.metrics for line in small().references())


def test_carried_is_nan_where_the_model_refuses(fake):
    scores = small(carried=True).evaluate(fake(flat, refuses="it is not causal"), "test")
    assert math.isnan(scores["nats_carried"])
    assert scores["nats"] == pytest.approx(math.log(20))


def test_best_predictor_scores_the_windowed_optimum(fake, no_files):
    task, source = CharLm(CharLmOptions()), embedded_source()
    best = best_logits(source, task.prepare("embedded", no_files).output)
    lines = {line.name: line.metrics["nats"] for line in task.references()}
    assert task.evaluate(fake(best), "test")["nats"] == pytest.approx(lines["optimum-windows"], rel=1e-9)
    assert lines["optimum"] < lines["optimum-windows"] < lines["bigram"] < lines["trivial"]


def test_optimum_windows_nears_the_entropy_rate_as_windows_grow(no_files):
    best = []
    for window in (16, 64, 256, 1024):
        task = CharLm(CharLmOptions(window=window))
        task.prepare("embedded", no_files)
        best.append({line.name: line.metrics["nats"] for line in task.references()})
    values = [lines["optimum-windows"] for lines in best]
    assert values == sorted(values, reverse=True)
    assert values[-1] == pytest.approx(best[-1]["optimum"], rel=0.02)


# --- the embedded text ---


def test_embedded_splits_are_successive_parts_of_one_text():
    text = embedded_text()
    assert {split: len(part) for split, part in text.items()} == EMBEDDED_SIZES
    assert text["train"] + text["valid"] + text["test"] == embedded_source().sample(fixed(1948), 360_000)


# --- generated text ---


def test_diagnose_keeps_text_as_plain_arrays(fake, tmp_path):
    task = small(window=8, sample=30, temperature=0.5)
    arrays = task.diagnose(fake(flat), fixed(0))
    np.savez(tmp_path / "arrays.npz", allow_pickle=False, **arrays)
    with np.load(tmp_path / "arrays.npz", allow_pickle=False) as kept:
        assert str(kept["prompt"]) == TEXT["valid"][:PROMPT]
        assert str(kept["sample"]) == (TEXT["valid"] * 3)[:30]
        assert float(kept["temperature"]) == 0.5


@pytest.mark.parametrize(("options", "reason"), [({"can_step": False}, "step"), ({"refuses": "too long"}, "too long")])
def test_diagnose_says_why_there_is_no_sample(options, reason, fake):
    arrays = small(window=4).diagnose(fake(flat, **options), fixed(0))
    assert "sample" not in arrays
    assert reason in str(arrays["refused"])
    assert {"position-nats", "passage-nats"} <= set(arrays)  # they need no steps


def test_no_sample_was_asked_for(fake):
    arrays = small(sample=0).diagnose(fake(flat), fixed(0))
    assert not {"sample", "refused"} & set(arrays)


# --- what characters cost ---


@pytest.mark.parametrize("window", [2, 3, 5, 13])
def test_a_uniform_guess_costs_the_same_everywhere(window, fake):
    arrays = small(window=window).diagnose(fake(flat), fixed(0))
    assert arrays["position-nats"].shape == (window,)
    assert arrays["position-nats"] == pytest.approx(math.log(20))
    assert arrays["passage-nats"] == pytest.approx(math.log(20))
    assert arrays["passage-probability"] == pytest.approx(1 / 20)


@pytest.mark.parametrize("window", [2, 7, 64])
def test_losses_by_position_average_to_the_score_where_all_windows_are_full(window, fake):
    text = TEXT | {"test": (TEXT["train"] * 3)[: 5 * window + 1]}
    task = small(text, window=window)
    arrays = task.diagnose(fake(counted(task, 2)), fixed(0))
    assert arrays["windows"] == 5
    assert arrays["position-nats"].mean() == pytest.approx(task.evaluate(fake(counted(task, 2)), "test")["nats"])


def test_each_position_has_the_losses_of_its_place_alone(fake):
    """A predictor that is sure and right at one place and knows nothing elsewhere; the last window is not full."""

    def right_at_two(batch):
        logits = np.zeros((*batch.x.shape, 20), np.float32)
        np.put_along_axis(logits[:, 2:3], batch.target[:, 2:3, None], 50.0, axis=-1)
        return logits

    arrays = small(window=4).diagnose(fake(right_at_two), fixed(0))
    assert arrays["position-nats"] == pytest.approx([math.log(20), math.log(20), 0, math.log(20)], abs=1e-6)
    assert arrays["windows"] == (len(TEXT["test"]) - 1) // 4


def test_a_text_shorter_than_a_window_has_no_losses_to_show(fake):
    assert small(window=50, sample=0).diagnose(fake(flat), fixed(0)) == {}


def test_the_best_by_position_is_what_the_best_predictor_pays(fake, no_files):
    task = CharLm(CharLmOptions(window=16, sample=0))
    V = task.prepare("embedded", no_files).output
    arrays = task.diagnose(fake(best_logits(embedded_source(), V)), fixed(0))
    assert arrays["position-nats"] == pytest.approx(arrays["position-best"], rel=1e-6)
    assert arrays["position-best"][0] > 2 * arrays["position-best"][-1]


@pytest.mark.parametrize("window", [2, 3, 5, 8, 9, 500])
def test_the_passage_is_the_text_and_its_losses_are_those_of_the_bigram(window, fake):
    """A predictor by pairs needs one character of the past: every way of cutting gives what plain counting gives."""
    test = (TEXT["train"] + "what a bee!\n") * 5
    task = small(TEXT | {"test": test}, window=window)
    arrays = task.diagnose(fake(counted(task, 2)), fixed(0))
    begin = window - window // 2 + 1
    shown = "".join(arrays["passage"])
    assert shown == "".join(c if c in TEXT["train"] else UNKNOWN for c in test[begin : begin + len(shown)])
    assert len(shown) == min(240, (len(test) - 1 - window) // (window // 2) * (window // 2) + window // 2)
    table = counted(task, 2)(type("B", (), {"x": np.arange(len(task.vocabulary))}))  # (V, V)
    table = table - np.log(np.exp(table).sum(1, keepdims=True))
    before, target = (task.codes["test"][at : at + len(shown)] for at in (begin - 1, begin))
    assert arrays["passage-nats"] == pytest.approx(-table[before, target], rel=1e-5)
    assert "".join(arrays["passage-likeliest"]) == task.vocabulary.decode(table.argmax(1)[before])
    assert arrays["passage-probability"] == pytest.approx(np.exp(table.max(1)[before]), rel=1e-5)


@pytest.mark.parametrize("window", [2, 9, 10])
def test_each_character_of_the_passage_has_half_a_window_before_it(window, fake):
    predict = fake(lambda batch: np.arange(batch.x.shape[1])[None, :, None] * np.eye(20)[batch.target])
    task = small(TEXT | {"test": TEXT["train"]}, window=window, sample=0)
    task._by_position = lambda predict: {}
    arrays = task.diagnose(predict, fixed(0))  # the surer the later in the window
    logit = window - window // 2
    assert arrays["passage-nats"].max() == pytest.approx(math.log1p(19 * math.exp(-logit)), rel=1e-5)


def test_what_is_stored_stays_small(fake, no_files, tmp_path):
    task = CharLm(CharLmOptions(window=128))
    V = task.prepare("embedded", no_files).output
    arrays = task.diagnose(fake(lambda batch: np.zeros((*batch.x.shape, V), np.float32)), fixed(0))
    assert not any(array.dtype.hasobject for array in arrays.values())
    assert sum(array.nbytes for array in arrays.values()) < 10_000


# --- the real datasets ---


class RealFiles:
    """``SEQBENCH_DATA``, or a skip with a reason."""

    def path(self, name: str) -> Path:
        folder = os.environ.get("SEQBENCH_DATA")
        if not folder:
            pytest.skip("SEQBENCH_DATA names no folder of real data sets")
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"SEQBENCH_DATA has no {name}")
        return path


@pytest.mark.data
def test_shakespeare_is_split_by_position():
    text = by_position(shakespeare_text(RealFiles()))
    assert [len(text[split]) for split in ("train", "valid", "test")] == [1_003_854, 55_770, 55_770]
    assert "".join(text.values()) == RealFiles().path("shakespeare/input.txt").read_text(encoding="utf-8")
    assert len(set(text["train"])) == 65


@pytest.mark.data
def test_machado_is_split_by_book_and_counted_in_characters():
    text = machado_text(RealFiles())
    assert [len(text[split]) for split in ("train", "valid", "test")] == [1_579_993, 140_489, 140_490]
    assert len(set("".join(text.values()))) == 123
    assert text["train"].lstrip().casefold().startswith("memórias póstumas")
    assert text["valid"].lstrip().casefold().startswith("memorial de aires")


@pytest.mark.data
@pytest.mark.parametrize(
    ("dataset", "vocabulary", "unigram", "bigram"), [("shakespeare", 65, 3.362, 2.490), ("machado", 123, 3.100, 2.385)]
)
def test_baselines_of_the_real_texts(dataset, vocabulary, unigram, bigram):
    task = CharLm(CharLmOptions())
    files = RealFiles()
    files.content = lambda: (shakespeare_text if dataset == "shakespeare" else machado_text)(files)
    assert task.prepare(dataset, files).output == vocabulary
    lines = {line.name: line.metrics["nats"] for line in task.references()}
    assert lines == {"trivial": pytest.approx(unigram, abs=1e-3), "bigram": pytest.approx(bigram, abs=1e-3)}
