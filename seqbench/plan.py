"""A spec and the installed plugins in, trials out. Pure: no file is read, nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seqbench.api import RESERVED_OPTIONS, Dataset, Defaults, Model, TaskCard
from seqbench.errors import SpecError, UnknownName
from seqbench.options import build_options, changed, to_dict
from seqbench.quantities import Budget, Target, parse_budget, parse_target
from seqbench.registry import Registry, blame
from seqbench.spec import (
    AUTO,
    Choice,
    RunSpec,
    Training,
    Trial,
    parse_choice,
    parse_seeds,
)


@dataclass(frozen=True)
class Row:
    """A model on a task and backend, before its size is known: one row of the table, several seeds.

    Attributes:
        task: name, with every option in ``task_options``.
        task_options: typed.
        dataset: name.
        task_label: the task with what differs from its defaults, and the dataset.
        model: name.
        model_options: typed, every option of the card.
        label: the model with what differs from its defaults.
        backend: name, or "auto", which sizing turns into a name.
        width: as asked for; None: solved from the budget.
        layers: as asked for; None: the card's default.
        dropout: probability.
        target: parameters of the whole network, and how exactly.
        training: the schedule.
        seeds: of its trials, in order; the k-th seeds of all rows are a pair.
        sources: of the strangers' cards among model, task and dataset, as ``Trial`` has them.
    """

    task: str
    task_options: Mapping[str, Any]
    dataset: str
    task_label: str
    model: str
    model_options: Mapping[str, Any]
    label: str
    backend: str
    width: int | None
    layers: int | None
    dropout: float
    target: Target
    training: Training
    seeds: tuple[int, ...]
    sources: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sized:
    """What a row came to, or why it cannot run.

    Attributes:
        width: ``H``.
        layers: ``L``.
        model_options: every option of the card.
        parameters: of the whole network.
        core_parameters: of which the core's.
        advice: the card's remark.
        blocked: status, cause and log, where it cannot run.
        backend: what "auto" came to, else empty.
        steps: what a budget of tokens or FLOPs came to, else 0.
    """

    width: int = 0
    layers: int = 0
    model_options: Mapping[str, Any] = field(default_factory=dict)
    parameters: int = 0
    core_parameters: int = 0
    advice: str = ""
    blocked: Mapping[str, str] | None = None
    backend: str = ""
    steps: int = 0


@dataclass(frozen=True)
class Answer:
    """What sizing found out in its child process; it stands here because unpickling it must not import torch.

    Attributes:
        error: a message for the user where the run cannot start at all, else "".
        device: ``"cpu"`` or ``"cuda"``.
        sizes: one for each row.
        torch: version, device name and the like, for the record.
    """

    error: str = ""
    device: str = "cpu"
    sizes: tuple[Sized, ...] = ()
    torch: dict[str, Any] | None = None


@dataclass(frozen=True)
class Conditions:
    """Under which models are compared.

    Attributes:
        task: name; empty where there is no task.
        task_options: typed.
        dataset: name.
        label: the task with what differs from its defaults, and the dataset.
        defaults: the protocol where the user says nothing.
    """

    task: str
    task_options: Mapping[str, Any]
    dataset: str
    label: str
    defaults: Defaults


def rows_of(spec: RunSpec, registry: Registry) -> list[Row]:
    """Every task × dataset × model × backend of the spec, in that order, names and options checked.

    Raises:
        UsageError: an unknown or repeated name, option or value.
    """
    rows = rows_on(_conditions(spec, registry), spec, registry)
    return rows if spec.aa is None else [twin for row in rows for twin in _twins(row)]


def rows_on(conditions: Iterable[Conditions], spec: RunSpec, registry: Registry) -> list[Row]:
    """The same under these conditions, whatever the spec's tasks are; a model that is compared with itself once.

    Raises:
        UsageError: an unknown or repeated name, option or value.
    """
    names = spec.model if spec.aa is None else (spec.aa,)
    models = [parse_choice(text) for text in names] or [Choice(name) for name in registry.models]
    _check_backends(spec.backend, registry)
    rows = [row for on in conditions for model in models for row in _rows_of_model(spec, registry, on, model)]
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        key = (row.task_label, row.label, row.backend)
        if key in seen:
            raise SpecError(f"{row.label} on {row.task_label} ({row.backend}) is asked for twice.")
        seen.add(key)
    return rows


def _twins(row: Row) -> tuple[Row, Row]:
    """The same row twice, under two names; the second with seeds that the first has not."""
    others = tuple(seed + max(row.seeds) + 1 for seed in row.seeds)
    return replace(row, label=f"{row.label} (first)"), replace(row, label=f"{row.label} (second)", seeds=others)


def _check_backends(backends: Sequence[str], registry: Registry) -> None:
    known = {backend for card in registry.models.values() for backend in card.cores}
    for backend in backends:
        if backend != AUTO and backend not in known:
            raise UnknownName("backend", backend, {*known, AUTO})


def _conditions(spec: RunSpec, registry: Registry) -> Iterator[Conditions]:
    used: set[str] = set()
    for text in spec.task:
        choice = parse_choice(text)
        card = registry.task(choice.name)
        options = build_options(card.options, dict(choice.options), f"task {card.name!r}")
        wanted = [dataset for name in spec.dataset if (dataset := card.dataset(name))]
        used |= {dataset.name for dataset in wanted}
        for dataset in wanted or card.datasets[:1]:
            yield _conditions_of(card, options, dataset)
    for name in spec.dataset:
        if name not in used:
            cards = [registry.task(parse_choice(text).name) for text in spec.task]
            raise UnknownName("dataset", name, {d.name for card in cards for d in card.datasets})


def _conditions_of(card: TaskCard, options: Any, dataset: Dataset) -> Conditions:
    label = f"{label_of(card.name, changed(options))}/{dataset.name}"
    return Conditions(card.name, to_dict(options), dataset.name, label, card.defaults_on(dataset))


def _rows_of_model(spec: RunSpec, registry: Registry, on: Conditions, choice: Choice) -> Iterator[Row]:
    card = registry.model(choice.name)
    given = dict(choice.options)
    shape = {name: given.pop(name) for name in RESERVED_OPTIONS & given.keys()}
    options = build_options(card.options, given, f"model {card.name!r}")
    width, layers, dropout = _shape(shape, card, on.defaults.dropout)
    typed = {"width": width, "layers": layers, "dropout": dropout}
    for backend in spec.backend:
        yield Row(
            task=on.task,
            task_options=on.task_options,
            dataset=on.dataset,
            task_label=on.label,
            model=card.name,
            model_options=to_dict(options),
            label=label_of(card.name, {**changed(options), **{name: typed[name] for name in shape}}),
            backend=backend,
            width=width,
            layers=layers,
            dropout=dropout,
            target=Target(on.defaults.parameters) if spec.params is None else parse_target(spec.params),
            training=training_of(spec, on.defaults),
            seeds=parse_seeds(spec.seeds),
            sources=registry.sources(model=card.name, task=on.task, dataset=f"{on.task}/{on.dataset}"),
        )


def label_of(name: str, options: Mapping[str, Any]) -> str:
    """``lstm[forget_bias=1.0,layers=2]``: options in alphabetical order."""
    inside = ",".join(f"{key}={value}" for key, value in sorted(options.items()))
    return f"{name}[{inside}]" if inside else name


def _shape(given: Mapping[str, str], card: Model, usual_dropout: float) -> tuple[int | None, int | None, float]:
    """The options that every model has: width, layers, dropout."""

    def whole(name: str) -> int | None:
        text = given.get(name)
        if text is not None and not (re.fullmatch("[0-9]{1,6}", text) and int(text) > 0):
            raise SpecError(
                f"Option {name!r} of model {card.name!r} is {text!r}; expected a whole number above 0, up to 999999."
            )
        return None if text is None else int(text)

    text = given.get("dropout", str(usual_dropout))
    try:
        dropout = float(text)
    except ValueError:
        dropout = -1.0
    if not 0 <= dropout < 1:
        raise SpecError(f"Option 'dropout' of model {card.name!r} is {text!r}; expected a number from 0 to below 1.")
    return whole("width"), whole("layers"), dropout


def training_of(spec: RunSpec, defaults: Defaults) -> Training:
    """The schedule: the user's values, else the defaults."""
    return Training(
        lr=defaults.lr if spec.lr is None else spec.lr,
        batch=defaults.batch if spec.batch is None else spec.batch,
        budget=Budget("steps", defaults.steps) if spec.budget is None else parse_budget(spec.budget),
    )


