"""What is done with the networks of a run: ``seqbench speed``, ``verify``, ``export``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from seqbench.cli.group import OK, TRIAL_FAILED, cli, load_cards

if TYPE_CHECKING:
    from seqbench.speed.spec import SpeedSpec


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

        report = Results(folder, load_cards(specs[0].run.plugin)).write_report()
        click.echo(f"Report: {report}")
    sys.exit(OK if all(measured) else TRIAL_FAILED)


def _measure(spec: SpeedSpec) -> bool:
    """Measure and print; whether all was measured."""
    from seqbench.report.speeds.tables import print_tables
    from seqbench.speed.run import make_plan
    from seqbench.speed.run import run as measure

    cards = load_cards(spec.run.plugin)
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
