"""The one training loop: AdamW, warm-up and cosine decay, clipping after the backward pass."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Protocol

import torch
from torch import Tensor, nn

from seqbench.api import Batch, Form, Metric
from seqbench.assemble import AnyNetwork
from seqbench.errors import Diverged
from seqbench.losses import Loss, targets_of
from seqbench.measure.clock import Stopwatch
from seqbench.measure.work import lengths_in
from seqbench.network import device_of
from seqbench.spec import Training

CHECKS = 200
"""How many times in a run the losses are read off the device, besides validations, at most."""


@dataclass
class Curve:
    """What happened during training: columns of equal length.

    Attributes:
        train: ``step``, ``seconds`` (of training alone), ``loss`` (mean since the last row).
        valid: ``step``, ``seconds`` and each validation metric.
    """

    train: dict[str, list[float]] = field(default_factory=dict)
    valid: dict[str, list[float]] = field(default_factory=dict)


@dataclass
class Trained:
    """The outcome of ``fit``.

    Attributes:
        curve: losses and validations.
        weights: the ``state_dict`` with the best validation.
        best_step: its step.
        best: its validation metrics.
        seconds: wall time of the training steps alone.
        lengths: of the sequences trained on, each as often as it was used.
    """

    curve: Curve
    weights: dict[str, Tensor]
    best_step: int
    best: dict[str, float]
    seconds: float
    lengths: Counter[tuple[int, int]]


@dataclass(frozen=True)
class Problem:
    """What is trained, and towards what."""

    network: AnyNetwork
    form: Form
    loss: Loss

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return device_of(self.network)


class Hearer(Protocol):
    """Is told how the training goes, where the loop pauses in any case."""

    def trained(self, step: int, values: Mapping[str, float]) -> None:
        """The network has made ``step`` steps; ``values`` as ``api.Listener.trained`` has them."""

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """It was validated after ``step``."""


class Stepper:
    """One training step, and nothing else: what the benchmarks compare with a hand-written loop."""

    def __init__(self, problem: Problem, training: Training, steps: int) -> None:
        self._network, self._form, self._loss = problem.network, problem.form, problem.loss
        self._training, self._steps = training, steps
        self._parameters = [p for p in problem.network.parameters() if p.requires_grad]
        self._device = problem.device
        self.optimizer = make_optimizer(problem.network, training)
        self.norm = torch.zeros(())
        """Of the last step's whole gradient, before it was clipped; it stays on the device."""

    def __call__(self, step: int, batch: Batch) -> Tensor:
        """Train on one batch, as step ``step`` (from 1); the mean loss stays on the device."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self._training, step, self._steps)
        outputs = self._network.outputs(batch)
        targets = targets_of(batch, self._form, self._device)
        loss = self._loss(outputs, targets) / targets.total
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.norm = nn.utils.clip_grad_norm_(self._parameters, self._training.clip)
        self.optimizer.step()
        return loss.detach()


def make_optimizer(network: nn.Module, training: Training) -> torch.optim.AdamW:
    """AdamW with weight decay on matrices only: biases and norms are left alone."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=training.lr, fused=True)


def learning_rate(training: Training, step: int, steps: int) -> float:
    """Linear warm-up to ``training.lr``, then a cosine to its ``final_lr`` share at the last step."""
    warm = max(1, round(training.warmup * steps))
    if step <= warm:
        return training.lr * step / warm
    progress = (step - warm) / max(1, steps - warm)
    share = training.final_lr + (1 - training.final_lr) * (1 + math.cos(math.pi * progress)) / 2
    return training.lr * share


def first_step(problem: Problem, training: Training, batches: Iterator[Batch]) -> float:
    """Seconds of one training step on a copy of the network, which is then forgotten.

    Kernels are compiled and libraries loaded in it, so that neither is part of the training's time.
    """
    stepper = Stepper(_copy(problem), training, 1000)
    with Stopwatch(problem.device) as watch:
        stepper(1, next(batches))
    return watch.seconds


