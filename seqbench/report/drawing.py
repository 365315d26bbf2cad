"""A figure as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.report.figures import PANEL, Picture
from seqbench.report.hover import placed
from seqbench.report.svg import to_svg


@dataclass(frozen=True)
class Drawing:
    """A figure on the page.

    Attributes:
        title: above it.
        svg: what matplotlib drew.
        points: the values that a reader may point at, as ``hover.placed`` gives them.
        large: three side by side would be too small to read.
    """

    title: str
    svg: str
    points: str = ""
    large: bool = False


def drawing(picture: Picture, salt: str) -> Drawing:
    """Draw a picture; ``salt`` makes the ids inside unique on the page."""
    svg = to_svg(picture.figure, salt)  # first: it settles the layout
    points = "" if picture.readings is None else placed(picture.figure, picture.readings)
    return Drawing(picture.title, svg, points, picture.figure.get_figwidth() >= PANEL[0])
