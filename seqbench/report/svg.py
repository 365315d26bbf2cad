"""Matplotlib figures as SVG inside an HTML page: the same bytes every time, light or dark as the page is."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING

from seqbench.report.look import GRID, INK, OTHER, PAPER, SOFT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_GROUP_ID = re.compile(r'<g id="[^"<>]*"')
_STYLE = re.compile(r' style="[^"<>]*"')
_TEXT = re.compile(r'<text style="([^"<>]*)"')
_COLOUR = re.compile(r"\b(fill|stroke): (#[0-9a-f]{6})\b")
_OF_THE_PAGE = {INK: "--ink", SOFT: "--soft", GRID: "--grid", OTHER: "--other", PAPER: "--card"}
"""Colours of a figure and the variables of ``report.css`` that stand for them."""


def to_svg(figure: Figure, salt: str) -> str:
    """The figure as an ``<svg>`` element, its text as text: it can be searched, copied and read aloud.

    Args:
        figure: any matplotlib figure.
        salt: makes the ids inside unique on the page.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        # as Figure.savefig, which goes through everything twice
        FigureCanvasSVG(figure).print_svg(file, metadata=_METADATA)  # type: ignore[no-untyped-call]
    text = file.getvalue()
    text = text[text.index("<svg") :]
    return _themed(_GROUP_ID.sub("<g", text).strip())  # groups are never referred to, and their ids repeat on a page


def _themed(svg: str) -> str:
    """With the page's colours for paper, ink and grid; unchanged, on its own white paper, where that could harm.

    It could in a figure with an image, which text may lie on, and in one whose text has colours of its own.
    """
    inks = [_COLOUR.search(style) for style in _TEXT.findall(svg)]
    if "<image" in svg or any(ink is None or ink[2] not in {INK, SOFT} for ink in inks):
        return svg
    return _STYLE.sub(lambda style: _COLOUR.sub(_of_the_page, style[0]), svg)


def _of_the_page(found: re.Match[str]) -> str:
    variable = _OF_THE_PAGE.get(found[2])
    return f"{found[1]}: var({variable})" if variable else found[0]
