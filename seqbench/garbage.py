"""Python's cyclic garbage collector, kept out of timed samples and from going through thousands of records."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_off() -> Iterator[None]:
    """No search for garbage inside: it would be timed, or, among thousands of new records, find none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def all_spared() -> Iterator[None]:
    """What is there now is kept out of searches for garbage: figures leave much, records none."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
