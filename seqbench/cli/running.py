"""``seqbench run`` and ``report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench.cli.group import OK, RUN_FOLDER, TRIAL_FAILED, cli, load_cards
from seqbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seqbench.api import Observer
    from seqbench.pipeline import Plan
    from seqbench.results import Results
    from seqbench.spec import Trial
    from seqbench.store import RunFolder


@cli.command()
@click.argument("spec_file", required=False, type=click.Path(path_type=Path))
@click.option("--task", multiple=True, help="Task, as name or name[option=value]. Repeatable.")
@click.option("--model", multiple=True, help="Model, as name or name[option=value]. Repeatable. Default: all.")
@click.option("--aa", metavar="MODEL", help="Compare a model with itself, on other seeds: what is noise here.")
@click.option("--dataset", multiple=True, help="Dataset. Repeatable. Default: each task's first, which works offline.")
@click.option("--seeds", help="How many (5), or which (0,1,5). Default: 5.")
@click.option("--until-decided", type=int, help="Add seeds in rounds until all models differ, up to so many.")
@click.option("--params", help="Trainable parameters of the whole network: 50k, or 50k±1%. Default: the task's.")
@click.option(
    "--budget", help="Training of each trial: 2000steps, 60s, 5min, 2Mtokens, 1e12flops. Default: the task's steps."
)
@click.option("--lr", type=float, help="Peak learning rate. Default: the task's.")
@click.option(
    "--tune",
    multiple=True,
    help="Values that models try first: lr, lr=1e-4..1e-2:5, kernel=3,5, tcn.kernel=3,5. Repeatable.",
)
@click.option(
    "--tune-samples", type=int, help="Each model tries so many Sobol points of --tune. Default: the whole grid."
)
@click.option("--batch", type=int, help="Sequences in a training batch. Default: the task's.")
@click.option("--backend", multiple=True, help="Backend, or auto. Repeatable: one row each. Default: torch.")
@click.option("--device", help="auto, cpu or cuda. Default: auto.")
@click.option("--threads", type=int, help="CPU threads of each trial. Default: 1.")
@click.option("--jobs", type=int, help="Trials that run at a time. Default: as many as cores allow; 1 on a GPU.")
@click.option("--timeout", type=float, help="Seconds after which a trial is killed. Default: 3600.")
@click.option("--memory", type=int, help="MiB after which a trial is killed. Default: when the machine has 5 % left.")
@click.option(
    "--data-dir", type=click.Path(), help="Where downloaded datasets lie. Default: SEQBENCH_DATA or the cache."
)
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with a plugin. Repeatable.")
@click.option("--events", multiple=True, help="Tell this listener of training events: tensorboard. Repeatable.")
@click.option("--executor", help="What runs the trials. Default: local, this machine.")
@click.option("--out", type=click.Path(), help="Folder for the run's own folder. Default: results.")
@click.option("--dry-run", is_flag=True, help="Print the trials and their sizes; train nothing.")
@click.option("--resume", "resumed", type=click.Path(path_type=Path), help="Finish an interrupted run.")
def run(spec_file: Path | None, dry_run: bool, resumed: Path | None, **options: Any) -> None:
    """Train every model on every task under the same rules, and report.

    SPEC_FILE is a TOML file with the same names as the options; options given here win over it.
    """
    given = {name: value for name, value in options.items() if value not in (None, ())}
    if resumed is not None:
        _finish(_resume(resumed, spec_file, given))
        return
    from seqbench.pipeline import make_plan, start
    from seqbench.spec import canonical, read_spec_file, spec_from_mapping

    values = canonical(read_spec_file(spec_file), str(spec_file)) if spec_file else {}
    spec = spec_from_mapping({**values, **given}, str(spec_file or "seqbench run"))
    cards = load_cards(spec.plugin)
    plan = make_plan(spec, cards)
    _print_plan(plan, full=dry_run)
    if not dry_run:
        _finish(start(plan, cards, _watch, say=click.echo))


def _resume(path: Path, spec_file: Path | None, given: dict[str, Any]) -> Results:
    from seqbench.pipeline import resume
    from seqbench.store import RunFolder

    if spec_file or given:
        extra = ", ".join(["SPEC_FILE"] * bool(spec_file) + [f"--{name.replace('_', '-')}" for name in given])
        raise UsageError(f"--resume goes on with the run's own spec; it cannot be given together with {extra}.")
    cards = load_cards(RunFolder.open(path).run()["spec"].get("plugin", ()))
    return resume(path, cards, _watch, say=lambda line: click.echo(line, err=True))


def _watch(trials: Sequence[Trial], folder: RunFolder) -> Observer:
    from rich.console import Console

    from seqbench.progress import Lines, Table

    click.get_current_context().meta[RUN_FOLDER] = folder.path
    console = Console()
    return Table(trials, folder, console) if console.is_terminal else Lines(trials, folder, click.echo)


def _print_plan(plan: Plan, *, full: bool) -> None:
    from seqbench.progress import column_of
    from seqbench.spec import AUTO

    trials = plan.trials
    if full:
        heads = f"{'width':>5} {'layers':>6} {'params':>9} {'of which core':>13} {'error':>6} {'steps':>9}"
        click.echo(f"{'trial':<58} {heads}")
        for trial in trials:
            error = f"{trial.parameters / trial.target_parameters - 1:+.1%}" if not trial.blocked else "-"
            name = f"{trial.task_label} {trial.label} {trial.backend} {column_of(trial)}"
            sizes = f"{trial.width:>5} {trial.layers:>6} {trial.parameters:>9,} {trial.core_parameters:>13,} {error:>6}"
            budget = trial.training.budget
            click.echo(f"{name:<58} {sizes} {f'{budget.amount:,.0f}' if budget.kind == 'steps' else 'timed':>9}")
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    first = trials[0]
    click.echo(f"{len(trials)} trials on {first.device}, {first.threads} thread(s) each; {_schedule(plan)}")
    tuning = [trial for trial in trials if trial.purpose == "tuning"]
    if tuning:
        click.echo(f"{len(tuning)} of them tune, on seed {tuning[0].seed}; validation chooses for each model")
    if AUTO in plan.spec.backend:
        click.echo(f"backend auto: {_chosen(trials)}")


def _schedule(plan: Plan) -> str:
    """``copy: 1,000 steps, lr 0.003; adding: 1e12 FLOPs (812 to 2,345 steps), lr 0.003``."""
    from seqbench.quantities import parse_budget

    asked = None if plan.spec.budget is None else parse_budget(plan.spec.budget)
    parts = []
    for task in dict.fromkeys(trial.task for trial in plan.trials):
        trials = [trial for trial in plan.trials if trial.task == task and not trial.blocked]
        if not trials:
            parts.append(f"{task}: nothing can run")
            continue
        steps = sorted({int(t.training.budget.amount) for t in trials if t.training.budget.kind == "steps"})
        length = " to ".join(f"{amount:,}" for amount in dict.fromkeys([*steps[:1], *steps[-1:]])) + " steps"
        if asked is not None and asked.kind != "steps":
            length = f"{asked} ({length})" if steps else str(asked)
        rates = dict.fromkeys("tuned" if "lr" in plan.trials[0].setting else f"{t.training.lr:g}" for t in trials)
        parts.append(f"{task}: {length}, lr {' or '.join(rates)}")
    return "; ".join(parts)


def _chosen(trials: Sequence[Trial]) -> str:
    """``numba for gru, lstm; torch for mine``."""
    models: dict[str, dict[str, None]] = {}
    for trial in trials:
        models.setdefault(trial.backend, {})[trial.label] = None
    return "; ".join(f"{backend} for {', '.join(labels)}" for backend, labels in models.items())


def _finish(results: Results) -> None:
    results.print()
    click.echo(f"Report: {results.path / 'report.html'}")
    click.echo(f"Table:  {results.path / 'results.csv'}")
    sys.exit(OK if results.ok else TRIAL_FAILED)


@cli.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format", "form", help="Only the tables: markdown, latex or csv, to be pasted; or parquet, into a file."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="With --format: write this file, print nothing.")
@click.option("--figures", is_flag=True, help="Write every figure as SVG and PNG too, into the run's folder figures.")
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with report sections. Repeatable.")
def report(folder: Path, form: str | None, output: Path | None, figures: bool, plugin: tuple[str, ...]) -> None:
    """Write report.html, results.csv and summary.csv of a run anew, and print its tables.

    Plugin files that the run used are not loaded again: their records say all that the tables need.
    """
    from seqbench.results import Results
    from seqbench.store import RunFolder

    results = Results(RunFolder.open(folder), load_cards(plugin))
    if form is not None and figures:
        raise UsageError("--format only prints tables; leave out --figures, or call it once more without --format.")
    if form is None and output is not None:
        raise UsageError("--output is for --format; without it the report is written into the run's folder.")
    if form is not None:
        _table(results, form, output)
        return
    results.write_report()
    if figures:
        results.write_figures()
    _finish(results)


def _table(results: Results, form: str, output: Path | None) -> None:
    """The tables in one form, into a file or to the terminal."""
    from seqbench.report.formats import FORMATS
    from seqbench.store import write_text

    if form not in (*FORMATS, "parquet"):
        raise UnknownName("format", form, [*FORMATS, "parquet"])
    if output is not None and output.is_dir():
        raise UsageError(f"--output {output} is a folder; name a file in it.")
    if form == "parquet":
        if output is None:
            raise UsageError("--format parquet is not text: say into which file, as in --output results.parquet.")
        results.write_parquet(output)
    elif output is not None:
        write_text(output, results.table(form))
    else:
        click.echo(results.table(form), nl=False)
