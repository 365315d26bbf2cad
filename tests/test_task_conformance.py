"""Each proof about tasks catches the fault it is there for: tasks that are broken on purpose."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from parity import Options, Parity

from seqbench import conformance
from seqbench.api import Batch, DataFile, Dataset, Form, Metric, Reference, TaskCard
from seqbench.conformance import ConformanceError
from seqbench.registry import Registry

HERE = __name__


class Longer(Parity):
    """Twice as long as its form says."""

    def prepare(self, dataset: str, files: Any) -> Form:
        return replace(super().prepare(dataset, files), length=self.length // 2)


class TokenTooMany(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        return (Batch(batch.x + 1, batch.target) for batch in super().batches(split, size, rng))


class ClassTooMany(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        return (Batch(batch.x, batch.target + 1) for batch in super().batches(split, size, rng))


class Int32(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        return (Batch(batch.x.astype(np.int32), batch.target) for batch in super().batches(split, size, rng))


class OneTarget(Parity):
    """A target for the sequence, although the head gives one a step."""

    def batches(self, split: str, size: int, rng: Any) -> Any:
        return (Batch(batch.x, batch.target[:, -1]) for batch in super().batches(split, size, rng))


class EmptyRow(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        for batch in super().batches(split, size, rng):
            yield Batch(batch.x, batch.target, np.arange(len(batch.x)).astype(np.int64))


class WeighsNothing(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        for batch in super().batches(split, size, rng):
            yield Batch(batch.x, batch.target, weight=np.zeros(batch.target.shape, np.float32))


class OwnSize(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        return super().batches(split, 5, rng)


class OwnGenerator(Parity):
    """Draws from numpy's global generator."""

    def batches(self, split: str, size: int, rng: Any) -> Any:
        return super().batches(split, size, np.random if split == "train" else rng)

    class _Global:
        integers = staticmethod(np.random.randint)


