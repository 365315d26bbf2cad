"""Translation: read a sentence, write it in another language.

Drawn for a source of 4 tokens and a target of 3; ``E`` is the end, ``B`` the begin::

    x        w1 w2 w3 w4 E         what the encoder reads
    y_in     B  v1 v2 v3           what the decoder reads in training
    target   v1 v2 v3 E            what it is to put out

Training reads the true tokens (teacher forcing); scoring lets the decoder read its own, greedily and by beam search.
The loss is the mean cross-entropy per target token, the end included.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from seqbench.api import (
    Batch,
    DataFiles,
    DecoderForm,
    Form,
    Predictor,
    Reference,
    Task,
    Tokens,
    UsageError,
)
from seqbench_tasks import translation_scores as scores
from seqbench_tasks.cards.translation import TRANSLATION_TAKES
from seqbench_tasks.parallel_text import Pairs, read_pairs, without
from seqbench_tasks.provided import SPLITS, provided_pairs
from seqbench_tasks.ragged import flat, padded, rows_of, shuffled_buckets, sorted_buckets
from seqbench_tasks.randomness import fixed, permutation
from seqbench_tasks.subwords import BEGIN, END, Codec, Subwords, Words, learn, version
from seqbench_tasks.translation_grammar import embedded_pairs

if TYPE_CHECKING:
    from seqbench_tasks.cards.translation import TranslationOptions

PAIRS = {
    "embedded": ("en-pt", "pt-en"),
    "multi30k": ("de-en", "en-de", "en-fr", "fr-en"),
    "tatoeba": ("en-pt", "pt-en"),
}
"""The pairs of each of our own datasets, its default first; one that a plugin brings has the pair that it gives."""
EVALUATION_BATCH = 100
VALID_DECODED = 100
"""Sentences of the validation set that are decoded at each validation."""
DRAWN, DRAWN_LENGTH = 4, 16
"""Test sentences whose alignments are kept, and the longest of them, in tokens."""
FORMAT = b"2"
"""Of what is cached: to be raised when the same content would give other arrays."""

Corpus = dict[str, Pairs]
"""``train``, ``valid`` and ``test``."""


# --- the corpora ----------------------------------------------------------------------------------


def multi30k(files: DataFiles, source: str, target: str) -> Corpus:
    """The official splits of task 1; the test set is that of 2016, Flickr."""
    names = {"train": "train", "valid": "val", "test": "test_2016_flickr"}
    return {
        split: read_pairs(files.path(f"multi30k/{name}.{source}.gz"), files.path(f"multi30k/{name}.{target}.gz"))
        for split, name in names.items()
    }


def tatoeba(files: DataFiles, source: str, target: str) -> Corpus:
    """Three releases of a test set: the first trains, what the later ones add is valid and test."""
    code = {"en": "eng", "pt": "por"}
    first, second, third = (
        read_pairs(
            files.path(f"tatoeba_en_pt/tatoeba-test-{release}.{code[source]}"),
            files.path(f"tatoeba_en_pt/tatoeba-test-{release}.{code[target]}"),
        )
        for release in ("v2020-07-28", "v2021-03-30", "v2021-08-07")
    )
    return {"train": first, "valid": without(second, first), "test": without(third, first)}


def embedded(source: str, target: str) -> Corpus:  # noqa: ARG001 - of two languages the source says which way
    """The pairs of the grammar, either way round."""
    corpus = embedded_pairs()
    return corpus if source == "en" else {split: [(p, e) for e, p in pairs] for split, pairs in corpus.items()}


def are_sentences(source: object, target: object) -> bool:
    """Two texts."""
    return isinstance(source, str) and isinstance(target, str)


# --- text and tokens ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Coded:
    """A split as tokens, each sentence with its end, int64."""

    sources: list[np.ndarray]
    targets: list[np.ndarray]

    def take(self, rows: Sequence[int] | np.ndarray) -> Coded:
        """Some of the sentences."""
        return Coded([self.sources[i] for i in rows], [self.targets[i] for i in rows])

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of source and target, ``(n, 2)``."""
        return np.array([(len(s), len(t)) for s, t in zip(self.sources, self.targets, strict=True)]).reshape(-1, 2)

    def batch(self, rows: np.ndarray) -> Batch:
        """Sentences side by side."""
        x, lengths = padded([self.sources[i] for i in rows])
        target, target_lengths = padded([self.targets[i] for i in rows])
        begin = np.full((len(rows), 1), BEGIN, np.int64)
        y_in = np.concatenate([begin, target[:, :-1]], axis=1)  # (B, U)
        return Batch(x, target, lengths, y_in=y_in, target_lengths=target_lengths)


