"""``seqbench new`` and ``seqbench check``: what is written works as it stands, and so does what the docs make of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from seqbench import registry
from seqbench.cli import cli

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


def run(*arguments: str | Path) -> tuple[int, str]:
    """Of a command in this process: exit code, and all that it printed."""
    done = CliRunner().invoke(cli, [str(a) for a in arguments])
    return done.exit_code, done.output


@pytest.mark.parametrize("kind", ["model", "task"])
def test_a_single_file_works_as_it_stands(kind: str, tmp_path: Path) -> None:
    name = f"brand-new-{kind}"
    code, said = run("new", kind, name, "--single-file", "-o", tmp_path)
    path = tmp_path / f"brand_new_{kind}.py"
    assert (code, said.splitlines()[0]) == (0, f"{path} is a {kind} that works. Next:")
    for command in re.findall(r"^  seqbench (check .*)$", said, re.MULTILINE):
        code, told = run(*command.split())
        assert code == 0, told
        assert re.search(rf"{name}( torch)? +\d+ proofs hold", told)


@pytest.mark.parametrize("kind", ["model", "task"])
def test_a_package_has_the_files_of_one(kind: str, tmp_path: Path) -> None:
    assert run("new", kind, "mine-too", "-o", tmp_path)[0] == 0
    folder = tmp_path / "seqbench-mine-too"
    made = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    code = {"model": "torch_core.py", "task": "task.py"}[kind]
    package = {f"seqbench_mine_too/{name}" for name in ("__init__.py", code)}
    assert made == {"pyproject.toml", "README.md", "tests/test_conformance.py"} | package
    assert not any("$" in path.read_text(encoding="utf-8") for path in folder.rglob("*.*"))


def test_what_is_there_is_not_written_over(tmp_path: Path) -> None:
    for extra in ([], ["--single-file"]):
        assert run("new", "task", "mine", "-o", tmp_path, *extra)[0] == 0
        code, said = run("new", "task", "mine", "-o", tmp_path, *extra)
        assert code == 2
        assert "is there already; choose another name, or another folder with --output" in said


def test_names_are_checked(tmp_path: Path) -> None:
    for name, message in (("lstm", "already, by seqbench"), ("My_LSTM", "must be lower case")):
        code, said = run("new", "model", name, "-o", tmp_path)
        assert code == 2
        assert message in said
    assert list(tmp_path.iterdir()) == []


# --- the page -------------------------------------------------------------------------------------------


def install(folder: Path, target: Path) -> None:
    """As ``pip install`` would, but into a folder and without a network."""
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run(
        [*command, "--target", target, folder], check=True, timeout=120, env={**os.environ, "PYTHONPATH": ""}
    )


@pytest.mark.slow
def test_the_page_leads_from_nothing_to_a_row(tmp_path: Path) -> None:
    """The commands of docs/plugins.md, in its order, with its code: 30 lines at most."""
    page = PAGE.read_text(encoding="utf-8").split("## A task")[0]
    ((name, code),) = re.findall(r"<!-- (\S+\.py) -->\n```python\n(.*?)```", page, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    site = tmp_path / "site"
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    commands = re.findall(r"^\$ (.*)$", page, re.MULTILINE)
    assert [c.split()[:2] for c in commands] == [
        ["seqbench", "new"], ["python", "-m"], ["seqbench", "check"], ["seqbench", "run"],
    ]  # fmt: skip
    for command in commands:
        if command.startswith("python -m pip install"):
            (tmp_path / "seqbench-diagonal" / name).write_text(code, encoding="utf-8")
            install(tmp_path / command.split()[-1], site)
            continue
        words = [sys.executable, "-m", *command.split()]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^diagonal +\S", done.stdout, re.MULTILINE)
    assert next(tmp_path.glob("results/*/report.html")).read_text(encoding="utf-8").count("diagonal") > 1


# --- check ----------------------------------------------------------------------------------------------

FAULTY = """
from seqbench.api import Model, hookimpl
from torch import nn
import os, sys

