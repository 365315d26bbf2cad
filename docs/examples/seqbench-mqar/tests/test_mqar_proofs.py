"""Every proof of ``seqbench check mqar``, one test each."""

from collections.abc import Callable

import pytest
from seqbench_mqar import card

from seqbench import conformance


@pytest.mark.parametrize("proof", conformance.task_proofs(card), ids=str)
def test_conformance(proof: Callable[[], None]) -> None:
    proof()