def trials_of(
    spec: RunSpec, rows: Sequence[Row], sizes: Sequence[Sized], device: str, plugins: Mapping[str, str]
) -> list[Trial]:
    """Every row with every seed. All models of one seed come before the next seed, so that an early look is fair.

    Raises:
        SpecError: ``spec.steps`` names a row that is none of these.
    """
    trials = [
        Trial(
            task=row.task,
            task_options=row.task_options,
            dataset=row.dataset,
            task_label=row.task_label,
            model=row.model,
            model_options=size.model_options or row.model_options,
            label=row.label,
            backend=size.backend or row.backend,
            device=device,
            width=size.width,
            layers=size.layers,
            dropout=row.dropout,
            parameters=size.parameters,
            core_parameters=size.core_parameters,
            target_parameters=row.target.count,
            parameter_tolerance=row.target.tolerance,
            seed=row.seeds[place],
            threads=spec.threads,
            training=_in_steps(row.training, size.steps),
            plugins=plugins,
            data_dir=spec.data_dir,
            advice=size.advice,
            blocked=size.blocked,
            events=spec.events,
            sources=row.sources,
        )
        for place in range(len(parse_seeds(spec.seeds)))
        for row, size in zip(rows, sizes, strict=True)
    ]
    strangers = set(spec.steps) - {trial.row_id for trial in trials}
    if strangers:
        raise SpecError(
            f"[steps] names {sorted(strangers)[0]!r}, which is no row of this run: it was made with other options, "
            f"another device or other plugin code. Remove [steps] to time the budget anew."
        )
    return [with_known_steps(trial, spec.steps) for trial in trials]


