"""The synchronous grammar against a translator written the other way round, the corpora, the task, the scores."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench import data
from seqbench.api import Batch, Decoded, Prediction, UsageError
from seqbench_tasks import translation, translation_scores
from seqbench_tasks.cards.translation import MULTI30K, TATOEBA, TranslationOptions
from seqbench_tasks.randomness import fixed
from seqbench_tasks.subwords import BEGIN, END
from seqbench_tasks.translation import Coded, Translation, cut, fitting
from seqbench_tasks.translation_grammar import ADJECTIVES, LONGEST, NOUNS, SIZES, VERBS, embedded_pairs

# --- the grammar --------------------------------------------------------------------------------------


PREPOSITIONS = {"of": "de", "in": "em", "by": "por", "with": "com", "for": "para"}
PRONOUNS = {"him": "o", "her": "a", "them": "os"}


class Reader:
    """A recursive-descent parser of the English sentence that writes Portuguese as it goes."""

    def __init__(self, text: str) -> None:
        self.words, self.at = text.split(), 0
        self.nouns = {word: (n, number) for n in NOUNS for number, word in enumerate(n.english)}
        self.verbs = {word: v.portuguese[number] for v in VERBS for number, word in enumerate(v.english)}

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        self.at += 1
        return self.words[self.at - 1]

    def sentence(self) -> str:
        parts = [self.clause()]
        while self.peek() == "and":
            self.take()
            parts.append(self.clause())
        assert self.peek() == ""
        return " e ".join(parts)

    def clause(self) -> str:
        subject, verb = self.phrase(), self.verbs[self.take()]
        rest = f"{PRONOUNS[self.take()]} {verb}" if self.peek() in PRONOUNS else f"{verb} {self.phrase()}"
        place = f" {self.place()}" if self.peek() in PREPOSITIONS else ""
        return self.join(f"{subject} {rest}{place}")

    def place(self) -> str:
        return f"{PREPOSITIONS[self.take()]}+{self.phrase()}"

    def noun(self) -> tuple[str, int, int]:
        """Noun with its adjective, gender, number."""
        adjective = self.take() if self.peek() in ADJECTIVES else ""
        noun, number = self.nouns[self.take()]
        said = noun.portuguese[number]
        return (f"{said} {ADJECTIVES[adjective][noun.gender][number]}" if adjective else said), noun.gender, number

    def phrase(self) -> str:
        determiner = self.take()
        said, gender, number = self.noun()
        definite = ("o os a as", "um uns uma umas")[determiner != "the"].split()
        whole = f"{definite[2 * gender + number]} {said}"
        if self.peek() == "'s":
            self.take()
            owned, gender, number = self.noun()
            return f"{['o', 'os', 'a', 'as'][2 * gender + number]} {owned} de+{whole}"
        if self.peek() in PREPOSITIONS:
            return f"{whole} {self.place()}"
        if self.peek() == "that":
            self.take()
            return f"{whole} que {self.verbs[self.take()]} {self.phrase()}"
        return whole

    @staticmethod
    def join(text: str) -> str:
        """Contract by rewriting the text: ``de+o`` to ``do``; what does not contract gets its blank."""
        for short, full in (("d", "de"), ("n", "em"), ("pel", "por")):
            for article in ("os", "as", "o", "a"):
                text = text.replace(f"{full}+{article} ", f"{short}{article} ")
        return text.replace("+", " ")


@pytest.fixture(scope="module")
def pairs() -> dict[str, list[tuple[str, str]]]:
    return embedded_pairs()


def test_every_translation_is_what_the_other_translator_writes(pairs: dict[str, list[tuple[str, str]]]) -> None:
    for split in pairs.values():
        for english, portuguese in split:
            assert Reader(english).sentence() == portuguese


def test_no_source_is_seen_twice(pairs: dict[str, list[tuple[str, str]]]) -> None:
    sources = [english for split in pairs.values() for english, _ in split]
    assert len(set(sources)) == len(sources) == sum(SIZES.values())
    assert {split: len(part) for split, part in pairs.items()} == SIZES
    assert max(len(s.split()) for s in sources) <= LONGEST


def test_every_word_of_valid_and_test_is_in_train(pairs: dict[str, list[tuple[str, str]]]) -> None:
    for side in (0, 1):
        words = {split: {w for pair in part for w in pair[side].split()} for split, part in pairs.items()}
        assert words["valid"] | words["test"] <= words["train"]


def test_the_embedded_dataset_is_the_same_bytes_for_everyone(pairs: dict[str, list[tuple[str, str]]]) -> None:
    text = "\n".join(f"{e}\t{p}" for split in ("train", "valid", "test") for e, p in pairs[split])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "243de86a8e9590ba"


# --- a stand-in for a network -------------------------------------------------------------------------


class Oracle:
    """A predictor that puts out what ``answer`` says of a source, as tokens without the end."""

    can_step = True

    def __init__(self, V: int, answer: Callable[[np.ndarray], np.ndarray]) -> None:
        self.V, self.answer, self.asked = V, answer, []

    def __call__(self, batch: Batch) -> Prediction:
        logits = np.full((*batch.target.shape, self.V), -20.0, np.float32)
        np.put_along_axis(logits, batch.target[..., None], 20.0, -1)
        assert batch.target_lengths is not None
        return Prediction(logits, 0.5 * float(batch.target_lengths.sum()), float(batch.target_lengths.sum()))

    def decode(self, batch: Batch, limit: int, beam: int = 1, length_penalty: float = 1.0) -> Decoded:
        self.asked.append((len(batch.x), limit, beam, length_penalty))
        assert batch.lengths is not None
        rows = [self.answer(row[:n])[: limit - 1] for row, n in zip(batch.x, batch.lengths, strict=True)]
        return Decoded(rows, np.zeros(len(rows)), np.ones(len(rows), bool))

    def align(self, batch: Batch) -> np.ndarray | None:
        assert batch.y_in is not None
        return np.full((len(batch.x), batch.y_in.shape[1], batch.x.shape[1]), 0.25, np.float32)


@pytest.fixture(scope="module")
def task(no_files: Any) -> Translation:
    made = Translation(TranslationOptions())
    made.prepare("embedded", no_files)
    return made


def knowing(task: Translation) -> Oracle:
    known = {}
    for split in ("valid", "test"):
        coded = task.data[split]
        known |= {s.tobytes(): t[:-1] for s, t in zip(coded.sources, coded.targets, strict=True)}
    return Oracle(len(task.codecs[1]), lambda row: known[row.tobytes()])


# --- the task -----------------------------------------------------------------------------------------


def test_a_predictor_that_knows_reaches_the_optimum(task: Translation) -> None:
    oracle = knowing(task)
    said = task.evaluate(oracle, "test")
    optimum = next(line for line in task.references() if line.name == "optimum").metrics
    assert {name: said[name] for name in optimum if name != "loss"} == pytest.approx(
        {name: value for name, value in optimum.items() if name != "loss"}
    )
    assert said["loss"] == pytest.approx(0.5)
    assert said["unfinished"] == 0
    assert {beam for _, _, beam, _ in oracle.asked} == {1, 4}
    assert said["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    oracle.asked.clear()
    valid = task.evaluate(oracle, "valid")
    assert valid["bleu_greedy"] == pytest.approx(100)
    assert math.isnan(valid["bleu"])
    assert sum(n for n, _, _, _ in oracle.asked) == translation.VALID_DECODED


def test_one_wrong_output_costs_what_sacrebleu_says(task: Translation) -> None:
    right = knowing(task)
    wrong = task.data["test"].sources[7].tobytes()
    oracle = Oracle(right.V, lambda row: np.array([5, 6]) if row.tobytes() == wrong else right.answer(row))
    said = task.evaluate(oracle, "test")
    texts = [target for _, target in task.corpus["test"]]
    outputs = [task.codecs[1].decode([5, 6]) if i == 7 else text for i, text in enumerate(texts)]
    assert said["exact"] == pytest.approx(100 * (1 - 1 / len(texts)))
    assert said["bleu"] == pytest.approx(sacrebleu.corpus_bleu(outputs, [texts]).score)
    assert said["chrf"] == pytest.approx(sacrebleu.corpus_chrf(outputs, [texts]).score)
    arrays = task.diagnose(oracle, fixed(0))
    assert bytes(arrays["hypotheses"]).decode().split("\n") == outputs
    assert bytes(arrays["references"]).decode().split("\n") == texts
    assert (arrays["lengths"] == [len(s.split()) + 1 for s, _ in task.corpus["test"]]).all()


def test_alignments_carry_their_words(task: Translation) -> None:
    task.evaluate(knowing(task), "test")
    arrays = task.diagnose(knowing(task), fixed(0))
    drawn = task.drawn()
    assert len(drawn) == translation.DRAWN
    for number, row in enumerate(drawn):
        english, portuguese = task.corpus["test"][row]
        assert arrays[f"alignment-source-{number}"].tolist() == [*english.split(), "</s>"]
        assert arrays[f"alignment-target-{number}"].tolist() == [*portuguese.split(), "</s>"]
        shape = (len(portuguese.split()) + 1, len(english.split()) + 1)
        assert arrays[f"alignment-{number}"].shape == shape


def test_no_alignments_where_the_model_does_not_attend(task: Translation) -> None:
    task.evaluate(knowing(task), "test")
    oracle = knowing(task)
    oracle.align = lambda batch: None  # type: ignore[method-assign]
    assert not [name for name in task.diagnose(oracle, fixed(0)) if name.startswith("alignment")]


def test_what_the_decoder_reads_is_the_target_one_step_late(task: Translation) -> None:
    batch = next(task.batches("train", 32, fixed(0)))
    assert batch.y_in is not None
    assert batch.target_lengths is not None
    assert batch.lengths is not None
    for row, n in enumerate(batch.target_lengths):
        assert batch.y_in[row, 0] == BEGIN
        assert (batch.y_in[row, 1:n] == batch.target[row, : n - 1]).all()
        assert batch.target[row, n - 1] == END
        assert batch.x[row, batch.lengths[row] - 1] == END
    again = next(task.batches("train", 32, fixed(0)))
    assert (again.x == batch.x).all()


def test_form_follows_the_options(no_files: Any) -> None:
    made = Translation(TranslationOptions(attention="dot", directions="one", pair="pt-en"))
    form = made.prepare("embedded", no_files)
    assert form.decoder is not None
    assert (form.causal, form.bidirectional, form.decoder.attention) == (True, False, "dot")
    assert made.corpus["test"][0] == tuple(reversed(embedded_pairs()["test"][0]))
    assert form.decoder.length == max(len(t) for part in made.data.values() for t in part.targets)


def test_a_pair_that_the_dataset_lacks(no_files: Any) -> None:
    with pytest.raises(UsageError, match="dataset embedded has no pair en-de; it has en-pt, pt-en"):
        Translation(TranslationOptions(pair="en-de")).prepare("embedded", no_files)


def test_references_are_sacrebleus(task: Translation) -> None:
    lines = {line.name: line.metrics for line in task.references()}
    sources, targets = zip(*task.corpus["test"], strict=True)
    assert lines["copy"]["bleu"] == pytest.approx(sacrebleu.corpus_bleu(list(sources), [list(targets)]).score)
    assert lines["trivial"]["exact"] <= 100 / len(targets)
    assert 2 < lines["trivial"]["loss"] < math.log(len(task.codecs[1]))
    assert math.isnan(translation_scores.bleu([], []))


# --- what is left out and what is cut -----------------------------------------------------------------

sides = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=30)


@settings(max_examples=50)
@given(sides, st.integers(2, 10))
def test_training_leaves_out_and_scoring_cuts(lengths: list[tuple[int, int]], longest: int) -> None:
    sources, targets = ([np.arange(3, 3 + pair[side]) for pair in lengths] for side in (0, 1))
    kept, dropped = fitting(sources, targets, longest)
    assert len(kept.sources) == sum(0 < s < longest and 0 < t < longest for s, t in lengths)
    assert dropped == len(lengths) - len(kept.sources)
    assert all(n <= longest for pair in kept.lengths for n in pair)
    scored, shortened = cut(sources, targets, longest)
    assert [len(s) for s in scored.sources] == [min(s + 1, longest) for s, _ in lengths]
    assert all(row[-1] == END for row in [*scored.sources, *scored.targets])
    assert shortened == sum(max(pair) >= longest for pair in lengths)


class Small:
    """The ``api.DataFiles`` of a corpus in a folder, with the harness's cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        return self.folder / Path(name).name.removesuffix(".gz")

    derived = staticmethod(lambda name, parts, make: data.Files({}).derived(name, parts, make))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    """A little corpus in place of multi30k, and a cache of its own."""
    monkeypatch.setenv(data.CACHE, str(tmp_path / "cache"))
    for split in ("train", "val", "test_2016_flickr"):
        lines = [f"Ein {w} und {v}." for w in ("Hund", "Mann", "Ball", "Baum") for v in ("Kind", "Rad", "Haus")] * 4
        (tmp_path / f"{split}.de").write_text("\n".join(lines) + "\n")
        (tmp_path / f"{split}.en").write_text("\n".join(line.replace("Ein", "A") for line in lines) + "\n")
    return Small(tmp_path)


