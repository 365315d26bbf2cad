"""Training runs on a GPU: every task, every model; needs CUDA, skipped with a reason elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import seqbench

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False"),
]
TASKS = (
    "copy[T=5]",
    "adding[T=10]",
    "char-lm[window=32,sample=20]",
    "sentiment",
    "translation",
    "translation[attention=none,directions=one]",
)


@pytest.mark.parametrize("task", TASKS)
def test_a_training_run_of_each_task(task: str, tmp_path: Path) -> None:
    results = seqbench.run(task=task, seeds=1, params="5k", budget="60steps", device="cuda", jobs=1, out=tmp_path)
    assert results.ok, results.frame[["model", "status", "cause"]]
    assert set(results.frame["device"]) == {"cuda"}
    for record in results.folder.records():
        losses = record["curve"]["train"]["loss"]
        assert losses[-1] < losses[0], record["trial"]["label"]


def test_starts_from_the_same_weights_as_on_the_cpu(tmp_path: Path) -> None:
    """One step on either device from one seed gives nearly the same training loss: weights and data are the same."""
    runs = [
        seqbench.run(task="copy[T=5]", seeds=1, params="5k", budget="1steps", device=device, out=tmp_path / device)
        for device in ("cpu", "cuda")
    ]
    for cpu, gpu in zip(*(run.folder.records() for run in runs), strict=True):
        assert cpu["curve"]["train"]["loss"] == pytest.approx(gpu["curve"]["train"]["loss"], rel=1e-4)


def test_same_bits_on_the_same_gpu(tmp_path: Path) -> None:
    runs = [
        seqbench.run(task="copy[T=5]", seeds=1, params="5k", budget="20steps", device="cuda", out=tmp_path / name)
        for name in ("a", "b")
    ]
    for first, second in zip(*(run.folder.records() for run in runs), strict=True):
        assert first["metrics"] == second["metrics"], first["trial"]["label"]
