"""Fixtures of the report's tests; the run folders themselves are made in ``made_up_runs``."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest

from seqbench.api import SectionCard
from seqbench.registry import Registry
from seqbench.results import Results
from seqbench.store import RunFolder


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def report_text(tmp_path: Path, registry: Registry) -> Callable[[RunFolder], str]:
    """Write the report of a folder and read it back."""
    return lambda folder: Results(folder, registry).write_report().read_text(encoding="utf-8")


@pytest.fixture
def section(monkeypatch: pytest.MonkeyPatch, registry: Registry) -> Callable[..., None]:
    """Register a function as a section of the copy task."""

    def add(function: Callable[..., object], name: str = "mine") -> None:
        module = types.ModuleType(f"section_{name}")
        module.make = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        registry.sections[name] = SectionCard(name, "copy", f"{module.__name__}:make")

    return add