class AlwaysTheSame(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        return super().batches(split, size, np.random.default_rng(0) if split == "train" else rng)


class NewTestEachTime(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        for batch in super().batches(split, size, rng):
            x = batch.x if split == "train" else rng.integers(0, 2, batch.x.shape)
            yield Batch(x, x.cumsum(1) % 2)


class ValidatesOnTheTest(Parity):
    def batches(self, split: str, size: int, rng: Any) -> Any:
        return super().batches("test" if split == "valid" else split, size, rng)


class MeanLoss(Parity):
    def loss(self, outputs: Any, targets: Any) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.target.flatten())


class LossWithoutGradient(Parity):
    def loss(self, outputs: Any, targets: Any) -> Any:
        return (outputs.detach() ** 2).sum() + 0 * outputs.sum()


class LeavesOutAMetric(Parity):
    def evaluate(self, predict: Any, split: str) -> Any:
        said = super().evaluate(predict, split)
        return said if split == "valid" else {"accuracy": said["accuracy"]}


class ScoresNothing(Parity):
    def evaluate(self, predict: Any, split: str) -> Any:
        return super().evaluate(predict, split) | ({"accuracy": math.nan} if split == "test" else {})


class SaysAnArray(Parity):
    def evaluate(self, predict: Any, split: str) -> Any:
        return super().evaluate(predict, split) | {"confusion": np.zeros(2)}


class EvaluatesAtRandom(Parity):
    def evaluate(self, predict: Any, split: str) -> Any:
        said = super().evaluate(predict, split)
        return said | {"accuracy": said["accuracy"] + float(np.random.default_rng().random())}


class BetterThanTheBest(Parity):
    def references(self) -> list[Reference]:
        return [*super().references(), Reference("optimum", "o", {"accuracy": 10.0})]


class OtherMetric(Parity):
    def references(self) -> list[Reference]:
        return [*super().references(), Reference("other", "o", {"bleu": 10.0})]


class KeepsObjects(Parity):
    def diagnose(self, predict: Any, rng: Any) -> Any:
        return {"ragged": np.array([[1], [1, 2]], dtype=object)}


class OneSymbol(Parity):
    def symbols(self) -> list[str]:
        return ["0"]


class Raises(Parity):
    def references(self) -> list[Reference]:
        raise KeyError("trivial")


class ReadsItself(Parity):
    """A correct task with weights, lengths and a decoder's form would be long; this one has a loss of its own."""

    def loss(self, outputs: Any, targets: Any) -> Any:
        import torch

        return torch.nn.functional.cross_entropy(outputs.flatten(0, 1), targets.target.flatten(), reduction="sum")


METRICS = (Metric("accuracy", "s", "%", lower_is_better=False), Metric("nats", "s", "nats"))


def card_of(task: type[Parity]) -> TaskCard:
    return TaskCard("broken", "s", f"{HERE}:{task.__name__}", METRICS, (Dataset("embedded", "s"),), "nats", Options)


# What is broken, the proof that is there for it, what is broken in words, what the proof says.
FAULTS = [
    (OneSymbol, "form", "a symbol too few", "symbols: expected 2, got 1"),
    (Longer, "batches", "sequences longer than the form says", r"steps in train \(12\) are at most form.longest \(6\)"),
    (TokenTooMany, "batches", "a token beyond the vocabulary", r"tokens of x in train: expected 0\.\.1, got 1\.\.2"),
    (ClassTooMany, "batches", "a class too many", r"classes of target in train: expected 0\.\.1, got 1\.\.2"),
    (Int32, "batches", "tokens of another type", "type of x in train: expected int64, got int32"),
    (OneTarget, "batches", "a target of another shape", r"shape of target in train: expected \(4, 12\), got \(4,\)"),
    (EmptyRow, "batches", "an empty sequence", r"lengths in train are within 1\.\.12"),
    (WeighsNothing, "batches", "weights that are all 0", "weights in train are at least 0, not all 0"),
    (OwnSize, "batches", "another batch size", "sequences in a training batch: expected 4, got 5"),
    (AlwaysTheSame, "order", "an order that ignores the seed", "training batches of another seed are others"),
    (NewTestEachTime, "order", "a test set drawn anew", "validation is the same in every pass"),
    (ValidatesOnTheTest, "order", "validation on the test set", "the test is not the validation"),
    (MeanLoss, "loss", "a mean as loss", "loss of a batch that holds each sequence twice: .* a mean instead of a sum"),
    (LossWithoutGradient, "loss", "a loss without gradient", "the loss has a gradient"),
    (LeavesOutAMetric, "evaluate", "a metric left out", "metrics that evaluate leaves out on test"),
    (ScoresNothing, "evaluate", "a score that is no number", r"the score is finite \(it is nan\)"),
    (SaysAnArray, "evaluate", "details that are no plain data", "details of evaluate: expected plain data"),
    (EvaluatesAtRandom, "evaluate", "chance in the evaluation", r"differ in a second evaluation: .*\['accuracy'\]"),
    (BetterThanTheBest, "references", "an optimum below guessing", "the optimum 10 is better than 50"),
    (OtherMetric, "references", "a reference of another metric", "references of metrics that the card has not"),
    (KeepsObjects, "arrays", "arrays of objects", r"arrays of objects from diagnose: expected \[\], got \['ragged'\]"),
    (Raises, "references", "a task that raises", "expected no exception, got KeyError: 'trivial'"),
]


@pytest.mark.parametrize("task", [Parity, ReadsItself])
def test_a_sound_task_passes(task: type[Parity]) -> None:
    for proof in conformance.task_proofs(card_of(task)):
        proof()


@pytest.mark.parametrize(("task", "name", "what", "message"), FAULTS, ids=[t.__name__ for t, *_ in FAULTS])
def test_a_planted_fault_is_caught(task: type[Parity], name: str, what: str, message: str) -> None:
    (proof,) = (proof for proof in conformance.task_proofs(card_of(task)) if proof.name == name)
    with pytest.raises(ConformanceError, match=message):
        proof()


def test_the_default_dataset_works_offline() -> None:
    file = DataFile("a/b.txt", "https://example.org/b.txt", "0" * 64, 1)
    card = replace(card_of(Parity), datasets=(Dataset("real", "s", (file,)),))
    with pytest.raises(ConformanceError, match="files of the first dataset: expected 0, got 1"):
        conformance.task_proofs(card)[0]()


def test_every_proof_has_its_fault() -> None:
    assert {name for _, name, _, _ in FAULTS} == {proof.name for proof in conformance.task_proofs(card_of(Parity))}


def test_the_documentation_names_every_proof_and_every_fault() -> None:
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert [what for _, name, what, _ in FAULTS if f"| {what} | `{name}` |" not in page] == []
    assert [p.name for p in conformance.task_proofs(card_of(Parity)) if f"\n- `{p.name}`: " not in page] == []


@pytest.mark.parametrize("name", ["adding", "sentiment"])
def test_built_in_tasks_pass(cards: Registry, name: str) -> None:
    """A regression and a classification of ragged batches; ``seqbench check --all`` has the others."""
    for proof in conformance.task_proofs(cards.tasks[name]):
        if proof.name != "evaluate":
            proof()
