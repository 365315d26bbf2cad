"""The cards: what is registered, at what cost, and what each says."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from seqbench import conformance, registry
from seqbench_models import lstm

NAMES = ["rnn", "lstm", "gru", "janet", "tcn", "transformer"]
PROBE = """
import sys
import seqbench_models
heavy = {"torch", "numpy", "numba", "scipy", "pandas"} & {name.partition(".")[0] for name in sys.modules}
sys.exit(f"loaded {sorted(heavy)}" if heavy else 0)
"""


def test_all_six_come_through_the_plugin_door() -> None:
    found = registry.load()
    assert [name for name in found.models if found.origin["model", name].distribution == "seqbench"] == NAMES


def test_importing_the_cards_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_card_says_what_it_is(name: str) -> None:
    card = registry.load().model(name)
    assert card.equations.strip()
    assert any(word in card.citation for word in ("doi:", "arXiv:"))
    assert card.state_is_summary == (name in NAMES[:4])
    assert set(card.cores) == {"torch", "numba", "numba-ref"}
    assert set(card.decoders) == (set(card.cores) if name == "transformer" else set())


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_in_the_documentation(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "models.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {name}\n")[1].split("\n## ")[0]
    for f in dataclasses.fields(registry.load().model(name).options):
        value = str(f.default).lower() if isinstance(f.default, bool) else f.default
        assert f"`{f.name}` ({value})" in section


def test_cases_vary_one_option_at_a_time() -> None:
    assert conformance.cases(lstm.card) == [
        lstm.Options(),
        lstm.Options(forget_bias=1.5),
        lstm.Options(chrono=True),
    ]
