"""Subcommands of ``seqbench`` that plugins bring: their card."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api.checks import check, check_card

OWN_COMMANDS = frozenset(
    {"check", "compare", "data", "env", "export", "info", "list", "new", "report", "run", "speed", "verify"}
)
"""The commands of ``seqbench`` itself, whose names nobody else can take."""


@dataclass(frozen=True)
class CommandCard:
    """The card of a subcommand.

    Attributes:
        name: lower case, words joined by ``-``: ``seqbench NAME``.
        summary: one sentence, shown by ``seqbench --help``.
        factory: ``"package.module:command"``, a ``click.Command``; imported only when the command is called. What it
            raises as a ``SeqbenchError`` ends as one line and exit code 2.
        api: the ``API_VERSION`` that the card was written for; empty: not stated.
    """

    name: str
    summary: str
    factory: str
    api: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above, or the name is one of seqbench's own commands.
        """
        owner = check_card("command", self)
        check(self.name not in OWN_COMMANDS, f"{owner} is seqbench's own; choose another name")
