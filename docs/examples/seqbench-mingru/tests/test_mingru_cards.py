"""The models keep to seqbench's interface, in every setting; nothing heavy is loaded before they are used."""

import subprocess
import sys

import pytest

from seqbench import conformance
from seqbench.api import Model
from seqbench_mingru import MINGRU, MINLSTM, Options

CASES = [(card, options) for card in (MINGRU, MINLSTM) for options in conformance.cases(card)]


@pytest.mark.parametrize(("card", "options"), CASES, ids=lambda value: getattr(value, "name", str(value)))
def test_conformance(card: Model, options: Options) -> None:
    conformance.check_all(card, options)


def test_the_cards_load_neither_torch_nor_numpy() -> None:
    code = "import sys, seqbench_mingru; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
