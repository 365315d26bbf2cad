"""One trial, start to finish: the only place where a model meets a task."""

from __future__ import annotations

import json
import math
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from seqbench import data, registry
from seqbench.api import Batch, Form, Model, Task, TaskCard
from seqbench.assemble import AnyNetwork, build, core_spec, count
from seqbench.errors import Diverged, PluginError, Refused, SeqbenchError, one_line
from seqbench.listeners import Listeners
from seqbench.losses import loss_of
from seqbench.measure.clock import Stopwatch, per_second
from seqbench.measure.memory import PeakMemory
from seqbench.measure.work import count_tokens, training_flops
from seqbench.options import build_options
from seqbench.predict import NetworkPredictor
from seqbench.spec import FIRST_STEP, STEP, Trial, record_of
from seqbench.store import RunFolder
from seqbench.streams import stream, torch_seed
from seqbench.tampering import Torch
from seqbench.train import Problem, Trained, first_step, fit, steps_in

if TYPE_CHECKING:
    from seqbench.plan import Row

CHANGED = "{} changed in torch during the trial: its numbers may not be comparable with the others'"

Arrays: TypeAlias = dict[str, np.ndarray]


@dataclass(frozen=True)
class Cast:
    """The parts of a trial, found by their names."""

    cards: registry.Registry
    card: Model
    task_card: TaskCard
    task: Task
    form: Form
    options: Any


def run_trial(trial: Trial, folder: RunFolder) -> None:
    """Train, test, store the artifacts and the record; an exception becomes the record's status.

    Runs in a process of its own: it sets torch's threads and random state.
    """
    listeners = Listeners(trial.device)
    with Stopwatch() as watch:
        torch_before = Torch()
        try:
            record = _run(trial, folder, listeners)
        except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything; the run goes on
            record = failure(trial, error)
    changed = torch_before.changes()
    if changed:
        record["notes"].append(f"warning: {registry.blame(trial, CHANGED.format(', '.join(changed)))}")
    record["speed"] = {**record.get("speed", {}), "seconds": watch.seconds}
    listeners.finished(record)
    if listeners.faults:
        record["events"] = listeners.faults
    folder.write_record(trial.id, record)


def _run(trial: Trial, folder: RunFolder, listeners: Listeners) -> dict[str, Any]:
    device = prepare_process(trial)
    cast = find(trial)
    memory = PeakMemory(device)
    network = make_network(trial, cast).to(device)
    assert_threads(trial)
    known, symbols = _known_before_training(cast, network), cast.task.symbols()
    problem = Problem(network, cast.form, loss_of(cast.task, cast.form))
    predict = NetworkPredictor(network, cast.card, cast.form, problem.loss)
    print(FIRST_STEP, flush=True)  # noqa: T201 - into the log
    compiled = first_step(problem, trial.training, training_batches(trial, cast))
    untrained, unprobed = ({}, []) if trial.purpose == "tuning" else _probe(trial, cast.task, predict, "untrained")
    steps = _steps(trial, folder, problem, cast)
    listeners.start(cast.cards, trial, steps, folder)
    memory.restart()  # neither that step nor timing the budget is part of training
    trained = _train(trial, cast, problem, predict, _Told(steps, listeners))
    record = record_of(trial, status="ok", **known) | _training_part(trained, steps, compiled, network)
    if trial.purpose == "tuning":  # the test is not for choosing: it has not been looked at
        assert_threads(trial)
        return record | {"score": None, "memory": {"peak_mib": memory.mib()}}
    network.load_state_dict(trained.weights)
    test, details, tested = _test(cast, predict, device)
    peak = memory.mib()
    assert_threads(trial)
    probed, more = _probe(trial, cast.task, predict, "trained")
    arrays, notes = _diagnose(trial, cast.task, predict)
    _store_artifacts(trial, folder, trained, untrained | probed | arrays, symbols)
    record["notes"] += cast.task.notes() + list(dict.fromkeys(unprobed + more + notes))
    record["metrics"]["test"] = test
    record["speed"]["infer_tokens_per_s"] = tested
    return record | {
        "score": test[cast.task_card.score.name],
        "details": details,
        "sha256": folder.digests(trial.id),
        "memory": {"peak_mib": peak},
    }


def _training_part(trained: Trained, steps: int, compiled: float, network: AnyNetwork) -> dict[str, Any]:
    """The part of the record that says how the training went."""
    tokens = count_tokens(trained.lengths)
    return {
        "steps": steps,
        "train_tokens": tokens,
        "train_flops": training_flops(network, trained.lengths),
        "best_step": trained.best_step,
        "metrics": {"valid": trained.best},
        "curve": asdict(trained.curve),
        "speed": {
            "train_tokens_per_s": per_second(tokens, trained.seconds),
            "train_seconds": trained.seconds,
            "first_step_seconds": compiled,
        },
    }


