"""Sentiment: is a sentence positive (1) or negative (0)?

Drawn for a batch of two; ``.`` is padding::

    x        the plot is not very good         target   0
             a   joy  .  .   .    .                     1

Sentences have different lengths. The classifier sees the core's summary, or the mean or maximum over the words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from seqbench.api import Batch, DataError, DataFiles, Form, Predictor, Reference, Task, Tokens
from seqbench_tasks import bag_of_words
from seqbench_tasks.cards.sentiment import SENTIMENT_TAKES
from seqbench_tasks.provided import SPLITS, provided_pairs
from seqbench_tasks.ragged import flat, padded, rows_of, shuffled_buckets, sorted_buckets
from seqbench_tasks.randomness import fixed, permutation, unit
from seqbench_tasks.sentiment_grammar import NOISE, Labelled, embedded_opinions
from seqbench_tasks.text_files import read_lines
from seqbench_tasks.word_by_word import examples
from seqbench_tasks.words import UNKNOWN, WordVocabulary, tokenise

if TYPE_CHECKING:
    from seqbench_tasks.cards.sentiment import SentimentOptions

EVALUATION_BATCH = 250
MR_SEED = 2005
FORMAT = b"1"
"""Of what is cached: to be raised when the same content would give other arrays."""
POOLING: dict[str, Literal["summary", "mean", "max"]] = {"last": "summary", "mean": "mean", "max": "max"}


Rows: TypeAlias = list[tuple[int, str]]
"""Class and sentence."""


@dataclass(frozen=True)
class Split:
    """Sentences and their classes, int64 ``(n,)``; 1 is positive."""

    texts: list[str]
    label: np.ndarray


def split_of(rows: Rows) -> Split:
    """Sentences apart from classes."""
    return Split([text for _, text in rows], np.array([label for label, _ in rows], np.int64))


# --- the datasets ---------------------------------------------------------------------------------


def read_labelled(path: Path) -> Rows:
    """Lines of ``LABEL SENTENCE``.

    Raises:
        DataError: the file cannot be read, or a line has no label 0 or 1, or no sentence.
    """
    rows = []
    for number, line in enumerate(read_lines(path), 1):
        label, _, text = line.partition(" ")
        if label not in ("0", "1") or not text.strip(" "):
            raise DataError(f"The file {path}, line {number}: expected '0' or '1', a blank and a sentence.")
        rows.append((int(label), text))
    return rows


def sst2(files: DataFiles) -> dict[str, Rows]:
    """The official splits."""
    names = {"train": "train", "valid": "dev", "test": "test"}
    return {split: read_labelled(files.path(f"sst2/stsa.binary.{name}")) for split, name in names.items()}


def mr(files: DataFiles) -> dict[str, Rows]:
    """Windows-1252; of each class a tenth is valid and a tenth test, drawn with a fixed seed."""
    parts: dict[str, Rows] = {split: [] for split in SPLITS}
    for label, name in ((1, "pos"), (0, "neg")):
        lines = read_lines(files.path(f"mr/rt-polarity.{name}"), "cp1252")
        order, tenth = permutation(fixed(MR_SEED, label), len(lines)), len(lines) // 10
        rows = {"valid": order[:tenth], "test": order[tenth : 2 * tenth], "train": order[2 * tenth :]}
        for split, chosen in rows.items():
            parts[split] += [(label, lines[i].strip()) for i in chosen]
    return parts


def is_labelled(label: object, text: object) -> bool:
    """A class and a sentence."""
    return label in (0, 1) and isinstance(text, str) and bool(text.strip(" "))


# --- scores ---------------------------------------------------------------------------------------


def confusion_of(label: np.ndarray, said: np.ndarray) -> np.ndarray:
    """How often class ``i`` was called ``j``: int64 ``(2, 2)``."""
    return np.bincount(2 * label + said, minlength=4).reshape(2, 2)


def scores_of(confusion: np.ndarray) -> dict[str, float]:
    """``accuracy`` and ``macro_f1`` in per cent; the F1 of a class that nobody has or names is 0."""
    right = np.diag(confusion).astype(float)
    named = confusion.sum(0) + confusion.sum(1)  # (2,)
    f1 = np.divide(2 * right, named, out=np.zeros(2), where=named > 0)
    return {"accuracy": 100 * float(right.sum() / confusion.sum()), "macro_f1": 100 * float(f1.mean())}


def cross_entropy(probability: np.ndarray, label: np.ndarray) -> float:
    """Mean nats of the classes under the probabilities of class 1."""
    return float(-np.log(np.where(label == 1, probability, 1 - probability)).mean())


# --- the task -------------------------------------------------------------------------------------


class Sentiment(Task):
    """Sentiment (see the module)."""

    def __init__(self, options: SentimentOptions) -> None:
        self.options = options
        self._truth: np.ndarray | None = None
        self._notes: list[str] = []

    def prepare(self, dataset: str, files: DataFiles) -> Form:
        """Read or make the sentences, code their words, fit the bag of words."""
        if dataset == "embedded":
            opinions = embedded_opinions()
            self._truth = opinions["test"].truth
            self.splits = {split: _given(part) for split, part in opinions.items()}
        else:
            given: dict[str, Rows] = provided_pairs(files.content(), dataset, SENTIMENT_TAKES, is_labelled)
            self.splits = {split: split_of(rows) for split, rows in given.items()}
        self._encode(files)
        self._baseline = files.derived("sentiment-bag-of-words", self._parts(), self._bag_of_words)
        both, longest = self.options.directions == "both", max(len(row) for rows in self.rows.values() for row in rows)
        return Form(
            Tokens(self.vocabulary),
            output=2,
            head="pooled",
            target="class",
            length=longest,
            causal=not both,
            bidirectional=both,
            pooling=POOLING[self.options.pooling],
        )

    def _parts(self) -> list[bytes]:
        """All that the codes and the baseline depend on."""
        options = f"{self.options.min_count} {self.options.max_words}".encode()
        texts = ["\n".join(self.splits[split].texts).encode() for split in SPLITS]
        return [FORMAT, options, *texts, *(self.splits[split].label.tobytes() for split in SPLITS)]

    def _encode(self, files: DataFiles) -> None:
        arrays = files.derived("sentiment-words", self._parts(), self._coded)
        self.vocabulary = int(arrays["vocabulary"])
        self.rows = {split: rows_of(arrays[f"{split}-tokens"], arrays[f"{split}-ends"]) for split in SPLITS}
        cut = int(arrays["cut"])
        if cut:
            self._notes.append(f"{cut:,} sentences were cut to {self.options.max_words} words")

    def _coded(self) -> dict[str, np.ndarray]:
        """Every sentence as codes of the training split's words; a sentence of no word is one unknown word."""
        words = {split: [tokenise(text) for text in self.splits[split].texts] for split in SPLITS}
        longest = self.options.max_words
        vocabulary = WordVocabulary((sentence[:longest] for sentence in words["train"]), self.options.min_count)
        cut = sum(len(sentence) > longest for sentences in words.values() for sentence in sentences)
        arrays = {"vocabulary": np.array(len(vocabulary)), "cut": np.array(cut)}
        for split, sentences in words.items():
            tokens, ends = flat([vocabulary.encode(sentence[:longest]) or [UNKNOWN] for sentence in sentences])
            arrays |= {f"{split}-tokens": tokens, f"{split}-ends": ends}
        return arrays

    def notes(self) -> list[str]:
        """How many sentences were cut."""
        return self._notes

    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless batches of similar lengths for ``train``; ``valid`` and ``test`` once, the longest first."""
        lengths = np.array([len(row) for row in self.rows[split]])
        if split != "train":
            for chosen in sorted_buckets(lengths, size):
                yield self._batch(split, chosen)
            return
        for chosen in shuffled_buckets(lengths, size, rng):
            yield self._dropped(self._batch(split, chosen), rng)

    def _batch(self, split: str, chosen: np.ndarray) -> Batch:
        x, lengths = padded([self.rows[split][i] for i in chosen])
        return Batch(x, self.splits[split].label[chosen], lengths)

    def _dropped(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """The batch with some words made unknown (word dropout; Iyyer et al. 2015)."""
        if not self.options.word_dropout:
            return batch
        gone = unit(rng, batch.x.shape) < self.options.word_dropout
        return replace(batch, x=np.where(gone, UNKNOWN, batch.x))

    # --- scoring ---

    def evaluate(self, predict: Predictor, split: str) -> dict[str, Any]:
        """The metrics, and ``confusion``: how often class ``i`` was called ``j``."""
        probability, loss = self._predicted(predict, split)
        label = self.splits[split].label
        confusion = confusion_of(label, (probability > 0.5).astype(np.int64))
        if split == "test":
            self._probability = probability
        return scores_of(confusion) | {"loss": loss, "confusion": confusion.tolist()}

    def _predicted(self, predict: Predictor, split: str) -> tuple[np.ndarray, float]:
        """The probability of class 1 of each sentence, ``(n,)``, and the mean loss."""
        lengths = np.array([len(row) for row in self.rows[split]])
        probability, loss = np.empty(len(lengths)), 0.0
        for chosen in sorted_buckets(lengths, EVALUATION_BATCH):
            said = predict(self._batch(split, chosen))
            probability[chosen] = positive(said.outputs)
            loss += said.loss
        return probability, loss / len(lengths)

    # --- what to compare with ---

    def references(self) -> list[Reference]:
        """The commoner class, the words without their order, and what nobody can beat where it is known."""
        test = self.splits["test"].label
        share = float(self.splits["train"].label.mean())
        commoner = np.full(len(test), int(share > 0.5))
        trivial = scores_of(confusion_of(test, commoner))
        lines = [
            Reference(
                "trivial",
                "always the commoner class of the training split",
                trivial | {"loss": cross_entropy(np.full(len(test), share), test)},
            ),
            Reference(
                "bag-of-words",
                "logistic regression on which words a sentence has, its L2 penalty chosen on validation",
                {name: float(value) for name, value in self._baseline.items()},
            ),
        ]
        return lines + self._optimum(test)

    def _optimum(self, test: np.ndarray) -> list[Reference]:
        if self._truth is None:
            return []
        best = scores_of(confusion_of(test, self._truth))
        entropy = -(NOISE * math.log(NOISE) + (1 - NOISE) * math.log(1 - NOISE))
        summary = f"the true class of every sentence; {NOISE:.0%} of the labels are wrong"
        return [Reference("optimum", summary, best | {"loss": entropy})]

    def _bag_of_words(self) -> Mapping[str, np.ndarray]:
        """Scores on the test set of the baseline, its penalty chosen on validation."""
        train, valid, test = (bag_of_words.bags(self.rows[s], self.splits[s].label, self.vocabulary) for s in SPLITS)
        said = bag_of_words.probabilities(bag_of_words.choose(train, valid), test)
        scores = scores_of(confusion_of(test.label, (said > 0.5).astype(np.int64)))
        return {name: np.array(value) for name, value in (scores | {"loss": cross_entropy(said, test.label)}).items()}

    # --- what to show ---

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """What explains a trained model: its answers on the test set, and how it comes to some of them."""
        return self._answers() | self._word_by_word(predict)

    def _answers(self) -> dict[str, np.ndarray]:
        """``lengths``, ``label`` and ``probability`` of class 1 of the test sentences; the worst errors with texts."""
        label = self.splits["test"].label
        wrongness = np.abs(label - self._probability)  # (n,)
        worst = np.argsort(-wrongness, kind="stable")[:8]
        return {
            "lengths": np.array([len(row) for row in self.rows["test"]], np.int32),
            "label": label.astype(np.int8),
            "probability": self._probability.astype(np.float32),
            "errors": worst.astype(np.int32),
            "error-texts": np.array([self.splits["test"].texts[i] for i in worst]),
        }

    def _word_by_word(self, predict: Predictor) -> dict[str, np.ndarray]:
        """The probability of class 1 after each word of some test sentences, one behind the other.

        ``running`` float32, ``running-words`` unicode and ``running-known`` (the vocabulary has the word) bool, each
        ``(words of all,)``; ``running-rows`` which test sentences they are and ``running-ends`` where each ends.
        """
        rows, texts = self.rows["test"], self.splits["test"].texts
        chosen = examples(
            [tokenise(t)[: len(row)] for t, row in zip(texts, rows, strict=True)], self.splits["test"].label
        )
        if not chosen:
            return {}
        prefixes = [rows[i][: n + 1] for i in chosen for n in range(len(rows[i]))]
        x, lengths = padded(prefixes)
        label = np.repeat(self.splits["test"].label[chosen], [len(rows[i]) for i in chosen])
        said = predict(Batch(x, label, lengths))
        codes = np.concatenate([rows[i] for i in chosen])
        return {
            "running": positive(said.outputs).astype(np.float32),
            "running-words": np.array([word for i in chosen for word in tokenise(texts[i])[: len(rows[i])]]),
            "running-known": codes != UNKNOWN,
            "running-rows": np.array(chosen, np.int32),
            "running-ends": np.cumsum([len(rows[i]) for i in chosen], dtype=np.int32),
        }


def positive(logits: np.ndarray) -> np.ndarray:
    """The probability of class 1 of ``logits (B, 2)``: float64 ``(B,)``."""
    logits = logits.astype(np.float64)
    return np.asarray(np.exp(-np.logaddexp(0, logits[:, 0] - logits[:, 1])))


def _given(part: Labelled) -> Split:
    return Split(part.texts, part.label)
