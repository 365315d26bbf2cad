"""Who may import whom, who may be heavy, who may read a clock: read off the source with ``ast``."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import seqbench
import seqbench_models
import seqbench_tasks
import seqbench_tensorboard

ROOT = Path(seqbench.__file__).parent
MODELS = Path(seqbench_models.__file__).parent
TASKS = Path(seqbench_tasks.__file__).parent
EXAMPLES = Path(__file__).parent.parent / "docs" / "examples"
TENSORBOARD = Path(seqbench_tensorboard.__file__).parent
HEAVY = {"torch", "numpy", "numba", "pandas", "scipy", "matplotlib", "seaborn"}

# What each part of the harness may import of the harness; a folder stands for all of its modules. Imports inside
# functions count; those for type checkers do not.
GRAPH = {
    "__init__": "pipeline results speed",
    "__main__": "cli",
    "errors": "",
    "api": "api errors",
    "hookspecs": "api",
    "aside": "",
    "builtin": "api",
    "registry": "api aside errors hookspecs",
    "options": "errors",
    "quantities": "errors",
    "spec": "errors quantities",
    "garbage": "",
    "store": "errors spec",
    "frame": "",
    "stats": "",
    "verdicts": "api stats",
    "rounds": "stats verdicts",
    "axes": "api errors options",
    "tuning": "api axes errors options plan quantities spec",
    "data": "api derived errors",
    "derived": "api",
    "environment": "",
    "describe": "api errors options registry",
    "plan": "api errors options quantities registry spec",
    "backends": "api backends errors",
    "states": "",
    "sampling": "",
    "streaming": "backends errors options registry sampling streaming",
    "export": "backends errors registry store streaming",
    "network": "api errors",
    "bridge": "api network states",
    "encoder_decoder": "api network",
    "assemble": "api bridge encoder_decoder errors network registry",
    "search": "api states",
    "streams": "",
    "losses": "api errors network",
    "predict": "api assemble encoder_decoder errors losses measure network sampling search",
    "measure": "api garbage",
    "train": "api assemble errors losses measure network predict spec",
    "listeners": "api errors registry spec store",
    "tampering": "",
    "trial": (
        "api assemble data errors listeners losses measure options predict registry spec store streams tampering train"
    ),
    "budget": "api assemble quantities",
    "sizing": "api assemble budget errors measure options plan quantities registry spec streams trial",
    "memory": "",
    "process": "memory registry",
    "workers": "process",
    "executors": "api errors executors process registry spec store workers",
    "apart": "errors executors plan process spec",
    "progress": "axes executors spec store tuning",
    "report": (
        "api aside axes environment errors frame garbage quantities registry report rounds spec stats store tuning "
        "verdicts"
    ),
    "results": "api errors frame registry report spec stats store verdicts",
    "pipeline": (
        "__init__ apart api data environment errors executors plan process registry report results rounds spec store "
        "tuning"
    ),
    "speed": (
        "__init__ apart api assemble axes encoder_decoder environment errors executors frame losses measure network "
        "options pipeline plan predict process registry report sizing spec speed store train trial"
    ),
    "integrity": "api data errors registry spec store",
    "verify": "executors integrity pipeline registry spec stats store",
    "plugin_commands": "api errors registry",
    "conformance": "api assemble backends conformance data errors losses predict registry states",
    "check": "errors executors process registry workers",
    "prove": "check conformance measure registry",
    "scaffold": "api errors registry",
    "cli": "*",
}

# The only files that import something heavy when they themselves are imported: a trial, a measurement, a proof, a
# figure needs them. All others do so inside functions, or never.
MAY_BE_HEAVY = {
    "backends": "torch numpy numba",
    "budget": "torch",
    "conformance": "torch numpy",
    "prove": "torch",
    "assemble": "torch",
    "bridge": "torch",
    "encoder_decoder": "torch",
    "search": "torch",
    "listeners": "torch",
    "losses": "torch",
    "measure": "torch",
    "network": "torch",
    "predict": "torch numpy",
    "report/figure_files": "matplotlib",
    "report/figures": "numpy matplotlib",
    "report/hover": "numpy",
    "report/sections": "matplotlib",
    "report/svg": "matplotlib",
    "report/tuning_figures": "matplotlib",
    "report/speeds/parts": "matplotlib",
    "report/write": "numpy matplotlib",
    "sampling": "numpy",
    "sizing": "torch",
    "speed/operations": "torch numpy",
    "streaming": "numpy",
    "streams": "numpy",
    "tampering": "torch",
    "train": "torch",
    "trial": "torch numpy",
}

CLOCKS = {"time", "timeit", "cProfile", "profile", "sched"}
CLOCK_READERS = {"process": {"time"}}  # the limit of a child


@dataclass(frozen=True)
class Import:
    """``module`` in full; ``top``: it happens when the file is imported."""

    module: str
    top: bool


def imports_of(source: str) -> list[Import]:
    """All imports of a file but those for type checkers; ``from a.b import c`` gives ``a.b`` and ``a.b.c``."""
    return list(_walk(ast.parse(source), top=True))


def _walk(node: ast.AST, top: bool) -> Iterator[Import]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        for child in node.orelse:
            yield from _walk(child, top)
        return
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, top) for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative imports hide who is meant"
        if node.module != "seqbench":  # ``from seqbench import store`` is about the store
            yield Import(node.module, top)
        yield from (Import(f"{node.module}.{alias.name}", top) for alias in node.names)
    inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, top and not inside)


def name_of(path: Path, root: Path = ROOT) -> str:
    """``"report/svg"``."""
    return path.relative_to(root).with_suffix("").as_posix()


def part_of(name: str) -> str:
    """The key of ``GRAPH`` that a file belongs to."""
    return name.partition("/")[0]


def edges(source: str) -> set[str]:
    """The parts of the harness that a file imports."""
    names = [i.module.split(".") for i in imports_of(source)]
    ours = [name[1] if len(name) > 1 else "" for name in names if name[0] == "seqbench"]
    return {first if first in GRAPH else "__init__" for first in ours}  # ``seqbench.__version__`` is in ``__init__``


def forbidden_edges(name: str, source: str) -> set[str]:
    allowed = GRAPH.get(part_of(name))
    if allowed is None:
        return {"is not in the table"}
    return set() if allowed == "*" else edges(source) - set(allowed.split())


def forbidden_heavy(name: str, source: str) -> set[str]:
    allowed = MAY_BE_HEAVY.get(name, MAY_BE_HEAVY.get(part_of(name), "")).split()
    return {i.module.partition(".")[0] for i in imports_of(source) if i.top} & HEAVY - set(allowed)


def forbidden_strangers(name: str, source: str) -> set[str]:
    """The harness reaches plugins and tasks through entry points alone, and nobody imports results or tests."""
    banned = {"seqbench_models", "seqbench_tasks", "seqbench_tensorboard", "tests", "plugins", "tasks"}
    return {i.module.partition(".")[0] for i in imports_of(source)} & banned


def forbidden_clocks(name: str, source: str) -> set[str]:
    if part_of(name) == "measure":
        return set()
    return {i.module for i in imports_of(source)} & CLOCKS - CLOCK_READERS.get(name, set())


def forbidden_in_plugins(name: str, source: str) -> set[str]:
    """A card imports ``seqbench.api`` alone; a core or cell may use ``seqbench.backends`` and its own model's files."""
    own, core = f"seqbench_models.{part_of(name)}", name.endswith(("_core", "/cell"))
    roots = {"seqbench.api"} | ({"seqbench.backends", own} if core else set())
    if name == "__init__":
        roots.add("seqbench_models")  # to collect the cards
    found = {i.module for i in imports_of(source) if i.module.partition(".")[0] in {"seqbench", "seqbench_models"}}
    return {m for m in found if not any(m == r or m.startswith(r + ".") for r in roots)}


