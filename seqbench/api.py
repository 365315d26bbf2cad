"""All that a plugin may import: the cards, the interface of a core and of a task.

This module imports neither torch nor numpy, so that a card costs nothing to load.

Shape letters, used everywhere: ``B`` batch, ``T`` time, ``D`` input width of a core, ``H`` hidden
width, ``V`` vocabulary, ``N`` heads, ``K`` kernel size, ``L`` layers.
"""

from __future__ import annotations

import dataclasses
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, Union

import pluggy

from seqbench.errors import DataError, PluginError, Refused, SeqbenchError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import Tensor

__all__ = [
    "Batch",
    "Block",
    "Core",
    "CoreSpec",
    "DataError",
    "DataFile",
    "DataFiles",
    "Dataset",
    "Defaults",
    "Form",
    "Metric",
    "Model",
    "NoOptions",
    "PluginError",
    "Prediction",
    "Predictor",
    "Reference",
    "Refused",
    "Register",
    "Section",
    "SectionCard",
    "SeqbenchError",
    "State",
    "Task",
    "TaskCard",
    "Tokens",
    "TrialView",
    "UsageError",
    "Vectors",
    "hookimpl",
    "option",
]

hookimpl = pluggy.HookimplMarker("seqbench")

NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

State: TypeAlias = Union["Tensor", tuple["State", ...], None]
"""A tree of tuples. Every leaf is a tensor whose first axis is the batch, positions included."""


# --- models ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CoreSpec:
    """What the harness asks of a core.

    Attributes:
        input_size: ``D``, the width of the vectors that come in.
        width: ``H``, the hidden width; what the parameter budget solves for.
        layers: ``L``.
        causal: the output at ``t`` may depend on inputs up to ``t`` only; False asks for both directions.
        dropout: probability of dropping a unit, in training only.
        train_length: the longest ``T`` of training (for chrono initialisation and learned positions).
    """

    input_size: int
    width: int
    layers: int = 1
    causal: bool = True
    dropout: float = 0.0
    train_length: int = 128


