"""The gated recurrent unit of Cho et al. (2014), with the reset gate after or before the recurrent product."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import CoreSpec, Model, option, recurrent_parameters

EQUATIONS = """
r_t = sigmoid(W_r x_t + U_r h_{t-1} + b_r)                  reset gate
z_t = sigmoid(W_z x_t + U_z h_{t-1} + b_z)                  update gate
n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + b'_n))      reset_after=true  (torch, cuDNN)
n_t = tanh(W_n x_t + b_n + U_n (r_t * h_{t-1}))             reset_after=false (Cho et al.)
h_t = (1 - z_t) * n_t + z_t * h_{t-1}                       h_0 = 0, y_t = h_t
(* is elementwise; texts that swap z and 1 - z define the same model with z renamed)
"""


@dataclass(frozen=True)
class Options:
    """The options of ``gru``."""

    reset_after: bool = option(True, "apply the reset gate after the recurrent product, as torch and cuDNN do")


def parameters(spec: CoreSpec, options: Options) -> int:
    """Of a core: 3 gates, with one bias each or two."""
    return recurrent_parameters(spec, 3, 2 if options.reset_after else 1)


card = Model(
    name="gru",
    summary="The gated recurrent unit: one state, moved towards a candidate by an update gate.",
    citation="Cho, K. et al. (2014). Learning phrase representations using RNN encoder-decoder. arXiv:1406.1078",
    equations=EQUATIONS,
    cores={
        "torch": "seqbench_models.gru.torch_core:Core",
        "numba": "seqbench_models.gru.numba_core:Core",
        "numba-ref": "seqbench_models.gru.numba_core:Reference",
    },
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
    recurrence="seqbench_models.gru.cell:recurrence",
    code=("seqbench_models.gru.cell", "seqbench.backends.kernels.plain"),
    parameters=parameters,
)
