"""Subcommands that plugins bring: known by their cards, imported when they are called."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

import click

from seqbench import registry
from seqbench.api import CommandCard
from seqbench.errors import PluginError, SeqbenchError, one_line
from seqbench.registry import Registry, Source


class PluginCommand(click.Command):
    """Stands in the list of commands for one that is imported when it is called."""

    def __init__(self, card: CommandCard, origin: Source) -> None:
        super().__init__(card.name, help=card.summary, short_help=card.summary + origin.shown)
        self._card, self._origin = card, origin

    def __str__(self) -> str:
        return f"command {self._card.name!r} of {self._origin}"

    def imported(self) -> click.Command:
        """The command itself.

        Raises:
            PluginError: it cannot be imported, or is no command.
        """
        try:
            command = registry.resolve(self._card.factory)
        except SeqbenchError as error:
            raise PluginError(f"{self}: {error}") from error
        except Exception as error:
            raise PluginError(f"{self}: {fault(error)}") from error
        if not isinstance(command, click.Command):
            raise PluginError(f"{self}: expected a click.Command, got {type(command).__name__}")
        return command

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """That of the command itself, which click then invokes."""
        return self.imported().make_context(*arguments, **extra)


def commands_of(cards: Registry) -> dict[str, PluginCommand]:
    """The subcommands that plugins bring, by name."""
    return {name: PluginCommand(card, cards.origin["command", name]) for name, card in cards.commands.items()}


def fault(error: BaseException) -> str:
    """``ValueError: no such thing (my_command.py, line 12)``, in one line."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{one_line(error)} ({Path(last.filename).name}, line {last.lineno})"
