"""Subcommands that plugins bring: in the help, imported when called, and their faults said to be theirs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from seqbench import registry
from seqbench.api.commands import OWN_COMMANDS
from seqbench.cli import cli
from seqbench.spec import Trial, trial_to_dict
from seqbench.store import RunFolder

HOOK = "from seqbench.api import CommandCard, hookimpl\n@hookimpl\ndef register_commands(register):\n    "
CARDS = HOOK + "\n    ".join(
    f"register.command(CommandCard('{name.replace('_', '-')}', 'Do it: {name}.', 'strange_command:{name}'))"
    for name in ("greet", "refuse", "fail", "quit_now", "no_command", "nowhere")
)
COMMANDS = '''
import sys
import click
from seqbench.api import UsageError

@click.command()
@click.argument("name")
@click.option("--loud", is_flag=True, help="In capitals.")
def greet(name, loud):
    """Greet somebody."""
    click.echo(name.upper() if loud else name)

@click.command()
def refuse():
    raise UsageError("There is nothing to do; do something else.")

@click.command()
def fail():
    raise ValueError("two\\nlines")

@click.command()
def quit_now():
    sys.exit(7)

no_command = 3
'''


@pytest.fixture
def stranger(install: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution with commands, and the module that they lie in."""
    install("stranger", CARDS)
    module = tmp_path / "strange_command.py"
    module.write_text(COMMANDS, encoding="utf-8")
    monkeypatch.delitem(sys.modules, "strange_command", raising=False)
    return module


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_the_help_shows_them_with_their_origin_and_imports_none(stranger: Path, install: Callable[..., str]) -> None:
    install("bad", "import no_such_package")
    stranger.write_text("raise AssertionError('imported')", encoding="utf-8")
    result = run("--help")
    assert result.exit_code == 0
    assert "  greet        Do it: greet.  [stranger 1.2]\n" in result.stdout
    assert "  tensorboard  Write the curves of a run as TensorBoard's event files.\n" in result.stdout
    assert "  run " in result.stdout
    assert result.stderr == "", "a broken plugin is not what help is about"
    listed = run("list").stdout.partition("Commands of plugins:\n")[2]
    assert "  greet          Do it: greet.  [stranger 1.2]\n" in listed


def test_they_run_as_click_has_them(stranger: Path) -> None:
    assert run("greet", "--loud", "ana").stdout == "ANA\n"
    assert "--loud      In capitals." in run("greet", "--help").stdout
    wrong = run("greet")
    assert wrong.exit_code == 2
    assert "Missing argument 'NAME'" in wrong.stderr
    assert run("quit-now").exit_code == 7


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refuse", "There is nothing to do; do something else."),
        ("fail", "command 'fail' of stranger 1.2 failed: ValueError: two lines (strange_command.py, line 19)"),
        ("no-command", "command 'no-command' of stranger 1.2: expected a click.Command, got int"),
        ("nowhere", "command 'nowhere' of stranger 1.2: cannot load 'strange_command:nowhere': module "),
    ],
)
def test_faults_are_one_line_that_says_whose_they_are(stranger: Path, name: str, message: str) -> None:
    result = run(name)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"seqbench: {message}")
    assert result.stderr.count("\n") == 1


def test_a_command_whose_module_is_broken(stranger: Path) -> None:
    stranger.write_text("1 / 0", encoding="utf-8")
    result = run("greet")
    said = "command 'greet' of stranger 1.2: ZeroDivisionError: division by zero (strange_command.py, line 1)"
    assert (result.exit_code, result.stderr) == (2, f"seqbench: {said}\n")


def test_an_unknown_command_says_what_is_near_and_what_is_broken(stranger: Path, install: Callable[..., str]) -> None:
    install("bad", "import no_such_package")
    result = run("gret")
    assert result.exit_code == 2
    assert "There is no command 'gret'. Did you mean 'greet'?" in result.stderr
    assert "(broken plugin 'plug' of bad 1.2: ModuleNotFoundError" in result.stderr
    strict = run("--strict-plugins", "greet", "ana")
    assert (strict.exit_code, strict.stdout) == (2, "")
    assert strict.stderr.startswith("seqbench: broken plugin 'plug' of bad 1.2")


def test_our_own_names_are_reserved_and_need_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(cli.commands) == OWN_COMMANDS
    monkeypatch.setattr(registry, "load", None)
    assert run("data", "path").exit_code == 0


# --- tensorboard ----------------------------------------------------------------------------------------


def test_tensorboard_writes_the_curves_of_what_has_ended(tmp_path: Path, example_trial: Trial) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trials = [replace(example_trial, seed=seed) for seed in range(3)]
    folder = RunFolder(tmp_path)
    created = "2026-01-02T03:04:05+00:00"
    folder.write_run({"spec": {"task": ["copy"]}, "trials": [trial_to_dict(t) for t in trials], "created": created})
    curve = {
        "train": {"step": [1, 2, 4], "seconds": [0.5, 1.0, 2.0], "loss": [3.0, None, 1.0]},
        "valid": {"step": [2, 4], "seconds": [1.0, 2.0], "recall": [10.0, 20.0], "loss": [2.5, 1.5]},
    }
    done = {"trial": {"seed": 0}, "status": "ok", "steps": 4, "curve": curve, "metrics": {"test": {"recall": 21.0}}}
    folder.write_record(trials[0].id, done)
    folder.write_record(trials[1].id, {"trial": {"seed": 1}, "status": "error", "cause": "early"})
    result = run("tensorboard", str(tmp_path))
    target = tmp_path / "events" / "tensorboard"
    assert result.stdout == f"1 trials written; look at them with: tensorboard --logdir {target}\n", result.stderr
    assert [path.name for path in target.iterdir()] == [trials[0].id]
    read = accumulator.EventAccumulator(str(target / trials[0].id)).Reload()
    points = {tag: [(p.step, p.value) for p in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert points == {
        "train/loss": [(1, 3.0), (4, 1.0)],
        "train/seconds": [(1, 0.5), (2, 1.0), (4, 2.0)],
        "valid/recall": [(2, 10.0), (4, 20.0)],
        "valid/loss": [(2, 2.5), (4, 1.5)],
        "test/recall": [(4, 21.0)],
    }
    began = datetime.fromisoformat(created).timestamp()
    assert [p.wall_time - began for p in read.Scalars("train/loss")] == [0.5, 2.0]
    assert run("tensorboard", str(tmp_path)).stdout.startswith("0 trials written; ")
    assert "There is no run in nowhere" in run("tensorboard", "nowhere").stderr
