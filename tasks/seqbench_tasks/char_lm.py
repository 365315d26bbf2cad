"""Character language model: after each character of a text, predict the next.

Drawn for a window of 8 and the text ``to be or not``::

    input    t o _ b e _ o r      target    o _ b e _ o r _

Training reads windows at random places of the training split. Scoring cuts a split into successive windows, each read
from a zero state, the last one shorter, so that every character but the split's first is predicted exactly once::

    split      c0 c1 c2 ...                       n characters, n - 1 targets
    window 0   c0 .. c[W-1]   ->  c1 .. c[W]
    window 1   c[W] .. c[2W-1] -> c[W+1] .. c[2W]   ...

The score is the mean cross-entropy, in nats per character. ``nats_carried`` (option ``carried``) scores the same
targets with the state carried along ``STREAMS`` contiguous pieces of the split instead.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from seqbench.api import Batch, DataError, DataFiles, Form, Predictor, Reference, Refused, Task, Tokens
from seqbench_tasks.cards.char_lm import CHAR_LM_TAKES, MACHADO, SHAKESPEARE
from seqbench_tasks.character_losses import along_passage, loss_by_position, passage_rows
from seqbench_tasks.provided import provided_splits
from seqbench_tasks.randomness import below, fixed
from seqbench_tasks.word_source import embedded_source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from seqbench.api import Prediction
    from seqbench_tasks.cards.char_lm import CharLmOptions
    from seqbench_tasks.word_source import WordSource

Splits: TypeAlias = dict[str, str]
"""``train``, ``valid`` and ``test``, as text."""

EVALUATION_BATCH = 64
STREAMS = 16
"""Contiguous pieces of a split in carried scoring: each costs one start from a zero state."""
PROMPT = 32
"""The generated sample continues the first characters of the validation split."""
UNKNOWN = "\ufffd"
EMBEDDED_SIZES = {"train": 300_000, "valid": 30_000, "test": 30_000}


# --- the datasets ---------------------------------------------------------------------------------


def embedded_text() -> Splits:
    """Three successive parts of one text of the made-up source."""
    text, splits, start = embedded_source().sample(fixed(1948), sum(EMBEDDED_SIZES.values())), {}, 0
    for split, size in EMBEDDED_SIZES.items():
        splits[split], start = text[start : start + size], start + size
    return splits


def _read(files: DataFiles, name: str) -> str:
    """The text of a file, line ends untouched."""
    return files.path(name).read_bytes().decode("utf-8")


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def by_position(text: str) -> Splits:
    """The first 90 % train, the two halves of the rest valid and test."""
    cut = len(text) * 9 // 10
    valid, test = _halves(text[cut:])
    return {"train": text[:cut], "valid": valid, "test": test}


def shakespeare_text(files: DataFiles) -> str:
    """One text."""
    return _read(files, SHAKESPEARE.files[0].path)


def machado_text(files: DataFiles) -> Splits:
    """By book: the first four train, the two halves of the fifth valid and test."""
    *books, last = (_read(files, f.path) for f in MACHADO.files)
    valid, test = _halves(last)
    return {"train": "".join(books), "valid": valid, "test": test}


def provided_text(content: Any, dataset: str, window: int) -> Splits:
    """What a dataset's plugin gives.

    Raises:
        DataError: it is not what the card says, or too short.
    """
    text = by_position(content) if isinstance(content, str) else provided_splits(content, dataset, CHAR_LM_TAKES)
    for split, part in text.items():
        least = window + 1 if split == "train" else 2
        if not isinstance(part, str):
            raise DataError(f"The {split} split of dataset {dataset!r} is {type(part).__name__}; expected a text.")
        if len(part) < least:
            raise DataError(
                f"The {split} split of dataset {dataset!r} has {len(part)} characters; expected {least} or more."
            )
    return text


# --- text and codes -------------------------------------------------------------------------------


def _points(text: str) -> np.ndarray:
    """Unicode code points, uint32 ``(n,)``."""
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


class Vocabulary:
    """Characters and their codes: those of the training split in code-point order.

    One code more, the last, stands for every unknown character, but only where another split has any.
    """

    def __init__(self, train: str, *others: str) -> None:
        self._known = np.unique(_points(train))
        unknown = any(not np.isin(_points(other), self._known).all() for other in others)
        self.characters = "".join(map(chr, self._known.tolist())) + (UNKNOWN if unknown else "")

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Codes, int64 ``(n,)``; characters that training did not show become the unknown one."""
        points = _points(text)
        codes = np.searchsorted(self._known, points)
        codes[~np.isin(points, self._known)] = len(self._known)
        return codes.astype(np.int64)

    def decode(self, codes: np.ndarray) -> str:
        """The text of ``codes``; the unknown character shows as U+FFFD."""
        return "".join(self.characters[c] for c in codes.tolist())


