"""Reading parallel corpora: two files whose lines with the same number are translations of each other."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

from seqbench.api import DataError

LARGEST = 1 << 28
"""Bytes of text in one file, unpacked; more is refused, so that a small archive cannot fill the memory."""

Pairs = list[tuple[str, str]]
"""Sources and targets."""


def read_lines(path: Path) -> list[str]:
    r"""The lines of a UTF-8 file, plain or ``.gz``, without their ends.

    Only ``\n`` ends a line (with or without ``\r`` before it): text may hold other characters, such as U+0085 and
    U+2028, at which ``str.splitlines`` would cut.

    Raises:
        DataError: the file is empty, too large, damaged, or not UTF-8.
    """
    data = _bytes(path)
    if not data.strip():
        raise DataError(f"The corpus file {path} is empty; expected one sentence a line.")
    lines = data.removesuffix(b"\n").split(b"\n")
    return [_decoded(line.removesuffix(b"\r"), path, number) for number, line in enumerate(lines, 1)]


def _bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The corpus file {path} cannot be read ({error}); get it again.") from error
    if len(data) > LARGEST:
        raise DataError(f"The corpus file {path} has more than {LARGEST:,} bytes of text; cut it.")
    return data


def _decoded(line: bytes, path: Path, number: int) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise DataError(
            f"The corpus file {path} is not UTF-8: line {number} has the byte 0x{byte:02x} at place {error.start + 1}; "
            f"convert the file to UTF-8."
        ) from error


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
