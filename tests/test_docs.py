"""What the documents say is true: commands, options and examples are checked against the program, and run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

import seqbench
from seqbench import conformance, registry
from seqbench.cli import cli
from seqbench.plugin_commands import PluginCommand

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
DOCUMENTS += sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "examples").glob("*/README.md")])


def block(marker: str, document: str = README) -> str:
    """The code block after ``<!-- marker -->``."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w*\n(.*?)```", document, re.DOTALL)
    assert found, marker
    return found[1]


CLI_HEAD = """# The command line

The help texts below are made from the program by `python tests/test_docs.py`; a test compares.

Exit codes: 0 all well; 1 a trial failed; 2 the call was wrong, or data are missing; 130 interrupted (Ctrl-C).

| environment variable | meaning |
| --- | --- |
| `SEQBENCH_DATA` | folder that holds downloaded datasets; looked at before the cache |
| `SEQBENCH_CACHE` | where downloads are kept, instead of the system's usual cache folder |
| `SEQBENCH_OFFLINE` | `1` forbids downloads |
| `SEQBENCH_PLUGINS` | loads only these plugins: distributions, or `distribution:entry`, separated by commas |
"""


def every_command() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {"seqbench": cli}
    for name in cli.list_commands(click.Context(cli)):  # in the order of the help
        command = cli.get_command(click.Context(cli), name)
        command = command.imported() if isinstance(command, PluginCommand) else command
        found[f"seqbench {name}"] = command
        if isinstance(command, click.Group):
            found |= {f"seqbench {name} {inner}": c for inner, c in command.commands.items()}
    return found


def help_of(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=name, terminal_width=100, **cli.context_settings)
    return command.get_help(context).strip()


def cli_document() -> str:
    """``docs/cli.md``, made from the program: ``python tests/test_docs.py`` writes it."""
    parts = [CLI_HEAD]
    parts += [f"## {name}\n\n```\n{help_of(name, command)}\n```\n" for name, command in every_command().items()]
    return "\n".join(parts)


def test_cli_document_is_the_programs_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEQBENCH_PLUGINS", "seqbench")
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == cli_document()


def test_commands_in_the_readme_exist() -> None:
    commands = every_command()
    for words in re.findall(r"^seqbench ([a-z].*?)(?:  |$)", README, re.MULTILINE):
        name, *arguments = words.split()
        command = commands[f"seqbench {name}"]
        known = {option for p in command.params for option in p.opts}
        assert {a for a in arguments if a.startswith("--")} <= known, words


def test_ci_runs_the_readmes_test_command() -> None:
    assert "tox" in block("test command")
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "<!-- test command -->" in script


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_python_example(tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text(block("python example") + "print(len(results.frame), results.ok)\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["4", "True"], done.stderr


@pytest.fixture(scope="session")
def my_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "my_model.py"
    path.write_text(block("my_model.py"), encoding="utf-8")
    return path


def test_own_model_is_short_and_conforms(my_model: Path) -> None:
    assert len(my_model.read_text(encoding="utf-8").split("\n")) <= 38
    card = registry.load([my_model]).models["running-mean"]
    conformance.check_all(card, card.options(), "torch")


def test_own_model_runs(my_model: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"params": "2k", "budget": "5steps", "seeds": 1, "out": tmp_path / "out"}
    results = seqbench.run(task="copy[T=5]", models=["running-mean", "lstm"], plugin=my_model, **options)
    assert results.ok
    assert set(results.frame["model"]) == {"running-mean", "lstm"}


@pytest.fixture(scope="session")
def my_cell(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "my_cell.py"
    path.write_text(block("my_cell.py", (ROOT / "docs" / "backends.md").read_text(encoding="utf-8")), encoding="utf-8")
    return path


@pytest.mark.slow  # compiles a cell of its own
def test_own_cell_is_short_and_conforms(my_cell: Path) -> None:
    assert len(my_cell.read_text(encoding="utf-8").split("\n")) <= 40
    card = registry.load([my_cell]).models["light"]
    conformance.check_all(card, card.options(), "numba")


STREAMED = """
import sys
sys.modules["torch"] = None
from seqbench.streaming import Stream
stream = Stream.load("model.npz", plugins=[sys.argv[1]])
print(stream.step([0.5, 1.0]).shape, stream.description)
"""


@pytest.mark.slow  # compiles a cell of its own
def test_own_cell_streams_without_torch(my_cell: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"params": "2k", "budget": "5steps", "seeds": 1, "out": tmp_path / "out"}
    results = seqbench.run(task="adding[T=5]", model="light", backend="numba", plugin=my_cell, **options)
    assert results.ok
    run_command(tmp_path, "-m", "seqbench", "export", str(results.path), "light", "-o", "model.npz")
    assert run_command(tmp_path, "-c", STREAMED, str(my_cell)) == "(1,) light on adding/embedded\n"


def test_streaming_example(tmp_path: Path) -> None:
    """As in the document, the training shorter; torch is away."""
    document = (ROOT / "docs" / "streaming.md").read_text(encoding="utf-8")
    run = re.search(r"seqbench run --task '(\S+)' --model gru --budget \d+steps --seeds 1\n", document)
    words = re.search(r"seqbench (export) results/<run> (.*)\n", document)
    assert run
    assert words
    results = seqbench.run(task=run[1], model="gru", budget="20steps", params="3k", seeds=1, out=tmp_path)
    run_command(tmp_path, "-m", "seqbench", words[1], str(results.path), *words[2].split())
    script = "import sys; sys.modules['torch'] = None\n" + block("streaming example", document)
    lines = run_command(tmp_path, "-c", script).splitlines()
    assert [line.split(":")[0] for line in lines] == ["likeliest", "at 0.5", "at 1.0"]
    assert len(lines[1]) == len("at 0.5: ") + 40


def run_command(folder: Path, *words: str) -> str:
    """What Python prints there."""
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_defaults_of_the_tasks_are_documented() -> None:
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    found = registry.load()
    for card in (card for name, card in found.tasks.items() if found.origin["task", name].ours):
        rows = {f"`{card.name}`": card.defaults}
        rows |= {f"`{card.name}` on `{d.name}`": d.defaults for d in card.datasets if d.defaults}
        for name, d in rows.items():
            assert f"| {name} | {d.parameters:,} | {d.steps} | {d.batch} | {d.lr:g} | {d.dropout:g} |" in text


def test_hooks_and_statuses_are_documented() -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    for name in ("ok", "diverged", "error", "out_of_memory", "timeout", "killed", "refused"):
        assert f"`{name}`" in text, name
    for variable in ("SEQBENCH_DATA", "SEQBENCH_OFFLINE", "SEQBENCH_CACHE", "SEQBENCH_PLUGINS"):
        assert variable in text, variable


if __name__ == "__main__":
    os.environ.pop("COLUMNS", None)
    os.environ["SEQBENCH_PLUGINS"] = "seqbench"
    (ROOT / "docs" / "cli.md").write_text(cli_document(), encoding="utf-8")
