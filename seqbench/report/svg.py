"""Matplotlib figures as SVG inside an HTML page: the same bytes every time."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_GROUP_ID = re.compile(r'<g id="[^"<>]*"')


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
    return _GROUP_ID.sub("<g", text).strip()  # groups are never referred to, and their ids repeat on a page