def _known_before_training(cast: Cast, network: AnyNetwork) -> dict[str, Any]:
    """The part of the record that needs no training, first, so that a fault in it does not waste one."""
    return {
        "task": describe(cast.task_card),
        "form": asdict(cast.form),
        "references": [asdict(reference) for reference in cast.task.references()],
        "parameters": {"network": count(network), "core": count(*network.core_modules)},
        "forward_flops_per_token": network.flops_per_token(),
    }


@dataclass(frozen=True)
class _Told:
    """Writes into the log how far the training is, and passes on what happens."""

    steps: int
    listeners: Listeners

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        print(f"{STEP} {step}/{self.steps} loss {values['loss']:.4f}", flush=True)  # noqa: T201 - into the log
        self.listeners.trained(step, values)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        self.listeners.validated(step, metrics)


def _train(trial: Trial, cast: Cast, problem: Problem, predict: NetworkPredictor, told: _Told) -> Trained:
    torch.manual_seed(torch_seed(trial.seed, "dropout"))
    return fit(
        problem,
        trial.training,
        told.steps,
        training_batches(trial, cast),
        lambda: evaluate(cast, predict, "valid")[0],
        cast.task_card.metric(cast.task_card.select),
        told,
    )


# --- the parts --------------------------------------------------------------------------------------


def prepare_process(trial: Trial) -> torch.device:
    """Threads, precision and determinism of this process, the same for every model."""
    torch.set_num_threads(trial.threads)
    if trial.device == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = False  # cuDNN would use TF32 by default and matmul would not
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
    return torch.device(trial.device)


def assert_threads(trial: Trial) -> None:
    """Make sure that torch still has the threads that it was given.

    Raises:
        SeqbenchError: it has others.
    """
    now = torch.get_num_threads()
    if now != trial.threads:
        raise SeqbenchError(f"torch's threads went from {trial.threads} to {now} during the trial: a plugin set them")


def cards_of(trial: Trial) -> registry.Registry:
    """Our cards and those of the plugins that the trial's model and task come from: no other stranger's code runs here.

    Raises:
        UsageError: a plugin file is not what it was when the run was planned.
    """
    registry.check_unchanged(trial.plugins)
    cards = registry.load(list(trial.plugins), only=trial.sources.values())
    task = cards.tasks.get(trial.task)
    there = trial.model in cards.models and (not trial.task or (task and task.dataset(trial.dataset)))
    heard = all(name in cards.listeners for name in trial.events)  # who has those, the trial does not say
    return cards if there and heard else registry.load(list(trial.plugins))  # nor did runs of before say the rest


def find(trial: Trial) -> Cast:
    """Load the plugins that it needs in this process, then the trial's model and task, and prepare the task.

    Raises:
        UsageError: a plugin file is not what it was when the run was planned.
    """
    cards = cards_of(trial)
    task_card, card = cards.task(trial.task), cards.model(trial.model)
    task, form = prepare_task(cards, trial, trial.data_dir)
    options = build_options(card.options, trial.model_options, f"model {card.name!r}")
    return Cast(cards, card, task_card, task, form, options)


def prepare_task(cards: registry.Registry, user: Trial | Row, data_dir: str | None) -> tuple[Task, Form]:
    """Build the task of a trial, or of the row that it is of, and load its data.

    Raises:
        DataError: a file of the dataset is missing or damaged.
    """
    card = cards.task(user.task)
    task: Task = registry.resolve(card.factory)(build_options(card.options, user.task_options, f"task {card.name!r}"))
    found = card.dataset(user.dataset)
    if found is None:
        raise Refused(f"task {card.name} has no dataset {user.dataset!r}")
    files = data.locate(found, None if data_dir is None else Path(data_dir))
    return task, task.prepare(user.dataset, replace(files, provide=_provider(cards, f"{card.name}/{user.dataset}")))


def _provider(cards: registry.Registry, name: str) -> Callable[[data.Files], Any] | None:
    """What gives the content of a dataset that a card brought; a fault in it is said to be that plugin's."""
    card = cards.datasets.get(name)
    if card is None:
        return None
    factory, origin = card.factory, cards.origin["dataset", name]

    def provide(files: data.Files) -> Any:
        try:
            return registry.resolve(factory)(files)
        except SeqbenchError:
            raise
        except Exception as error:
            raise PluginError(f"dataset {name} of {origin}: {one_line(error)}") from error

    return provide


def make_network(trial: Trial, cast: Cast) -> AnyNetwork:
    """The network with its initial weights, on the CPU: the same on every backend and device.

    Raises:
        SeqbenchError: it has not as many parameters as planned.
    """
    return network_of(trial, cast.card, cast.options, cast.form)


def network_of(trial: Trial, card: Model, options: Any, form: Form) -> AnyNetwork:
    """The same where there is no task: for a form alone."""
    spec = core_spec(card, form, trial.width, trial.layers, trial.dropout)
    torch.manual_seed(torch_seed(trial.seed, "initialisation"))
    network = build(card, trial.backend, spec, options, form)
    if count(network) != trial.parameters:
        raise SeqbenchError(
            f"the network has {count(network):,} parameters, {trial.parameters:,} when the run was planned: the code "
            f"of {card.name} has changed, or its size does not follow from its options alone"
        )
    return network


