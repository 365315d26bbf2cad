"""minGRU and minLSTM (Feng et al. 2024) as models of seqbench: their cards. Importing this does not load torch."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import Model, Register, hookimpl, option

CITATION = (
    "Feng, L., Tung, F., Ahmed, M. O., Bengio, Y., Hajimirsadeghi, H. (2024). Were RNNs all we needed? "
    "arXiv:2410.01201; chrono: Tallec, Ollivier (2018). arXiv:1804.11188"
)

SHARED = """
n_t = g(W_n x_t + b_n)                               candidate; candidate=linear: n_t = W_n x_t + b_n
g(v) = v + 1/2 where v >= 0, sigmoid(v) elsewhere
(* and / are elementwise; no gate reads h_{t-1}, so all steps are made at once, by a parallel scan)
"""

MINGRU_EQUATIONS = f"""
z_t = sigmoid(W_z x_t + b_z)                         update gate
h_t = (1 - z_t) * h_{{t-1}} + z_t * n_t                h_0 = 0, y_t = h_t
{SHARED.lstrip()}"""

MINLSTM_EQUATIONS = f"""
f_t = sigmoid(W_f x_t + b_f)                         forget gate
i_t = sigmoid(W_i x_t + b_i)                         input gate
f'_t = f_t / (f_t + i_t),  i'_t = i_t / (f_t + i_t)  so that they sum to 1
h_t = f'_t * h_{{t-1}} + i'_t * n_t                    h_0 = 0, y_t = h_t
{SHARED.lstrip()}"""


@dataclass(frozen=True)
class Options:
    """The options of both models."""

    candidate: str = option(
        "positive",
        "positive: through g, as in the paper's log-space form; linear: as in its first definition",
        choices=("positive", "linear"),
    )
    chrono: bool = option(
        False, "start with gates that keep the state for 1 to T - 1 steps, T the training length, as those of lstm do"
    )


MINGRU = Model(
    name="mingru",
    summary="minGRU: one gate and one candidate, neither of which sees the state.",
    citation=CITATION,
    equations=MINGRU_EQUATIONS,
    cores={"torch": "seqbench_mingru.torch_core:MinGRU"},
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
    code=("seqbench_mingru.torch_core", "seqbench_mingru.scan"),
    layers=2,  # the gates of the first see single inputs alone, those of the second the past
)

MINLSTM = Model(
    name="minlstm",
    summary="minLSTM: a forget and an input gate that sum to 1, neither of which sees the state.",
    citation=CITATION,
    equations=MINLSTM_EQUATIONS,
    cores={"torch": "seqbench_mingru.torch_core:MinLSTM"},
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    state_is_summary=True,
    code=("seqbench_mingru.torch_core", "seqbench_mingru.scan"),
    layers=2,  # the gates of the first see single inputs alone, those of the second the past
)


@hookimpl
def register_models(register: Register) -> None:
    """Add both models."""
    register.model(MINGRU)
    register.model(MINLSTM)
