"""``seqbench tensorboard RUN``: what the listener would have written, from the records of a run that has ended."""

from __future__ import annotations

from pathlib import Path

import click

from seqbench.store import RunFolder


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
def tensorboard(run_folder: Path) -> None:
    """Write the curves of a run as TensorBoard's event files.

    They go below events/tensorboard in the folder RUN; trials that have theirs there, from --events tensorboard or from
    an earlier call, are left alone. Needs the package tensorboard: pip install 'seqbench[tensorboard]'.
    """
    from seqbench_tensorboard.finished import write_run

    target, written = write_run(RunFolder.open(run_folder))
    click.echo(f"{written} trials written; look at them with: tensorboard --logdir {target}")
