"""The proofs that a task keeps to the interface, on its first dataset."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqbench import data
from seqbench.api import Batch, CoreSpec, Form, Model, Task, TaskCard, Tokens
from seqbench.assemble import build, core_spec
from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer
from seqbench.conformance.comparing import ConformanceError, close, equal, error_of, generators, seeded
from seqbench.errors import one_line
from seqbench.losses import Loss, loss_of, targets_of
from seqbench.predict import NetworkPredictor
from seqbench.registry import resolve

SIZE = 4
"""Sequences in the batches that are looked at."""

SPLITS = ("train", "valid", "test")


class _Layer(RecurrentLayer):
    """torch's GRU, so that a task can be tested without any model's plugin."""

    gates = 3

    def __init__(self, input_size: int, width: int) -> None:
        super().__init__(input_size, width)
        self.rnn = nn.GRU(input_size, width, batch_first=True)

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        y: Tensor = self.rnn(x, None if h0 is None else h0.unsqueeze(0))[0]  # (B, T, H)
        return y

    def step(self, x_t: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        h = self.sequence(x_t.unsqueeze(1), state)[:, 0]  # (B, H)
        return h, h


class PlainCore(RecurrentCore):
    """The core with which a task is tried."""

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return _Layer(input_size, self.spec.width)


_CARD = Model(
    "plain",
    "What a task is tried with.",
    "none",
    {"torch": f"{__name__}:PlainCore"},
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
)


@dataclass(frozen=True)
class TaskSubject:
    """A task on its first dataset, with its default options.

    Attributes:
        card: the task's card.
    """

    card: TaskCard

    def __str__(self) -> str:
        return f"{self.card.name} ({self.card.datasets[0].name})"

    @cached_property
    def prepared(self) -> tuple[Task, Form]:
        """The task, ready, and its form."""
        task: Task = resolve(self.card.factory)(self.card.options())
        return task, task.prepare(self.card.datasets[0].name, data.locate(self.card.datasets[0]))

    @property
    def task(self) -> Task:
        """The task, ready."""
        return self.prepared[0]

    @property
    def form(self) -> Form:
        """What it needs of a network."""
        return self.prepared[1]

    @cached_property
    def tested(self) -> dict[str, Any]:
        """What the task says of an untrained network on the test."""
        return self.task.evaluate(self.predictor(), "test")

    def batches(self, split: str, seed: int = 0, count: int = 3) -> list[Batch]:
        """The first batches of a split."""
        return list(itertools.islice(self.task.batches(split, SIZE, np.random.default_rng(seed)), count))

    def network(self) -> Any:
        """A small network that fits the form."""
        spec: CoreSpec = core_spec(_CARD, self.form, 16, 1)
        with seeded(0):
            return build(_CARD, "torch", spec, _CARD.options(), self.form)

    def predictor(self) -> NetworkPredictor:
        """That network as the task sees it."""
        return NetworkPredictor(self.network(), _CARD, self.form, loss_of(self.task, self.form))


TaskCheck = Callable[[TaskSubject], None]


@dataclass(frozen=True)
class TaskProof:
    """One proof about one task. Call it: it returns if the proof holds."""

    subject: TaskSubject
    check: TaskCheck

    def __str__(self) -> str:
        return f"{self.name}-{self.subject.card.name}"

    @property
    def name(self) -> str:
        """``"batches"`` of ``check_task_batches``."""
        return self.check.__name__.removeprefix("check_task_")

    def __call__(self) -> None:
        """Run the proof.

        Raises:
            ConformanceError: it fails.
        """
        try:
            self.check(self.subject)
        except ConformanceError:
            raise
        except Exception as error:
            cause = "the task does not keep to the interface"
            raise error_of(self.subject, self.check.__name__, "no exception", one_line(error), cause) from error


def task_proofs(card: TaskCard) -> list[TaskProof]:
    """Every proof about a task: one test each in a plugin's own test suite."""
    subject = TaskSubject(card)
    return [TaskProof(subject, check) for check in TASK_CHECKS]


# --- the proofs -----------------------------------------------------------------------------------


def check_task_form(subject: TaskSubject) -> None:
    """The factory makes a task, and the first dataset works offline and gives a form."""
    files = subject.card.datasets[0].files
    equal(subject, "files of the first dataset", len(files), 0, "the default dataset must work offline")
    task, form = subject.prepared
    equal(subject, "the factory makes an api.Task", isinstance(task, Task), True, "derive the class from api.Task")
    equal(subject, "prepare gives an api.Form", isinstance(form, Form), True, "")
    symbols = task.symbols()
    if symbols is not None and isinstance(form.input, Tokens):
        equal(subject, "symbols", len(symbols), form.input.vocabulary, "one text for each input token")


