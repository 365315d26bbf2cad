"""Long short-term memory with a forget gate (Hochreiter and Schmidhuber 1997; Gers, Schmidhuber and Cummins 2000)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from seqbench.api import CoreSpec, Model, UsageError, option, recurrent_parameters

EQUATIONS = """
i_t = sigmoid(W_i x_t + U_i h_{t-1} + b_i)          input gate
f_t = sigmoid(W_f x_t + U_f h_{t-1} + b_f)          forget gate
g_t = tanh   (W_g x_t + U_g h_{t-1} + b_g)          candidate
o_t = sigmoid(W_o x_t + U_o h_{t-1} + b_o)          output gate
c_t = f_t * c_{t-1} + i_t * g_t                     cell,   c_0 = 0
h_t = o_t * tanh(c_t)                               output, h_0 = 0, y_t = h_t
(* is elementwise; each b is torch's sum of two vectors, b_ih + b_hh)
"""


@dataclass(frozen=True)
class Options:
    """The options of ``lstm``."""

    forget_bias: float = option(1.0, "the forget gate's bias at the start (the sum of torch's two)")
    chrono: bool = option(False, "start with b_f = ln U(1, T - 1) and b_i = -b_f, T the training length")

    def __post_init__(self) -> None:
        """Refuse two values for one bias.

        Raises:
            UsageError: both options set the forget bias.
        """
        default = next(f.default for f in dataclasses.fields(self) if f.name == "forget_bias")
        if self.chrono and self.forget_bias != default:
            raise UsageError(
                f"lstm: chrono=true and forget_bias={self.forget_bias} both set the forget gate's bias; "
                "leave one of the two out"
            )


def parameters(spec: CoreSpec, _options: Options) -> int:
    """Of a core: 4 gates, with two biases each as in torch."""
    return recurrent_parameters(spec, 4, 2)


card = Model(
    name="lstm",
    summary="Long short-term memory: a cell that is kept, written and read through three gates.",
    citation=(
        "Hochreiter, S., Schmidhuber, J. (1997). Long short-term memory. Neural Computation 9(8). "
        "doi:10.1162/neco.1997.9.8.1735; forget gate: Gers, Schmidhuber, Cummins (2000). Learning to forget. "
        "Neural Computation 12(10). doi:10.1162/089976600300015015; chrono: Tallec, Ollivier (2018). arXiv:1804.11188"
    ),
    equations=EQUATIONS,
    cores={
        "torch": "seqbench_models.lstm.torch_core:Core",
        "numba": "seqbench_models.lstm.numba_core:Core",
        "numba-ref": "seqbench_models.lstm.numba_core:Reference",
    },
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
    recurrence="seqbench_models.lstm.cell:recurrence",
    code=("seqbench_models.lstm.cell", "seqbench.backends.kernels.plain"),
    parameters=parameters,
)
