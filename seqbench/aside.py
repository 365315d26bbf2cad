"""Standard output is for our tables: what strangers' code writes to it goes to standard error."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress


@contextmanager
def output_aside() -> Iterator[None]:
    """What is written to standard output in this block, by Python or a program that it starts, goes to standard error.

    It is the whole process's output that moves, so nothing of ours should be printed meanwhile.
    """
    _flush()
    try:
        kept = os.dup(1)
    except OSError:  # a process without standard output
        kept = None
    try:
        if kept is not None:
            with suppress(OSError):
                os.dup2(2, 1)
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _flush()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


def _flush() -> None:
    """What is buffered goes where it belongs."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):  # None, or closed
            stream.flush()
