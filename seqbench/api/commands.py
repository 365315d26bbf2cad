"""Subcommands of ``seqbench`` that plugins bring: their card."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api.checks import check, check_factory, check_name

OWN_COMMANDS = frozenset({"compare", "data", "env", "export", "info", "list", "report", "run", "speed", "verify"})
"""The commands of ``seqbench`` itself, whose names nobody else can take."""


@dataclass(frozen=True)
class CommandCard:
    """The card of a subcommand.

    Attributes:
        name: lower case, words joined by ``-``: ``seqbench NAME``.
        summary: one sentence, shown by ``seqbench --help``.
        factory: ``"package.module:command"``, a ``click.Command``; imported only when the command is called. What it
            raises as a ``SeqbenchError`` ends as one line and exit code 2.
    """

    name: str
    summary: str
    factory: str

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above, or the name is one of seqbench's own commands.
        """
        check_name("command", self.name)
        check(self.name not in OWN_COMMANDS, f"command {self.name!r} is seqbench's own; choose another name")
        check_factory(f"command {self.name!r}", self.factory)
