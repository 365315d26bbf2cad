"""The registry: a broken plugin of a stranger is reported and hurts nobody else."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pluggy
import pytest

from seqbench import registry
from seqbench.errors import PluginError, UnknownName, UsageError
from seqbench.registry import Registry, blame, load, resolve
from seqbench.spec import Trial

BUILT_IN = set(load().models)
HEAD = (
    "from seqbench.api import CommandCard, Dataset, DatasetCard, ExecutorCard, ListenerCard\n"
    "from seqbench.api import Model, SectionCard, hookimpl\n"
    "def data(task, name): return DatasetCard(task, Dataset(name, 's'), 'a:b')\n"
    "def card(n): return Model(n, 's', 'c', {'torch': 'a:B'})\n"
)
HOOK = HEAD + "@hookimpl\ndef register_models(register):\n    "
GOOD = HOOK + "register.model(card('stranger'))\n"
TWO_HOOKS = GOOD + "@hookimpl\ndef register_sections(register):\n    register.section('late')\n"

BROKEN = {
    "raises ImportError": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
    "calls sys.exit": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "cannot be parsed": ("def", "SyntaxError: invalid syntax"),
    "raises in its hook": (HOOK + "1 / 0", "ZeroDivisionError: division by zero"),
    "has no hook": (HEAD, "PluginError: it implements no hook; decorate a register_... function with"),
    "forgot the decorator": (HEAD + "def register_models(register): pass", "PluginError: it implements no hook"),
    "has a misspelt hook": (
        HEAD + "@hookimpl\ndef register_model(register): pass",
        "PluginValidationError: unknown hook 'register_model'",
    ),
    "has a hook with an unknown argument": (
        HEAD + "@hookimpl\ndef register_models(registry): pass",
        "hook 'register_models' hookimpl definition: register_models(registry) Argument(s) {'registry'}",
    ),
    "registers no card": (HOOK + "register.model('lstm')", "register.model wants a seqbench.api.Model, got str"),
    "registers a card of another kind": (
        HOOK + "register.task(card('stranger'))",
        "register.task wants a seqbench.api.TaskCard, got Model",
    ),
    "takes a name": (HOOK + "register.model(card('lstm'))", "model 'lstm' is already registered by seqbench "),
    "registers twice": (
        HOOK + "register.model(card('stranger')); register.model(card('stranger'))",
        "model 'stranger' is registered twice by bad 1.2",
    ),
    "has a bad name": (HOOK + "register.model(card('My LSTM'))", "model name 'My LSTM' must be lower case"),
    "has a bad factory": (
        HOOK + "register.model(Model('x', 's', 'c', {'torch': 'os.system'}))",
        "model 'x', backend 'torch': factory 'os.system' must read 'package.module:name'",
    ),
    "has no core": (HOOK + "register.model(Model('x', 's', 'c', {}))", "model 'x' names no core"),
    "has open options": (
        HOOK + "register.model(Model('x', 's', 'c', {'torch': 'a:B'}, options=dict))",
        "options must be a frozen dataclass of option(...) fields",
    ),
    "has a bad listener": (
        HOOK + "register.listener(ListenerCard('My Ears', 's', 'a:b'))",
        "listener name 'My Ears' must be lower case",
    ),
    "registers a listener's factory": (
        HOOK + "register.listener('a:b')",
        "register.listener wants a seqbench.api.ListenerCard, got str",
    ),
    "takes a listener's name": (
        HOOK + "register.listener(ListenerCard('tensorboard', 's', 'a:b'))",
        "listener 'tensorboard' is already registered by seqbench ",
    ),
    "registers a function as an executor": (
        HOOK + "register.executor(print)",
        "register.executor wants a seqbench.api.ExecutorCard, got builtin_function_or_method",
    ),
    "takes an executor's name": (
        HOOK + "register.executor(ExecutorCard('local', 's', 'a:b'))",
        "executor 'local' is already registered by seqbench ",
    ),
    "registers a function as a command": (
        HOOK + "register.command(print)",
        "register.command wants a seqbench.api.CommandCard, got builtin_function_or_method",
    ),
    "takes a command of ours": (
        HOOK + "register.command(CommandCard('run', 's', 'a:b'))",
        "command 'run' is seqbench's own; choose another name",
    ),
    "takes a plugin's command": (
        HOOK + "register.command(CommandCard('tensorboard', 's', 'a:b'))",
        "command 'tensorboard' is already registered by seqbench ",
    ),
    "registers a dataset without a card": (
        HOOK + "register.dataset(Dataset('x', 's'))",
        "register.dataset wants a seqbench.api.DatasetCard, got Dataset",
    ),
    "takes a dataset's name": (
        HOOK + "register.dataset(data('char-lm', 'shakespeare'))",
        "dataset 'char-lm/shakespeare' is already registered by seqbench ",
    ),
    "takes the name of a task's own dataset": (
        HOOK + "register.dataset(data('char-lm', 'embedded'))",
        "dataset 'char-lm/embedded' is already registered by seqbench ",
    ),
    "brings data to a task that takes none": (
        HOOK + "register.dataset(data('copy', 'mine'))",
        "dataset 'copy/mine': task 'copy' takes no datasets of other plugins",
    ),
    "brings data to nobody": (
        HOOK + "register.dataset(data('chess', 'mine'))",
        "dataset 'chess/mine': there is no task 'chess'",
    ),
    "has options that refuse their defaults": (
        "from dataclasses import dataclass\nfrom seqbench.api import option\n@dataclass(frozen=True)\nclass Options:\n"
        "    size: int = option(1, 'size')\n    def __post_init__(self): raise KeyError('size')\n"
        + HOOK
        + "register.model(Model('x', 's', 'c', {'torch': 'a:B'}, options=Options))",
        "model 'x': its options refuse their own defaults: KeyError: 'size'",
    ),
    "fails after its first card": (TWO_HOOKS, "register.section wants a seqbench.api.SectionCard, got str"),
}
numbers = itertools.count()


@pytest.fixture
def file(tmp_path: Path) -> Callable[..., Path]:
    def make(code: str, name: str = "") -> Path:
        path = tmp_path / (name or f"plugin_{next(numbers)}.py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
        return path

    return make


def names(found: Registry) -> set[str]:
    return set(found.models)


# --- installed plugins ----------------------------------------------------------------------------------


def test_the_built_in_cards_enter_by_the_same_door(cards: Registry) -> None:
    assert {"rnn", "lstm", "gru", "janet", "tcn", "transformer"} <= names(cards)
    assert {"copy", "adding", "char-lm"} <= set(cards.tasks)
    assert cards.broken == []
    entries = {
        e.name: e.value for e in importlib.metadata.distribution("seqbench").entry_points.select(group="seqbench")
    }
    assert entries == {
        "harness": "seqbench.builtin",
        "models": "seqbench_models",
        "tasks": "seqbench_tasks",
        "tensorboard": "seqbench_tensorboard",
    }
    assert str(cards.origin["model", "lstm"]) == f"seqbench {importlib.metadata.version('seqbench')}"


def test_a_strangers_model_is_there_beside_ours(install: Callable[..., str]) -> None:
    install("good", GOOD)
    found = load()
    assert found.broken == []
    assert names(found) == BUILT_IN | {"stranger"}
    assert str(found.origin["model", "stranger"]) == "good 1.2"


@pytest.mark.parametrize("fault", BROKEN)
def test_a_plugin_that_is_broken_is_reported_and_nothing_else_suffers(install: Callable[..., str], fault: str) -> None:
    code, message = BROKEN[fault]
    install("bad", code)
    install("good", GOOD.replace("stranger", "another"))
    found = load()
    (broken,) = found.broken
    assert str(broken).startswith("broken plugin 'plug' of bad 1.2: ")
    assert message in str(broken)
    assert "\n" not in str(broken), "one line"
    assert names(found) == BUILT_IN | {"another"}, "of a broken plugin nothing is taken, what it did well included"
    assert found.models["lstm"].summary.startswith("Long short-term memory")
    assert "copy" in found.tasks
    assert "late" not in found.sections
    assert set(found.datasets) == {"char-lm/shakespeare", "char-lm/machado", "sentiment/sst2", "sentiment/mr"}
    assert [dataset.name for dataset in found.tasks["copy"].datasets] == ["embedded"]
    with pytest.raises(UsageError, match="broken plugin 'plug' of bad"):
        load(strict=True)


def test_a_plugin_that_pluggy_refuses_half_way_is_not_called_for_another(
    install: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions of pluggy leave the hooks in place that they took before the bad one."""
    real = pluggy.PluginManager.register

    def half(manager: pluggy.PluginManager, plugin: Any, name: str | None = None) -> str | None:
        done = real(manager, plugin, name)
        if hasattr(plugin, "REFUSED"):
            raise pluggy.PluginValidationError(plugin, "no such argument")
        return done

    monkeypatch.setattr(pluggy.PluginManager, "register", half)
    install("bad", GOOD + "REFUSED = True")
    install("good", GOOD.replace("stranger", "another"))
    found = load()
    assert names(found) == BUILT_IN | {"another"}
    assert [broken.source.distribution for broken in found.broken] == ["bad"]


