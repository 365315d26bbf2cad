"""Reading text files a line at a time, whatever is wrong with them."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from seqbench.api import DataError

LARGEST = 1 << 28
"""Bytes of text in one file, unpacked; more is refused, so that a small archive cannot fill the memory."""


def read_lines(path: Path, encoding: str = "utf-8") -> list[str]:
    r"""The lines of a file, plain or ``.gz``, without their ends.

    Only ``\n`` ends a line (with or without ``\r`` before it): text may hold other characters, such as U+0085 and
    U+2028, at which ``str.splitlines`` would cut.

    Raises:
        DataError: the file is empty, too large, damaged, or not of that encoding.
    """
    data = _bytes(path)
    if not data.strip():
        raise DataError(f"The corpus file {path} is empty; expected one sentence a line.")
    lines = data.removesuffix(b"\n").split(b"\n")
    return [_decoded(line.removesuffix(b"\r"), path, number, encoding) for number, line in enumerate(lines, 1)]


def _bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"The corpus file {path} cannot be read ({error}); get it again.") from error
    if len(data) > LARGEST:
        raise DataError(f"The corpus file {path} has more than {LARGEST:,} bytes of text; cut it.")
    return data


def _decoded(line: bytes, path: Path, number: int, encoding: str) -> str:
    try:
        return line.decode(encoding)
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise DataError(
            f"The corpus file {path} is not {encoding}: line {number} has the byte 0x{byte:02x} at place "
            f"{error.start + 1}; convert the file to {encoding}."
        ) from error
