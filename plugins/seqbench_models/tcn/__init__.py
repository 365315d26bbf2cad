"""The temporal convolutional network of Bai, Kolter and Koltun (2018)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from seqbench.api import CoreSpec, Model, option

EQUATIONS = """
block i = 0 .. L-1, dilation d = 2^i, kernel K:
    conv(x)_t = b + sum_{k=0}^{K-1} W_k x_{t - (K-1-k) d}         x_t = 0 for t < 0 (causal)
    F(x)      = dropout(relu(conv_2(dropout(relu(conv_1(x))))))
    y         = relu(F(x) + x)                                    x through a 1x1 convolution where the widths differ
weight_norm=true: W = g V / |V|, one g for each output channel
receptive field: 1 + 2 (K-1) (2^L - 1) steps
both directions: a second such stack reads each row backwards; the outputs of the two stand side by side
"""


@dataclass(frozen=True)
class Options:
    """The options of ``tcn``."""

    kernel: int = option(3, "K, the number of taps of each convolution", low=2, high=64)
    weight_norm: bool = option(True, "learn each filter's norm apart from its direction, as the published module does")
    last_channels: int = option(0, "channels of the last block; 0 = the width", low=0)


def receptive_field(kernel: int, layers: int) -> int:
    """How many steps, its own included, an output can see."""
    return 1 + 2 * (kernel - 1) * ((1 << layers) - 1)


def default_layers(options: Options, train_length: int) -> int:
    """The fewest blocks whose receptive field covers the training length."""
    layers = 1
    while receptive_field(options.kernel, layers) < train_length:
        layers += 1
    return layers


def advice(options: Options, layers: int, train_length: int) -> str | None:
    """The receptive field, with a warning where the task is longer."""
    field = receptive_field(options.kernel, layers)
    if field < train_length:
        return f"warning: receptive field {field} is shorter than the task's length {train_length}; add layers"
    return f"receptive field {field} covers the task's {train_length} steps"


def parameters(spec: CoreSpec, options: Options) -> int:
    """Of a core: two convolutions a block, norms beside them, and a 1x1 convolution where the widths differ."""
    sizes = [spec.input_size] + [spec.width] * (spec.layers - 1) + [options.last_channels or spec.width]
    stack = 0
    for inputs, outputs in itertools.pairwise(sizes):
        extra = outputs * (2 if options.weight_norm else 1)  # the bias and the norms
        stack += outputs * options.kernel * (inputs + outputs) + 2 * extra
        stack += outputs * (inputs + 1) if inputs != outputs else 0
    return stack if spec.causal else 2 * stack


card = Model(
    name="tcn",
    summary="Temporal convolutional network: residual blocks of causal convolutions whose dilation doubles.",
    citation=(
        "Bai, S., Kolter, J. Z., Koltun, V. (2018). An empirical evaluation of generic convolutional and recurrent "
        "networks for sequence modeling. arXiv:1803.01271"
    ),
    equations=EQUATIONS,
    cores={
        "torch": "seqbench_models.tcn.torch_core:Core",
        "numba": "seqbench_models.tcn.numba_core:Core",
        "numba-ref": "seqbench_models.tcn.numba_core:Reference",
    },
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    code=("seqbench.backends.kernels.plain_convolution",),
    fine="last_channels",
    layers=default_layers,
    parameters=parameters,
    advice=advice,
)
