"""What several test files share."""

from __future__ import annotations

import importlib
import itertools
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest

from seqbench import registry
from seqbench.quantities import Budget
from seqbench.registry import Registry
from seqbench.spec import Training, Trial

# Before anything loads OpenMP, for this process and those it starts: two workers with two threads each on two cores
# wait for one another, and a hundred small calls then take half a minute.
os.environ["OMP_NUM_THREADS"] = "1"

_numbers = itertools.count()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that needs real data must not be skipped where ``SEQBENCH_REQUIRE_DATA`` says that they are there."""
    report = yield
    if report.skipped and item.get_closest_marker("data") and os.environ.get("SEQBENCH_REQUIRE_DATA"):
        report.outcome = "failed"
    return report


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """``install("bad", code)``: a distribution of that name, version 1.2, whose only plugin is ``code``."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name: str, code: str, metadata: bool = True) -> str:
        module = f"stranger_{next(_numbers)}"
        (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        info = tmp_path / f"{name}-1.2.dist-info"
        info.mkdir()
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[seqbench]\nplug = {module}\n", encoding="utf-8")
        importlib.invalidate_caches()
        return module

    return make


@pytest.fixture(scope="session")
def plugins() -> Path:
    """The folder of the example plugins, one file each."""
    return Path(__file__).parent / "plugins"


@pytest.fixture(scope="session")
def cards() -> Registry:
    """The installed plugins."""
    return registry.load()


@pytest.fixture(scope="session")
def example_trial() -> Trial:
    """A trial with every field set; change it with ``dataclasses.replace``."""
    options: dict[str, Any] = {"forget_bias": 1.0, "chrono": False}
    return Trial(
        task="copy",
        task_options={"T": 50},
        dataset="embedded",
        task_label="copy/embedded",
        model="lstm",
        model_options=options,
        label="lstm",
        backend="torch",
        device="cpu",
        width=98,
        layers=1,
        dropout=0.0,
        parameters=50_000,
        core_parameters=48_000,
        target_parameters=50_000,
        seed=0,
        threads=1,
        training=Training(lr=0.003, batch=32, budget=Budget("steps", 1000)),
    )
