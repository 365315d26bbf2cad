"""The group of all commands: how they are found, and how errors end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from seqbench import __version__
from seqbench.errors import SeqbenchError, UnknownName
from seqbench.plugin_commands import PluginCommand, commands_of, fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seqbench.registry import Registry

OK, TRIAL_FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130
RUN_FOLDER, ADDED = "seqbench.run_folder", "seqbench.added_commands"


class Commands(click.Group):
    """A group in which every error of ours ends as one line and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except SeqbenchError as error:
            click.echo(f"seqbench: {error}", err=True)
            sys.exit(USAGE)
        except BrokenPipeError:
            raise  # whoever reads our output has gone: click knows what to do
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            click.echo(f"seqbench: {error.strerror or error}:{where}; nothing more can be written or read", err=True)
            sys.exit(USAGE)
        except KeyboardInterrupt as interrupt:
            folder = ctx.meta.get(RUN_FOLDER)
            more = f"; finished trials are safe, go on with: seqbench run --resume {folder}" if folder else ""
            meanwhile = f" {interrupt}; leave it out with SEQBENCH_PLUGINS" if str(interrupt) else ""
            click.echo(f"seqbench: interrupted{meanwhile}{more}", err=True)
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            if not isinstance(command, PluginCommand):
                raise  # a fault of our own: all of the traceback is wanted
            click.echo(f"seqbench: {command} failed: {fault(error)}", err=True)
            sys.exit(USAGE)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Our own and those of plugins."""
        return sorted([*super().list_commands(ctx), *self._added(ctx)])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of our own, for which no plugin is loaded, else one of a plugin."""
        return super().get_command(ctx, cmd_name) or self._added(ctx).get(cmd_name)

    def _added(self, ctx: click.Context) -> dict[str, PluginCommand]:
        from seqbench.registry import load

        if ADDED not in ctx.meta:
            cards = load(strict=bool(ctx.params.get("strict_plugins")))
            ctx.meta[ADDED] = commands_of(cards), " ".join(f"({broken})" for broken in cards.broken)
        added: dict[str, PluginCommand] = ctx.meta[ADDED][0]
        return added

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the command, or the nearest name."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UnknownName("command", args[0], self.list_commands(ctx), ctx.meta[ADDED][1])
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="seqbench")
@click.option("--strict-plugins", is_flag=True, help="A broken installed plugin is an error (exit code 2).")
@click.pass_context
def cli(context: click.Context, strict_plugins: bool) -> None:
    """Compare sequence models: how good, how fast, how big.

    Start with: seqbench run --task copy
    """
    context.obj = strict_plugins


def load_cards(plugins: Sequence[str] = ()) -> Registry:
    """The installed plugins and these files; what is wrong with one is told on standard error."""
    from seqbench import registry

    cards = registry.load(plugins, strict=bool(click.get_current_context().find_root().obj))
    for complaint in cards.complaints:
        click.echo(f"warning: {complaint}", err=True)
    return cards
