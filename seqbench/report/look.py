"""What a model and a backend look like, the same in every figure and every table of a report."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# seaborn's "colorblind" palette, the palest two (grey, yellow) last; a second round falls back on the markers
_PLACES = (0, 1, 2, 3, 4, 9, 5, 6, 7, 8)

# matplotlib's marker, and the character that looks like it
_MARKERS = (("o", "●"), ("s", "■"), ("^", "▲"), ("D", "◆"), ("v", "▼"), ("P", "✚"), ("X", "✖"), ("*", "★"))
_HOLLOW = {"●": "○", "■": "□", "▲": "△", "◆": "◇", "▼": "▽", "✚": "✛", "✖": "×", "★": "☆"}
_LINES = (("solid", "solid"), ((0, (4, 2)), "dashed"), ((0, (1, 1.5)), "dotted"), ((0, (5, 1.5, 1, 1.5)), "dash-dot"))

INK, SOFT, GRID, PAPER = "#1b1f24", "#5c636e", "#e4e6ea", "#ffffff"
"""Of text, of what is said aside, of the lines behind, of the ground; on the page they follow light and dark."""

OTHER = "#7a5195"
"""Of reference lines that are neither the trivial baseline nor the optimum."""

STYLE: dict[Any, Any] = {
    "axes.edgecolor": "#8a8f98",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": "#8a8f98",
    "xtick.labelcolor": INK,
    "ytick.color": "#8a8f98",
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Look:
    """Colour and marker of a model, line and filling of a backend.

    Attributes:
        colour: ``"#rrggbb"``.
        marker: matplotlib's name of it.
        sign: the character that looks like the marker.
        line: matplotlib's line style.
        line_name: ``"solid"``.
        filled: the first backend's markers are, the others' are hollow.
    """

    colour: str
    marker: str
    sign: str
    line: str | tuple[float, tuple[float, ...]]
    line_name: str
    filled: bool

    @property
    def face(self) -> str:
        """Colour inside the marker."""
        return self.colour if self.filled else PAPER


def look(label: str, backend: str, labels: Sequence[str], backends: Sequence[str]) -> Look:
    """The look of a row, from the places of its label and backend in the plan."""
    place, other = labels.index(label), backends.index(backend)
    marker, sign = _MARKERS[place % len(_MARKERS)]
    line, line_name = _LINES[other % len(_LINES)]
    colours = _colours()
    shown = _HOLLOW[sign] if other else sign
    return Look(colours[place % len(colours)], marker, shown, line, line_name, filled=not other)


@functools.cache
def _colours() -> tuple[str, ...]:
    import seaborn as sns

    palette = sns.color_palette("colorblind").as_hex()
    return tuple(palette[place] for place in _PLACES)


@contextmanager
def style(*, formulas: bool = False) -> Iterator[None]:
    """Seaborn's white grid with this report's fonts and colours.

    Args:
        formulas: read ``$...$`` as mathematics (figures of plugins); else a dollar in a label is a dollar.
    """
    import matplotlib as mpl
    import seaborn as sns

    grid: dict[Any, Any] = dict(sns.axes_style("whitegrid"))
    with mpl.rc_context({**grid, **STYLE, "text.parse_math": formulas}):
        yield
