"""Fixtures of the report's tests; the run folders themselves are made in ``made_up_runs``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from seqbench.registry import Registry
from seqbench.store import RunFolder


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
def report_text(tmp_path: Path, registry: Registry) -> Callable[[RunFolder], str]:
    """Write the report of a folder and read it back."""
    from seqbench.report.write import write_report

    return lambda folder: write_report(folder, registry).read_text(encoding="utf-8")
