"""Ten strangers who each do another wrong thing, installed beside one another: who is at fault is named, nobody else suffers.

All are there in one run of the command line, with a model of ours and a stranger's that is right.
"""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from seqbench.store import RunFolder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX")

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
    print(together.done.stdout, together.done.stderr)
    assert numbers(together, "rnn") == numbers(alone, "rnn")
    assert together.record("rnn")["notes"] == []
