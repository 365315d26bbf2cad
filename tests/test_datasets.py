"""Datasets that a plugin brings to a task of another: found, read, refused, and said whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from seqbench import data, registry
from seqbench.api import DataError, Dataset, DatasetCard, PluginError, UsageError
from seqbench.describe import describe_task
from seqbench.pipeline import environment_of
from seqbench.plan import rows_of
from seqbench.registry import Registry, Source
from seqbench.spec import RunSpec, Trial
from seqbench.trial import prepare_task

PLUGIN = Path(__file__).parent / "plugins" / "own_data.py"


@pytest.fixture(scope="module")
def found() -> Registry:
    """As if a distribution had brought the plugin."""
    loaded = registry.load([PLUGIN])
    for name in loaded.datasets:
        if loaded.origin["dataset", name].distribution != "seqbench":
            loaded.origin["dataset", name] = Source("plug", "reader", "1.2")
    return loaded


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(data.CACHE, str(tmp_path / "cache"))


def prepared(found: Registry, name: str, **options: Any) -> tuple[Any, Any]:
    task, _, dataset = name.partition("/")
    user: Any = SimpleNamespace(task=task, dataset=dataset, task_options=options)
    return prepare_task(found, user, None)


# --- what a task does with them -------------------------------------------------------------------------


def test_one_text_is_split_by_position(found: Registry) -> None:
    task, form = prepared(found, "char-lm/whole", window=16)
    whole = registry.resolve(found.datasets["char-lm/whole"].factory)(None)
    lengths = {split: len(codes) for split, codes in task.codes.items()}
    assert lengths == {"train": len(whole) * 9 // 10, "valid": len(whole) // 20, "test": len(whole) // 20}
    assert form.output == len(set(whole))
    assert "".join(task.vocabulary.decode(codes) for codes in task.codes.values()) == whole
    assert {reference.name for reference in task.references()} == {"trivial", "bigram"}, "the optimum is not known"


def test_three_texts_are_the_splits(found: Registry) -> None:
    task, _ = prepared(found, "char-lm/cut", window=16)
    assert task.vocabulary.decode(task.codes["valid"]) == "the loop"
    assert task.vocabulary.decode(task.codes["test"]) == "the word"


def test_labelled_sentences(found: Registry) -> None:
    task, form = prepared(found, "sentiment/films")
    assert {split: len(part.texts) for split, part in task.splits.items()} == {"train": 60, "valid": 20, "test": 20}
    assert task.splits["test"].texts[0] == "a dull film of 20 hours"
    assert task.splits["test"].label.tolist() == [0, 1] * 10
    assert form.length == 6
    assert {reference.name for reference in task.references()} == {"trivial", "bag-of-words"}


def test_pairs_of_sentences(found: Registry) -> None:
    task, form = prepared(found, "translation/rhymes", vocabulary=64)
    assert task.corpus["test"][0] == ("one pato and 20", "um pato e 20")
    assert form.decoder is not None
    assert "optimum" not in {reference.name for reference in task.references()}
    with pytest.raises(UsageError, match="dataset rhymes has one pair, its own; leave out pair"):
        prepared(found, "translation/rhymes", pair="en-pt")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("char-lm/number", "The plugin of dataset 'number' gives int; expected one text (its first 90 % train"),
        ("char-lm/two-splits", "gives splits train, test; expected one text"),
        ("char-lm/bytes", "The valid split of dataset 'bytes' is bytes; expected a text."),
        ("char-lm/short", "The train split of dataset 'short' has 8 characters; expected 129 or more."),
        ("sentiment/stars", "gives (5, 'a fine film') as item 1 of train; expected a mapping of train, valid and test"),
        ("sentiment/nothing", "gives an empty valid split; expected a mapping"),
        ("translation/triples", "gives ('um', 'one', 'uno') as item 1 of valid; expected a mapping of train"),
    ],
)
def test_content_of_another_form_is_refused(found: Registry, name: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        prepared(found, name)
    assert message in str(caught.value)


def test_a_fault_of_the_provider_is_said_to_be_its_own(found: Registry) -> None:
    with pytest.raises(PluginError, match=r"^dataset char-lm/raises of reader 1\.2: KeyError: 'raises'$"):
        prepared(found, "char-lm/raises")


def test_a_task_that_reads_its_own_data_is_given_nothing(found: Registry) -> None:
    with pytest.raises(DataError, match="The task itself reads or makes this dataset"):
        data.locate(found.task("copy").datasets[0]).content()


# --- where they show ------------------------------------------------------------------------------------


def test_real_datasets_enter_by_the_same_door_and_keep_their_place(cards: Registry) -> None:
    assert [d.name for d in cards.task("char-lm").datasets] == ["embedded", "shakespeare", "machado"]
    assert [d.name for d in cards.task("sentiment").datasets] == ["embedded", "sst2", "mr"]
    assert set(cards.datasets) == {"char-lm/shakespeare", "char-lm/machado", "sentiment/sst2", "sentiment/mr"}
    spec = RunSpec(task=("char-lm",), dataset=("shakespeare",), model=("rnn",))
    assert [row.task_label for row in rows_of(spec, cards)] == ["char-lm/shakespeare"]


def test_a_plan_has_the_datasets_own_defaults(found: Registry) -> None:
    (row,) = rows_of(RunSpec(task=("char-lm",), dataset=("whole",), model=("rnn",)), found)
    assert (row.task_label, row.target.count, row.training.batch) == ("char-lm/whole", 3000, 8)
    (row,) = rows_of(RunSpec(task=("char-lm",), model=("rnn",)), found)
    assert row.dataset == "embedded", "the default is the task's own"


def test_the_environment_names_whose_dataset_was_used(found: Registry, example_trial: Trial) -> None:
    used = replace(example_trial, task="char-lm", dataset="whole")
    assert environment_of([used], {}, found)["plugins"] == {"dataset char-lm/whole": "reader 1.2"}
    assert "plugins" not in environment_of([replace(used, dataset="shakespeare")], {}, found)


def test_info_says_whose_a_dataset_is_and_what_a_task_takes(found: Registry) -> None:
    text = describe_task(found.task("char-lm"), found.origin)
    assert "  whole: Made up: whole. (terms: nobody's) [reader 1.2]\n" in text
    assert "says MIT)\n" in text, "nothing beside our own"
    assert f"Datasets of other plugins give {found.task('char-lm').takes}." in text
    assert "Datasets of other plugins" not in describe_task(found.task("copy"), found.origin)


# --- what is refused at registration --------------------------------------------------------------------


def test_a_card_is_checked_when_it_is_made() -> None:
    for card, message in (
        (("char-lm", "whole", "a:b"), "a dataset for task 'char-lm' must be a Dataset, got str"),
        (("char-lm", Dataset("My Text", ""), "a:b"), "dataset name 'My Text' must be lower case"),
        (("char-lm", Dataset("whole", ""), "a.b"), "dataset 'char-lm/whole': factory 'a.b' must read"),
    ):
        with pytest.raises(PluginError, match=message):
            DatasetCard(*card)  # type: ignore[arg-type]
