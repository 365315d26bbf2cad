"""Report sections: what they are given, what they are made of, and their card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from seqbench.api.checks import check_card

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class TrialView:
    """A finished trial as a report section sees it.

    Attributes:
        task_label: the task with its options and dataset, ``"copy[T=100]/embedded"``.
        label: the model as the table names it, ``"lstm[forget_bias=1]"``.
        colour: the model's colour everywhere in the report, ``"#rrggbb"``.
        seed: the trial's seed.
        record: the stored record (plain data).
        arrays: what ``Task.diagnose`` returned, and ``Task.probe`` under ``untrained/`` and ``trained/``.
    """

    task_label: str
    label: str
    colour: str
    seed: int
    record: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Block:
    """A piece of a report section; everything in it is escaped.

    Attributes:
        kind: ``"text"`` (a paragraph: ``content`` is str), ``"code"`` (monospaced, line breaks kept: str),
            ``"table"`` (``content`` is rows of str, the first one the header), ``"figure"`` (a matplotlib Figure),
            ``"marked"`` (monospaced, line breaks kept: successive ``(text, strength, title)``; ``strength`` from 0 to 1
            is how strong the colour behind the text is, ``title`` what shows when a pointer rests there, if not empty).
        content: as the kind says.
        caption: shown above.
    """

    kind: Literal["text", "code", "table", "figure", "marked"]
    content: Any
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A titled part of the report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class SectionCard:
    """The card of a report section.

    Attributes:
        name: lower case, words joined by ``-``.
        task: the task whose trials it explains.
        factory: ``"package.module:function"``, ``function(views: list[TrialView]) -> Section | None``; imported only
            when a report is written; must not need torch.
        across: it looks at the task under all the options and datasets of the run at once, instead of one by one, and
            stands behind the last of them.
        api: the ``API_VERSION`` that the card was written for; empty: not stated.
    """

    name: str
    task: str
    factory: str
    across: bool = False
    api: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        check_card("section", self)