def check_task_batches(subject: TaskSubject) -> None:
    """Every split gives batches of the types, shapes and ranges that the form promises."""
    for split in SPLITS:
        found = subject.batches(split)
        equal(subject, f"{split} has batches", bool(found), True, "batches(split, ...) yields nothing")
        for batch in found:
            _check_input(subject, split, batch)
            _check_target(subject, split, batch)
    equal(subject, "sequences in a training batch", len(subject.batches("train")[0].x), SIZE, "size is what is asked")


def check_task_order(subject: TaskSubject) -> None:
    """Batches follow from the generator that is handed in; validation and test are the same in every pass."""
    before = generators()
    first, again, other = (_digest(subject, "train", seed) for seed in (0, 0, 1))
    cause = "draw from rng and from nothing else; keep no position between calls"
    equal(subject, "training batches of one seed are the same", first == again, True, cause)
    equal(subject, "training batches of another seed are others", first != other, True, "the order ignores rng")
    valid, test = ([_digest(subject, split, seed) for seed in (0, 1)] for split in ("valid", "test"))
    cause = "the sequences of a fixed split must not depend on rng"
    equal(subject, "validation is the same in every pass", valid[0] == valid[1], True, cause)
    equal(subject, "the test is the same in every pass", test[0] == test[1], True, cause)
    cause = "a test set by which checkpoints are chosen says nothing"
    equal(subject, "the test is not the validation", valid[0] != test[0], True, cause)
    equal(subject, "the global generators are untouched", generators() == before, True, "use the rng that is given")


def check_task_loss(subject: TaskSubject) -> None:
    """The loss is a finite sum over the targets, with a gradient: twice the batch costs twice as much."""
    loss, network = loss_of(subject.task, subject.form), subject.network()
    batch = subject.batches("train", count=1)[0]
    value = _loss(subject, loss, network, batch)
    equal(subject, "shape of the loss", tuple(value.shape), (), "return one number, the sum over all targets")
    equal(subject, "the loss is finite", bool(value.isfinite()), True, "")
    gradient = torch.autograd.grad(value, list(network.parameters()), allow_unused=True, retain_graph=True)
    moved = any(g is not None and bool(g.abs().max() > 0) for g in gradient)
    equal(subject, "the loss has a gradient", moved, True, "it is computed outside torch, or detached")
    arrays: dict[str, Any] = {
        name: None if array is None else np.concatenate([array, array]) for name, array in vars(batch).items()
    }
    got = _loss(subject, loss, network, Batch(**arrays))
    close(subject, "loss of a batch that holds each sequence twice", got, 2 * value, "a mean instead of a sum", 1e-4)


def check_task_evaluate(subject: TaskSubject) -> None:
    """An untrained network gets a number for every metric, the same each time; what else is said is plain data."""
    names = {metric.name for metric in subject.card.metrics}
    said = {"valid": subject.task.evaluate(subject.predictor(), "valid"), "test": subject.tested}
    for split, values in said.items():
        missing = sorted(names - values.keys())
        equal(subject, f"metrics that evaluate leaves out on {split}", missing, [], "the card promises them")
    score, select = said["test"][subject.card.score.name], said["valid"][subject.card.select]
    equal(subject, f"the score is finite (it is {score})", math.isfinite(score), True, "")
    equal(subject, f"{subject.card.select} of valid is finite (it is {select})", math.isfinite(select), True, "")
    try:
        json.dumps({name: value for name, value in said["test"].items() if name not in names})
    except TypeError as error:
        cause = "what evaluate returns besides the metrics goes into a record: numbers, text, lists, dicts"
        raise error_of(subject, "details of evaluate", "plain data", str(error), cause) from error
    again = subject.task.evaluate(subject.predictor(), "valid")
    differ = sorted(name for name in names if repr(float(said["valid"][name])) != repr(float(again[name])))
    equal(subject, "metrics that differ in a second evaluation", differ, [], "evaluate draws random numbers")


def check_task_references(subject: TaskSubject) -> None:
    """References are values of the card's metrics; the optimum is at least as good as the trivial one."""
    score, names = subject.card.score, {metric.name for metric in subject.card.metrics}
    references = {reference.name: reference.metrics for reference in subject.task.references()}
    equal(subject, "there is a trivial reference", "trivial" in references, True, "say what ignoring the input gives")
    unknown = sorted({name for metrics in references.values() for name in metrics} - names)
    equal(subject, "references of metrics that the card has not", unknown, [], "a metric was renamed")
    trivial, optimum = (references.get(name, {}).get(score.name) for name in ("trivial", "optimum"))
    if trivial is not None and optimum is not None:
        better = optimum <= trivial if score.lower_is_better else optimum >= trivial
        equal(subject, f"the optimum {optimum:g} is better than {trivial:g}", better, True, "lower_is_better is wrong")