def encode_all(corpus: Corpus, codecs: tuple[Codec, Codec]) -> dict[str, np.ndarray]:
    """Every split and side as flat arrays, for the cache."""
    arrays: dict[str, np.ndarray] = {}
    for split, pairs in corpus.items():
        for side, codec in enumerate(codecs):
            tokens, ends = flat(codec.encode([pair[side] for pair in pairs]))
            arrays |= {f"{split}-{side}-tokens": tokens, f"{split}-{side}-ends": ends}
    return arrays


def decode_all(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[list[np.ndarray], list[np.ndarray]]]:
    """The rows of ``encode_all``."""

    def rows(split: str, side: int) -> list[np.ndarray]:
        return rows_of(arrays[f"{split}-{side}-tokens"], arrays[f"{split}-{side}-ends"])

    return {split: (rows(split, 0), rows(split, 1)) for split in SPLITS}


def make_subwords(corpus: Corpus, size: int) -> dict[str, np.ndarray]:
    """Subword models of both languages, from the training split alone, and every split in their pieces."""
    models = [learn([pair[side] for pair in corpus["train"]], size) for side in (0, 1)]
    arrays = encode_all(corpus, (Subwords(models[0]), Subwords(models[1])))
    return arrays | {f"model-{side}": np.frombuffer(model, np.uint8) for side, model in enumerate(models)}


def content(corpus: Corpus) -> list[bytes]:
    """All text of a corpus, for the name of what is cached."""
    return ["\n".join(pair[side] for pair in corpus[split]).encode() for split in SPLITS for side in (0, 1)]


def fitting(sources: list[np.ndarray], targets: list[np.ndarray], longest: int) -> tuple[Coded, int]:
    """For training: the pairs with text on both sides, up to ``longest`` tokens each; how many others there are."""
    pairs = [
        (np.append(s, END), np.append(t, END))
        for s, t in zip(sources, targets, strict=True)
        if 0 < len(s) < longest and 0 < len(t) < longest
    ]
    return Coded([s for s, _ in pairs], [t for _, t in pairs]), len(sources) - len(pairs)


def cut(sources: list[np.ndarray], targets: list[np.ndarray], longest: int) -> tuple[Coded, int]:
    """For scoring: every pair, cut to ``longest`` tokens on either side; how many were."""
    coded = Coded(*([np.append(row[: longest - 1], END) for row in side] for side in (sources, targets)))
    return coded, sum(max(len(s), len(t)) >= longest for s, t in zip(sources, targets, strict=True))


# --- the task -------------------------------------------------------------------------------------


