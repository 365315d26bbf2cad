"""What a dataset's plugin gives a task, checked: its form is what the task's card says (``TaskCard.takes``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from seqbench.api import DataError

SPLITS = ("train", "valid", "test")

A = TypeVar("A")
B = TypeVar("B")


def provided_splits(content: Any, dataset: str, takes: str) -> dict[str, Any]:
    """The three splits of a mapping.

    Raises:
        DataError: it is no mapping, or its keys are others.
    """
    if not isinstance(content, Mapping):
        raise _misfit(dataset, type(content).__name__, takes)
    if set(content) != set(SPLITS):
        raise _misfit(dataset, f"splits {', '.join(map(str, content)) or 'none'}", takes)
    return {split: content[split] for split in SPLITS}


def provided_pairs(
    content: Any, dataset: str, takes: str, fits: Callable[[A, B], bool]
) -> dict[str, list[tuple[A, B]]]:
    """The three splits, each a list of pairs that ``fits`` takes.

    Raises:
        DataError: there is another thing among them, or a split is empty.
    """
    found: dict[str, list[tuple[A, B]]] = {}
    for split, rows in provided_splits(content, dataset, takes).items():
        found[split] = []
        for number, row in enumerate(rows, 1):
            if not (isinstance(row, tuple | list) and len(row) == 2 and fits(row[0], row[1])):
                raise _misfit(dataset, f"{repr(row)[:60]} as item {number} of {split}", takes)
            found[split].append((row[0], row[1]))
        if not found[split]:
            raise _misfit(dataset, f"an empty {split} split", takes)
    return found


def _misfit(dataset: str, got: str, takes: str) -> DataError:
    return DataError(f"The plugin of dataset {dataset!r} gives {got}; expected {takes}.")
