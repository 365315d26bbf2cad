"""The proofs that a model keeps to the interface: for the built-in models and for anyone's.

In a plugin's own tests::

    import pytest
    from seqbench import conformance
    from my_plugin import card

    @pytest.mark.parametrize("options", conformance.cases(card), ids=str)
    def test_card(options):
        conformance.check_all(card, options)

Every proof runs in float64 on a small core, so that a difference is a fault and not rounding. One that fails raises
``ConformanceError`` with what was expected, what came, and what usually causes it.
"""

from __future__ import annotations

from seqbench.conformance.comparing import TOLERANCE, ConformanceError
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
from seqbench.conformance.decoder_proofs import (
    check_decoder_alignment,
    check_decoder_causality,
    check_decoder_flops,
    check_decoder_gradients,
    check_decoder_padding,
    check_decoder_reordering,
    check_decoder_shapes,
    check_decoder_steps,
)
from seqbench.conformance.oracle import check_oracle, check_parameter_count
from seqbench.conformance.run import check_all, checks
from seqbench.conformance.state_proofs import check_state
from seqbench.conformance.subjects import LAYERS, TRAIN_LENGTH, D, Subject, cases, subjects

__all__ = [
    "LAYERS",
    "TOLERANCE",
    "TRAIN_LENGTH",
    "ConformanceError",
    "D",
    "Subject",
    "cases",
    "check_all",
    "check_both_directions",
    "check_causality",
    "check_decoder_alignment",
    "check_decoder_causality",
    "check_decoder_flops",
    "check_decoder_gradients",
    "check_decoder_padding",
    "check_decoder_reordering",
    "check_decoder_shapes",
    "check_decoder_steps",
    "check_determinism",
    "check_flops",
    "check_gradients",
    "check_no_global_state",
    "check_oracle",
    "check_padding",
    "check_parameter_count",
    "check_shapes",
    "check_short",
    "check_state",
    "check_state_dict",
    "check_zero_beyond_lengths",
    "checks",
    "subjects",
]