def check_task_arrays(subject: TaskSubject) -> None:
    """What explains a network is arrays of numbers or text; it is asked for after the test, as in a trial."""
    assert subject.tested
    for what in ("probe", "diagnose"):
        found = getattr(subject.task, what)(subject.predictor(), np.random.default_rng(0))
        kinds = {name: np.asarray(array).dtype.kind for name, array in found.items()}
        objects = sorted(name for name, kind in kinds.items() if kind == "O")
        equal(subject, f"arrays of objects from {what}", objects, [], "give each array one type and shape")


TASK_CHECKS: tuple[TaskCheck, ...] = (
    check_task_form,
    check_task_batches,
    check_task_order,
    check_task_loss,
    check_task_evaluate,
    check_task_references,
    check_task_arrays,
)


# --- helpers --------------------------------------------------------------------------------------


def _check_input(subject: TaskSubject, split: str, batch: Batch) -> None:
    form, x = subject.form, batch.x
    tokens = isinstance(form.input, Tokens)
    equal(subject, f"type of x in {split}", str(x.dtype), "int64" if tokens else "float32", "tokens or vectors?")
    equal(subject, f"axes of x in {split}", x.ndim, 2 if tokens else 3, "(B, T), or (B, T, size)")
    if isinstance(form.input, Tokens):
        _within(subject, f"tokens of x in {split}", x, form.input.vocabulary)
    else:
        equal(subject, f"width of x in {split}", x.shape[2], form.input.size, "Vectors(size) is another")
        equal(subject, f"x in {split} is finite", bool(np.isfinite(x).all()), True, "")
    if split == "train":
        longest = max(x.shape[1], batch.target.shape[1] if form.decoder else 0)
        equal(subject, f"steps in {split} ({longest}) are at most form.longest ({form.longest})",
              longest <= form.longest, True, "form.length is the longest T of training")  # fmt: skip
    if batch.lengths is not None:
        _check_lengths(subject, f"lengths in {split}", batch.lengths, *x.shape[:2])


def _check_target(subject: TaskSubject, split: str, batch: Batch) -> None:
    form, target = subject.form, batch.target
    B, T = batch.x.shape[:2]
    lead: tuple[int, ...] = {"step": (B, T), "pooled": (B,), "decoder": (B, target.shape[-1])}[form.head]
    want = lead if form.target == "class" else (*lead, form.output)
    equal(subject, f"shape of target in {split}", target.shape, want, f"head {form.head}, target {form.target}")
    equal(
        subject, f"type of target in {split}", str(target.dtype), "int64" if form.target == "class" else "float32", ""
    )
    if form.target == "class":
        _within(subject, f"classes of target in {split}", target, form.output)
    if batch.weight is not None:
        equal(subject, f"shape of weight in {split}", batch.weight.shape, lead, "one weight for each target")
        fine = bool((batch.weight >= 0).all() and batch.weight.sum() > 0)
        equal(subject, f"weights in {split} are at least 0, not all 0", fine, True, "")
    if form.decoder is not None:
        there = batch.y_in is not None and batch.y_in.shape == target.shape
        equal(subject, f"y_in in {split} has the target's shape", there, True, "it is the target, one step late")
        if batch.target_lengths is not None:
            _check_lengths(subject, f"target_lengths in {split}", batch.target_lengths, *target.shape)


def _check_lengths(subject: TaskSubject, what: str, lengths: np.ndarray, B: int, T: int) -> None:
    equal(subject, f"shape of {what}", lengths.shape, (B,), "one for each row")
    equal(subject, f"type of {what}", str(lengths.dtype), "int64", "")
    fine = bool((lengths >= 1).all() and (lengths <= T).all())
    equal(subject, f"{what} are within 1..{T}", fine, True, "an empty sequence, or one that was cut")


def _within(subject: TaskSubject, what: str, values: np.ndarray, count: int) -> None:
    fine = values.size > 0 and values.min() >= 0 and values.max() < count
    span = f"{values.min()}..{values.max()}" if values.size else "nothing"
    equal(subject, what, span if not fine else f"0..{count - 1}", f"0..{count - 1}", "a token more than was counted")


def _loss(subject: TaskSubject, loss: Loss, network: Any, batch: Batch) -> Tensor:
    return loss(network.outputs(batch), targets_of(batch, subject.form, torch.device("cpu")))


def _digest(subject: TaskSubject, split: str, seed: int) -> list[bytes]:
    """The first batches of a split, byte by byte."""
    return [part for batch in subject.batches(split, seed) for part in _bytes(batch)]


def _bytes(batch: Batch) -> Iterator[bytes]:
    for field in fields(Batch):
        array = getattr(batch, field.name)
        yield b"" if array is None else np.ascontiguousarray(array).tobytes()
