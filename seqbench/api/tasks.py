"""Tasks: their card, their metrics and what a task must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from seqbench.api.checks import check, check_card, check_options
from seqbench.api.data import DataFiles, Dataset, Defaults
from seqbench.api.forms import Batch, Form, Predictor
from seqbench.api.models import NoOptions

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Metric:
    """A number that a task reports.

    Attributes:
        name: the key in ``Task.evaluate``'s answer and the column ``test_<name>`` of the CSV.
        summary: one sentence: what it is and how it is computed.
        unit: ``"nats"``, ``"bits"``, ``"%"``, ``""``.
        lower_is_better: or higher.
        solved: the value from which on a seed has solved the task, where that is yes or no rather than a matter of
            degree; None elsewhere. Rows are then told by the share of seeds that did.
    """

    name: str
    summary: str
    unit: str = ""
    lower_is_better: bool = True
    solved: float | None = None

    def solves(self, value: float) -> bool:
        """Whether a value is at ``solved`` or better."""
        return self.solved is not None and (value <= self.solved if self.lower_is_better else value >= self.solved)


@dataclass(frozen=True)
class Reference:
    """A line to read scores against.

    Attributes:
        name: ``"trivial"`` (what ignoring the input gives), ``"optimum"`` (no model can do better), or another.
        summary: what it is.
        metrics: metric name to value, for those metrics for which it is known.
    """

    name: str
    summary: str
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TaskCard:
    """The card of a task.

    Attributes:
        name: lower case, words joined by ``-``; what ``--task`` takes.
        summary: one sentence.
        factory: ``"package.module:Task"``, imported only when used, called with the options.
        metrics: the first is the score.
        datasets: the first is the default and must work offline.
        select: the metric whose best validation value selects the checkpoint.
        options: a frozen dataclass of ``option(...)`` fields.
        defaults: the protocol where neither the user nor the dataset says anything.
        citation: where the task comes from.
        api: the ``API_VERSION`` that the card was written for; empty: not stated.
        takes: what ``DataFiles.content`` must give where another plugin brings a dataset (``DatasetCard``), as in
            ``"a list of sentences"``; "": the task takes none.
    """

    name: str
    summary: str
    factory: str
    metrics: tuple[Metric, ...]
    datasets: tuple[Dataset, ...]
    select: str
    options: type[Any] = NoOptions
    defaults: Defaults = field(default_factory=Defaults)
    citation: str = ""
    api: str = ""
    takes: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        check_card("task", self)
        check(bool(self.metrics), f"task {self.name!r} has no metric: the first metric is its score")
        check(bool(self.datasets), f"task {self.name!r} has no dataset: the first one is its default")
        check_options(f"task {self.name!r}", self.options)
        names = [m.name for m in self.metrics]
        check(self.select in names, f"task {self.name!r}: select={self.select!r} is not one of its metrics {names}")

    @property
    def score(self) -> Metric:
        """The metric by which models are compared."""
        return self.metrics[0]

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return next(m for m in self.metrics if m.name == name)

    def defaults_on(self, dataset: Dataset) -> Defaults:
        """The protocol on a dataset where the user says nothing."""
        return dataset.defaults or self.defaults

    def dataset(self, name: str) -> Dataset | None:
        """The dataset of that name, or None."""
        return next((d for d in self.datasets if d.name == name), None)


class Task(ABC):
    """A task: data, input and output form, metrics. Built as ``Task(options)``, then prepared once.

    A task may also define ``loss(outputs, targets) -> sum`` on torch tensors, where cross-entropy or squared error does
    not serve (``Form.target`` picks between these). ``targets`` has ``.target``, ``.weight`` (or None) and ``.total``;
    the harness divides the sum by ``.total``, so that ragged batches average exactly.
    """

    @abstractmethod
    def prepare(self, dataset: str, files: DataFiles) -> Form:
        """Load or make the data; called once, before anything else."""

    @abstractmethod
    def batches(self, split: str, size: int, rng: np.random.Generator) -> Iterator[Batch]:
        """Batches of ``"train"`` (endless, their order from ``rng`` alone), ``"valid"`` or ``"test"`` (one pass)."""

    @abstractmethod
    def evaluate(self, predict: Predictor, split: str) -> dict[str, Any]:
        """All metrics of the card on ``"valid"`` or ``"test"``; nan where one does not apply.

        What else is in the answer must be plain data (JSON); of the test it is kept in the record under ``details``.
        """

    @abstractmethod
    def references(self) -> list[Reference]:
        """The trivial baseline, the optimum where it is known, and what else puts a score in its place."""

    def symbols(self) -> Sequence[str] | None:
        """The text of each input token, in order, where tokens are text: exported networks carry it. None elsewhere."""
        return None

    def notes(self) -> list[str]:
        """What a reader should know of the data as prepared, one sentence each: how many examples were left out."""
        return []

    def probe(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Arrays (no objects) that are taken twice, before training and after it, with the same random numbers.

        A section finds them as ``untrained/<name>`` and ``trained/<name>``.
        """
        return {}

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Arrays (no objects) that explain the trained model, kept for the report's sections."""
        return {}
