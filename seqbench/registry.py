"""Entry points and single files in, a Registry out. A broken plugin is reported, never fatal."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pluggy

from seqbench import hookspecs
from seqbench.api import CommandCard, DatasetCard, ExecutorCard, ListenerCard, Model, SectionCard, TaskCard
from seqbench.errors import PluginError, UnknownName, UsageError

GROUP = "seqbench"
LIMIT = "SEQBENCH_PLUGINS"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))
"""In the order in which they are called: that of their definition."""

Card = TypeVar("Card", Model, TaskCard, SectionCard, DatasetCard, ListenerCard, ExecutorCard, CommandCard)


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    source: Source
    error: str

    def __str__(self) -> str:
        return f"broken plugin {self.source.plugin!r} of {self.source}: {self.error}"


@dataclass
class Registry:
    """All cards that loaded, and what did not load.

    ``datasets`` are those that a ``DatasetCard`` brought, by ``"task/dataset"``; they are among their task's too.
    """

    models: dict[str, Model] = field(default_factory=dict)
    tasks: dict[str, TaskCard] = field(default_factory=dict)
    sections: dict[str, SectionCard] = field(default_factory=dict)
    datasets: dict[str, DatasetCard] = field(default_factory=dict)
    listeners: dict[str, ListenerCard] = field(default_factory=dict)
    executors: dict[str, ExecutorCard] = field(default_factory=dict)
    commands: dict[str, CommandCard] = field(default_factory=dict)
    broken: list[Broken] = field(default_factory=list)
    origin: dict[tuple[str, str], Source] = field(default_factory=dict)

    def model(self, name: str) -> Model:
        """The model card of that name.

        Raises:
            UnknownName: no plugin registers it.
        """
        return self._find("model", self.models, name)

    def task(self, name: str) -> TaskCard:
        """The task card of that name.

        Raises:
            UnknownName: no plugin registers it.
        """
        return self._find("task", self.tasks, name)

    def listener(self, name: str) -> ListenerCard:
        """The card of the listener of that name.

        Raises:
            UnknownName: no plugin registers it.
        """
        return self._find("listener", self.listeners, name)

    def executor(self, name: str) -> ExecutorCard:
        """The card of the executor of that name.

        Raises:
            UnknownName: no plugin registers it.
        """
        return self._find("executor", self.executors, name)

    def _find(self, kind: str, cards: dict[str, Card], name: str) -> Card:
        if name not in cards:
            why = [*map(str, self.broken), *([f"{LIMIT} is {os.environ[LIMIT]!r}"] if LIMIT in os.environ else [])]
            raise UnknownName(kind, name, cards, f"({'; '.join(why)})" if why else "")
        return cards[name]

    def sections_of(self, task: str) -> list[SectionCard]:
        """The report sections registered for a task, in order of registration."""
        return [s for s in self.sections.values() if s.task == task]


class _Collector:
    """The ``register`` argument of one plugin's hooks: nothing reaches the registry unless all of it is fine."""

    def __init__(self, registry: Registry, source: Source) -> None:
        self._registry, self._source = registry, source
        self._taken: list[tuple[str, dict[str, Any], Any]] = []

    def model(self, card: Model) -> None:
        self._add("model", Model, self._registry.models, card)

    def task(self, card: TaskCard) -> None:
        self._add("task", TaskCard, self._registry.tasks, card)

    def section(self, card: SectionCard) -> None:
        self._add("section", SectionCard, self._registry.sections, card)

    def dataset(self, card: DatasetCard) -> None:
        self._add("dataset", DatasetCard, self._registry.datasets, card)

    def listener(self, card: ListenerCard) -> None:
        self._add("listener", ListenerCard, self._registry.listeners, card)

    def executor(self, card: ExecutorCard) -> None:
        self._add("executor", ExecutorCard, self._registry.executors, card)

    def command(self, card: CommandCard) -> None:
        self._add("command", CommandCard, self._registry.commands, card)

    def _add(self, kind: str, wanted: type[Any], cards: dict[str, Any], card: Any) -> None:
        if not isinstance(card, wanted):
            raise PluginError(f"register.{kind} wants a seqbench.api.{wanted.__name__}, got {type(card).__name__}")
        if card.name in cards:
            other = self._registry.origin[kind, card.name]
            raise PluginError(f"{kind} {card.name!r} is already registered by {other}")
        if any(k == kind and c.name == card.name for k, _, c in self._taken):
            raise PluginError(f"{kind} {card.name!r} is registered twice by {self._source}")
        self._taken.append((kind, cards, card))

    def commit(self) -> None:
        for kind, cards, card in self._taken:
            cards[card.name] = card
            self._registry.origin[kind, card.name] = self._source


