"""The command line: what it prints, what it refuses and how it says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from seqbench import registry
from seqbench.cli import cli

MODELS = ("rnn", "lstm", "gru", "janet", "tcn", "transformer")
TASKS = ("copy", "adding", "char-lm")


@pytest.fixture(autouse=True)
def no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No dataset on this machine, and no network."""
    monkeypatch.delenv("SEQBENCH_DATA", raising=False)
    monkeypatch.setenv("SEQBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEQBENCH_OFFLINE", "1")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def refused(*arguments: str) -> str:
    """The one line that a wrong call gets."""
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    message = result.stderr.strip()
    assert message.startswith("seqbench: ")
    assert "\n" not in message
    return message


def test_list_shows_what_is_installed() -> None:
    lines = run("list").stdout.splitlines()
    named = {line.split()[0] for line in lines if line.startswith("  ")}
    assert {*MODELS, *TASKS, "char-lm/shakespeare", "char-lm/machado", "copy/embedded"} <= named


@pytest.mark.parametrize("name", [*MODELS, *TASKS])
def test_info_tells_definition_options_and_source(name: str) -> None:
    text = run("info", name).stdout
    cards = registry.load()
    card = cards.models.get(name) or cards.tasks[name]
    for field in card.options.__dataclass_fields__.values():
        assert f"{field.name}={field.default}" in text
        assert field.metadata["help"] in text
    assert card.citation in text
    assert "Plugin: seqbench" in text


def test_data_list_says_what_is_missing() -> None:
    states = {line.split()[0]: line.split()[1] for line in run("data", "list").stdout.splitlines()}
    assert states["copy/embedded"] == "embedded"
    assert states["char-lm/shakespeare"] == "missing"


def test_data_path_is_the_cache(tmp_path: Path) -> None:
    assert Path(run("data", "path").stdout.strip()).is_relative_to(tmp_path / "cache")


def test_env_names_versions() -> None:
    text = run("env").stdout
    assert re.search(r"torch \d+\.\d+", text)
    assert "cores" in text