class Translation(Task):
    """Translation (see the module)."""

    def __init__(self, options: TranslationOptions) -> None:
        self.options = options
        self._notes: list[str] = []
        self._hypotheses: list[str] = []

    def prepare(self, dataset: str, files: DataFiles) -> Form:
        """Read or make the corpus, and code it."""
        self.dataset = dataset
        self.corpus = self._corpus(dataset, files)
        self._encode(files)
        self._references = files.derived("translation-references", [FORMAT, *content(self.corpus)], self._baselines)
        return self._form()

    def _corpus(self, dataset: str, files: DataFiles) -> Corpus:
        if dataset not in PAIRS:
            if self.options.pair != "auto":
                raise UsageError(f"translation: dataset {dataset} has one pair, its own; leave out pair.")
            return provided_pairs(files.content(), dataset, TRANSLATION_TAKES, are_sentences)
        source, target = self._pair(dataset).split("-")
        if dataset == "embedded":
            return embedded(source, target)
        return (multi30k if dataset == "multi30k" else tatoeba)(files, source, target)

    def _pair(self, dataset: str) -> str:
        """The language pair of one of our own datasets.

        Raises:
            UsageError: the dataset has no such pair.
        """
        pair, known = self.options.pair, PAIRS[dataset]
        if pair == "auto":
            return known[0]
        if pair not in known:
            raise UsageError(f"translation: dataset {dataset} has no pair {pair}; it has {', '.join(known)}.")
        return pair

    def _encode(self, files: DataFiles) -> None:
        """Text to tokens, by words on the embedded dataset, else by subwords; both kept in the cache."""
        parts = [FORMAT, *content(self.corpus)]
        self.codecs: tuple[Codec, Codec]
        if self.dataset == "embedded":
            words = [
                {word for split in SPLITS for pair in self.corpus[split] for word in pair[s].split()} for s in (0, 1)
            ]
            self.codecs = (Words(words[0]), Words(words[1]))
            arrays = files.derived("translation-words", parts, lambda: encode_all(self.corpus, self.codecs))
        else:
            size = self.options.vocabulary
            parts += [str(size).encode(), version().encode()]
            arrays = files.derived("translation-subwords", parts, lambda: make_subwords(self.corpus, size))
            self.codecs = (Subwords(arrays["model-0"].tobytes()), Subwords(arrays["model-1"].tobytes()))
        self._keep(decode_all(arrays))

    def _keep(self, rows: Mapping[str, tuple[list[np.ndarray], list[np.ndarray]]]) -> None:
        longest = self.options.max_length
        train, dropped = fitting(*rows["train"], longest)
        if not train.sources:
            raise UsageError(f"translation: no training pair is shorter than max_length={longest} tokens; raise it.")
        valid, valid_cut = cut(*rows["valid"], longest)
        test, test_cut = cut(*rows["test"], longest)
        self.data = {"train": train, "valid": valid, "test": test}
        subset = permutation(fixed(20), len(valid.sources))[:VALID_DECODED]
        self._decoded_valid = np.sort(subset)
        if dropped:
            all_ = len(rows["train"][0])
            self._notes.append(
                f"{dropped:,} of {all_:,} training pairs are empty or longer than {longest} tokens: left out"
            )
        if valid_cut or test_cut:
            self._notes.append(f"{valid_cut} validation and {test_cut} test pairs were cut to {longest} tokens")

    def _form(self) -> Form:
        lengths = np.concatenate([coded.lengths for coded in self.data.values()])
        both = self.options.directions == "both"
        attention: Any = self.options.attention
        return Form(
            Tokens(len(self.codecs[0])),
            output=len(self.codecs[1]),
            head="decoder",
            target="class",
            length=int(lengths[:, 0].max()),
            causal=not both,
            bidirectional=both,
            decoder=DecoderForm(int(lengths[:, 1].max()), BEGIN, END, attention),
        )

    def notes(self) -> list[str]:
        """How many pairs were left out or cut."""
        return self._notes

    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless batches of similar lengths for ``train``; ``valid`` and ``test`` once, the longest first."""
        data = self.data[split]
        buckets = shuffled_buckets(data.lengths, size, rng) if split == "train" else _by_length(data, size)
        for rows in buckets:
            yield data.batch(rows)

    # --- scoring ---

    def evaluate(self, predict: Predictor, split: str) -> dict[str, Any]:
        """All metrics on ``test``; on ``valid`` the loss, the token accuracy and BLEU of some sentences, greedily."""
        loss, accuracy = self._teacher_forced(predict, split)
        said: dict[str, Any] = {"loss": loss, "token_accuracy": accuracy}
        if split == "valid":
            rows = self._decoded_valid
            texts = [self.corpus["valid"][i][1] for i in rows]
            greedy, _ = self._decode(predict, self.data["valid"].take(rows), beam=1)
            nothing = dict.fromkeys(("bleu", "chrf", "exact"), math.nan)
            return said | nothing | {"bleu_greedy": scores.bleu(greedy, texts)}
        return said | self._test_scores(predict)

    def _teacher_forced(self, predict: Predictor, split: str) -> tuple[float, float]:
        """Nats per token, and per cent of tokens that are the likeliest."""
        loss = weight = right = 0.0
        for batch in self.batches(split, EVALUATION_BATCH, fixed(0)):
            said = predict(batch)
            assert batch.target_lengths is not None
            valid = np.arange(batch.target.shape[1]) < batch.target_lengths[:, None]  # (B, U)
            right += float((valid & (said.outputs.argmax(-1) == batch.target)).sum())
            loss, weight = loss + said.loss, weight + said.weight
        return loss / weight, 100 * right / weight

    def _test_scores(self, predict: Predictor) -> dict[str, Any]:
        texts = [target for _, target in self.corpus["test"]]
        greedy, _ = self._decode(predict, self.data["test"], beam=1)
        best, unfinished = self._decode(predict, self.data["test"], beam=self.options.beam)
        self._hypotheses = best
        return {
            "bleu": scores.bleu(best, texts),
            "bleu_greedy": scores.bleu(greedy, texts),
            "chrf": scores.chrf(best, texts),
            "exact": scores.exact(best, texts),
            "signatures": scores.signatures(texts),
            "unfinished": unfinished,
        }

    def _decode(self, predict: Predictor, data: Coded, beam: int) -> tuple[list[str], int]:
        """The output for each source, and how many have no end."""
        texts, unfinished = [""] * len(data.sources), 0
        for rows in _by_length(data, EVALUATION_BATCH):
            batch = data.batch(rows)
            found = predict.decode(batch, self._limit(batch), beam, self.options.length_penalty)
            unfinished += int((~found.ended).sum())
            for row, tokens in zip(rows, found.tokens, strict=True):
                texts[row] = self.codecs[1].decode(tokens.tolist())
        return texts, unfinished

    def _limit(self, batch: Batch) -> int:
        """Twice the longest source and ten, but no more than the longest target known."""
        longest = max(int(coded.lengths[:, 1].max()) for coded in self.data.values())
        return min(2 * int(batch.x.shape[1]) + 10, longest)

    # --- what to compare with ---

    def references(self) -> list[Reference]:
        """The most frequent target, the source unchanged, and perfection where it is known."""
        lines = {
            "trivial": "always the most frequent target of the training split; the loss is that of token frequencies",
            "copy": "the source itself as output",
        }
        found = []
        for name, summary in lines.items():
            metrics = {k.removeprefix(f"{name}-"): float(v) for k, v in self._references.items() if k.startswith(name)}
            if name == "trivial":
                metrics["loss"] = self._unigram_loss()
            found.append(Reference(name, summary, metrics))
        if self.dataset == "embedded":
            best = {"bleu": 100.0, "bleu_greedy": 100.0, "chrf": 100.0, "exact": 100.0, "token_accuracy": 100.0}
            found.append(Reference("optimum", "each source has one right translation", best | {"loss": 0.0}))
        return found

    def _baselines(self) -> dict[str, np.ndarray]:
        """Scores of outputs that need no model."""
        texts = [target for _, target in self.corpus["test"]]
        counts: dict[str, int] = {}
        for _, target in self.corpus["train"]:
            counts[target] = counts.get(target, 0) + 1
        commonest = max(counts, key=lambda text: (counts[text], text))
        outputs = {"trivial": [commonest] * len(texts), "copy": [source for source, _ in self.corpus["test"]]}
        functions = {"bleu": scores.bleu, "bleu_greedy": scores.bleu, "chrf": scores.chrf, "exact": scores.exact}
        return {
            f"{name}-{metric}": np.array(function(said, texts))
            for name, said in outputs.items()
            for metric, function in functions.items()
        }

    def _unigram_loss(self) -> float:
        """Nats per test token under the frequencies of the training targets, one added to each."""
        train, test = (np.concatenate(self.data[split].targets) for split in ("train", "test"))
        counts = np.bincount(train, minlength=len(self.codecs[1])) + 1.0
        return float(-np.log(counts / counts.sum())[test].mean())

    # --- what to show ---

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """The test set's texts and outputs, and the alignments of a few sentences.

        ``sources``, ``references``, ``hypotheses``: UTF-8 bytes of all lines, joined by line ends; ``lengths (n,)``:
        tokens of each source; ``alignment-i (U, S)``, ``alignment-source-i (S,)``, ``alignment-target-i (U,)`` where
        the model attends.
        """
        sources, targets = zip(*self.corpus["test"], strict=True)
        columns = {"sources": sources, "references": targets, "hypotheses": self._hypotheses}
        texts = {name: _packed(lines) for name, lines in columns.items()}
        return texts | {"lengths": self.data["test"].lengths[:, 0]} | self._alignments(predict)

    def _alignments(self, predict: Predictor) -> dict[str, np.ndarray]:
        arrays: dict[str, np.ndarray] = {}
        for number, row in enumerate(self.drawn()):
            source = self.data["test"].take([row])
            tokens = predict.decode(source.batch(np.array([0])), DRAWN_LENGTH * 2).tokens[0]
            batch = Coded(source.sources, [np.append(tokens, END)]).batch(np.array([0]))
            weights = predict.align(batch)
            if weights is None:
                return {}
            arrays[f"alignment-{number}"] = weights[0]
            for side, row_tokens in (("source", batch.x[0]), ("target", batch.target[0])):
                codec = self.codecs[side == "target"]
                arrays[f"alignment-{side}-{number}"] = np.array([codec.show(token) for token in row_tokens])
        return arrays

    def drawn(self) -> list[int]:
        """The test sentences whose alignments are kept: of the short enough ones, spread evenly from short to long."""
        lengths = self.data["test"].lengths
        order = np.argsort(lengths[:, 0], kind="stable")
        short = [int(i) for i in order if lengths[i, 0] >= 4 and lengths[i].max() <= DRAWN_LENGTH]
        places = np.linspace(0, len(short) - 1, DRAWN).astype(int).tolist() if short else []
        return list(dict.fromkeys(short[place] for place in places))


def _by_length(data: Coded, size: int) -> Iterator[np.ndarray]:
    return sorted_buckets(data.lengths[:, 0], size)


def _packed(lines: Sequence[str]) -> np.ndarray:
    """Lines as UTF-8 bytes, uint8; a line end within a line becomes a space."""
    return np.frombuffer("\n".join(" ".join(line.split("\n")) for line in lines).encode(), np.uint8)
