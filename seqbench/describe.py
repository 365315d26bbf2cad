"""A card as text, for ``seqbench info``."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqbench.api import CoreSpec, Dataset, Defaults, Model, TaskCard
from seqbench.errors import PluginError
from seqbench.options import bounds
from seqbench.registry import Source


def describe_model(card: Model, source: Source) -> str:
    """Definition, options, backends and source of a model."""
    parts = [
        f"{card.name}: {card.summary}",
        _indented(card.equations.strip("\n")),
        _options(card.options, "plus width, layers and dropout, which every model has"),
        f"Can: {', '.join(sorted(card.can))}\nBackends: {', '.join(card.cores)}{_parameters(card)}",
        f"Source: {card.citation}\nPlugin: {source}",
    ]
    return "\n\n".join(filter(None, parts))


def _parameters(card: Model) -> str:
    """How many a usual core has, where the card says it."""
    if card.parameters is None:
        return ""
    options = card.options()
    H = card.width_multiple(options) * -(-64 // card.width_multiple(options))
    layers = card.default_layers(options, 128)
    count = card.parameters(CoreSpec(H, H, layers, "causal" in card.can), options)
    return f"\nParameters: {count:,} in a core of width {H} on inputs of that width, {layers} layer{'s' * (layers > 1)}"


def describe_code(card: Model) -> str:
    """The source that reads most like the equations, of each module that the card names.

    Raises:
        PluginError: a module is not there, or its source is not.
    """
    modules = card.code or (next(iter(card.cores.values())).partition(":")[0],)
    parts = []
    for module in modules:
        path = _source_file(module)
        heading = f"# {module} ({path.name})"
        parts.append(f"{heading}\n{'# ' + '-' * (len(heading) - 2)}\n{path.read_text(encoding='utf-8').strip()}")
    return "\n\n\n".join(parts)


def _source_file(module: str) -> Path:
    """Found without importing the module, which might import torch."""
    try:
        found = sys.modules.get(module) or importlib.util.find_spec(module)
    except ImportError as error:
        raise PluginError(f"cannot show the code of {module!r}: {error}") from error
    origin = getattr(found, "origin", None) or getattr(found, "__file__", None)
    if origin is None or not Path(origin).is_file():
        raise PluginError(f"cannot show the code of {module!r}: there is no such file")
    return Path(origin)


def describe_task(card: TaskCard, origin: Mapping[tuple[str, str], Source]) -> str:
    """Metrics, datasets, options, protocol and source of a task; ``origin`` as the registry has it."""
    source = origin["task", card.name]
    metrics = [f"  {m.name}{f' ({m.unit})' if m.unit else ''}: {m.summary}" for m in card.metrics]
    datasets = [
        f"  {_dataset(d, origin.get(('dataset', f'{card.name}/{d.name}'), source), source)}" for d in card.datasets
    ]
    takes = f"Datasets of other plugins give {card.takes}." if card.takes else ""
    parts = [
        f"{card.name}: {card.summary}",
        "Metrics (the first is the score):\n" + "\n".join(metrics),
        "Datasets (the first is the default):\n" + "\n".join(datasets),
        takes,
        _options(card.options, ""),
        _protocol(card),
        f"Source: {card.citation}\nPlugin: {source}" if card.citation else f"Plugin: {source}",
    ]
    return "\n\n".join(filter(None, parts))


def _dataset(dataset: Dataset, source: Source, task: Source) -> str:
    terms = f" (terms: {dataset.licence})" if dataset.licence else ""
    return f"{dataset.name}: {dataset.summary}{terms}" + (
        "" if source.distribution == task.distribution else f" [{source}]"
    )


def _protocol(card: TaskCard) -> str:
    lines = [f"Protocol: {_defaults(card.defaults)};"]
    lines += [f"on {d.name}: {_defaults(d.defaults)};" for d in card.datasets if d.defaults]
    return "\n".join([*lines, f"checkpoint chosen by the best validation {card.select}."])


def _defaults(d: Defaults) -> str:
    dropout = f", dropout {d.dropout:g}" if d.dropout else ""
    return f"{d.parameters:,} parameters, {d.steps} steps of {d.batch} sequences, peak learning rate {d.lr:g}{dropout}"


def _options(options: type[Any], more: str) -> str:
    lines = [f"  {_option(field)}" for field in dataclasses.fields(options)]
    if not lines and not more:
        return ""
    return "\n".join([f"Options{f' ({more})' if more else ''}:", *(lines or ["  none of its own"])])


def _option(field: dataclasses.Field[Any]) -> str:
    choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
    limits = " | ".join(map(str, choices)) if choices else bounds(low, high)
    limits = f" ({limits})" if limits else ""
    return f"{field.name}={field.default}{limits}: {field.metadata['help']}"


def _indented(text: str) -> str:
    return textwrap.indent(textwrap.dedent(text), "  ")
