"""Strangers, each at fault in another way, installed beside one another: they are named, and nobody else suffers.

All are there in one run of the command line, with a model of ours and a stranger's that is right.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seqbench.store import RunFolder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("isolation"),  # what all share takes long
    pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX"),
]

HERE = Path(__file__).parent
CARD = """
from seqbench.api import Model, hookimpl

@hookimpl
def register_models(register):
    register.model(Model({name!r}, "A stranger.", "nobody", {{"torch": "{module}_core:Core"}}))
"""
CORE = "import os, time\nimport torch\nfrom stranger_core import Core as Right\n"
IN_TRAINING = """
class Core(Right):
    def forward(self, x, state=None, lengths=None):
        y, _ = super().forward(x)
        if self.calls == 3:
            {fault}
        return y, None
"""
RIGHT = "Core = Right\n"


@dataclass(frozen=True)
class Stranger:
    """What a distribution's card does beside registering a model, and its core."""

    core: str = RIGHT
    before: str = ""
    card: str = CARD


STRANGERS = {
    "fine": Stranger(),
    "absent": Stranger(before="import no_such_package"),
    "raising": Stranger(card=CARD + "    1 / 0\n"),
    "thief": Stranger(card=CARD.replace("{name!r}", "'rnn'")),
    "misshapen": Stranger(IN_TRAINING.format(fault="y = y.transpose(0, 1)")),
    "nan": Stranger(IN_TRAINING.format(fault="y = y * float('nan')")),
    "hanging": Stranger(IN_TRAINING.format(fault="time.sleep(600)")),
    "leaving": Stranger(IN_TRAINING.format(fault="os._exit(5)")),
    "gone": Stranger("class Core(Right):\n    def __init__(self, spec, options):\n        os._exit(7)\n"),
    "greedy": Stranger(
        IN_TRAINING.format(
            fault="eaten = [1]\n            while eaten: eaten.append(torch.ones(2**23)); time.sleep(0.02)"
        )
    ),
    "talking": Stranger(
        IN_TRAINING.format(fault="print('said in training')"),
        before="import subprocess\nprint('said while loading')\nsubprocess.run(['echo', 'echoed while loading'])",
    ),
    "patching": Stranger(
        "from torch.nn import functional\nright = functional.cross_entropy\n"
        "functional.cross_entropy = lambda *a, **k: 0.5 * right(*a, **k)\n"
        "torch.Tensor.__add__ = lambda self, other: torch.add(self, other)\n" + RIGHT
    ),
    "heavy": Stranger(
        before="import os, torch\nos.environ['OMP_NUM_THREADS'] = '7'\n"
        "torch.nn.functional.cross_entropy = torch.Tensor.backward = None"
    ),
}
STRANGERS["explaining"] = Stranger(
    card=CARD.replace("Model, hookimpl", "Model, SectionCard, hookimpl")
    + """
@hookimpl
def register_sections(register):
    register.section(SectionCard("acme-notes", "copy", "{module}:notes"))

def notes(views):
    print("said in a section")
    1 / 0
"""
)
REGISTERED = [name for name in STRANGERS if name not in {"absent", "raising", "thief"}]
MEMORY = 900
"""MiB; a trial that has just begun takes 300 to 500."""


def install(where: Path) -> None:
    """A distribution ``acme-NAME`` 1.2 for each stranger, with a card and a core."""
    for name, stranger in STRANGERS.items():
        module = f"acme_{name}"
        card = stranger.before + stranger.card.format(name=name, module=module)
        (where / f"{module}.py").write_text(card, encoding="utf-8")
        (where / f"{module}_core.py").write_text(CORE + stranger.core, encoding="utf-8")
        info = where / f"acme_{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.2\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[seqbench]\nplug = {module}\n", encoding="utf-8")


@dataclass(frozen=True)
class Ran:
    """A run of the command line."""

    done: subprocess.CompletedProcess[str]
    folder: RunFolder

    def record(self, model: str) -> dict[str, Any]:
        return next(r for r in self.folder.records() if r["trial"]["model"] == model)

    def log(self, model: str) -> str:
        return self.folder.log_path(self.record(model)["id"]).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    where = tmp_path_factory.mktemp("strangers")
    install(where)
    return where


def command(where: Path, *arguments: str, plugins: str | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(where), str(HERE / "plugins"), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path} | ({} if plugins is None else {"SEQBENCH_PLUGINS": plugins})
    line = [sys.executable, "-m", "seqbench", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, check=False, env=environment)


def run(where: Path, out: Path, models: list[str], *more: str, plugins: str | None = None) -> Ran:
    chosen = [word for model in models for word in ("--model", model)]
    small = ["--task", "copy[T=5]", "--seeds", "0,", "--params", "1500", "--budget", "4steps", "--out", str(out)]
    done = command(where, "run", *chosen, *small, *more, plugins=plugins)
    (folder,) = out.iterdir()
    return Ran(done, RunFolder.open(folder))


