"""The speeds as one HTML file that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqbench.report import text
from seqbench.report.page import flat, template
from seqbench.report.speeds.columns import COLUMNS
from seqbench.report.speeds.parts import speed_phase


def page(name: str, data: Mapping[str, Any]) -> str:
    """The HTML text.

    Args:
        name: of the folder.
        data: what ``speed.json`` holds.
    """
    run = data["spec"]["run"]
    return template("speed.html.j2").render(
        name=text.plain(name),
        created=data["created"],
        version=data["seqbench"],
        task=text.plain(", ".join(run["task"])),
        threads=run["threads"],
        phase=speed_phase(data, "speed"),
        columns=COLUMNS,
        environment=flat(data["environment"]),
    )
