"""Every figure of a report as a file, for papers and slides: SVG, and PNG in print resolution."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl

from seqbench.garbage import all_spared
from seqbench.registry import Registry
from seqbench.report.collect import Run
from seqbench.report.figures import Picture
from seqbench.report.pictures import pictures_of
from seqbench.report.sections import section_pictures
from seqbench.report.speeds.parts import speed_pictures
from seqbench.report.text import plain
from seqbench.store import RunFolder, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FOLDER = "figures"
DPI = 200
_KINDS = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "png": {"Software": None},
}
"""Suffix to the metadata that would make two files of one figure differ."""


def write_figures(run: Run, folder: RunFolder, registry: Registry) -> list[Path]:
    """Write ``figures/<task>-<title>.svg`` and ``.png`` into the run's folder; gives their paths.

    Text is drawn as outlines, so that a figure looks the same wherever it is opened.
    """
    with all_spared():
        named = named_pictures(run, folder, registry)
        return [path for name, picture in named for path in _write(name, picture, folder.path / FOLDER)]


def _write(name: str, picture: Picture, out: Path) -> Iterator[Path]:
    """The files of a picture."""
    for kind in _KINDS:
        path = out / f"{name}.{kind}"
        content = _bytes(picture.figure, kind, name)
        write_atomically(path, lambda file, content=content: file.write(content))  # type: ignore[misc]
        yield path


def named_pictures(run: Run, folder: RunFolder, registry: Registry) -> Iterator[tuple[str, Picture]]:
    """Each picture with a file name of its own."""
    used: dict[str, int] = {}
    for task in run.tasks:
        score, others = pictures_of(task, run)
        first = [] if score is None else [score]
        speeds = [] if task.speed is None else speed_pictures(task.speed, run.labels, run.backends)
        for picture in [*first, *others, *speeds, *section_pictures(task, run, folder, registry)]:
            name = _slug(f"{plain(task.label)} {picture.title}")
            used[name] = used.get(name, 0) + 1
            yield (name if used[name] == 1 else f"{name}-{used[name]}"), picture


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9=.]+", "-", text).strip("-.").lower()[:100]


def _bytes(figure: Figure, kind: str, salt: str) -> bytes:
    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt, "svg.fonttype": "path"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure.savefig(file, format=kind, dpi=DPI, metadata=_KINDS[kind])
    return file.getvalue()
