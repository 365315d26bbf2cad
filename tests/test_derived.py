"""Derived data: made once, found again, made anew when damaged, and never half there."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqbench.derived import derived
from seqbench.errors import PluginError


class Maker:
    """Counts how often it was asked."""

    def __init__(self, value: int = 1) -> None:
        self.value, self.calls = value, 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.calls += 1
        return {"a": np.full(3, self.value), "words": np.array(["ab", "ç"])}


def test_made_once_and_found_again(tmp_path: Path) -> None:
    make = Maker()
    first, second = (derived(tmp_path, "tokens", [b"x", b"y"], make) for _ in range(2))
    assert make.calls == 1
    assert first["a"].tolist() == second["a"].tolist() == [1, 1, 1]
    assert second["words"].tolist() == ["ab", "ç"]
    assert [p.name.partition("-")[0] for p in tmp_path.iterdir()] == ["tokens"]


@pytest.mark.parametrize("parts", [[b"xy"], [b"y", b"x"], [b"x", b"y", b""], [b"x"]])
def test_other_content_is_other_data(tmp_path: Path, parts: list[bytes]) -> None:
    derived(tmp_path, "tokens", [b"x", b"y"], Maker(1))
    assert derived(tmp_path, "tokens", parts, Maker(2))["a"][0] == 2


def pickled(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.array([{}], dtype=object))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "empty": lambda p: p.write_bytes(b""),
    "garbage": lambda p: p.write_bytes(b"no archive"),
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-30]),
    "pickled": pickled,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew(tmp_path: Path, damage: str) -> None:
    derived(tmp_path, "tokens", [b"x"], Maker())
    (path,) = tmp_path.iterdir()
    DAMAGE[damage](path)
    make = Maker(5)
    assert derived(tmp_path, "tokens", [b"x"], make)["a"].tolist() == [5, 5, 5]
    derived(tmp_path, "tokens", [b"x"], make)
    assert make.calls == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def fails() -> dict[str, np.ndarray]:
        raise ValueError("no data")

    with pytest.raises(ValueError, match="no data"):
        derived(tmp_path / "cache", "tokens", [b"x"], fails)
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_costs_time_alone(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    make = Maker()
    for _ in range(2):
        assert derived(tmp_path / "file" / "cache", "tokens", [b"x"], make)["a"][0] == 1
    assert make.calls == 2


def large() -> dict[str, np.ndarray]:
    return {"a": np.random.default_rng(0).random(100_000)}  # long enough in the writing for others to come in between


def total(folder: Path) -> float:
    return float(derived(folder, "tokens", [b"x"], large)["a"].sum())


def test_several_processes_at_a_time(tmp_path: Path) -> None:
    """As trials of one run are; threads would try numpy and Python more than us (ast.parse, before 3.11.8)."""
    with ProcessPoolExecutor(4, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(total, [tmp_path] * 24))
    assert set(found) == {large()["a"].sum()}
    make = Maker()
    derived(tmp_path, "tokens", [b"x"], make)
    assert make.calls == 0  # the file that is left is whole
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_is_a_name(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"derived data name '\.\./a'"):
        derived(tmp_path, "../a", [], Maker())
