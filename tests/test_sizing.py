"""Sizing: what needs torch before a run starts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest

from seqbench.api import Batch, DecoderForm, Form, Model, Tokens
from seqbench.assemble import chosen_backend
from seqbench.errors import PluginError, SpecError
from seqbench.plan import rows_of, trials_of
from seqbench.quantities import Budget
from seqbench.registry import Registry
from seqbench.sizing import size_all
from seqbench.spec import RunSpec, Trial
from seqbench.trial import find, training_batches

TORCH, NUMBA = "mine:Core", "mine.fast:Core"
MODEL = Model("mine", "A model.", "none", cores={"torch": TORCH, "numba": NUMBA}, can=frozenset({"causal", "step"}))
STEPS = Form(Tokens(10), output=10, head="step", target="class", length=20)


def decoder_form(attention: str) -> Form:
    decoder = DecoderForm(8, 0, 1, attention)
    return Form(Tokens(10), output=9, head="decoder", target="class", length=8, decoder=decoder)


@pytest.mark.parametrize(
    ("cores", "device", "backend", "why"),
    [
        ({"torch": TORCH, "numba": NUMBA}, "cpu", "numba", "which is made for the CPU"),
        ({"torch": TORCH, "numba": NUMBA}, "cuda", "torch", "since the device is cuda"),
        ({"torch": TORCH}, "cpu", "torch", "for mine has no numba core"),
        ({"triton": TORCH, "other": NUMBA}, "cpu", "triton", "for mine has no numba core"),
    ],
)
def test_what_auto_stands_for(cores: dict[str, str], device: str, backend: str, why: str) -> None:
    assert chosen_backend(replace(MODEL, cores=cores), device, STEPS) == (backend, why)


@pytest.mark.parametrize(("attention", "backend"), [("dot", "torch"), ("none", "numba")])
def test_a_decoder_of_the_models_own_must_be_on_numba_too(attention: str, backend: str) -> None:
    half = replace(MODEL, decoders={"torch": "mine:Decoder"})
    whole = replace(MODEL, decoders={"torch": "mine:Decoder", "numba": "mine.fast:Decoder"})
    assert chosen_backend(half, "cpu", decoder_form(attention))[0] == backend
    assert chosen_backend(whole, "cpu", decoder_form(attention))[0] == "numba"


def test_the_plan_and_every_trial_say_what_auto_came_to(cards: Registry) -> None:
    spec = RunSpec(task=("copy[T=5]",), model=("lstm", "tcn"), backend=("auto",), seeds="2", params="5k")
    rows = rows_of(spec, cards)
    answer = size_all(rows, (), None, "cpu")
    trials = trials_of(spec, rows, answer.sizes, answer.device, {})
    assert [(t.label, t.backend) for t in trials] == [("lstm", "numba"), ("tcn", "numba")] * 2
    assert all(t.advice.endswith("backend auto: numba, which is made for the CPU") for t in trials)
    named = rows_of(replace(spec, backend=("numba",)), cards)
    same = trials_of(spec, named, size_all(named, (), None, "cpu").sizes, "cpu", {})
    assert [t.id for t in trials] == [t.id for t in same], "the same trial as when numba is named"


def test_auto_stands_alone() -> None:
    with pytest.raises(SpecError, match="chooses one backend for each model; leave out torch"):
        RunSpec(task=("copy",), backend=("auto", "torch"))


def test_no_backend_can_be_called_auto() -> None:
    with pytest.raises(PluginError, match="no backend can be called 'auto'"):
        replace(MODEL, cores={"auto": TORCH})


# --- budgets of tokens and FLOPs ----------------------------------------------------------------------

WORK = {"seeds": "2", "params": "5k", "batch": 16}


def planned(cards: Registry, **values: Any) -> dict[str, list[Trial]]:
    """The trials of each model."""
    spec = RunSpec(**{**WORK, "model": ("rnn", "transformer"), **values})
    rows = rows_of(spec, cards)
    answer = size_all(rows, (), None, "cpu")
    assert not answer.error, answer.error
    found: dict[str, list[Trial]] = {}
    for trial in trials_of(spec, rows, answer.sizes, answer.device, {}):
        found.setdefault(trial.model, []).append(trial)
    return found


@pytest.mark.parametrize("task", ["copy[T=5]", "adding[T=9]", "sentiment", "translation"])
def test_tokens_come_to_the_same_steps_for_all_and_are_what_is_trained_on(cards: Registry, task: str) -> None:
    """The batches of each seed are drawn and counted row by row; where lengths differ, seeds differ a little."""
    trials = [t for of in planned(cards, task=(task,), budget="30.3ktokens").values() for t in of]
    (budget,) = {trial.training.budget for trial in trials}
    assert budget.kind == "steps"
    exact = task.startswith(("copy", "adding"))
    for trial in trials[:2]:
        cast = find(trial)
        sizes = [tokens_of(batch) for batch in islice(training_batches(trial, cast), int(budget.amount) + 1)]
        if exact:
            assert sum(sizes[:-1]) <= 30_300 < sum(sizes), "whole steps, as many as the budget is enough for"
        assert sum(sizes[:-1]) == pytest.approx(30_300, rel=0.05)


def tokens_of(batch: Batch) -> int:
    """Every step of every row, looked at one by one."""
    return sum(
        1
        for array, lengths in ((batch.x, batch.lengths), (batch.y_in, batch.target_lengths))
        if array is not None
        for row in range(len(array))
        for step in range(array.shape[1])
        if lengths is None or step < lengths[row]
    )


def test_flops_come_to_steps_of_each_model(cards: Registry) -> None:
    """An LSTM by hand: three passes of four gates of two H x H matrices, and of the head, 16 x 25 times a step."""
    budget = 1e9
    trials = planned(cards, task=("copy[T=5]",), model=("lstm", "transformer"), budget="1e9flops")
    H = trials["lstm"][0].width
    each = 3 * 16 * 25 * 2 * (8 * H * H + 10 * H)
    assert {t.training.budget for t in trials["lstm"]} == {Budget("steps", budget // each)}
    assert {t.training.budget for t in trials["transformer"]} != {Budget("steps", budget // each)}
    same = planned(cards, task=("copy[T=5]",), model=("lstm",), budget=f"{int(budget // each)}steps")
    assert [t.id for t in same["lstm"]] == [t.id for t in trials["lstm"]], "the same training as when steps are named"


@pytest.mark.parametrize(("budget", "takes"), [("399 tokens", "400 tokens"), ("1000 FLOPs", "")])
def test_a_budget_below_one_step_is_refused(cards: Registry, budget: str, takes: str) -> None:
    rows = rows_of(RunSpec(task=("copy[T=5]",), budget=budget, model=("rnn",), **WORK), cards)
    said = (
        f"--budget {budget} is not enough for a single training step of rnn on copy[T=5]/embedded, which takes {takes}"
    )
    assert size_all(rows, (), None, "cpu").error.startswith(said)


def test_a_budget_of_endless_steps_is_refused(cards: Registry) -> None:
    rows = rows_of(RunSpec(task=("copy[T=5]",), budget="1e99Pflops", model=("rnn",), **WORK), cards)
    assert "; at most 1,000,000,000 are allowed." in size_all(rows, (), None, "cpu").error


# --- what counting may touch --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["numba", "numba-ref"])
@pytest.mark.parametrize("model", ["lstm", "tcn"])
def test_counting_imports_the_kernels_without_harm(model: str, backend: str) -> None:
    """Parameters are counted on torch's meta device; what a module makes when it is imported then must be real."""
    program = f"""
import torch
from seqbench.api import CoreSpec
from seqbench.registry import load, resolve
card = load().model({model!r})
with torch.device("meta"):
    resolve(card.cores[{backend!r}])(CoreSpec(4, 4), card.options())
resolve(card.cores[{backend!r}])(CoreSpec(4, 4), card.options())(torch.zeros(1, 2, 4))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
