"""The command line: parse, call the pipeline, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

from seqbench.cli import comparing, data, networks, plugins, running  # each adds its commands to the group
from seqbench.cli.group import cli

__all__ = ["cli", "comparing", "data", "main", "networks", "plugins", "running"]


def main() -> None:
    """The console script."""
    cli(prog_name="seqbench")