class Core(nn.Module):
    max_length = None
    def __init__(self, spec, options):
        super().__init__()
        self.output_size = spec.width
        self.linear = nn.Linear(spec.input_size, spec.width)
    def forward(self, x, state=None, lengths=None):
        return self.linear(x.roll(-1, 1)).tanh(), None
    def summary(self, y, lengths):
        return y[:, -1]
    def flops(self, B, T):
        return 0

class Leaves(Core):
    def forward(self, x, state=None, lengths=None):
        print("so long")
        sys.stdout.flush()
        os._exit(3)

@hookimpl
def register_models(register):
    for name, core in (("ahead", "Core"), ("leaves", "Leaves")):
        register.model(Model(name, "s", "c", {"torch": f"{__name__}:{core}"}, can=frozenset({"causal"})))
"""


def test_check_tells_each_proof_that_fails_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "faulty.py"
    path.write_text(FAULTY, encoding="utf-8")
    code, said = run("check", "--plugin", path, "--proof", "causality", "--proof", "flops", "--proof", "short")
    assert code == 1
    ahead, _, leaves = said.partition("leaves torch")
    assert re.search(r"^ahead torch +3 of its proofs fail", ahead)
    assert re.search(
        r"^  causality: ahead \(torch, causal.*\n    Usual cause: .*\n    Smallest case found: B=1, T=2",
        ahead,
        re.MULTILINE,
    )
    assert "  flops: " in ahead
    assert "expected all proofs to end: the process left with exit code 3 before its end" in leaves
    assert "    Its last words: so long" in leaves


def test_check_asks_what_to_check_and_knows_what_there_is() -> None:
    for arguments, message in (
        ([], "Say what to check: the name of a model or task (seqbench list has them), or --all."),
        (["lsmt"], "There is no model or task 'lsmt'. Did you mean 'lstm'?"),
        (["lstm", "--all"], "leave out the names, or --all"),
        (["lstm", "--backend", "cuda"], "There is no backend 'cuda'."),
        (["lstm", "--backend", "torch", "--proof", "beauty"], "There is no proof that applies here: 'beauty'."),
    ):
        code, said = run("check", *arguments)
        assert code == 2
        assert message in said


def test_a_proof_that_is_misspelt_beside_another_is_told(tmp_path: Path) -> None:
    """Otherwise less would be proved than was asked for."""
    code, said = run("check", "rnn", "--backend", "torch", "--proof", "short", "--proof", "paddng")
    assert code == 2
    assert "There is no proof that applies here: 'paddng'. Did you mean 'padding'?" in said


NOTHING = """
from seqbench.api import Dataset, Metric, Model, TaskCard, hookimpl

class Missing:
    def __init__(self, options):
        from seqbench.api import DataError
        raise DataError("the file is gone")

@hookimpl
def register_models(register):
    register.model(Model("does-nothing", "s", "c", {"torch": "a:B"}, can=frozenset()))

@hookimpl
def register_tasks(register):
    register.task(TaskCard("no-data", "s", f"{__name__}:Missing", (Metric("m", "s"),), (Dataset("d", "s"),), "m"))
"""


def test_what_cannot_even_be_built_is_a_failure_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    path = tmp_path / "nothing.py"
    path.write_text(NOTHING, encoding="utf-8")
    code, said = run("check", "--plugin", path)
    assert code == 1
    assert "card: does-nothing: expected 'causal' or 'bidirectional' among can, got []" in said
    assert "batches: no-data (d): check_task_batches: expected no exception, got DataError: the file is gone" in said
    assert "process:" not in said


HEAVY = """
import numpy
from seqbench.api import Model, hookimpl
@hookimpl
def register_models(register):
    register.model(Model("heavy", "s", "c", {"torch": "a:B"}))
"""


def test_a_card_that_loads_too_much_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "heavy_card.py").write_text(HEAVY, encoding="utf-8")
    info = tmp_path / "acme-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.2\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[seqbench]\nheavy = heavy_card\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert "heavy" in registry.load().models
    code, said = run("check", "heavy", "--proof", "light")
    assert code == 1
    assert "acme" in said
    assert "acme 1.2: modules that the import of its cards loads: expected none of torch, numpy" in said
    assert "got numpy." in said