def _copy(problem: Problem) -> Problem:
    """With a network of its own, in training mode."""
    # .to() packs the weights of a copied nn.LSTM for cuDNN again, which deepcopy has undone
    copy = replace(problem, network=deepcopy(problem.network).to(problem.device))
    copy.network.train()
    return copy


def steps_in(seconds: float, problem: Problem, training: Training, batches: Iterator[Batch]) -> int:
    """How many training steps fit into ``seconds``: timed on a copy of the network, which is then forgotten.

    The first three steps are not counted; then come at least ten, and more until 5 % of the budget or three seconds are
    spent; the median decides. On CUDA a sample is ten steps, so that waiting for the device is not what is measured.
    """
    block = 10 if problem.device.type == "cuda" else 1
    stepper = Stepper(_copy(problem), training, 1000)
    for _ in range(3):
        stepper(1, next(batches))
    samples: list[float] = []
    while len(samples) * block < 10 or block * sum(samples) < min(0.05 * seconds, 3.0):
        with Stopwatch(problem.device) as watch:
            for _ in range(block):
                stepper(1, next(batches))
        samples.append(watch.seconds / block)
    return max(1, int(seconds / median(samples)))


def fit(
    problem: Problem,
    training: Training,
    steps: int,
    batches: Iterator[Batch],
    validate: Callable[[], dict[str, float]],
    select: Metric,
    hearer: Hearer,
) -> Trained:
    """Train, and keep the weights with the best validation.

    Args:
        problem: its network is trained in place.
        training: the schedule.
        steps: how many.
        batches: endless.
        validate: all metrics on the validation set.
        select: the metric that decides.
        hearer: told at each validation and now and then between.

    Raises:
        Diverged: the loss is not finite.
    """
    stepper = Stepper(problem, training, steps)
    watch = Stopwatch(problem.device)
    trained = Trained(Curve(), {}, 0, {}, 0.0, Counter())
    problem.network.train()
    done = 0
    for pause, is_validation in pauses(steps, training.validations):
        losses = []
        with watch:
            for step in range(done + 1, pause + 1):
                batch = next(batches)
                losses.append(stepper(step, batch))
                trained.lengths.update(lengths_in(batch))
        done = pause
        mean = _mean_loss(losses, done)
        _append(trained.curve.train, done, watch.seconds, {"loss": mean})
        rate = learning_rate(training, done, steps)
        values = {"loss": mean, "lr": rate, "gradient_norm": float(stepper.norm), "seconds": watch.seconds}
        hearer.trained(done, values)
        if is_validation:
            metrics = validate()
            hearer.validated(done, metrics)
            _append(trained.curve.valid, done, watch.seconds, metrics)
            if _better(metrics[select.name], trained.best.get(select.name), select):
                trained.best, trained.best_step = metrics, done
                trained.weights = {name: t.detach().clone() for name, t in problem.network.state_dict().items()}
    trained.seconds = watch.seconds
    return trained


def pauses(steps: int, validations: int) -> list[tuple[int, bool]]:
    """After which steps the loop pauses to read the losses, and whether it validates there too.

    Validations are evenly spaced; the last step is one.
    """
    validated = {max(1, round(steps * k / validations)) for k in range(1, validations + 1)}
    read = set(range(0, steps, math.ceil(steps / CHECKS))) - {0}
    return [(step, step in validated) for step in sorted(validated | read)]


def _mean_loss(losses: list[Tensor], last: int) -> float:
    values = torch.stack(losses).double()
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        first = int((~finite).nonzero()[0])
        step = last - len(losses) + 1 + first
        raise Diverged(step, f"The training loss is {float(values[first])} at step {step}; try a lower --lr.")
    return float(values.mean())


def _append(columns: dict[str, list[float]], step: int, seconds: float, values: dict[str, float]) -> None:
    for name, value in {"step": step, "seconds": seconds, **values}.items():
        columns.setdefault(name, []).append(value)


def _better(value: float, best: float | None, metric: Metric) -> bool:
    """Strictly better, so that of equals the first is kept; anything beats nothing."""
    if best is None or math.isnan(best):
        return True
    return value < best if metric.lower_is_better else value > best