# --- cutting a split ------------------------------------------------------------------------------


def windows(codes: np.ndarray, window: int) -> list[np.ndarray]:
    """The windows of a split with their last target: ``(B, window + 1)`` and, if one is left, ``(1, rest + 1)``."""
    full, rest = divmod(len(codes) - 1, window)
    starts = window * np.arange(full)[:, None]
    parts = [codes[starts + np.arange(window + 1)]] if full else []  # (B, window + 1)
    return parts + ([codes[None, full * window :]] if rest else [])  # (1, rest + 1)


def streams(codes: np.ndarray, count: int) -> list[np.ndarray]:
    """A split cut into ``count`` contiguous pieces with their last target, whose lengths differ by 1 at most."""
    pairs = np.array_split(np.arange(len(codes) - 1), min(count, len(codes) - 1))
    return [codes[piece[0] : piece[-1] + 2] for piece in pairs]


def stream_batches(pieces: list[np.ndarray], window: int) -> Iterator[Batch]:
    """The successive chunks of all pieces side by side; where a piece has ended its targets weigh 0.

    ``lengths`` cannot say that: a row of length 0 is not legal. What is read there comes after all that counts.
    """
    longest = max(len(piece) for piece in pieces)
    padded = np.zeros((len(pieces), longest), dtype=np.int64)  # (B, longest)
    weight = np.zeros((len(pieces), longest - 1), dtype=np.float32)
    for row, piece in enumerate(pieces):
        padded[row, : len(piece)] = piece
        weight[row, : len(piece) - 1] = 1.0
    for start in range(0, longest - 1, window):
        stop = min(start + window, longest - 1)
        yield Batch(padded[:, start:stop], padded[:, start + 1 : stop + 1], weight=weight[:, start:stop])


# --- the task -------------------------------------------------------------------------------------


