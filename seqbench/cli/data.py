"""``seqbench data`` and ``env``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from seqbench.cli.group import cli, load_cards
from seqbench.errors import UnknownName


@cli.group("data")
def data_group() -> None:
    """Real datasets: what there is, fetch it, where it lies."""


_data_dir = click.option("--data-dir", type=click.Path(path_type=Path), help="Default: SEQBENCH_DATA or the cache.")


@data_group.command("list")
@_data_dir
def data_list(data_dir: Path | None) -> None:
    """Show every dataset and whether it is here."""
    from seqbench import data

    for task in load_cards().tasks.values():
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
    for task in load_cards().tasks.values():
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
