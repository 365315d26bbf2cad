"""The command line: parse, call the pipeline, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench import __version__
from seqbench.errors import SeqbenchError, UnknownName, UsageError
from seqbench.plugin_commands import PluginCommand, commands_of, fault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seqbench.api import Observer
    from seqbench.check import Verdict
    from seqbench.pipeline import Plan
    from seqbench.registry import Registry
    from seqbench.results import Results
    from seqbench.spec import Trial
    from seqbench.speed.spec import SpeedSpec
    from seqbench.store import RunFolder

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


def _registry(plugins: Sequence[str] = ()) -> Registry:
    from seqbench import registry

    cards = registry.load(plugins, strict=bool(click.get_current_context().find_root().obj))
    for complaint in cards.complaints:
        click.echo(f"warning: {complaint}", err=True)
    return cards


# --- run --------------------------------------------------------------------------------------------


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
    cards = _registry(spec.plugin)
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
    cards = _registry(RunFolder.open(path).run()["spec"].get("plugin", ()))
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

    results = Results(RunFolder.open(folder), _registry(plugin))
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


@cli.command()
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--merge", is_flag=True, help="Show the models of all runs side by side instead of what has changed.")
@click.option("--format", "form", default="text", help="text, markdown or csv. Default: text.")
@click.option("--fail-on-regression", "limit", metavar="PERCENT", help="Exit with 1 if a score got worse by more: 2%.")
def compare(before: Path, after: tuple[Path, ...], merge: bool, form: str, limit: str | None) -> None:
    """Say what has changed from one run to others: scores seed by seed, with intervals.

    Rows of the same task, model and backend are compared, over the seeds that both runs have. Speeds are compared where
    the hardware is the same.

    With --merge, one leaderboard a task over the models of all runs, say of several machines. Scores are ranked where
    all conditions but the model are the same (a budget in seconds: on the same hardware), speeds where the hardware is;
    nothing is pooled.
    """
    from seqbench.quantities import parse_percent

    if form not in COMPARISONS:
        raise UnknownName("format", form, COMPARISONS)
    if merge and limit is not None:
        raise UsageError("--fail-on-regression is about what has changed; leave out --merge.")
    if merge:
        click.echo(_merged((before, *after), form), nl=form != "csv")
        return
    share = None if limit is None else parse_percent(limit, "--fail-on-regression")
    worse = _changes(before, after, form, share)
    for row in worse:
        click.echo(f"regression of more than {limit}: {row}", err=form == "csv")
    sys.exit(TRIAL_FAILED if worse else OK)


COMPARISONS = ("text", "markdown", "csv")


def _changes(before: Path, after: Sequence[Path], form: str, share: float | None) -> list[str]:
    """Print what has changed from one run to each of the others; what got worse by more than a share."""
    from seqbench.frame import to_csv
    from seqbench.report.changes import comparison_frame, comparison_text
    from seqbench.report.collect import read_run
    from seqbench.report.compare import changes
    from seqbench.store import RunFolder

    first, worse, frames = read_run(RunFolder.open(before)), [], []
    for place, path in enumerate(after):
        other = read_run(RunFolder.open(path))
        found, names = changes(first, other), (str(before), str(path))
        if form == "csv":
            frames.append(comparison_frame(names, found))
        else:
            click.echo("\n" * bool(place) + comparison_text(names, (first, other), found, form))
        if share is not None:
            worse += [f"{' '.join(c.key)} in {path}: {said}" for c in found if (said := c.regression(share))]
    if frames:
        import pandas as pd

        click.echo(to_csv(pd.concat(frames)), nl=False)
    return worse


def _merged(paths: Sequence[Path], form: str) -> str:
    """All models of several runs; a run is called by its folder, by its path where two folders have one name."""
    from seqbench.frame import to_csv
    from seqbench.report.collect import read_run
    from seqbench.report.merged import merged_frame, merged_text
    from seqbench.store import RunFolder

    if len({path.resolve() for path in paths}) < len(paths):
        raise UsageError("A run is named twice: nothing is gained by merging it with itself.")
    names = [path.resolve().name for path in paths]
    unique = len(set(names)) == len(names)
    runs = {n if unique else str(path): read_run(RunFolder.open(path)) for n, path in zip(names, paths, strict=True)}
    return to_csv(merged_frame(runs)) if form == "csv" else merged_text(runs, form)


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("trial", metavar="TRIAL")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The file to write: model.npz.")
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there already.")
def export(run_folder: Path, trial: str, output: Path, overwrite: bool) -> None:
    """Write a trained network to one file, to be streamed without torch.

    RUN is the folder of a run; TRIAL the id of a trial, the beginning of one, or a label such as lstm, if only one
    trial has it. In Python: seqbench.streaming.Stream.load("model.npz").step(token).
    """
    from seqbench.export import export as write
    from seqbench.store import RunFolder

    click.echo(f"{output}: {write(RunFolder.open(run_folder), trial, output, overwrite)}")


# --- speed ------------------------------------------------------------------------------------------


@cli.command()
@click.argument("run_folder", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option("--model", multiple=True, help="Model, as name or name[option=value]. Repeatable. Default: all.")
@click.option("--task", help="Inputs, outputs and heads as this task has them. Default: the core by itself.")
@click.option("--dataset", help="Dataset of the task. Default: its first.")
@click.option("--operation", multiple=True, help="train, infer, step or decode. Repeatable. Default: all that apply.")
@click.option("--lengths", help="Lengths, or 64..4096: each twice the last. Default: 64,128,256.")
@click.option("--batch", help="Sequences of a call. Streams have 1 in any case. Default: 1,32.")
@click.option("--params", help="Trainable parameters of the whole network: 50k, or 50k±1%. Default: 50k.")
@click.option("--rounds", type=int, help="Samples of each model. Default: 30.")
@click.option("--starts", type=int, help="Processes of each model, which share the samples. Default: 3.")
@click.option("--backend", multiple=True, help="Backend, or auto. Repeatable: one row each. Default: torch.")
@click.option("--device", help="auto, cpu or cuda. Default: auto.")
@click.option("--threads", type=int, help="CPU threads of each model. Default: 1.")
@click.option("--timeout", type=float, help="Seconds for one sample, or to compile. Default: 600.")
@click.option("--data-dir", type=click.Path(), help="Where downloaded datasets lie.")
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with a plugin. Repeatable.")
@click.option("--out", type=click.Path(), help="Folder for the results' folder. Default: results.")
def speed(run_folder: Path | None, **options: Any) -> None:
    """Measure time and memory of models, apart from training and alone on the machine.

    Every model has processes of its own; they are measured in turns, in another order each round. Growth with the
    length of the sequences is fitted where there are three lengths or more. docs/measuring.md says more.

    With RUN, the folder of a run, the networks of that run are measured on each of its tasks, at the length and the
    batches of training (and 1) unless others are asked for, and its report shows them.
    """
    from seqbench.speed.of_run import specs_of
    from seqbench.speed.spec import make_spec
    from seqbench.store import RunFolder

    given = {name: value for name, value in options.items() if value not in (None, ())}
    folder = None if run_folder is None else RunFolder.open(run_folder)
    specs = [make_spec(given)] if folder is None else specs_of(folder, given, click.echo)
    measured = [_measure(spec) for spec in specs]
    if folder is not None:
        from seqbench.results import Results

        report = Results(folder, _registry(specs[0].run.plugin)).write_report()
        click.echo(f"Report: {report}")
    sys.exit(OK if all(measured) else TRIAL_FAILED)


def _measure(spec: SpeedSpec) -> bool:
    """Measure and print; whether all was measured."""
    from seqbench.report.speeds.tables import print_tables
    from seqbench.speed.run import make_plan
    from seqbench.speed.run import run as measure

    cards = _registry(spec.run.plugin)
    plan = make_plan(spec, cards)
    for warning in plan.warnings:
        click.echo(f"warning: {warning}", err=True)
    speeds = measure(plan, cards, click.echo)
    print_tables(speeds.data["rows"])
    click.echo(f"Results: {speeds.path}")
    return speeds.ok


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.argument("trial", metavar="[TRIAL]", required=False)
@click.option("--no-replay", is_flag=True, help="Only look at the files; train nothing.")
@click.option("--jobs", type=click.IntRange(min=1), help="Trials that run at a time. Default: as in the run.")
@click.option("--data-dir", type=click.Path(), help="Where downloaded datasets lie now. Default: as in the run.")
def verify(run_folder: Path, trial: str | None, no_replay: bool, jobs: int | None, data_dir: str | None) -> None:
    """Train recorded trials again, and compare every number.

    RUN is the folder of a run, which is only read; TRIAL the id of a trial, the beginning of one, or a label such as
    lstm, if only one trial has it. Without TRIAL all are replayed, which takes as long as the run did. First comes what
    needs no training: checksums of the records and artifacts, data and plugin files. Exit code 1 if a trial does not
    stand.
    """
    from seqbench.store import RunFolder
    from seqbench.verify import Finding, Request, summary
    from seqbench.verify import verify as check

    findings: list[Finding] = []

    def tell(finding: Finding) -> None:
        findings.append(finding)
        click.echo(str(finding))

    stands = check(RunFolder.open(run_folder), Request(trial, not no_replay, jobs, data_dir), tell)
    click.echo(summary(findings))
    sys.exit(OK if stands else TRIAL_FAILED)


# --- new, check -----------------------------------------------------------------------------------------


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

    path = (new_file if single_file else new_package)(kind, name, output, _registry())
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

    cards = _registry(plugin)
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


# --- list, info -------------------------------------------------------------------------------------


@cli.command("list")
@click.option("--plugin", multiple=True, type=click.Path(), help="A Python file with a plugin. Repeatable.")
def list_(plugin: tuple[str, ...]) -> None:
    """Show what is installed: models, tasks, datasets and what else plugins bring."""
    cards = _registry(plugin)
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

    cards = _registry(plugin)
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


# --- data -------------------------------------------------------------------------------------------


@cli.group("data")
def data_group() -> None:
    """Real datasets: what there is, fetch it, where it lies."""


_data_dir = click.option("--data-dir", type=click.Path(path_type=Path), help="Default: SEQBENCH_DATA or the cache.")


@data_group.command("list")
@_data_dir
def data_list(data_dir: Path | None) -> None:
    """Show every dataset and whether it is here."""
    from seqbench import data

    for task in _registry().tasks.values():
        for dataset in task.datasets:
            size = f"{sum(f.size for f in dataset.files) / 2**20:.1f} MiB" if dataset.files else ""
            state = data.status(dataset, data_dir)
            where = state.note or state.folder or ""
            click.echo(f"{task.name + '/' + dataset.name:<22} {state.state:<9} {size:>8}  {where}".rstrip())


@data_group.command("fetch")
@click.argument("dataset")
@_data_dir
def data_fetch(dataset: str, data_dir: Path | None) -> None:
    """Download a dataset, each file checked against its sha256."""
    from seqbench import data

    data.fetch(_find_dataset(dataset), data_dir)
    click.echo(f"{dataset} is here.")


@data_group.command("path")
def data_path() -> None:
    """Show the folder in which downloads are put."""
    from seqbench import data

    click.echo(data.data_folder())


def _find_dataset(name: str) -> Any:
    """``shakespeare`` or ``char-lm/shakespeare``."""
    found = {}
    for task in _registry().tasks.values():
        for dataset in task.datasets:
            found[f"{task.name}/{dataset.name}"] = dataset
            if dataset.files:
                found[dataset.name] = dataset
    if name not in found:
        raise UnknownName("dataset", name, found)
    return found[name]


@cli.command()
def env() -> None:
    """Show what results depend on here: machine, system, versions."""
    from seqbench.environment import environment

    for key, value in environment().items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items()) or "none set"
        click.echo(f"{key:<14} {value}")


def main() -> None:
    """The console script."""
    cli(prog_name="seqbench")