@pytest.fixture(scope="module")
def together(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    out = tmp_path_factory.mktemp("together")
    return run(places, out, ["rnn", *REGISTERED], "--timeout", "20", "--memory", str(MEMORY))


@pytest.fixture(scope="module")
def alone(places: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return run(places, tmp_path_factory.mktemp("alone"), ["rnn"], plugins="seqbench")


def numbers(ran: Ran, model: str) -> tuple[Any, ...]:
    record = ran.record(model)
    curve = {part: {k: v for k, v in columns.items() if k != "seconds"} for part, columns in record["curve"].items()}
    arrays = {name: array.tobytes() for name, array in ran.folder.arrays(record["id"]).items()}
    return record["score"], record["metrics"], curve, arrays


def test_our_row_is_bit_for_bit_what_it_is_alone(together: Ran, alone: Ran) -> None:
    assert numbers(together, "rnn") == numbers(alone, "rnn")
    assert together.record("rnn")["notes"] == []
    assert together.record("rnn")["trial"] == alone.record("rnn")["trial"], "nothing of a stranger is in it"


def test_a_stranger_who_is_right_has_a_row_too(together: Ran) -> None:
    record = together.record("fine")
    assert (record["status"], record["notes"]) == ("ok", [])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("raising", "ZeroDivisionError: division by zero"),
        ("thief", "PluginError: model 'rnn' is already registered by seqbench 0."),
    ],
)
def test_what_cannot_be_loaded_is_told_and_left_out(together: Ran, name: str, message: str) -> None:
    assert f"warning: broken plugin 'plug' of acme-{name} 1.2: {message}" in together.done.stderr


FAILURES = {
    "misshapen": ("error", "the core must give outputs of shape (32, "),
    "nan": ("diverged", "The training loss is nan at step "),
    "hanging": ("timeout", "killed after "),
    "leaving": ("error", "the process left with exit code 5 before its end"),
    "gone": ("error", "the process left with exit code 7 before its end"),
    "greedy": ("out_of_memory", f"killed: its process took more than the {MEMORY} MiB of --memory"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_who_fails_is_named_with_distribution_and_version_everywhere(together: Ran, name: str) -> None:
    status, cause = FAILURES[name]
    record = together.record(name)
    said = f"{name} of acme-{name} 1.2: {cause}"
    assert (record["status"], record["cause"][: len(said)]) == (status, said)
    for table in ("results.csv", "summary.csv"):
        with (together.folder.path / table).open(encoding="utf-8") as file:
            row = next(row for row in csv.DictReader(file) if row["model"] == name)
        assert row["cause"] == record["cause"]
    assert f"{name} of acme-{name} 1.2: " in (together.folder.path / "report.html").read_text(encoding="utf-8")
    assert said in " ".join(together.done.stdout.split())
    assert together.done.returncode == 1


def test_what_dies_while_it_is_sized_is_told_before_the_run(together: Ran) -> None:
    said = "gone of acme-gone 1.2: the process left with exit code 7 before its end"
    assert f"warning: gone on copy[T=5]/embedded: error: {said}" in together.done.stderr


def test_what_a_stranger_prints_is_in_its_log_and_in_no_table(together: Ran, places: Path) -> None:
    assert together.record("talking")["status"] == "ok"
    assert "said in training" in together.log("talking")
    assert "said while loading" in together.log("talking")
    assert "said while loading" not in together.log("fine"), "no other trial loads that plugin"
    assert " loading" not in together.done.stdout
    warning = "warning: plugin 'plug' of acme-talking 1.2 prints while it loads; what it says goes to standard error"
    assert warning in together.done.stderr
    table = command(places, "report", str(together.folder.path), "--format", "csv")
    summary = (together.folder.path / "summary.csv").read_text(encoding="utf-8")
    assert list(csv.reader(io.StringIO(table.stdout))) == list(csv.reader(io.StringIO(summary)))
    assert "said while loading" in table.stderr
    assert "echoed while loading" in table.stderr


def test_a_section_that_fails_is_named_and_the_rest_of_the_report_is_there(together: Ran) -> None:
    page = (together.folder.path / "report.html").read_text(encoding="utf-8")
    assert "acme-explaining 1.2: ZeroDivisionError: division by zero" in page
    assert "Gradient through time" in page, "the section of ours about the same task"
    assert "said in a section" not in together.done.stdout
    assert "said in a section" in together.done.stderr


def test_who_patches_torch_is_alone_with_it_and_is_told_on(together: Ran) -> None:
    """That all other rows are as they would be is what ``test_our_row_is_bit_for_bit_what_it_is_alone`` says."""
    (note,) = together.record("patching")["notes"]
    assert note == (
        "warning: patching of acme-patching 1.2: torch.Tensor.__add__, torch.nn.functional.cross_entropy changed in "
        "torch during the trial: its numbers may not be comparable with the others'"
    )


def test_a_card_that_loads_and_patches_torch_reaches_no_other_row(together: Ran) -> None:
    """Its own row fails by what it did."""
    assert together.record("heavy")["status"] == "error"
    said = "warning: plugin 'plug' of acme-heavy 1.2 "
    assert f"{said}imports torch, numpy" in together.done.stderr
    assert f"{said}sets OMP_NUM_THREADS in the environment while it loads; that is taken back" in together.done.stderr
    assert together.done.stderr.count(said) == 2