def load(files: Sequence[str | Path] = (), *, strict: bool = False) -> Registry:
    """Load every installed plugin, then the single files.

    Args:
        files: paths of ``.py`` files with hooks (``--plugin``); one that fails is an error, since it was asked for.
        strict: a broken installed plugin is an error too.

    Raises:
        UsageError: a single file, or under ``strict`` any plugin, is broken.
    """
    registry = Registry()
    for entry, source in _entry_points():
        _load_one(registry, source, entry.load)
    _join_datasets(registry)
    if strict and registry.broken:
        raise UsageError("; ".join(map(str, registry.broken)))
    for path in files:
        before = len(registry.broken)
        _load_one(registry, Source(Path(path).name, str(path), ""), lambda path=path: _import_file(Path(path)))
        _join_datasets(registry)
        if len(registry.broken) > before:
            raise UsageError(str(registry.broken[-1]))
    return registry


def fingerprints(files: Sequence[str]) -> dict[str, str]:
    """Each file with its sha256.

    Raises:
        UsageError: a file cannot be read.
    """
    return {path: _sha256(Path(path)) for path in files}


def check_unchanged(files: Mapping[str, str]) -> None:
    """Make sure that plugin files are what they were when their sha256 was taken.

    Raises:
        UsageError: one is not.
    """
    for path, digest in files.items():
        if _sha256(Path(path)) != digest:
            raise UsageError(f"The plugin file {path} has changed since the run was planned; start a new run.")


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UsageError(f"The plugin file {path} cannot be read: {error.strerror}.") from error


def _entry_points() -> Iterator[tuple[importlib.metadata.EntryPoint, Source]]:
    """Ours first, then by distribution name, so that a collision always blames the stranger."""
    limit = os.environ.get(LIMIT)
    allowed = None if limit is None else {name.strip() for name in limit.split(",") if name.strip()}
    found: Iterable[importlib.metadata.EntryPoint] = importlib.metadata.entry_points(group=GROUP)
    rows = []
    for entry in found:
        dist = entry.dist
        source = Source(entry.name, (dist and dist.name) or "unknown", (dist and dist.version) or "")
        if allowed is None or source.distribution in allowed or f"{source.distribution}:{entry.name}" in allowed:
            rows.append((entry, source))
    rows.sort(key=lambda row: (row[1].distribution != "seqbench", row[1].distribution, row[1].plugin))
    seen = set()
    for entry, source in rows:
        if source not in seen:
            seen.add(source)
            yield entry, source


def _load_one(registry: Registry, source: Source, imported: Any) -> None:
    """Import one plugin and let its hooks register; whatever goes wrong is noted."""
    collector = _Collector(registry, source)
    try:
        _call_hooks(imported(), collector)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
        registry.broken.append(Broken(source, " ".join(f"{type(error).__name__}: {error}".split())))
    else:
        collector.commit()


def _join_datasets(registry: Registry) -> None:
    """Put datasets behind their tasks' own, once the tasks are there; one that fits none is reported and dropped."""
    for name, card in list(registry.datasets.items()):
        task = registry.tasks.get(card.task)
        if task is not None and task.dataset(card.dataset.name) is card.dataset:
            continue  # it was there before
        fault = _misfit(card, task, registry)
        if fault or task is None:
            del registry.datasets[name]
            registry.broken.append(Broken(registry.origin.pop(("dataset", name)), f"PluginError: {fault}"))
        else:
            registry.tasks[task.name] = replace(task, datasets=(*task.datasets, card.dataset))


def _misfit(card: DatasetCard, task: TaskCard | None, registry: Registry) -> str:
    """Why a dataset cannot be had of its task; "" if it can."""
    if task is None:
        return f"dataset {card.name!r}: there is no task {card.task!r}"
    if task.dataset(card.dataset.name) is not None:
        return f"dataset {card.name!r} is already registered by {registry.origin['task', task.name]}"
    return "" if task.takes else f"dataset {card.name!r}: task {task.name!r} takes no datasets of other plugins"


@functools.cache
def _manager() -> pluggy.PluginManager:
    """One for all plugins, each of which is in it only while its hooks are called: to make one takes a millisecond."""
    manager = pluggy.PluginManager("seqbench")
    manager.add_hookspecs(hookspecs)
    return manager


def _call_hooks(plugin: object, collector: _Collector) -> None:
    manager = _manager()
    manager.register(plugin)
    try:
        manager.check_pending()
        if not manager.get_hookcallers(plugin):
            raise PluginError("it implements no hook; decorate a register_... function with seqbench.api.hookimpl")
        for name in HOOKS:
            getattr(manager.hook, name)(register=collector)
    finally:
        manager.unregister(plugin)


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    name = f"seqbench_file_{re.sub(r'[^A-Za-z0-9_]', '_', path.stem)}"
    other = getattr(sys.modules.get(name), "__file__", None)
    if other is not None and Path(other).resolve() != path.resolve():
        raise PluginError(f"{other} is loaded under the same name; rename one of the two files")
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # so that a factory "<name>:Core" can find it, here and in a trial's process
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def resolve(factory: str) -> Any:
    """Import ``"package.module:name"``.

    Raises:
        PluginError: there is no such module or name.
    """
    module, _, name = factory.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise PluginError(f"cannot load {factory!r}: {error}") from error