def _in_steps(training: Training, steps: int) -> Training:
    return replace(training, budget=Budget("steps", steps)) if steps else training


def with_known_steps(trial: Trial, steps: Mapping[str, int]) -> Trial:
    """A replay: seconds that became steps in an earlier run are those steps again."""
    if trial.row_id not in steps:
        return trial
    return replace(trial, training=replace(trial.training, budget=Budget("steps", steps[trial.row_id])))


def warnings_of(trials: Sequence[Trial]) -> list[str]:
    """What a reader of the plan should know, each thing once."""
    found: dict[str, None] = {}
    for trial in trials:
        if trial.blocked is not None:
            cause = blame(trial, trial.blocked["cause"])
            found[f"{trial.label} on {trial.task_label}: {trial.blocked['status']}: {cause}"] = None
        elif abs(trial.parameters - trial.target_parameters) > trial.parameter_tolerance * trial.target_parameters:
            error = trial.parameters / trial.target_parameters - 1
            found[
                f"{trial.label} on {trial.task_label}: {trial.parameters:,} parameters at width {trial.width}, "
                f"{error:+.1%} from the target of {trial.target_parameters:,}"
            ] = None
        if trial.advice.startswith("warning: "):
            found[f"{trial.label} on {trial.task_label}: {trial.advice.removeprefix('warning: ')}"] = None
    return list(found)
