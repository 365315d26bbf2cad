"""``seqbench compare``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from seqbench.cli.group import OK, TRIAL_FAILED, cli
from seqbench.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


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
