"""Sizing: what needs torch before a run starts."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from seqbench.api import DecoderForm, Form, Model, Tokens
from seqbench.assemble import chosen_backend
from seqbench.errors import PluginError, SpecError
from seqbench.plan import rows_of, trials_of
from seqbench.registry import Registry
from seqbench.sizing import size_all
from seqbench.spec import RunSpec

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