def test_subwords_are_learned_and_coded_once(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    first = Translation(TranslationOptions(vocabulary=64))
    first.prepare("multi30k", small)
    monkeypatch.setattr(translation, "make_subwords", None)  # a second time would fail
    second = Translation(TranslationOptions(vocabulary=64))
    second.prepare("multi30k", small)
    assert all((a == b).all() for a, b in zip(first.data["test"].targets, second.data["test"].targets, strict=True))
    with pytest.raises(TypeError):
        Translation(TranslationOptions(vocabulary=65)).prepare("multi30k", small)
    with (small.folder / "val.en").open("a") as file:
        file.write("One more.\n")
    with (small.folder / "val.de").open("a") as file:
        file.write("Noch eins.\n")
    with pytest.raises(TypeError):
        Translation(TranslationOptions(vocabulary=64)).prepare("multi30k", small)


def test_a_line_of_ten_thousand_words_and_an_empty_one_are_counted(small: Small) -> None:
    for split in ("train", "test_2016_flickr"):
        for code in ("de", "en"):
            with (small.folder / f"{split}.{code}").open("a") as file:
                file.write("Rad " * 10_000 + "\n" + ("\n" if split == "train" else ""))
    made = Translation(TranslationOptions(vocabulary=64))
    made.prepare("multi30k", small)
    assert made.notes() == [
        "2 of 50 training pairs are empty or longer than 60 tokens: left out",
        "0 validation and 1 test pairs were cut to 60 tokens",
    ]
    assert len(made.data["test"].sources) == 49


def test_a_damaged_corpus_leaves_nothing_in_the_cache(small: Small) -> None:
    (small.folder / "test_2016_flickr.de").write_bytes(b"\xff\n")
    with pytest.raises(data.DataError, match="is not utf-8"):
        Translation(TranslationOptions(vocabulary=64)).prepare("multi30k", small)
    assert not (small.folder / "cache").exists()


def test_nothing_short_enough_to_train_on(small: Small) -> None:
    (small.folder / "train.de").write_text("Rad " * 99)
    (small.folder / "train.en").write_text("bike " * 99)
    with pytest.raises(UsageError, match="no training pair is shorter than max_length=60"):
        Translation(TranslationOptions(vocabulary=64)).prepare("multi30k", small)


def test_batches_side_by_side() -> None:
    coded = Coded([np.array([5, END]), np.array([6, 7, END])], [np.array([8, 9, END]), np.array([END])])
    batch = coded.batch(np.array([0, 1]))
    assert batch.x.tolist() == [[5, END, 0], [6, 7, END]]
    assert batch.y_in is not None
    assert batch.y_in.tolist() == [[BEGIN, 8, 9], [BEGIN, END, 0]]
    assert coded.lengths.tolist() == [[2, 3], [3, 1]]


# --- the real corpora ---------------------------------------------------------------------------------


@pytest.mark.data
def test_multi30k_has_its_official_sizes(real_data: Path) -> None:
    corpus = translation.multi30k(data.locate(MULTI30K), "de", "en")
    assert {split: len(part) for split, part in corpus.items()} == {"train": 29_000, "valid": 1014, "test": 1000}
    assert corpus["train"][0] == (
        "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
        "Two young, White males are outside near many bushes.",
    )


@pytest.mark.data
def test_tatoeba_shares_no_sentence_between_splits(real_data: Path) -> None:
    corpus = translation.tatoeba(data.locate(TATOEBA), "en", "pt")
    assert {split: len(part) for split, part in corpus.items()} == {"train": 10_000, "valid": 1574, "test": 3222}
    for side in (0, 1):
        train, held = ({pair[side] for split in names for pair in corpus[split]} for names in (["train"], ["test"]))
        assert not train & held