def test_a_collision_blames_the_later_name(install: Callable[..., str]) -> None:
    install("zebra", GOOD)
    install("aardvark", GOOD)
    found = load()
    assert str(found.origin["model", "stranger"]) == "aardvark 1.2"
    message = "PluginError: model 'stranger' is already registered by aardvark 1.2"
    assert [str(b) for b in found.broken] == [f"broken plugin 'plug' of zebra 1.2: {message}"]


@pytest.mark.filterwarnings("ignore:Implicit None on return values:DeprecationWarning")  # from Python 3.12 on
def test_a_distribution_without_a_name(install: Callable[..., str]) -> None:
    """What a removed package may leave behind; names are sorted, and None cannot be compared."""
    install("half-removed", "import no_such_package", metadata=False)
    install("good", GOOD)
    found = load()
    assert [str(b).partition(":")[0] for b in found.broken] == ["broken plugin 'plug' of unknown"]
    assert "stranger" in names(found)


def test_an_interrupt_is_not_swallowed_and_says_who_was_so_slow(install: Callable[..., str]) -> None:
    install("slow", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt, match=r"^while plugin 'plug' of slow 1\.2 was loading$"):
        load()


def test_the_command_line_says_who_was_so_slow_when_it_was_interrupted(
    tmp_path: Path, install: Callable[..., str]
) -> None:
    install("slow", "raise KeyboardInterrupt")
    command = [sys.executable, "-m", "seqbench", "list"]
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    said = "interrupted while plugin 'plug' of slow 1.2 was loading; leave it out with SEQBENCH_PLUGINS"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"seqbench: {said}\n")