def torch_in_streams(name: str, source: str) -> set[str]:
    """Cells, kernels and what streams with them are used where torch is not installed."""
    light = ("backends/kernels/", "backends/recurrence", "streaming/", "export", "sampling")
    if not name.startswith(light) and not name.endswith("/cell"):
        return set()
    fine = {"seqbench.backends.kernels", "seqbench.backends.recurrence"}
    found = {i.module for i in imports_of(source)}
    ours = {m for m in found if m.startswith("seqbench.backends.") and ".".join(m.split(".")[:3]) not in fine}
    return ours | {m for m in found if m.partition(".")[0] == "torch" or m.endswith("_core")}


def forbidden_in_tasks(name: str, source: str) -> set[str]:
    roots = {"seqbench.api", "seqbench.errors", "seqbench_tasks"}
    found = {i.module for i in imports_of(source) if i.module.partition(".")[0] in {"seqbench", "seqbench_models"}}
    return {m for m in found if not any(m == r or m.startswith(r + ".") for r in roots)}


def forbidden_in_examples(name: str, source: str) -> set[str]:
    """What a stranger's package may import of ours: the interface; in a core, what docs/backends.md calls public."""
    core, test = name.endswith("_core"), name.rpartition("/")[2].startswith("test_")
    layers = {"seqbench.backends.torch_recurrent", "seqbench.backends.torch_sequence"}
    roots = {"seqbench.api"} | (layers if core else set()) | ({"seqbench.conformance"} if test else set())
    found = {i.module for i in imports_of(source)}
    ours = {m for m in found if m.partition(".")[0] in {"seqbench", "seqbench_models", "seqbench_tasks"}}
    return {m for m in ours if not any(m == r or m.startswith(r + ".") for r in roots)}


