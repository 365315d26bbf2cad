from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench import registry
from seqbench.api import Task
from seqbench_tasks.cards.adding import ADDING
from seqbench_tasks.cards.char_lm import CHAR_LM, CHAR_LM_SECTIONS
from seqbench_tasks.cards.copy_memory import COPY
from seqbench_tasks.cards.sentiment import SENTIMENT, SENTIMENT_SECTIONS
from seqbench_tasks.cards.translation import SECTIONS, TRANSLATION

CARDS = (COPY, ADDING, CHAR_LM, SENTIMENT, TRANSLATION)


def test_importing_the_cards_loads_nothing_heavy():
    heavy = ("numpy", "torch", "scipy", "pandas", "matplotlib", "pooch", "rich")
    code = f"import sys, seqbench_tasks; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_cards_enter_through_the_plugin_door(monkeypatch):
    monkeypatch.setenv(registry.LIMIT, "seqbench:tasks")
    found = registry.load(strict=True)
    assert list(found.tasks) == ["copy", "adding", "char-lm", "sentiment", "translation"]
    assert [s.name for s in found.sections_of("char-lm")] == ["loss-by-position", "surprises", "generated-text"]


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_factory_builds_a_task_from_default_options(card):
    assert isinstance(registry.resolve(card.factory)(card.options()), Task)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_first_dataset_works_offline(card):
    assert card.datasets[0].name == "embedded"
    assert card.datasets[0].files == ()


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_references_name_metrics_of_the_card(card, no_files):
    task = registry.resolve(card.factory)(card.options())
    task.prepare("embedded", no_files)
    names = {metric.name for metric in card.metrics}
    references = task.references()
    assert all(set(line.metrics) <= names for line in references)
    assert {"trivial", "optimum"} <= {line.name for line in references}
    better = {line.name: line.metrics[card.score.name] for line in references}
    assert (better["optimum"] < better["trivial"]) == card.score.lower_is_better


@pytest.mark.parametrize(
    "section", [*CHAR_LM_SECTIONS, *SENTIMENT_SECTIONS, *SECTIONS], ids=lambda section: section.name
)
def test_section_factory_resolves(section):
    assert callable(registry.resolve(section.factory))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_documentation_names_all_that_the_card_declares(card, cards):
    card = cards.task(card.name)  # with the datasets that enter by a card of their own
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    _, part = page.split(f"\n## {card.name}: ")
    part = part.split("\n## ")[0]
    names = [metric.name for metric in card.metrics] + [field.name for field in dataclasses.fields(card.options)]
    names += [dataset.name for dataset in card.datasets if dataset.files]
    assert [name for name in names if f"`{name}`" not in part] == []
