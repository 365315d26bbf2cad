"""JANET, "just another network": an LSTM with nothing left but its forget gate (van der Westhuizen, Lasenby 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import CoreSpec, Model, option, recurrent_parameters

EQUATIONS = """
s_t = W_s x_t + U_s h_{t-1} + b_s                                     forget gate, before its sigmoid
g_t = tanh(W_n x_t + U_n h_{t-1} + b_n)                               candidate
h_t = sigmoid(s_t) * h_{t-1} + (1 - sigmoid(s_t - beta)) * g_t        h_0 = 0, y_t = h_t
(* is elementwise; beta is a constant, so an LSTM with o = 1, no output tanh, W_i = -W_f, U_i = -U_f, b_i = beta - b_f)
"""


@dataclass(frozen=True)
class Options:
    """The options of ``janet``."""

    beta: float = option(1.0, "how far the input gate opens beyond 1 - forget gate; a constant, not trained")
    chrono: bool = option(True, "start with b_s = ln U(1, T - 1), T the training length; otherwise b_s = 1")


def advice(options: Options, layers: int, train_length: int) -> str | None:  # noqa: ARG001 - the interface's form
    """That the start knows the task's length, which other models are told only on request."""
    if not options.chrono:
        return None
    return f"forget bias starts from the task's length, {train_length} (chrono); lstm[chrono=true] starts likewise"


def parameters(spec: CoreSpec, _options: Options) -> int:
    """Of a core: 2 gates, with one bias each."""
    return recurrent_parameters(spec, 2, 1)


card = Model(
    name="janet",
    summary="JANET: an LSTM with nothing left but its forget gate.",
    citation=(
        "van der Westhuizen, J., Lasenby, J. (2018). The unreasonable effectiveness of the forget gate. "
        "arXiv:1804.04849"
    ),
    equations=EQUATIONS,
    cores={
        "torch": "seqbench_models.janet.torch_core:Core",
        "numba": "seqbench_models.janet.numba_core:Core",
        "numba-ref": "seqbench_models.janet.numba_core:Reference",
    },
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
    recurrence="seqbench_models.janet.cell:recurrence",
    code=("seqbench_models.janet.cell", "seqbench.backends.kernels.plain"),
    advice=advice,
    parameters=parameters,
)
