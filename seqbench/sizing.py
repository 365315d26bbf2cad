"""What a plan needs torch for: the form of each task, the size of each model, the device. Runs in a child process."""

from __future__ import annotations

import itertools
import math
import platform
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from seqbench import registry
from seqbench.api import Form
from seqbench.assemble import chosen_backend, has_own_decoder
from seqbench.budget import Question, Size, solve
from seqbench.errors import DataError, Refused, UsageError
from seqbench.measure.work import Lengths, count_tokens, lengths_in, training_flops
from seqbench.options import build_options, to_dict
from seqbench.plan import Answer, Row, Sized
from seqbench.quantities import MOST_STEPS, Budget
from seqbench.spec import AUTO
from seqbench.streams import stream
from seqbench.trial import prepare_task

SAMPLE = 64
"""Batches from which the work of a training step is estimated; where all sequences are equally long one would do."""


def size_all(rows: Sequence[Row], plugins: Sequence[str], data_dir: str | None, device: str) -> Answer:
    """Prepare each task once and solve each row's size."""
    try:
        chosen = choose_device(device)
        cards = cards_of_rows(rows, plugins)
        tasks = {row.task_label: row for row in rows}
        scenes = {label: scene_of(row, cards, data_dir) for label, row in tasks.items()}
        sizes = tuple(size_on(chosen, row, cards, scenes[row.task_label]) for row in rows)
    except (UsageError, DataError) as error:
        return Answer(error=str(error))
    return Answer("", chosen, sizes, describe_torch(chosen))


def cards_of_rows(rows: Sequence[Row], plugins: Sequence[str]) -> registry.Registry:
    """Our cards and those of the plugins that these rows come from."""
    return registry.load(plugins, only={key for row in rows for key in row.sources.values()})


@dataclass(frozen=True)
class Scene:
    """What a task asks of its models.

    Attributes:
        form: of the network; or what went wrong when the task was prepared, which then stands in each of its rows.
        sample: the sequences of some training batches, by their lengths; none where no budget depends on them.
        batches: how many.
    """

    form: Form | Exception
    sample: Lengths = field(default_factory=dict)
    batches: int = 0


def scene_of(row: Row, cards: registry.Registry, data_dir: str | None) -> Scene:
    """The scene of the row's task."""
    try:
        task, form = prepare_task(cards, row, data_dir)
        if row.training.budget.kind not in {"tokens", "flops"}:
            return Scene(form)
        batches = task.batches("train", row.training.batch, stream(0, "budget"))
        sample: Counter[tuple[int, int]] = Counter()
        for batch in itertools.islice(batches, SAMPLE):
            sample.update(lengths_in(batch))
    except (UsageError, DataError):
        raise  # the user can mend this before the run starts
    except Exception as error:  # noqa: BLE001 - a stranger's task may raise anything
        return Scene(error)
    return Scene(form, sample, SAMPLE)


def size_on(device: str, row: Row, cards: registry.Registry, scene: Scene) -> Sized:
    """The row's size on a device, which decides what the backend "auto" stands for.

    Raises:
        UsageError: the budget is not enough for a training step.
    """
    if row.backend != AUTO or isinstance(scene.form, Exception):
        return _size(row, cards, scene)
    backend, why = chosen_backend(cards.model(row.model), device, scene.form)
    size = _size(replace(row, backend=backend), cards, scene)
    said = f"backend auto: {backend}, {why}"
    return replace(size, backend=backend, advice=f"{size.advice}; {said}" if size.advice else said)


def _size(row: Row, cards: registry.Registry, scene: Scene) -> Sized:
    """The row's size, or why it cannot run: a stranger's core may raise anything."""
    try:
        if isinstance(scene.form, Exception):
            raise scene.form
        card = cards.model(row.model)
        options = build_options(card.options, row.model_options, f"model {card.name!r}")
        layers = row.layers or card.default_layers(options, scene.form.longest)
        question = Question(card, row.backend, scene.form, options, layers)
        size: Size = solve(question, row.target) if row.width is None else question.sized(row.width)
        advice = _advice(question, size)
        each = _amount_of_step(row.training.budget.kind, question, size, scene)
    except Refused as refusal:
        return Sized(blocked={"status": "refused", "cause": str(refusal)})
    except Exception as error:  # noqa: BLE001 - becomes a row of the table
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        log = "".join(traceback.format_exception(error))
        return Sized(blocked={"status": "error", "cause": cause, "log_tail": log})
    sized = Sized(size.width, layers, to_dict(size.options), size.parameters, size.core_parameters, advice)
    return replace(sized, steps=_steps(row, each)) if each else sized


def _amount_of_step(kind: str, question: Question, size: Size, scene: Scene) -> float:
    """What a training step takes of a budget of tokens or FLOPs, in the mean over the sample; 0 for other budgets.

    The sample is the same for all models and seeds, so that a budget of tokens comes to the same steps for all.
    """
    if kind == "tokens":
        return count_tokens(scene.sample) / scene.batches
    if kind == "flops":
        return training_flops(question.network(size.width, size.options), scene.sample) / scene.batches
    return 0.0


def _steps(row: Row, each: float) -> int:
    """How many whole steps a budget is enough for."""
    budget = row.training.budget
    if budget.amount < each:
        raise UsageError(
            f"--budget {budget} is not enough for a single training step of {row.label} on {row.task_label}, which "
            f"takes {Budget(budget.kind, math.ceil(each))}; ask for more."
        )
    steps = int(budget.amount / each)
    if steps > MOST_STEPS:
        raise UsageError(
            f"--budget {budget} comes to {steps:.3g} training steps of {row.label} on {row.task_label}; at most "
            f"{MOST_STEPS:,} are allowed."
        )
    return steps


def _advice(question: Question, size: Size) -> str:
    """What the card says of this setting; and that a decoder of the model's own has its own attention."""
    card, form = question.card, question.form
    said = (card.advice(size.options, question.layers, form.longest) if card.advice else None) or ""
    if form.decoder is None or not has_own_decoder(card, question.backend, form.decoder):
        return said
    own = "attends to the source by its own decoder, not by the harness's attention"
    return f"{said}; {own}" if said else own


def choose_device(wanted: str) -> str:
    """``auto`` is CUDA where there is one.

    Raises:
        UsageError: CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise UsageError(
            "--device cuda: torch finds no CUDA device; use --device cpu, or install a CUDA build of torch."
        )
    return "cuda" if available and wanted != "cpu" else "cpu"


def describe_torch(device: str) -> dict[str, Any]:
    """What torch says of itself and of the device."""
    # str, because unpickling torch's own type of version would import torch in the parent
    found: dict[str, Any] = {"torch": str(torch.__version__), "cpu_capability": torch.backends.cpu.get_cpu_capability()}
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"gpu": properties.name, "gpu_memory_gib": round(properties.total_memory / 2**30, 1)}
        found |= {"cuda": str(torch.version.cuda), "cudnn": str(_cudnn())}
        found |= {"precision": "float32, TF32 off for matmul and cuDNN"}
    else:
        found |= {"precision": "float32", "architecture": platform.machine()}
    return found


def _cudnn() -> int | None:
    version: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return version