def test_what_a_plugin_prints_is_told_and_is_not_on_standard_output(
    install: Callable[..., str], capfd: pytest.CaptureFixture[str]
) -> None:
    install("good", GOOD + "print('hello')\n")
    install("bad", "print('hello'); 1 / 0")
    found = load()
    said = "prints while it loads; what it says goes to standard error"
    assert found.odd == [f"plugin 'plug' of bad 1.2 {said}", f"plugin 'plug' of good 1.2 {said}"]
    assert found.complaints == [str(found.broken[0]), *found.odd]
    assert "stranger" in names(found)
    assert capfd.readouterr() == ("", "hello\nhello\n")


def test_a_card_that_imports_something_heavy_is_told(
    install: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A made-up one: a false ``tensorflow`` left in this process would be taken for the real one by others."""
    (tmp_path / "tensorfog.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(registry, "HEAVY", ("tensorfog",))
    install("good", "import tensorfog\n" + GOOD)
    install("later", "import tensorfog\n" + GOOD.replace("stranger", "another"))
    (said,) = load().odd
    assert said.startswith("plugin 'plug' of good 1.2 imports tensorfog while it loads, which every command waits for")
    assert {"stranger", "another"} <= names(load())


def test_the_environment_is_as_it_was_before_a_plugin_was_loaded(
    install: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Child processes inherit it, those of other rows too. Its own trial loads it alone, and may need it."""
    for name, value in (("MINE_CHANGED", "before"), ("MINE_REMOVED", "here")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MINE_NEW", raising=False)
    code = "import os; os.environ.update(MINE_CHANGED='after', MINE_NEW='1'); del os.environ['MINE_REMOVED']\n"
    module = install("good", code + GOOD)
    (said,) = load().odd
    assert said.startswith("plugin 'plug' of good 1.2 sets MINE_CHANGED, MINE_NEW, MINE_REMOVED in the environment")
    assert (os.environ["MINE_CHANGED"], os.environ["MINE_REMOVED"]) == ("before", "here")
    assert "MINE_NEW" not in os.environ
    monkeypatch.delitem(sys.modules, module)
    assert load(only=["good:plug"]).odd == []
    assert (os.environ.pop("MINE_NEW"), os.environ["MINE_CHANGED"]) == ("1", "after")


def test_only_some_of_the_strangers_are_loaded(install: Callable[..., str], file: Callable[..., Path]) -> None:
    install("good", GOOD)
    install("bad", "raise SystemError('must not be imported')")
    asked, other = file(GOOD.replace("stranger", "asked")), file("raise SystemError('must not be imported')")
    found = load([asked, other], only=["good:plug", str(asked.resolve())])
    assert found.broken == []
    assert names(found) == BUILT_IN | {"stranger", "asked"}
    assert names(load([asked, other], only=[])) == BUILT_IN


def test_a_card_tells_where_it_is_from_and_a_cause_who_is_to_blame(
    install: Callable[..., str], file: Callable[..., Path], example_trial: Trial
) -> None:
    install("good", GOOD)
    path = file(GOOD.replace("stranger", "filed"))
    found = load([path])
    assert found.sources(model="lstm", task="copy") == found.sources(model="nobody", task="") == {}
    assert found.sources(model="stranger", task="copy") == {"model": "good:plug"}
    assert found.sources(model="filed") == {"model": str(path.resolve())}

    def said(cause: str, **sources: str) -> str:
        return blame(replace(example_trial, model="mine", sources=sources), cause)

    assert said("it burst") == "it burst"
    assert said("it burst", model="good:plug") == "mine of good 1.2: it burst"
    assert said("mine of good 1.2: it burst", model="good:plug") == "mine of good 1.2: it burst"
    assert said("it burst", model=str(path.resolve())) == f"mine of {path.name}: it burst"
    assert said("it burst", model="gone:plug", task="good:plug") == "mine of gone, copy of good 1.2: it burst"


@pytest.mark.parametrize(
    ("limit", "models", "tasks"),
    [
        ("", set(), False),
        ("seqbench", BUILT_IN, True),
        ("seqbench:models", BUILT_IN, False),
        ("seqbench:tasks, good", {"stranger"}, True),
        ("good:plug", {"stranger"}, False),
        ("good:other,nobody", set(), False),
    ],
)
def test_the_environment_limits_what_is_loaded(
    install: Callable[..., str], monkeypatch: pytest.MonkeyPatch, limit: str, models: set[str], tasks: bool
) -> None:
    install("good", GOOD)
    install("bad", "import no_such_package")
    monkeypatch.setenv("SEQBENCH_PLUGINS", limit)
    found = load(strict=True)  # what is left out cannot be broken
    assert names(found) == models
    assert ("copy" in found.tasks) is tasks


def test_the_command_line_reports_and_goes_on_or_stops(tmp_path: Path, install: Callable[..., str]) -> None:
    install("bad", "import no_such_package")
    command = [sys.executable, "-m", "seqbench"]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": ""}
    lax = subprocess.run([*command, "list"], capture_output=True, text=True, env=environment, check=False)
    assert lax.returncode == 0
    assert "warning: broken plugin 'plug' of bad 1.2: ModuleNotFoundError" in lax.stderr
    assert "  lstm " in lax.stdout
    strict = [*command, "--strict-plugins", "list"]
    done = subprocess.run(strict, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("seqbench: broken plugin 'plug' of bad 1.2: ModuleNotFoundError")


def test_a_dataset_may_come_before_its_task(install: Callable[..., str]) -> None:
    """Distributions are loaded in the order of their names; what is asked for stands behind the task's own."""
    install("aardvark", HOOK + "register.dataset(data('parity', 'mine'))")
    task = (Path(__file__).parent / "plugins" / "parity.py").read_text(encoding="utf-8")
    install("zebra", task.replace("Options, small)", "Options, small, takes='a list')"))
    found = load()
    assert found.broken == []
    assert [dataset.name for dataset in found.tasks["parity"].datasets] == ["embedded", "mine"]
    assert str(found.origin["dataset", "parity/mine"]) == "aardvark 1.2"


# --- single files ---------------------------------------------------------------------------------------


def test_single_files(plugins: Path) -> None:
    found = load([plugins / "running_mean.py", str(plugins / "parity.py")])
    assert names(found) == BUILT_IN | {"running-mean"}
    assert found.task("parity").defaults.steps == 20
    assert found.origin["model", "running-mean"].plugin == "running_mean.py"
    core = resolve(found.model("running-mean").cores["torch"])
    assert (core.__name__, core.__doc__[:3]) == ("Core", "``y")


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def", r"broken plugin 'plugin_\d+.py' of .*plugin_\d+.py: SyntaxError: invalid syntax"),
        ("x = 1", "PluginError: it implements no hook"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        (HOOK + "register.model(card('lstm'))", "model 'lstm' is already registered by seqbench"),
    ],
)
def test_a_single_file_that_is_broken_is_an_error_since_it_was_asked_for(
    file: Callable[..., Path], code: str, message: str
) -> None:
    path = file(code)
    with pytest.raises(UsageError, match=message):
        load([path])
    if "register" not in code and "x =" not in code:
        assert f"seqbench_file_{path.stem}" not in sys.modules, "half a module may not stay"


def test_a_single_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.py", tmp_path):
        with pytest.raises(UsageError, match="FileNotFoundError: there is no file"):
            load([path])


def test_a_single_file_that_is_no_python(file: Callable[..., Path]) -> None:
    with pytest.raises(UsageError, match=r"notes.txt is not a Python file"):
        load([file("hello", "notes.txt")])


OWN_CORE = GOOD.replace("'torch': 'a:B'", "'torch': f'{__name__}:Core'")


def test_a_file_name_need_not_be_a_python_name(file: Callable[..., Path]) -> None:
    path = file(OWN_CORE + "class Core: mine = 1", f"my-lstm.v{next(numbers)}.py")
    assert resolve(load([path]).model("stranger").cores["torch"]).mine == 1


def test_two_files_of_one_name_are_refused(file: Callable[..., Path]) -> None:
    """The second would silently replace the first one's core."""
    name = f"model_{next(numbers)}.py"
    first = file(OWN_CORE + "class Core: pass", name)
    second = file(OWN_CORE.replace("stranger", "other") + "class Core: pass", f"sub/{name}")
    with pytest.raises(UsageError, match="is loaded under the same name; rename one of the two files"):
        load([first, second])
    assert "stranger" in names(load([first])), "the first one still loads, again and again"


# --- looking up -----------------------------------------------------------------------------------------


def test_an_unknown_name_says_what_is_near_and_what_is_broken(install: Callable[..., str], cards: Registry) -> None:
    with pytest.raises(UnknownName, match=r"^There is no model 'lsmt'. Did you mean 'lstm'\? Known: gru, .*rnn"):
        cards.model("lsmt")
    with pytest.raises(UnknownName, match=r"^There is no task 'zzzz'\. Known: adding"):
        cards.task("zzzz")
    install("bad", "import no_such_package")
    with pytest.raises(UnknownName, match=r"\(broken plugin 'plug' of bad 1.2: ModuleNotFoundError"):
        load().model("from-bad")


def test_sections_of_a_task(install: Callable[..., str]) -> None:
    section = "register.section(SectionCard('my-text', 'copy', 'a:b'))"
    install("good", GOOD + f"@hookimpl\ndef register_sections(register):\n    {section}")
    found = load()
    assert [s.name for s in found.sections_of("copy")] == ["copy-memory", "my-text"]
    assert [s.name for s in found.sections_of("adding")] == ["adding-memory"]
    assert found.sections_of("nothing") == []


def test_resolve() -> None:
    assert resolve("seqbench.registry:load") is registry.load
    for factory, message in (
        ("no.such.module:x", "cannot load 'no.such.module:x': No module named 'no'"),
        ("seqbench.registry:nothing", "cannot load 'seqbench.registry:nothing': module .* has no attribute 'nothing'"),
    ):
        with pytest.raises(PluginError, match=message):
            resolve(factory)
