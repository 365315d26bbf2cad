"""Entry points and single files in, a Registry out. A broken plugin is reported, never fatal."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from seqbench import hookspecs
from seqbench.api import CommandCard, DatasetCard, ExecutorCard, ListenerCard, Model, SectionCard, TaskCard
from seqbench.aside import output_aside
from seqbench.errors import PluginError, UnknownName, UsageError, one_line

if TYPE_CHECKING:
    from seqbench.spec import Trial

GROUP = "seqbench"
LIMIT = "SEQBENCH_PLUGINS"
HOOKS = tuple(name for name in vars(hookspecs) if name.startswith("register_"))
"""In the order in which they are called: that of their definition."""

OURS = "seqbench"

HEAVY = ("torch", "numpy", "numba", "pandas", "scipy", "matplotlib", "seaborn", "jax", "tensorflow")
"""What a card has no need to import; each costs every command a tenth of a second to some seconds."""

Card = TypeVar("Card", Model, TaskCard, SectionCard, DatasetCard, ListenerCard, ExecutorCard, CommandCard)


@dataclass(frozen=True)
class Source:
    """Where a plugin comes from.

    Attributes:
        plugin: name of its entry point, or of its file.
        distribution: name; or the path of a file, as it was given.
        version: of the distribution.
        file: it is a single file.
    """

    plugin: str
    distribution: str
    version: str
    file: bool = False

    @property
    def key(self) -> str:
        """``"acme-models:plug"``, as ``SEQBENCH_PLUGINS`` names it; of a file its absolute path."""
        return str(Path(self.distribution).resolve()) if self.file else f"{self.distribution}:{self.plugin}"

    @property
    def ours(self) -> bool:
        """It is of seqbench itself."""
        return self.distribution == OURS

    @property
    def shown(self) -> str:
        """What stands behind a stranger's name in a list: ``"  [acme-models 1.2]"``; nothing behind ours."""
        return "" if self.ours else f"  [{self}]"

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
    """All cards that loaded, what did not load, and what was odd about what did.

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
    odd: list[str] = field(default_factory=list)
    origin: dict[tuple[str, str], Source] = field(default_factory=dict)

    @property
    def complaints(self) -> list[str]:
        """What a user should be told of the plugins: what is broken, and what is odd."""
        return [*map(str, self.broken), *self.odd]

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

    def sources(self, **named: str) -> dict[str, str]:
        """Where the cards of these kinds and names come from, by kind: ``Source.key``; ours are left out.

        ``sources(model="mine", task="copy")`` may be ``{"model": "acme-models:plug"}``.
        """
        found = {kind: self.origin.get((kind, name)) for kind, name in named.items()}
        return {kind: source.key for kind, source in found.items() if source is not None and not source.ours}


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


def load(files: Sequence[str | Path] = (), *, strict: bool = False, only: Collection[str] | None = None) -> Registry:
    """Load every installed plugin, then the single files.

    Args:
        files: paths of ``.py`` files with hooks (``--plugin``); one that fails is an error, since it was asked for.
        strict: a broken installed plugin is an error too.
        only: of the strangers' plugins and files those with these keys (``Source.key``); None: all.

    Raises:
        UsageError: a single file, or under ``strict`` any plugin, is broken.
    """
    registry = Registry()
    with output_aside():
        for entry, source in _entry_points():
            if only is None or source.ours or source.key in only:
                with _watched(registry, source, restore=only is None):
                    _load_one(registry, source, entry.load)
        _join_datasets(registry)
        if strict and registry.broken:
            raise UsageError("; ".join(map(str, registry.broken)))
        for path in files:
            before, source = len(registry.broken), Source(Path(path).name, str(path), "", file=True)
            if only is None or source.key in only:
                with _watched(registry, source, restore=only is None):
                    _load_one(registry, source, partial(_import_file, Path(path)))
            _join_datasets(registry)
            if len(registry.broken) > before:
                raise UsageError(str(registry.broken[-1]))
    return registry


def blame(trial: Trial, cause: str) -> str:
    """A cause with the strangers' cards of the trial, once: ``"mine of acme-models 1.2: ..."``; ours are not named."""
    named = {"model": trial.model, "task": trial.task, "dataset": f"{trial.task}/{trial.dataset}"}
    strangers = ", ".join(f"{named[kind]} of {_title(key)}" for kind, key in trial.sources.items())
    return cause if strangers in cause else f"{strangers}: {cause}"


def _title(key: str) -> str:
    """Distribution and version as they are now, or the file's name."""
    distribution, colon, _ = key.rpartition(":")
    if not colon or Path(key).is_absolute():
        return Path(key).name
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


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
    rows.sort(key=lambda row: (not row[1].ours, row[1].distribution, row[1].plugin))
    seen = set()
    for entry, source in rows:
        if source not in seen:
            seen.add(source)
            yield entry, source


def _load_one(registry: Registry, source: Source, imported: Callable[[], object]) -> None:
    """Import one plugin and let its hooks register; whatever goes wrong is noted."""
    collector = _Collector(registry, source)
    try:
        _call_hooks(imported(), collector)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(f"while plugin {source.plugin!r} of {source} was loading") from interrupt
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's code may raise anything
        registry.broken.append(Broken(source, one_line(error)))
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


@cache
def _manager() -> pluggy.PluginManager:
    """One for all plugins, each of which is in it only while its hooks are called: to make one takes a millisecond."""
    manager = pluggy.PluginManager("seqbench")
    manager.add_hookspecs(hookspecs)
    return manager


@contextmanager
def _watched(registry: Registry, source: Source, restore: bool) -> Iterator[None]:
    """Note what a plugin does while it loads that it should not do.

    Args:
        registry: gets the notes.
        source: of the plugin.
        restore: take back what it does to the environment: child processes, in which others run, would inherit it.
    """
    light = [name for name in HEAVY if name not in sys.modules]
    variables, said = dict(os.environ), io.StringIO()
    with redirect_stdout(said):
        yield
    name = f"plugin {source.plugin!r} of {source}"
    if said.getvalue():
        print(said.getvalue(), end="", file=sys.stderr)  # noqa: T201 - not ours, and not to be lost
        registry.odd.append(f"{name} prints while it loads; what it says goes to standard error")
    loaded = [module for module in light if module in sys.modules]
    if loaded and not source.file:  # a file holds its core too
        registry.odd.append(
            f"{name} imports {', '.join(loaded)} while it loads, which every command waits for; a card names its "
            f"core as 'module:Core', and only that module needs them"
        )
    changed = sorted({name for name, _ in os.environ.items() ^ variables.items()})
    if restore and changed:
        for variable in changed:
            os.environ.pop(variable, None)
        os.environ.update({variable: variables[variable] for variable in changed if variable in variables})
        registry.odd.append(f"{name} sets {', '.join(changed)} in the environment while it loads; that is taken back")


def _call_hooks(plugin: object, collector: _Collector) -> None:
    manager = _manager()
    try:
        manager.register(plugin)
        manager.check_pending()
        if not manager.get_hookcallers(plugin):
            raise PluginError("it implements no hook; decorate a register_... function with seqbench.api.hookimpl")
        for name in HOOKS:
            getattr(manager.hook, name)(register=collector)
    finally:
        if manager.is_registered(plugin):  # some versions of pluggy leave one behind that they refuse half-way
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
