"""``docs/plugins.md``: its argument lists are the code's, a heading for every hook, and its examples run."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from seqbench import api, hookspecs
from seqbench.cli import cli
from seqbench.executors import run_trial_supervised
from seqbench.store import RunFolder

pytestmark = pytest.mark.xdist_group("hooks")  # what all share takes long

DOCUMENT = Path(__file__).parent.parent / "docs" / "plugins.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")


@dataclass(frozen=True)
class Hook:
    """What is shown of a hook.

    Attributes:
        method: of ``api.Register``.
        card: what it takes.
        described: a class whose docstring has how the code that the card names is called.
        call: that call.
        parts: what else it deals with; data with their fields, others with their methods.
    """

    method: str
    card: type[Any]
    described: type[Any]
    call: str
    parts: tuple[Any, ...] = ()


HOOKS = {
    "models": Hook("model", api.Model, api.Core, "Core(spec, options)", (api.CoreSpec, api.Core)),
    "tasks": Hook("task", api.TaskCard, api.Task, "Task(options)", (api.Task, api.Metric, api.Form, api.Batch)),
    "sections": Hook(
        "section",
        api.SectionCard,
        api.SectionCard,
        "function(views: list[TrialView]) -> Section | None",
        (api.TrialView, api.Section, api.Block),
    ),
    "datasets": Hook(
        "dataset",
        api.DatasetCard,
        api.DatasetCard,
        "function(files: DataFiles) -> content",
        (api.Dataset, api.DataFile, api.DataFiles),
    ),
    "listeners": Hook(
        "listener",
        api.ListenerCard,
        api.ListenerCard,
        "Class(start: TrialStart) -> Listener",
        (api.TrialStart, api.Listener),
    ),
    "executors": Hook(
        "executor",
        api.ExecutorCard,
        api.ExecutorCard,
        "function(trials, folder, jobs, limits, observer) -> None",
        (api.Executor, run_trial_supervised, api.Observer),
    ),
    "commands": Hook("command", api.CommandCard, api.CommandCard, "click.Command"),
}


# --- argument lists -------------------------------------------------------------------------------------


def call_of(name: str, function: Callable[..., Any]) -> str:
    """``name(argument: type = default) -> type``, as the source has it, without ``self``."""
    signature = inspect.signature(function)
    words = []
    for p in signature.parameters.values():
        if p.name != "self":
            star = "*" if p.kind is p.VAR_POSITIONAL else ""
            kind = "" if p.annotation is p.empty else f": {p.annotation}"
            words.append(f"{star}{p.name}{kind}" + ("" if p.default is p.empty else f" = {p.default!r}"))
    back = "" if signature.return_annotation is signature.empty else f" -> {signature.return_annotation}"
    return wrapped(name, words, back)


def data_of(kind: type[Any]) -> str:
    """``Kind(field: type = default)``; ``...`` is a default that says little in one word."""
    words = []
    for field in dataclasses.fields(kind):
        default = "" if field.default is dataclasses.MISSING else f" = {plain(field.default)}"
        made = "" if field.default_factory is dataclasses.MISSING else " = ..."
        words.append(f"{field.name}: {field.type}{default}{made}")
    return wrapped(kind.__name__, words, "")


def plain(value: Any) -> str:
    return repr(value) if isinstance(value, str | int | float | bool | None | tuple) else "..."


def wrapped(name: str, words: list[str], back: str) -> str:
    line = f"{name}({', '.join(words)}){back}"
    return line if len(line) <= 116 else "\n    ".join([f"{name}(", *(f"{word}," for word in words)]) + f"\n){back}"


def calls_of(part: Any) -> Iterator[str]:
    if dataclasses.is_dataclass(part):
        yield data_of(part)
    elif inspect.isfunction(part):
        yield call_of(part.__name__, part)
    else:
        for name, function in vars(part).items():
            if inspect.isfunction(function) and name in {"__call__", "__enter__", "__exit__"} | set(public(part)):
                yield call_of(part.__name__.lower() if name == "__call__" else f"{part.__name__}.{name}", function)


def public(part: Any) -> list[str]:
    return [name for name in vars(part) if not name.startswith("_")]


def signatures(name: str) -> str:
    """All argument lists of a hook."""
    hook = HOOKS[name]
    lines = [call_of(f"register_{name}", getattr(hookspecs, f"register_{name}"))]
    lines += [call_of(f"register.{hook.method}", getattr(api.Register, hook.method)), data_of(hook.card), hook.call]
    return "\n".join([*lines, *(call for part in hook.parts for call in calls_of(part))])


def with_signatures(text: str) -> str:
    """The document with the argument lists made anew."""
    for name in HOOKS:
        marker = f"<!-- signature: {name} -->\n"
        before, found, after = text.partition(marker)
        assert found, name
        rest = after[after.index("```\n", 5) + 4 :] if after.startswith("```text\n") else after
        text = f"{before}{marker}```text\n{signatures(name)}\n```\n{rest}"
    return text


def test_the_argument_lists_are_those_of_the_code() -> None:
    assert with_signatures(TEXT) == TEXT, "make them anew: python tests/test_hooks.py"


@pytest.mark.parametrize("name", HOOKS)
def test_the_card_says_how_its_code_is_called(name: str) -> None:
    said = " ".join((HOOKS[name].described.__doc__ or "").split())
    assert f"``{HOOKS[name].call}``" in said


def test_every_hook_has_a_heading_an_argument_list_and_an_example() -> None:
    hooks = [name.removeprefix("register_") for name in vars(hookspecs) if name.startswith("register_")]
    assert set(hooks) == set(HOOKS)
    assert {HOOKS[name].method for name in HOOKS} == {name for name in vars(api.Register) if not name.startswith("_")}
    headings = re.findall(r"^## .*`register_(\w+)`$", TEXT, re.MULTILINE)
    assert headings == re.findall(r"<!-- signature: (\w+) -->", TEXT) == re.findall(r"<!-- example: (\w+) -->", TEXT)
    assert set(headings) == set(hooks)


# --- examples -------------------------------------------------------------------------------------------


def example(name: str) -> str:
    found = re.search(rf"<!-- example: {name} -->\n```python\n(.*?)```", TEXT, re.DOTALL)
    assert found, name
    return found[1]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run in which all examples but the command take part."""
    folder = tmp_path_factory.mktemp("examples")
    command = [
        sys.executable,
        "-m",
        "seqbench",
        "run",
        "--task",
        "first-token",
        "--task",
        "char-lm[window=16,sample=0]",
    ]
    command += ["--dataset", "fox", "--model", "decay", "--events", "loss-file", "--executor", "one-by-one"]
    command += ["--params", "2k", "--budget", "10steps", "--seeds", "1", "--out", str(folder / "out")]
    for name in HOOKS.keys() - {"commands"}:
        (folder / f"my_{name}.py").write_text(example(name), encoding="utf-8")
        command += ["--plugin", str(folder / f"my_{name}.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "out").iterdir()
    return RunFolder.open(path)


def test_the_examples_run_together(ran: RunFolder) -> None:
    records = ran.records()
    assert [(r["task_label"], r["trial"]["label"], r["status"]) for r in records] == [
        ("first-token/embedded", "decay", "ok"),
        ("char-lm[sample=0,window=16]/fox", "decay", "ok"),
    ]
    page = (ran.path / "report.html").read_text(encoding="utf-8")
    assert "Steps per second" in page
    for record in records:
        assert "events" not in record, "no fault of the listener"
        lines = (ran.path / "events" / "loss-file" / record["id"] / "loss.csv").read_text(encoding="utf-8").split()
        assert [float(line.split(",")[1]) for line in lines] == record["curve"]["train"]["loss"]
    assert ran.run()["spec"]["executor"] == "one-by-one"


def test_the_example_of_a_command(ran: RunFolder, install: Callable[..., str]) -> None:
    install("my-package", example("commands"))
    shown = CliRunner().invoke(cli, ["--help"]).stdout
    assert "scores       Print the score of every trial of a run.  [my-package 1.2]\n" in shown
    done = CliRunner().invoke(cli, ["scores", str(ran.path)])
    first, second = done.stdout.splitlines()
    assert first == f"first-token/embedded decay {ran.records()[0]['score']}"
    assert second.startswith("char-lm[sample=0,window=16]/fox decay ")


if __name__ == "__main__":
    DOCUMENT.write_text(with_signatures(TEXT), encoding="utf-8")
