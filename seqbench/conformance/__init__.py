"""The proofs that a plugin keeps to the interface: for the built-in models and for anyone's.

In a plugin's own tests, one test a proof::

    import pytest
    from seqbench import conformance
    from my_plugin import card

    @pytest.mark.parametrize("proof", conformance.proofs(card), ids=str)
    def test_conformance(proof):
        proof()

Every proof runs on a small core, nearly all in float64, so that a difference is a fault and not rounding. One that
fails raises ``ConformanceError``: what was expected, what came, what usually causes it, and the smallest case found.
"""

from __future__ import annotations

from seqbench.conformance.comparing import TOLERANCE, ConformanceError
from seqbench.conformance.core_proofs import (
    check_both_directions,
    check_causality,
    check_inputs_untouched,
    check_long,
    check_padding,
    check_shapes,
    check_short,
    check_zero_beyond_lengths,
)
from seqbench.conformance.decoder_proofs import (
    check_decoder_alignment,
    check_decoder_backends,
    check_decoder_causality,
    check_decoder_flops,
    check_decoder_gradients,
    check_decoder_padding,
    check_decoder_reordering,
    check_decoder_shapes,
    check_decoder_steps,
)
from seqbench.conformance.number_proofs import (
    check_backends,
    check_device,
    check_flops,
    check_precision,
    check_single_precision,
)
from seqbench.conformance.oracle import check_oracle, check_parameter_count
from seqbench.conformance.proofs import Proof, check_all, checks, proofs
from seqbench.conformance.state_proofs import check_state
from seqbench.conformance.subjects import D, Sizes, Subject, cases, subjects
from seqbench.conformance.task_proofs import TaskProof, TaskSubject, task_proofs
from seqbench.conformance.training_proofs import (
    check_determinism,
    check_gradients,
    check_learns,
    check_no_global_state,
    check_parameters,
    check_state_dict,
)

__all__ = [
    "TOLERANCE",
    "ConformanceError",
    "D",
    "Proof",
    "Sizes",
    "Subject",
    "TaskProof",
    "TaskSubject",
    "cases",
    "check_all",
    "check_backends",
    "check_both_directions",
    "check_causality",
    "check_decoder_alignment",
    "check_decoder_backends",
    "check_decoder_causality",
    "check_decoder_flops",
    "check_decoder_gradients",
    "check_decoder_padding",
    "check_decoder_reordering",
    "check_decoder_shapes",
    "check_decoder_steps",
    "check_determinism",
    "check_device",
    "check_flops",
    "check_gradients",
    "check_inputs_untouched",
    "check_learns",
    "check_long",
    "check_no_global_state",
    "check_oracle",
    "check_padding",
    "check_parameter_count",
    "check_parameters",
    "check_precision",
    "check_shapes",
    "check_short",
    "check_single_precision",
    "check_state",
    "check_state_dict",
    "check_zero_beyond_lengths",
    "checks",
    "proofs",
    "subjects",
    "task_proofs",
]
