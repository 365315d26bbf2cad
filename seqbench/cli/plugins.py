"""What plugins bring: ``seqbench list``, ``info``, ``check``, and ``new``, which begins one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seqbench.cli.group import OK, TRIAL_FAILED, cli, load_cards
from seqbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from seqbench.check import Verdict


@cli.command()
@click.argument("kind", type=click.Choice(["model", "task"]))
@click.argument("name")
@click.option("--single-file", is_flag=True, help="One file for --plugin instead of a package.")
@click.option("-o", "--output", default=".", type=click.Path(path_type=Path), help="Where to put it. Default: here.")
def new(kind: str, name: str, single_file: bool, output: Path) -> None:
    """Write a plugin that works as it stands, to be changed into your own.

    NAME is the name of the new model or task: lower case, words joined by '-'. docs/plugins.md goes on from there.
    """
    from seqbench.scaffold import new_file, new_package

    path = (new_file if single_file else new_package)(kind, name, output, load_cards())
    click.echo(f"{path} is a {kind} that works. Next:")
    plugin = f" --plugin {path}" if single_file else ""
    if not single_file:
        click.echo(f"  python -m pip install -e {path}")
    click.echo(f"  seqbench check {name}{plugin}")
    chosen = f"--task copy --model {name} --model gru" if kind == "model" else f"--task {name}"
    click.echo(f"  seqbench run {chosen}{plugin}")


@cli.command()
@click.argument("names", metavar="[NAME]...", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every model and task that is installed.")
@click.option("--backend", multiple=True, help="Only this backend of the models. Repeatable. Default: all they have.")
@click.option("--proof", multiple=True, help="Only this proof. Repeatable. Default: all that apply.")
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with a plugin. Repeatable.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes at a time. Default: as many as there are cores.")
@click.option("--timeout", type=float, default=600, help="Seconds for one model on one backend. Default: 600.")
def check(
    names: tuple[str, ...],
    everything: bool,
    backend: tuple[str, ...],
    proof: tuple[str, ...],
    plugin: tuple[str, ...],
    jobs: int | None,
    timeout: float,
) -> None:
    """Prove that models and tasks keep to the interface.

    NAME is a model or a task; with --plugin and no NAME, all that these files bring. Each option setting, direction
    and backend is proved: causality, padding, state, gradients, backends against each other and more;
    docs/conformance.md says what each proof is about. Exit code 1 if one fails.
    """
    from seqbench.check import Request, brought_by_files
    from seqbench.check import check as prove
    from seqbench.environment import usable_cores

    cards = load_cards(plugin)
    if everything and names:
        raise UsageError("--all is every model and task; leave out the names, or --all.")
    chosen = names if names or everything else brought_by_files(cards)
    if not chosen and not everything:
        raise UsageError("Say what to check: the name of a model or task (seqbench list has them), or --all.")
    request = Request(chosen, backend, proof, plugin, jobs or usable_cores(), timeout)
    sys.exit(OK if prove(request, cards, _tell_verdict) else TRIAL_FAILED)


def _tell_verdict(verdict: Verdict) -> None:
    said = f"{len(verdict.failures)} of its proofs fail" if verdict.failures else f"{verdict.proofs} proofs hold"
    if verdict.job.kind == "card":
        said = "its cards load too much" if verdict.failures else "its cards load nothing heavy"
    took = f" ({verdict.seconds:.1f} s)" if verdict.seconds else ""
    click.echo(f"{verdict.job!s:<28} {said}{took}")
    for failure in verdict.failures:
        times = f" (in {failure.settings} settings, of which the first)" if failure.settings > 1 else ""
        message = re.sub(r" (Usual cause|Smallest case found|Its last words):", r"\n    \1:", failure.message)
        click.echo(f"  {failure.proof}{times}: {message}")


@cli.command("list")
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with a plugin. Repeatable.")
def list_(plugin: tuple[str, ...]) -> None:
    """Show what is installed: models, tasks, datasets and what else plugins bring."""
    cards = load_cards(plugin)
    groups = {"Models": [("model", m.name, m.summary) for m in cards.models.values()]}
    groups["Tasks"] = [("task", t.name, t.summary) for t in cards.tasks.values()]
    groups["Listeners to training events"] = [("listener", c.name, c.summary) for c in cards.listeners.values()]
    groups["Executors"] = [("executor", c.name, c.summary) for c in cards.executors.values()]
    groups["Commands of plugins"] = [("command", c.name, c.summary) for c in cards.commands.values()]
    for title, rows in groups.items():
        click.echo(f"{title}:")
        for kind, name, summary in rows:
            click.echo(f"  {name:<14} {summary}{cards.origin[kind, name].shown}")
    click.echo("Datasets:")
    for task in cards.tasks.values():
        for dataset in task.datasets:
            name = f"{task.name}/{dataset.name}"
            origin = cards.origin.get(("dataset", name), cards.origin["task", task.name])
            click.echo(f"  {name:<22} {dataset.summary}{origin.shown}")


@cli.command()
@click.argument("name")
@click.option("--code", is_flag=True, help="Show the code of a model beside its equations.")
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with a plugin. Repeatable.")
def info(name: str, code: bool, plugin: tuple[str, ...]) -> None:
    """Show a model or a task: definition, options, source."""
    from seqbench.describe import describe_code, describe_model, describe_task

    cards = load_cards(plugin)
    if name in cards.models:
        click.echo(describe_model(cards.models[name], cards.origin["model", name]))
        if code:
            click.echo(f"\n\n{describe_code(cards.models[name])}")
    elif name in cards.tasks:
        if code:
            raise UsageError(f"{name} is a task; --code shows the code of models.")
        click.echo(describe_task(cards.tasks[name], cards.origin))
    else:
        raise UnknownName("model or task", name, [*cards.models, *cards.tasks])
