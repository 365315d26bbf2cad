"""The simple recurrent network of Elman (1990)."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import CoreSpec, Model, option, recurrent_parameters

EQUATIONS = """
h_t = tanh(W x_t + U h_{t-1} + b)          h_0 = 0, y_t = h_t
(b is torch's sum of two vectors, b_ih + b_hh; nonlinearity=relu puts max(0, .) in the place of tanh)
"""


@dataclass(frozen=True)
class Options:
    """The options of ``rnn``."""

    nonlinearity: str = option("tanh", "the function of the hidden units", choices=("tanh", "relu"))


def parameters(spec: CoreSpec, _options: Options) -> int:
    """Of a core: 1 gate, with two biases each as in torch."""
    return recurrent_parameters(spec, 1, 2)


card = Model(
    name="rnn",
    summary="The simple recurrent network: one tanh layer that sees its own last output.",
    citation="Elman, J. L. (1990). Finding structure in time. Cognitive Science 14(2). doi:10.1207/s15516709cog1402_1",
    equations=EQUATIONS,
    cores={
        "torch": "seqbench_models.rnn.torch_core:Core",
        "numba": "seqbench_models.rnn.numba_core:Core",
        "numba-ref": "seqbench_models.rnn.numba_core:Reference",
    },
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
    recurrence="seqbench_models.rnn.cell:recurrence",
    code=("seqbench_models.rnn.cell", "seqbench.backends.kernels.plain"),
    parameters=parameters,
)