def test_dry_run_prints_the_trials_and_trains_nothing(tmp_path: Path) -> None:
    result = run("run", "--task", "copy[T=30]", "--seeds", "2", "--params", "50k", "--dry-run", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    rows = re.findall(r"^copy\[T=30\]/embedded (\S+) torch seed (\d) +\d+ +\d+ +([\d,]+) ", result.stdout, re.MULTILINE)
    assert [(model, seed) for model, seed, _ in rows] == [(model, seed) for seed in "01" for model in MODELS]
    for _, _, count in rows:
        assert abs(int(count.replace(",", "")) / 50_000 - 1) <= 0.02
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_no_size_meets_is_said() -> None:
    result = run("run", "--task", "copy", "--model", "lstm", "--params", "150", "--dry-run")
    warning = r"warning: lstm on copy/embedded: \d+ parameters at width \d+, [+-]\d+\.\d% from the target of 150"
    assert re.search(warning, result.stderr)


def test_a_tcn_that_cannot_see_far_enough_is_said() -> None:
    result = run("run", "--task", "copy", "--model", "tcn[layers=2]", "--dry-run")
    assert re.search(r"warning: tcn\[layers=2\] on copy/embedded: receptive field \d+", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "no command 'rum'. Did you mean 'run'?"),
        (["info", "lstn"], "no model or task 'lstn'. Did you mean 'lstm'?"),
        (["run"], "No task: say which, for example --task copy"),
        (["run", "--task", "copi"], "no task 'copi'. Did you mean 'copy'?"),
        (["run", "--task", "copy[t=5]"], "no option of task 'copy': 't'"),
        (["run", "--task", "copy[T=0]"], "'T' of task 'copy' is '0'; expected from 1 to 10000"),
        (["run", "--task", "copy[T=x]"], "'T' of task 'copy' is 'x'; expected a whole number"),
        (["run", "--task", "copy[T"], "Cannot read 'copy[T': write name[option=value"),
        (["run", "--task", "copy", "--model", "lstm[forget_bais=1]"], "Did you mean 'forget_bias'?"),
        (["run", "--task", "copy", "--model", "gru[reset_after=maybe]"], "expected true or false"),
        (["run", "--task", "copy", "--model", "gru[layers=0]"], "'layers' of model 'gru' is '0'; expected a whole"),
        (["run", "--task", "copy", "--model", "gru[dropout=1]"], "expected a number from 0 to below 1"),
        (["run", "--task", "copy", "--model", "gru", "--model", "gru"], "gru on copy/embedded (torch) is asked for tw"),
        (["run", "--task", "copy", "--dataset", "shakespear"], "no dataset 'shakespear'"),
        (["run", "--task", "copy", "--backend", "numbla"], "no backend 'numbla'"),
        (["run", "--task", "copy", "--budget", "fast"], "--budget is 'fast'; expected steps, seconds, tokens or FLOPs"),
        (["run", "--task", "copy", "--params", "none"], "--params is 'none'; expected a whole number above 0"),
        (["speed", "--operation", "trains"], "There is no operation 'trains'. Did you mean 'train'?"),
        (["speed", "--lengths", "0"], "--lengths is '0'; expected different numbers from 1"),
        (["speed", "--rounds", "0"], "--rounds is 0; expected a whole number of at least 1"),
        (["run", "--task", "copy", "--tune", "lr=1.."], "--tune 'lr=1..': expected lr=LOW..HIGH"),
        (["run", "--task", "copy", "--until-decided", "3"], "--until-decided is 3; expected more than the 5 --seeds"),
        (["run", "--task", "copy", "--seeds", "0"], "--seeds is '0'; expected how many (5) or which (0,1,5)"),
        (["run", "--task", "copy", "--seeds", "1,1"], "a seed stands twice"),
        (["run", "--task", "copy", "--device", "tpu"], "--device is 'tpu'; expected auto, cpu or cuda"),
        (["run", "--task", "copy", "--lr", "-1"], "--lr is -1.0; expected a number above 0"),
        (["run", "--task", "copy", "--threads", "9999"], "--threads is 9999; this machine has"),
        (["run", "--task", "copy", "--threads", "0"], "--threads is 0; expected at least 1"),
        (["run", "--task", "copy", "--budget", "2h"], "--budget 7200 seconds does not fit into --timeout 3600 seconds"),
        (["run", "--task", "copy", "--plugin", "nowhere.py"], "there is no file nowhere.py"),
        (["run", "nowhere.toml"], "Cannot read the spec file nowhere.toml: No such file"),
        (["report", "nowhere"], "There is no run in nowhere"),
        (["run", "--resume", "nowhere"], "There is no run in nowhere"),
        (["run", "--resume", "nowhere", "--seeds", "4"], "cannot be given together with --seeds"),
        (["data", "fetch", "shakespere"], "Did you mean 'shakespeare'?"),
    ],
)
def test_wrong_input_gets_one_line_that_helps(arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


def test_spec_file_with_an_unknown_key(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text('task = "copy"\nseed = 3\n', encoding="utf-8")
    assert "unknown key 'seed'. Did you mean 'seeds'?" in refused("run", str(spec))
    spec.write_text("task = \n", encoding="utf-8")
    assert "is not TOML" in refused("run", str(spec))


def test_options_win_over_the_spec_file(tmp_path: Path) -> None:
    spec = tmp_path / "spec.toml"
    spec.write_text('task = ["copy"]\nmodels = ["lstm", "gru"]\nseeds = 5\nbudget = "7steps"\n', encoding="utf-8")
    result = run("run", str(spec), "--model", "rnn", "--seeds", "2", "--dry-run")
    assert "2 trials on cpu" in result.stdout
    assert "copy: 7 steps" in result.stdout


def test_missing_data_offline_says_how_to_get_it() -> None:
    message = refused("run", "--task", "char-lm", "--dataset", "shakespeare", "--dry-run")
    assert "https://raw.githubusercontent.com/" in message
    assert "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed" in message
    assert "shakespeare/input.txt" in message


def test_planning_imports_no_torch_into_the_users_process() -> None:
    """Sizing is a child's work; a Ctrl-C in the middle of such an import would break the process that catches it."""
    script = (
        "import sys; from seqbench.registry import load; from seqbench.spec import RunSpec\n"
        "from seqbench.pipeline import make_plan\n"
        "make_plan(RunSpec(task=('copy',), model=('rnn',)), load())\n"
        "print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.skipif("__import__('torch').cuda.is_available()", reason="there is a CUDA device")
def test_cuda_without_a_device() -> None:
    assert "torch finds no CUDA device; use --device cpu" in refused("run", "--task", "copy", "--device", "cuda")


def test_every_option_of_run_is_a_name_of_the_spec() -> None:
    import dataclasses

    from seqbench.spec import RunSpec

    command = cli.commands["run"]
    options = {p.name for p in command.params if isinstance(p, click.Option)}
    names = {f.name for f in dataclasses.fields(RunSpec)}
    assert options - names == {"dry_run", "resumed"}
    assert names - options == {"steps"}, "only a replay's table of steps has no option"
