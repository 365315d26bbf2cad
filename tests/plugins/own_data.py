"""Datasets for the tasks that are there already, from code alone; and what a provider can do wrong."""

from __future__ import annotations

from seqbench.api import Dataset, DatasetCard, Defaults, hookimpl

TEXT = "in the beginning was the word, and the word was with the loop; " * 60
SENTENCES = [(k % 2, f"a {('dull', 'fine')[k % 2]} film of {k} hours") for k in range(60)]
PAIRS = [(f"one {word} and {k}", f"um {word} e {k}") for k, word in enumerate(("pato", "gato", "rato", "mato") * 15)]
GIVEN = {
    "whole": TEXT,
    "cut": {"train": TEXT, "valid": "the loop", "test": "the word"},
    "number": 3,
    "two-splits": {"train": TEXT, "test": TEXT},
    "bytes": {"train": TEXT, "valid": b"the loop", "test": "the word"},
    "short": {"train": "the word", "valid": "the loop", "test": "the word"},
    "films": {"train": SENTENCES, "valid": SENTENCES[:20], "test": iter(SENTENCES[20:40])},
    "stars": {"train": [(5, "a fine film")], "valid": SENTENCES, "test": SENTENCES},
    "nothing": {"train": SENTENCES, "valid": [], "test": SENTENCES},
    "rhymes": {"train": PAIRS, "valid": PAIRS[:20], "test": PAIRS[20:40]},
    "triples": {"train": PAIRS, "valid": [("um", "one", "uno")], "test": PAIRS},
}
TASKS = {
    "char-lm": ("whole", "cut", "number", "two-splits", "bytes", "short", "raises"),
    "sentiment": ("films", "stars", "nothing"),
    "translation": ("rhymes", "triples"),
}


def __getattr__(name):
    """``give_two_splits`` gives ``GIVEN["two-splits"]``."""
    if not name.startswith("give_"):
        raise AttributeError(name)
    return lambda files: GIVEN[name.removeprefix("give_").replace("_", "-")]


@hookimpl
def register_datasets(register):
    for task, names in TASKS.items():
        for name in names:
            dataset = Dataset(name, f"Made up: {name}.", licence="nobody's", defaults=Defaults(3000, 5, 8))
            register.dataset(DatasetCard(task, dataset, f"{__name__}:give_{name.replace('-', '_')}"))
