"""The built-in tasks of seqbench: their cards and report sections. Importing this loads neither numpy nor torch."""

from __future__ import annotations

from seqbench.api import Register, hookimpl
from seqbench_tasks.cards.adding import ADDING, ADDING_SECTION
from seqbench_tasks.cards.char_lm import CHAR_LM, CHAR_LM_DATASETS, CHAR_LM_SECTIONS
from seqbench_tasks.cards.copy_memory import COPY, COPY_SECTION
from seqbench_tasks.cards.sentiment import SENTIMENT, SENTIMENT_DATASETS, SENTIMENT_SECTIONS
from seqbench_tasks.cards.translation import SECTIONS, TRANSLATION

__all__ = ["register_datasets", "register_sections", "register_tasks"]


@hookimpl
def register_tasks(register: Register) -> None:
    """Add the built-in tasks."""
    register.task(COPY)
    register.task(ADDING)
    register.task(CHAR_LM)
    register.task(SENTIMENT)
    register.task(TRANSLATION)


@hookimpl
def register_datasets(register: Register) -> None:
    """Add the datasets that lie in files and are read apart from their task."""
    for dataset in (*CHAR_LM_DATASETS, *SENTIMENT_DATASETS):
        register.dataset(dataset)


@hookimpl
def register_sections(register: Register) -> None:
    """Add the report sections of the built-in tasks."""
    for section in (COPY_SECTION, ADDING_SECTION, *CHAR_LM_SECTIONS, *SENTIMENT_SECTIONS, *SECTIONS):
        register.section(section)