def forbidden_in_tensorboard(name: str, source: str) -> set[str]:
    """It is a stranger's plugin that we happen to ship."""
    roots = {"seqbench.api", "seqbench.store", "seqbench_tensorboard"}  # the store: a command reads runs
    found = {i.module for i in imports_of(source) if i.module.startswith("seqbench")}
    return {m for m in found if not any(m == r or m.startswith(r + ".") for r in roots)}


def heavy_card(name: str, source: str) -> set[str]:
    """Cards and what collects them are imported by ``seqbench list``."""
    light = part_of(name) == "cards" or name.rpartition("/")[2] == "__init__"
    return {i.module.partition(".")[0] for i in imports_of(source) if i.top} & HEAVY if light else set()


CHECKS: dict[str, tuple[Path, Callable[[str, str], set[str]]]] = {
    "imports within the harness": (ROOT, forbidden_edges),
    "heavy imports of the harness": (ROOT, forbidden_heavy),
    "plugins imported by the harness": (ROOT, forbidden_strangers),
    "torch in what streams": (ROOT, torch_in_streams),
    "torch in cells": (MODELS, torch_in_streams),
    "clocks of the harness": (ROOT, forbidden_clocks),
    "imports of models": (MODELS, forbidden_in_plugins),
    "heavy model cards": (MODELS, heavy_card),
    "clocks of models": (MODELS, forbidden_clocks),
    "imports of tasks": (TASKS, forbidden_in_tasks),
    "heavy task cards": (TASKS, heavy_card),
    "clocks of tasks": (TASKS, forbidden_clocks),
    "imports of examples": (EXAMPLES, forbidden_in_examples),
    "heavy example cards": (EXAMPLES, heavy_card),
    "imports of tensorboard": (TENSORBOARD, forbidden_in_tensorboard),
    "heavy card of tensorboard": (TENSORBOARD, heavy_card),
}


