"""Every proof of ``seqbench check mqar``, one test each."""

from collections.abc import Callable

import pytest

from seqbench import conformance
from seqbench_mqar import MQAR


@pytest.mark.parametrize("proof", conformance.task_proofs(MQAR), ids=str)
def test_conformance(proof: Callable[[], None]) -> None:
    proof()
