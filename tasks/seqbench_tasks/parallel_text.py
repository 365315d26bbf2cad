"""Reading parallel corpora: two files whose lines with the same number are translations of each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from seqbench.api import DataError
from seqbench_tasks.text_files import read_lines

Pairs = list[tuple[str, str]]
"""Sources and targets."""


def read_pairs(source: Path, target: Path) -> Pairs:
    """Two files, line by line.

    Raises:
        DataError: a file cannot be read, or they do not have equally many lines.
    """
    first, second = read_lines(source), read_lines(target)
    if len(first) != len(second):
        raise DataError(
            f"The corpus files {source} and {target} have {len(first):,} and {len(second):,} lines; line N of one must "
            f"be the translation of line N of the other."
        )
    return list(zip(first, second, strict=True))


def without(pairs: Pairs, *others: Sequence[tuple[str, str]]) -> Pairs:
    """The pairs that are in none of the others."""
    known = {pair for other in others for pair in other}
    return [pair for pair in pairs if pair not in known]