class Core(Protocol):
    """The sequence-mixing network that a model provides: a ``torch.nn.Module`` built as ``Core(spec, options)``.

    Attributes:
        output_size: width of ``y``.
        max_length: the longest legal ``T``, or None where there is no limit.
    """

    output_size: int
    max_length: int | None

    def __call__(self, x: Tensor, state: State = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Map a whole sequence (or, with ``state``, the next chunk of one).

        Args:
            x: ``(B, T, D)``.
            state: what ``initial_state`` or an earlier call gave. Without it, no state is returned: None.
            lengths: ``(B,)`` int64 on the CPU, each in 1..T; None means that every row is full.

        Returns:
            ``y (B, T, output_size)``, which is 0 beyond ``lengths``, and the state after the last valid step of
            each row. ``y`` is differentiable in ``x``, ``state`` and the parameters.
        """

    def initial_state(self, B: int, capacity: int) -> State:
        """The state before the first step, with room for ``capacity`` steps."""

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One step without gradients: ``x_t (B, D)`` to ``y_t (B, output_size)``; consumes ``state``."""

    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        """One vector ``(B, output_size)`` for each sequence: its last step (backward direction: its first)."""

    def flops(self, B: int, T: int) -> int:
        """Floating-point operations of the matrix products of one forward pass (a multiply-add counts as 2)."""


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that argparse, click and this project's users know
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field of an options dataclass: its type is that of ``default``.

    Args:
        default: bool, int, float or str.
        help: one sentence, shown by ``seqbench info``.
        choices: the only legal values.
        low: the smallest legal value.
        high: the largest legal value.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class NoOptions:
    """The options of a card that has none."""


def _one(_options: Any) -> int:
    return 1


@dataclass(frozen=True)
class Model:
    """The card of an architecture.

    Attributes:
        name: lower case, words joined by ``-``; what ``--model`` takes.
        summary: one sentence.
        citation: authors, year, title, identifier.
        equations: the definition, in plain text; shown by ``seqbench info``.
        cores: backend name to factory, ``{"torch": "package.module:Core"}``; imported only when used.
        options: a frozen dataclass of ``option(...)`` fields.
        can: any of ``"causal"``, ``"bidirectional"``, ``"step"``; what is not declared is refused, with a reason.
        state_is_summary: the state has a fixed size and sums up the past (recurrent networks).
        width_multiple: the width must be a multiple of this, given the options (attention heads).
        fine: the name of an integer option (0 = automatic), a second size that closes the gap to the parameter
            budget that the width alone leaves.
        layers: the default number of layers, or a function ``(options, train_length) -> int``.
        advice: ``(options, layers, train_length) -> str | None``: a remark about this setting, shown beside the
            model's row (a receptive field shorter than the task, say); starts with ``"warning: "`` if it matters.
    """

    name: str
    summary: str
    citation: str
    cores: Mapping[str, str]
    equations: str = ""
    options: type[Any] = NoOptions
    can: frozenset[str] = frozenset({"causal", "step"})
    state_is_summary: bool = False
    width_multiple: Callable[[Any], int] = _one
    fine: str | None = None
    layers: int | Callable[[Any, int], int] = 1
    advice: Callable[[Any, int, int], str | None] | None = None

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        _check_name("model", self.name)
        _check(bool(self.cores), f"model {self.name!r} names no core: give cores={{'torch': 'module:Class'}}")
        for backend, factory in self.cores.items():
            _check_factory(f"model {self.name!r}, backend {backend!r}", factory)
        _check_options(f"model {self.name!r}", self.options)
        unknown = set(self.can) - {"causal", "bidirectional", "step"}
        _check(not unknown, f"model {self.name!r} declares unknown abilities {sorted(unknown)}")
        if self.fine is not None:
            names = {f.name for f in dataclasses.fields(self.options)}
            _check(self.fine in names, f"model {self.name!r}: fine={self.fine!r} is not one of its options")

    def default_layers(self, options: Any, train_length: int) -> int:
        """``L`` where the user names none."""
        return self.layers(options, train_length) if callable(self.layers) else self.layers


# --- data -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DataFile:
    """One file of a dataset.

    Attributes:
        path: its place below the data folder, ``"shakespeare/input.txt"``.
        url: where it can be downloaded.
        sha256: of the file as downloaded.
        size: in bytes.
    """

    path: str
    url: str
    sha256: str
    size: int


@dataclass(frozen=True)
class Dataset:
    """Data that a task can run on: embedded (no files; made by the task's own code) or downloaded.

    Attributes:
        name: what ``--dataset`` takes.
        summary: one sentence, the split included.
        files: what must be there before the task can be prepared.
        licence: the terms as the origin states them.
    """

    name: str
    summary: str
    files: tuple[DataFile, ...] = ()
    licence: str = ""


class DataFiles(Protocol):
    """Where the files of the dataset lie: given to ``Task.prepare``, checked against their sha256."""

    def path(self, name: str) -> Path:
        """The local path of ``DataFile.path == name``."""


# --- tasks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokens:
    """The input is integers in ``0 .. vocabulary-1``; they enter through an embedding."""

    vocabulary: int


@dataclass(frozen=True)
class Vectors:
    """The input is vectors of ``size`` numbers; they enter through a linear layer."""

    size: int


@dataclass(frozen=True)
class Form:
    """What a task needs of a network.

    Attributes:
        input: ``Tokens`` or ``Vectors``.
        output: width of the output at each position: classes, or numbers.
        head: ``"step"``, an output at every step, ``(B, T, output)``; ``"pooled"``, one a sequence, ``(B, output)``.
        target: ``"class"``, int64 class numbers under cross-entropy; ``"value"``, float32 under squared error.
        length: the longest ``T`` of training.
        causal: the task needs a core that does not look ahead.
    """

    input: Tokens | Vectors
    output: int
    head: Literal["step", "pooled"]
    target: Literal["class", "value"]
    length: int
    causal: bool = True


@dataclass(frozen=True)
class Batch:
    """A batch as numpy arrays.

    Attributes:
        x: int64 ``(B, T)`` of tokens, or float32 ``(B, T, size)``.
        target: int64 ``(B, T)`` (head ``step``) or ``(B,)`` (``pooled``); float32 with a last axis ``output``.
        lengths: int64 ``(B,)``, each in 1..T; None where every row is full.
        weight: float32 ``(B, T)`` or ``(B,)``, the weight of each target in the loss; None where all weigh 1 (and
            targets beyond ``lengths`` weigh 0).
    """

    x: np.ndarray
    target: np.ndarray
    lengths: np.ndarray | None = None
    weight: np.ndarray | None = None


@dataclass(frozen=True)
class Prediction:
    """What a network says of a batch.

    Attributes:
        outputs: float32 ``(B, T, output)`` or ``(B, output)``: logits, or values.
        loss: the weighted sum of the loss over the batch's targets.
        weight: the sum of the weights: ``loss / weight`` is the batch's mean.
    """

    outputs: np.ndarray
    loss: float
    weight: float


class Predictor(Protocol):
    """A trained (or half-trained) network as a task sees it: numpy in, numpy out, no gradients."""

    can_step: bool

    def __call__(self, batch: Batch) -> Prediction:
        """Outputs and loss of one batch, from a zero state."""

    def stream(self, batches: Iterable[Batch]) -> Iterator[Prediction]:
        """The same for the successive chunks of one set of sequences: the state is carried from batch to batch.

        Raises:
            Refused: the card does not declare ``"step"``, or the core would need more than its longest legal length.
        """

    def generate(self, prompt: np.ndarray, steps: int, rng: np.random.Generator, temperature: float) -> np.ndarray:
        """Continue token sequences ``prompt (B, P)`` by ``steps`` sampled tokens: ``(B, steps)``.

        Temperature 0 takes the likeliest token at each step.

        Raises:
            Refused: the card does not declare ``"step"``.
        """


@dataclass(frozen=True)
class Metric:
    """A number that a task reports.

    Attributes:
        name: the key in ``Task.evaluate``'s answer and the column ``test_<name>`` of the CSV.
        summary: one sentence: what it is and how it is computed.
        unit: ``"nats"``, ``"bits"``, ``"%"``, ``""``.
        lower_is_better: or higher.
    """

    name: str
    summary: str
    unit: str = ""
    lower_is_better: bool = True


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
class Defaults:
    """The protocol of a task where the user says nothing; the same for every model.

    Attributes:
        parameters: trainable parameters of the whole network.
        steps: training steps.
        batch: sequences in a training batch.
        lr: peak learning rate.
    """

    parameters: int = 50_000
    steps: int = 1000
    batch: int = 32
    lr: float = 3e-3


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
        defaults: the protocol where the user says nothing.
        citation: where the task comes from.
    """

    name: str
    summary: str
    factory: str
    metrics: tuple[Metric, ...]
    datasets: tuple[Dataset, ...]
    select: str
    options: type[Any] = NoOptions
    defaults: Defaults = Defaults()
    citation: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        _check_name("task", self.name)
        _check_factory(f"task {self.name!r}", self.factory)
        _check(bool(self.metrics), f"task {self.name!r} has no metric: the first metric is its score")
        _check(bool(self.datasets), f"task {self.name!r} has no dataset: the first one is its default")
        _check_options(f"task {self.name!r}", self.options)
        names = [m.name for m in self.metrics]
        _check(self.select in names, f"task {self.name!r}: select={self.select!r} is not one of its metrics {names}")

    @property
    def score(self) -> Metric:
        """The metric by which models are compared."""
        return self.metrics[0]

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return next(m for m in self.metrics if m.name == name)

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
    def evaluate(self, predict: Predictor, split: str) -> dict[str, float]:
        """All metrics of the card on ``"valid"`` or ``"test"``; nan where one does not apply."""

    @abstractmethod
    def references(self) -> list[Reference]:
        """The trivial baseline, the optimum where it is known, and what else puts a score in its place."""

    def diagnose(self, predict: Predictor, rng: np.random.Generator) -> dict[str, np.ndarray]:  # noqa: ARG002
        """Arrays (no objects) that explain the trained model, kept for the report's sections."""
        return {}


# --- report sections ------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrialView:
    """A finished trial as a report section sees it.

    Attributes:
        label: the model as the table names it, ``"lstm[forget_bias=1]"``.
        colour: the model's colour everywhere in the report, ``"#rrggbb"``.
        seed: the trial's seed.
        record: the stored record (plain data).
        arrays: what ``Task.diagnose`` returned.
    """

    label: str
    colour: str
    seed: int
    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Block:
    """A piece of a report section; everything in it is escaped.

    Attributes:
        kind: ``"text"`` (a paragraph: ``content`` is str), ``"code"`` (monospaced, line breaks kept: str),
            ``"table"`` (``content`` is rows of str, the first one the header), ``"figure"`` (a matplotlib Figure).
        content: as the kind says.
        caption: shown above.
    """

    kind: Literal["text", "code", "table", "figure"]
    content: Any
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class SectionCard:
    """The card of a report section.

    Attributes:
        name: lower case, words joined by ``-``.
        task: the task whose trials it explains.
        factory: ``"package.module:function"``, ``function(views: list[TrialView]) -> Section | None``; imported only
            when a report is written; must not need torch.
    """

    name: str
    task: str
    factory: str

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        _check_name("section", self.name)
        _check_factory(f"section {self.name!r}", self.factory)


class Register(Protocol):
    """What a registering hook is given."""

    def model(self, card: Model) -> None:
        """Add a model."""

    def task(self, card: TaskCard) -> None:
        """Add a task."""

    def section(self, card: SectionCard) -> None:
        """Add a section to the report."""


# --- checks at registration -----------------------------------------------------------------------


def _check(fine: bool, message: str) -> None:
    if not fine:
        raise PluginError(message)


def _check_name(kind: str, name: str) -> None:
    fine = NAME.fullmatch(name) is not None
    _check(fine, f"{kind} name {name!r} must be lower case letters and digits, words joined by '-' (say 'my-lstm')")


def _check_factory(owner: str, factory: str) -> None:
    _check(FACTORY.fullmatch(factory) is not None, f"{owner}: factory {factory!r} must read 'package.module:name'")


RESERVED_OPTIONS = frozenset({"width", "layers", "dropout"})
"""Options that every model has, because the harness puts them into ``CoreSpec``."""


def _check_options(owner: str, options: type[Any]) -> None:
    fine = dataclasses.is_dataclass(options) and options.__dataclass_params__.frozen  # type: ignore[attr-defined]
    _check(fine, f"{owner}: options must be a frozen dataclass of option(...) fields")
    for f in dataclasses.fields(options):
        _check("help" in f.metadata, f"{owner}: option {f.name!r} must be made with option(default, help)")
        _check(isinstance(f.default, bool | int | float | str), f"{owner}: option {f.name!r} needs a plain default")
        _check(f.name not in RESERVED_OPTIONS, f"{owner}: option {f.name!r} is the harness's own (CoreSpec)")
        if isinstance(f.default, float):
            _check(math.isfinite(f.default), f"{owner}: option {f.name!r} has the default {f.default}")
