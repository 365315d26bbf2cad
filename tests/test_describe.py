"""``seqbench info``: all that a card says is shown."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench.api import Dataset, Defaults, Metric, Model, TaskCard, option
from seqbench.describe import describe_code, describe_model, describe_task
from seqbench.errors import PluginError
from seqbench.registry import Registry, Source

SOURCE = Source("models", "my-package", "1.2")


@dataclasses.dataclass(frozen=True)
class Options:
    taps: int = option(3, "how many taps", low=2, high=64)
    norm: str = option("pre", "which norm", choices=("pre", "post"))
    gate: bool = option(True, "a switch")


def test_every_built_in_card_is_shown_whole(cards: Registry) -> None:
    for card in cards.models.values():
        text = describe_model(card, SOURCE)
        for part in (card.name, card.summary, card.citation, *card.cores, *card.can):
            assert part in text
        for line in card.equations.strip().splitlines():
            assert line.strip() in text
        for field in dataclasses.fields(card.options):
            assert f"{field.name}={field.default}" in text
            assert field.metadata["help"] in text
    for task in cards.tasks.values():
        text = describe_task(task, cards.origin)
        parts = [task.summary, task.citation, *(m.summary for m in task.metrics), *(d.summary for d in task.datasets)]
        parts += [f"{field.name}={field.default}" for field in dataclasses.fields(task.options)]
        for part in parts:
            assert part in text


def test_a_model() -> None:
    card = Model(
        "my-lstm", "An LSTM.", "me", {"torch": "a:B"}, equations="\n  h = x\n    + y\n", options=Options,
        can=frozenset({"step", "causal"}),
    )  # fmt: skip
    assert describe_model(card, SOURCE) == "\n\n".join(
        [
            "my-lstm: An LSTM.",
            "  h = x\n    + y",
            (
                "Options (plus width, layers and dropout, which every model has):\n"
                "  taps=3 (from 2 to 64): how many taps\n"
                "  norm=pre (pre | post): which norm\n"
                "  gate=True: a switch"
            ),
            "Can: causal, step\nBackends: torch",
            "Source: me\nPlugin: my-package 1.2",
        ]
    )


def test_a_model_without_options_or_equations() -> None:
    text = describe_model(Model("m", "A model.", "me", {"torch": "a:B"}), SOURCE)
    assert "which every model has):\n  none of its own\n" in text
    assert text.startswith("m: A model.\n\nOptions")


@pytest.mark.parametrize(("citation", "end"), [("", "\n\nPlugin: x"), ("me 2020", "\n\nSource: me 2020\nPlugin: x")])
def test_a_task(citation: str, end: str) -> None:
    card = TaskCard(
        "t", "A task.", "a:B", (Metric("nats", "cross-entropy", "nats"), Metric("mse", "error")),
        (Dataset("embedded", "made"), Dataset("real", "found", licence="free")), "nats",
        defaults=Defaults(50_000, 10, 3, 0.5), citation=citation,
    )  # fmt: skip
    assert describe_task(card, {("task", "t"): Source("p", "x", "")}) == (
        "t: A task.\n\n"
        "Metrics (the first is the score):\n  nats (nats): cross-entropy\n  mse: error\n\n"
        "Datasets (the first is the default):\n  embedded: made\n  real: found (terms: free)\n\n"
        "Protocol: 50,000 parameters, 10 steps of 3 sequences, peak learning rate 0.5;\n"
        "checkpoint chosen by the best validation nats." + end
    )


def test_the_code_beside_the_equations(cards: Registry) -> None:
    code = describe_code(cards.model("lstm"))
    assert "c = f * c + i * g" in code, "the cell"
    assert "for t in range(T):" in code, "the loop over time"
    for card in cards.models.values():
        assert "def " in describe_code(card)


def test_a_card_that_names_no_code_shows_its_core(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("class Core:\n    '''The whole model.'''\n")
    (tmp_path / "card.py").write_text("card = 1\n")
    program = (
        "from seqbench.api import Model; from seqbench.describe import describe_code\n"
        "print(describe_code(Model('m', 'A model.', 'me', {'torch': 'mine:Core'})))\n"
        "import sys; assert 'mine' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "# mine (mine.py)\n# --------------\nclass Core:\n    '''The whole model.'''\n"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_such_module", "cannot show the code of 'no_such_module': there is no such file"),
        ("no_such.module", "cannot show the code of 'no_such.module': No module named 'no_such'"),
        ("sys", "cannot show the code of 'sys': there is no such file"),
    ],
)
def test_code_that_is_not_there(module: str, message: str) -> None:
    with pytest.raises(PluginError, match=message):
        describe_code(Model("m", "A model.", "me", {"torch": "a:B"}, code=(module,)))


def test_code_is_named_by_modules() -> None:
    with pytest.raises(PluginError, match=r"code: 'a:B' must read 'package\.module'"):
        Model("m", "A model.", "me", {"torch": "a:B"}, code=("a:B",))
