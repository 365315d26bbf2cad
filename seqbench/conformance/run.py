"""Which proofs apply to a card, and running them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seqbench.api import Model
from seqbench.conformance.comparing import ConformanceError, error_of
from seqbench.conformance.core_proofs import (
    check_both_directions,
    check_causality,
    check_determinism,
    check_flops,
    check_gradients,
    check_no_global_state,
    check_padding,
    check_shapes,
    check_short,
    check_state_dict,
    check_zero_beyond_lengths,
)
from seqbench.conformance.decoder_proofs import decoder_checks
from seqbench.conformance.state_proofs import check_state
from seqbench.conformance.subjects import Subject, subjects


def check_all(card: Model, options: Any = None, backend: str = "torch") -> None:
    """Run every proof that applies to what the card declares.

    Raises:
        ConformanceError: the first proof that fails.
    """
    for subject in subjects(card, options, backend):
        for check in checks(subject):
            _run_check(check, subject)


def _run_check(check: Callable[[Subject], None], subject: Subject) -> None:
    """Run one proof; a core that raises has failed it."""
    try:
        check(subject)
    except ConformanceError:
        raise
    except Exception as error:
        raised = f"{type(error).__name__}: {error}"
        cause = "the core does not keep to the interface"
        raise error_of(subject, check.__name__, "no exception", raised, cause) from error


def checks(subject: Subject) -> list[Callable[[Subject], None]]:
    """The proofs that apply to a subject."""
    direction = check_causality if subject.causal else check_both_directions
    return [
        check_no_global_state,  # before another proof lets the core change something
        check_shapes,
        check_short,
        check_zero_beyond_lengths,
        check_padding,
        direction,
        *([check_state] if subject.has_state else []),
        check_gradients,
        check_state_dict,
        check_determinism,
        check_flops,
        *decoder_checks(subject),
    ]