def training_batches(trial: Trial, cast: Cast) -> Iterator[Batch]:
    """Endless batches; their order depends on the seed alone, so it is the same for every model."""
    return cast.task.batches("train", trial.training.batch, stream(trial.seed, "data"))


def _steps(trial: Trial, folder: RunFolder, problem: Problem, cast: Cast) -> int:
    """The number of steps: as asked, or what the first seed of this row came to when it was timed."""
    budget = trial.training.budget
    if budget.kind == "steps":
        return int(budget.amount)
    agreed = folder.steps(trial.row_id)
    if agreed is not None:
        return agreed
    timed = steps_in(budget.amount, problem, trial.training, training_batches(trial, cast))
    return folder.agree_on_steps(trial.row_id, timed)


def evaluate(cast: Cast, predict: NetworkPredictor, split: str) -> tuple[dict[str, float], dict[str, Any]]:
    """The task's metrics on a split, and what else it says of it.

    Raises:
        PluginError: the task leaves out one of its card's metrics.
    """
    said = cast.task.evaluate(predict, split)
    names = [metric.name for metric in cast.task_card.metrics]
    missing = [name for name in names if name not in said]
    if missing:
        raise PluginError(f"task {cast.task_card.name}: evaluate gives no {', '.join(missing)}; its card promises it")
    return {name: said[name] for name in names}, {name: value for name, value in said.items() if name not in names}


def _test(
    cast: Cast, predict: NetworkPredictor, device: torch.device
) -> tuple[dict[str, float], dict[str, Any], float]:
    """The metrics on the test set, once, what else the task says of it, and tokens per second of doing so.

    Raises:
        Diverged: the score is not a number.
    """
    before = predict.tokens
    with Stopwatch(device) as watch:
        metrics, details = evaluate(cast, predict, "test")
    name = cast.task_card.score.name
    if not math.isfinite(metrics[name]):
        raise Diverged(None, f"The test score {name} is {metrics[name]}; try a lower --lr.")
    return metrics, details, per_second(predict.tokens - before, watch.seconds)


def _probe(trial: Trial, task: Task, predict: NetworkPredictor, when: str) -> tuple[Arrays, list[str]]:
    """The arrays that a task takes of the network before training and after it, under ``when``."""
    arrays, notes = _explained(trial, lambda: task.probe(predict, stream(trial.seed, "probe")))
    return {f"{when}/{name}": array for name, array in arrays.items()}, notes


def _diagnose(trial: Trial, task: Task, predict: NetworkPredictor) -> tuple[Arrays, list[str]]:
    """The arrays that a task takes of the trained network."""
    return _explained(trial, lambda: task.diagnose(predict, stream(trial.seed, "diagnose")))


def _explained(trial: Trial, explain: Callable[[], Arrays]) -> tuple[Arrays, list[str]]:
    """What a task explains a network with; what goes wrong here is a note, for the score does not depend on it."""
    try:
        return explain(), []
    except Exception as error:  # noqa: BLE001 - a stranger's code may raise anything
        traceback.print_exception(error)  # into the trial's log
        return {}, [f"warning: no diagnosis of {trial.label}: {type(error).__name__}: {error}".splitlines()[0]]


def _store_artifacts(
    trial: Trial,
    folder: RunFolder,
    trained: Trained,
    arrays: Arrays,
    symbols: Sequence[str] | None,
) -> None:
    stored = {f"weights/{name}": tensor.cpu().numpy() for name, tensor in trained.weights.items()}
    stored |= {f"task/{name}": np.asarray(array) for name, array in arrays.items()}
    if symbols is not None:
        stored["form/symbols"] = np.array(json.dumps(list(symbols)))  # numpy would cut a text's last NULs
    folder.write_arrays(trial.id, stored)


# --- records ----------------------------------------------------------------------------------------


def describe(card: TaskCard) -> dict[str, Any]:
    """What a record says of its task, so that a report needs no plugin."""
    return {
        "name": card.name,
        "score": card.score.name,
        "select": card.select,
        "metrics": [asdict(metric) for metric in card.metrics],
    }


def failure(trial: Trial, error: Exception) -> dict[str, Any]:
    """The record of a trial that an exception ended."""
    traceback.print_exception(error)  # into the trial's log
    own = isinstance(error, SeqbenchError)  # our messages say what to do; others need the name of the exception
    cause = str(error) if own else f"{type(error).__name__}: {error}"
    record = record_of(trial, status=status_of(error), cause=cause.splitlines()[0])
    if isinstance(error, Diverged) and error.step is not None:
        record["failed_step"] = error.step
    return record


def status_of(error: Exception) -> str:
    """The status that an exception stands for."""
    if isinstance(error, Diverged):
        return "diverged"
    if isinstance(error, Refused):
        return "refused"
    out_of_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    return "out_of_memory" if out_of_memory else "error"
