"""The conformance proofs on every built-in model, in every option setting and direction."""

import pytest

from seqbench import conformance
from seqbench.api import Model
from seqbench_models import gru, janet, lstm, rnn, tcn, transformer

CARDS = [rnn.card, lstm.card, gru.card, janet.card, tcn.card, transformer.card]
SUBJECTS = [s for card in CARDS for options in conformance.cases(card) for s in conformance.subjects(card, options)]


@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_conformance(subject: conformance.Subject) -> None:
    for check in conformance.checks(subject):
        check(subject)


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_check_all_runs_as_plugin_authors_run_it(card: Model) -> None:
    conformance.check_all(card)
