"""The built-in tasks of seqbench: their cards and report sections. Importing this loads neither numpy nor torch."""

from __future__ import annotations

from seqbench.api import Register, hookimpl
from seqbench_tasks import cards

__all__ = ["register_sections", "register_tasks"]


@hookimpl
def register_tasks(register: Register) -> None:
    """Add the built-in tasks."""
    register.task(cards.COPY)
    register.task(cards.ADDING)
    register.task(cards.CHAR_LM)


@hookimpl
def register_sections(register: Register) -> None:
    """Add the report sections of the built-in tasks."""
    register.section(cards.GENERATED_TEXT)