@pytest.mark.parametrize("check", CHECKS)
def test_the_source_keeps_the_rules(check: str) -> None:
    root, forbidden = CHECKS[check]
    files = sorted(root.rglob("*.py"))
    assert len(files) >= 3
    found = {name_of(f, root): forbidden(name_of(f, root), f.read_text(encoding="utf-8")) for f in files}
    assert {name: bad for name, bad in found.items() if bad} == {}


def test_the_table_has_no_circle_and_nothing_that_is_gone() -> None:
    there = {part_of(name_of(path)) for path in ROOT.rglob("*.py")}
    assert set(GRAPH) == there
    table = {part: set(allowed.split()) & set(GRAPH) - {part} for part, allowed in GRAPH.items()}
    for part in ("pipeline", "speed"):
        table[part].discard("__init__")  # for __version__, which is there before anything is imported
    list(TopologicalSorter(table).static_order())  # raises CycleError


def test_the_files_of_a_folder_have_no_circle() -> None:
    for folder in ("api", "conformance", "report", "executors", "backends", "backends/kernels", "streaming"):
        graph = {}
        for path in (ROOT / folder).glob("*.py"):
            modules = {i.module for i in imports_of(path.read_text(encoding="utf-8"))}
            inside = f"seqbench.{folder}.".replace("/", ".")
            graph[path.stem] = {m.removeprefix(inside).split(".")[0] for m in modules if m.startswith(inside)}
        list(TopologicalSorter(graph).static_order())


PLANTED = [
    (forbidden_edges, "errors", "from seqbench.api import Model", {"api"}),
    (forbidden_edges, "store", "def f():\n    import seqbench.trial", {"trial"}),
    (forbidden_edges, "store", "from seqbench import registry", {"registry"}),
    (forbidden_edges, "report/svg", "from seqbench.train import fit", {"train"}),
    (forbidden_edges, "store", "import seqbench", {"__init__"}),
    (forbidden_edges, "store", "from seqbench import __version__", {"__init__"}),
    (forbidden_edges, "new_file", "", {"is not in the table"}),
    (forbidden_heavy, "spec", "import numpy as np", {"numpy"}),
    (forbidden_heavy, "spec", "try:\n    from torch import nn\nexcept ImportError:\n    pass", {"torch"}),
    (forbidden_heavy, "stats", "class A:\n    from scipy.stats import t", {"scipy"}),
    (forbidden_heavy, "report/text", "import matplotlib.pyplot", {"matplotlib"}),
    (forbidden_heavy, "spec", "if TYPE_CHECKING:\n    pass\nelse:\n    import pandas", {"pandas"}),
    (forbidden_strangers, "registry", "def f():\n    import seqbench_models", {"seqbench_models"}),
    (forbidden_strangers, "trial", "from seqbench_models.lstm import card", {"seqbench_models"}),
    (forbidden_clocks, "train", "import time", {"time"}),
    (forbidden_clocks, "trial", "from time import perf_counter", {"time"}),
    (forbidden_in_plugins, "lstm/__init__", "from seqbench.errors import Refused", {"seqbench.errors.Refused"}),
    (forbidden_in_plugins, "lstm/__init__", "from seqbench.backends import x", {"seqbench.backends.x"}),
    (forbidden_in_plugins, "lstm/torch_core", "from seqbench_models.gru import card", {"seqbench_models.gru.card"}),
    (forbidden_in_plugins, "lstm/cell", "from seqbench.network import Network", {"seqbench.network.Network"}),
    (torch_in_streams, "lstm/cell", "def f():\n    import torch", {"torch"}),
    (torch_in_streams, "lstm/cell", "from seqbench_models.lstm import torch_core", {"seqbench_models.lstm.torch_core"}),
    (torch_in_streams, "streaming/stream", "from seqbench.backends import numba_recurrent",
     {"seqbench.backends.numba_recurrent"}),
    (torch_in_streams, "backends/kernels/gemm", "from torch import nn", {"torch"}),
    (forbidden_in_tasks, "copy_memory", "from seqbench.network import Network", {"seqbench.network.Network"}),
    (forbidden_in_examples, "a/a/torch_core", "from seqbench.backends import numba_arrays",
     {"seqbench.backends.numba_arrays"}),
    (forbidden_in_examples, "a/a/task", "from seqbench.backends.torch_sequence import valid",
     {"seqbench.backends.torch_sequence"}),
    (forbidden_in_examples, "a/a/task", "from seqbench import conformance", {"seqbench.conformance"}),
    (forbidden_in_examples, "a/a/report", "from seqbench_tasks.report_style import figure",
     {"seqbench_tasks.report_style"}),
    (forbidden_in_tensorboard, "listener", "from seqbench.spec import Trial", {"seqbench.spec.Trial"}),
    (heavy_card, "lstm/__init__", "import torch", {"torch"}),
    (heavy_card, "cards", "import numpy", {"numpy"}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "name", "source", "expected"), PLANTED)
