"""What plugins may rely on: versions, names, and warnings before a name goes."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seqbench import api
from seqbench.api import Dataset, Metric, Model, PluginError, SectionCard, TaskCard

MAJOR, MINOR = map(int, api.API_VERSION.split("."))
PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


def model(version: str) -> Model:
    return Model("x", "s", "c", {"torch": "a:B"}, api=version)


def task(version: str) -> TaskCard:
    return TaskCard("x", "s", "a:B", (Metric("m", "s"),), (Dataset("d", "s"),), "m", api=version)


def section(version: str) -> SectionCard:
    return SectionCard("x", "copy", "a:b", api=version)


@pytest.mark.parametrize("card", [model, task, section])
def test_a_card_for_this_version_or_an_earlier_one_of_its_kind_is_taken(card: Callable[[str], Any]) -> None:
    for version in ("", api.API_VERSION, f"{MAJOR}.0"):
        assert card(version).api == version


@pytest.mark.parametrize("card", [model, task, section])
@pytest.mark.parametrize(
    ("version", "message"),
    [
        (f"{MAJOR}.{MINOR + 1}", "'x' is written for version .* and this is .*: install a newer seqbench"),
        (f"{MAJOR + 1}.0", "install a newer seqbench"),
        (f"{MAJOR - 1}.9", "install a newer version of the plugin, or an older seqbench"),
        ("1", "api='1' must read like '1.0'; leave it out to state nothing"),
        ("1.0.0", "must read like"),
    ],
)
def test_a_card_for_another_version_says_what_to_install(
    card: Callable[[str], Any], version: str, message: str
) -> None:
    with pytest.raises(PluginError, match=message):
        card(version)


def test_a_name_that_will_go_warns_and_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(api.RENAMED, "Architecture", "Model")
    with pytest.warns(
        DeprecationWarning, match=r"seqbench\.api\.Architecture will go; use seqbench\.api\.Model"
    ) as said:
        assert api.Architecture is Model
    assert said[0].filename == __file__
    with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
        _ = api.NoSuchName


def test_what_will_go_is_not_called_public() -> None:
    assert not set(api.RENAMED) & set(api.__all__)
    assert set(api.RENAMED.values()) <= set(api.__all__)


def test_all_that_the_page_calls_public_is_there() -> None:
    """And no module names something in ``__all__`` that it has not."""
    part = PAGE.read_text(encoding="utf-8").split("## What is public")[1]
    modules = re.findall(r"^- `(seqbench\.[\w.]+)`: (.*)$", part, re.MULTILINE)
    assert len(modules) >= 4
    for name, said in modules:
        module = importlib.import_module(name)
        names = module.__all__ if "__all__" in said else re.findall(r"`(\w+)`", said)
        assert [n for n in names if not hasattr(module, n)] == []


def test_new_plugins_import_what_is_public_alone() -> None:
    """The examples too, of which tests/test_imports.py sees to it."""
    public = set(re.findall(r"`(seqbench\.[\w.]+)`", PAGE.read_text(encoding="utf-8").split("## What is public")[1]))
    files = list((Path(__file__).parents[1] / "seqbench" / "templates").rglob("*.tmpl"))
    assert len(files) > 6
    for file in files:
        text = file.read_text(encoding="utf-8").replace(
            "from seqbench import conformance", "import seqbench.conformance"
        )
        used = re.findall(r"^(?:from|import) (seqbench[\w.]*)", text, re.MULTILINE)
        assert set(used) <= public, file