class CharLm(Task):
    """The character language model (see the module)."""

    def __init__(self, options: CharLmOptions) -> None:
        self.options = options
        self.source: WordSource | None = None

    def prepare(self, dataset: str, files: DataFiles) -> Form:
        """Read or make the text and code it."""
        if dataset == "embedded":
            text, self.source = embedded_text(), embedded_source()
        else:
            text = provided_text(files.content(), dataset, self.options.window)
        return self._take(text)

    def _take(self, text: Splits) -> Form:
        self.vocabulary = Vocabulary(text["train"], text["valid"], text["test"])
        self.codes = {split: self.vocabulary.encode(part) for split, part in text.items()}
        V = len(self.vocabulary)
        return Form(Tokens(V), output=V, head="step", target="class", length=self.options.window, causal=True)

    def symbols(self) -> tuple[str, ...]:
        """The characters."""
        return tuple(self.vocabulary.characters)

    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Endless windows at random places of ``train``; the successive windows of ``valid`` or ``test``, once."""
        codes, window = self.codes[split], self.options.window
        while split == "train":
            places = below(rng, len(codes) - window, (size, 1)) + np.arange(window)  # (B, T)
            yield Batch(codes[places], codes[places + 1])
        for part in windows(codes, window):  # (B, T + 1)
            for start in range(0, len(part), size):
                chunk = part[start : start + size]
                yield Batch(chunk[:, :-1], chunk[:, 1:])

    def evaluate(self, predict: Predictor, split: str) -> dict[str, float]:
        """Mean cross-entropy over the windows, in two units, and carried along the text where asked.

        The carried score selects nothing and costs several times the other: it is taken on the test split alone.
        """
        nats = mean_loss(predict(batch) for batch in self.batches(split, EVALUATION_BATCH, fixed(0)))
        carried = self._carried(predict, split) if self.options.carried and split == "test" else math.nan
        return {"nats": nats, "bits": nats / math.log(2), "nats_carried": carried}

    def _carried(self, predict: Predictor, split: str) -> float:
        """Mean over the pieces; nan where the model cannot carry a state that far."""
        try:
            pieces = streams(self.codes[split], STREAMS)
            return mean_loss(predict.stream(stream_batches(pieces, self.options.window)))
        except Refused:
            return math.nan

    # --- what to compare with ---

    def references(self) -> list[Reference]:
        """Counts of single characters and of pairs; for the made-up source also what nobody can beat."""
        unigram, bigram = count_nats(self.codes["train"], self.codes["test"], len(self.vocabulary))
        lines = [
            self._reference("trivial", "character frequencies of the training split, context ignored", unigram),
            self._reference("bigram", "counts of character pairs of the training split, add-one smoothed", bigram),
        ]
        return lines + (self._optima(self.source) if self.source else [])

    def _optima(self, source: WordSource) -> list[Reference]:
        """The entropy rate, and what is left to know when each window starts without a past."""
        if source.alphabet != self.vocabulary.characters:
            raise AssertionError("the made-up source and the vocabulary number their characters differently")
        test, rate = self.codes["test"], source.entropy_rate
        blind = _best(source, windows(test, self.options.window))
        carried = _best(source, [piece[None] for piece in streams(test, STREAMS)]) if self.options.carried else None
        return [
            self._reference("optimum", "the exact entropy rate of the source: the whole past known", rate),
            self._reference(
                "optimum-windows",
                "the exact best possible on these test windows, each read without what came before it",
                blind,
                carried,
            ),
        ]

    def _reference(self, name: str, summary: str, nats: float, carried: float | None = None) -> Reference:
        metrics = {"nats": nats, "bits": nats / math.log(2)}
        if self.options.carried:
            metrics["nats_carried"] = nats if carried is None else carried
        return Reference(name, summary, metrics)

    # --- what to show ---

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What explains a trained model: what it writes, and what the characters of the test text cost it."""
        return self._sample(predict, rng) | self._by_position(predict) | self._passage(predict)

    def _sample(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A sample of text: ``prompt``, ``sample`` (both unicode), ``temperature``; or ``refused``, the reason."""
        if not self.options.sample:
            return {}
        if not predict.can_step:
            return {"refused": np.array("the model cannot go step by step, so it cannot generate text")}
        prompt = self.codes["valid"][:PROMPT]
        temperature = self.options.temperature
        try:
            codes = predict.generate(prompt[None], self.options.sample, rng, temperature)  # (1, sample)
        except Refused as reason:
            return {"refused": np.array(str(reason))}
        return {
            "prompt": np.array(self.vocabulary.decode(prompt)),
            "sample": np.array(self.vocabulary.decode(codes[0])),
            "temperature": np.array(temperature),
        }

    def _by_position(self, predict: Predictor) -> dict[str, np.ndarray]:
        """Mean nats at each place of the full test windows.

        ``position-nats`` float32 ``(window,)``, ``windows`` their number, and for the made-up source
        ``position-best``, what nobody can beat on the same windows.
        """
        rows = windows(self.codes["test"], self.options.window)[0]  # (B, T + 1)
        if rows.shape[1] <= self.options.window:
            return {}
        nats = loss_by_position(predict, rows, EVALUATION_BATCH)  # (T,)
        kept = {"position-nats": nats.astype(np.float32), "windows": np.array(len(rows))}
        if self.source:
            kept["position-best"] = self.source.best_nats(rows).mean(0).astype(np.float32)  # (B, T) -> (T,)
        return kept

    def _passage(self, predict: Predictor) -> dict[str, np.ndarray]:
        """The passage one character an element, what each cost, the likeliest in its place and its probability.

        ``passage`` and ``passage-likeliest`` unicode ``(n,)``, ``passage-nats`` and ``passage-probability`` float32
        ``(n,)``; nothing where the test split has no full window.
        """
        rows = passage_rows(self.codes["test"], self.options.window)
        if not len(rows):
            return {}
        codes, nats, likeliest, probability = along_passage(predict, rows, EVALUATION_BATCH)
        return {
            "passage": np.array(list(self.vocabulary.decode(codes))),
            "passage-nats": nats.astype(np.float32),
            "passage-likeliest": np.array(list(self.vocabulary.decode(likeliest))),
            "passage-probability": probability.astype(np.float32),
        }


def mean_loss(predictions: Iterable[Prediction]) -> float:
    """The mean over all targets; one prediction is held at a time (the logits of a split would be large)."""
    loss = weight = 0.0
    for said in predictions:
        loss, weight = loss + said.loss, weight + said.weight
    return loss / weight


def _best(source: WordSource, parts: list[np.ndarray]) -> float:
    """Bayes-optimal nats per target of sequences that each start without a past."""
    return _mean(np.concatenate([source.best_nats(part).ravel() for part in parts]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean())


def count_nats(train: np.ndarray, test: np.ndarray, V: int) -> tuple[float, float]:
    """Nats per target of ``test`` under the unigram and the bigram counts of ``train``, one added to each count."""
    single = np.bincount(train, minlength=V) + 1.0  # (V,)
    pairs = np.bincount(train[:-1] * V + train[1:], minlength=V * V).reshape(V, V) + 1.0  # (V, V)
    unigram = np.log(single / single.sum())
    bigram = np.log(pairs / pairs.sum(1, keepdims=True))
    before, target = test[:-1], test[1:]
    return -_mean(unigram[target]), -_mean(bigram[before, target])