def test_a_planted_violation_is_seen(
    check: Callable[[str, str], set[str]], name: str, source: str, expected: set[str]
) -> None:
    assert expected <= check(name, source)


ALLOWED = [
    (forbidden_edges, "spec", "if TYPE_CHECKING:\n    from seqbench.trial import run_trial"),
    (forbidden_heavy, "store", "def f():\n    import numpy as np"),
    (forbidden_heavy, "store", "if TYPE_CHECKING:\n    import numpy as np"),
    (forbidden_heavy, "trial", "import torch"),
    (forbidden_clocks, "measure/clock", "import time"),
    (forbidden_clocks, "process", "import time"),
    (forbidden_in_plugins, "lstm/torch_core", "from seqbench_models.lstm import Options"),
    (forbidden_in_plugins, "lstm/torch_core", "from seqbench.backends.torch_sequence import last_valid"),
    (forbidden_in_plugins, "lstm/cell", "from seqbench.backends.kernels.cells import Cell"),
    (torch_in_streams, "lstm/cell", "from seqbench.backends.recurrence import Recurrence"),
    (torch_in_streams, "backends/numba_recurrent", "import torch"),
    (forbidden_in_examples, "a/a/torch_core", "from seqbench.backends.torch_recurrent import RecurrentLayer"),
    (forbidden_in_examples, "a/tests/test_a", "from seqbench import conformance"),
    (heavy_card, "copy_memory", "import numpy"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "name", "source"), ALLOWED)
def test_what_is_allowed_is_not_seen(check: Callable[[str, str], set[str]], name: str, source: str) -> None:
    assert check(name, source) == set()


# --- in a fresh interpreter -----------------------------------------------------------------------------

REPORT = f"import sys; print(sorted({HEAVY!r} & set(sys.modules)))"
COMMAND = (
    "import sys; from seqbench.cli import main\nsys.argv = ['seqbench', *{arguments!r}]\n"
    "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
)
LIGHT = {
    "import seqbench": "import seqbench",
    "import seqbench.api": "import seqbench.api",
    "--help": COMMAND.format(arguments=["--help"]),
    "run --help": COMMAND.format(arguments=["run", "--help"]),
    "tensorboard --help": COMMAND.format(arguments=["tensorboard", "--help"]),
    "--version": COMMAND.format(arguments=["--version"]),
    "list": COMMAND.format(arguments=["list"]),
    "info lstm": COMMAND.format(arguments=["info", "lstm"]),
    "info char-lm": COMMAND.format(arguments=["info", "char-lm"]),
    "data list": COMMAND.format(arguments=["data", "list"]),
}


def loaded_by(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code + "\n" + REPORT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("what", LIGHT)
def test_loads_nothing_heavy(what: str) -> None:
    assert loaded_by(LIGHT[what]) == "[]"


def test_the_fresh_interpreter_sees_what_is_heavy() -> None:
    assert loaded_by("import seqbench.streams") == "['numpy']"
