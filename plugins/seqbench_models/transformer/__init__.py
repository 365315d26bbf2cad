"""The Transformer of Vaswani et al. (2017) as a sequence model: masked self-attention, or both ways."""

from __future__ import annotations

import math
from dataclasses import dataclass

from seqbench.api import CoreSpec, Model, option

EQUATIONS = """
x_t <- scale x_t + p_t                             scale = sqrt(H) with embedding_scale=true, else 1
p_{t,2j} = sin(t / 10000^(2j/H)), p_{t,2j+1} = cos(t / 10000^(2j/H))     positions=sinusoidal; t = 0, 1, ...
A(x)   = W_o [head_1; ...; head_N] + b_o,  head = softmax(q k' / sqrt(H/N)) v,  [q; k; v] = W_qkv x + b_qkv
         causal: t attends to 0 .. t; otherwise to every step within the row's length
F(x)   = W_2 f(W_1 x + b_1) + b_2                  f = relu or gelu (exact, by erf)
pre:   x <- x + A(LN(x)),  x <- x + F(LN(x));  after the last layer y = LN(x)
post:  x <- LN(x + A(x)),  x <- LN(x + F(x));  y = x
dropout: on x + p, on the attention weights, on f, and on A and F before they are added
a linear projection to width H goes in front where the inputs have another width
decoder of a memory m_1 .. m_S: after A a sublayer more, softmax(q k' / sqrt(H/N)) v with q = W_q x + b_q and
[k; v] = W_kv m + b_kv over the source's valid steps, with residual and LN as the others
"""


@dataclass(frozen=True)
class Options:
    """The options of ``transformer``."""

    heads: int = option(4, "N, the attention heads; the width is a multiple of it", low=1, high=64)
    norm: str = option("pre", "layer normalisation before or after each sublayer", choices=("pre", "post"))
    positions: str = option("sinusoidal", "how a step knows its place", choices=("sinusoidal", "learned", "none"))
    embedding_scale: bool = option(False, "multiply the input by sqrt(width); the harness's has unit variance")
    feed_forward: int = option(0, "width of the feed-forward layer; 0 = 4 * width", low=0)
    activation: str = option("relu", "the function of the feed-forward layer", choices=("relu", "gelu"))


def width_multiple(options: Options) -> int:
    """Heads share the width equally, and sines and cosines take half of it each."""
    return math.lcm(options.heads, 2)


def parameters(spec: CoreSpec, options: Options) -> int:
    """Of a core: attention, feed-forward and two layer norms a layer, and what stands before and behind them."""
    D, H, F = spec.input_size, spec.width, options.feed_forward or 4 * spec.width
    layer = 4 * (H * H + H) + (2 * H * F + F + H) + 2 * 2 * H
    front = D * H + H if D != H else 0
    places = spec.train_length * H if options.positions == "learned" else 0
    last = 2 * H if options.norm == "pre" else 0
    return front + places + spec.layers * layer + last


card = Model(
    name="transformer",
    summary="The Transformer: every step attends to all steps before it (or to all), many heads at once.",
    citation=(
        "Vaswani, A. et al. (2017). Attention is all you need. arXiv:1706.03762; "
        "pre-norm: Xiong, R. et al. (2020). On layer normalization in the Transformer architecture. arXiv:2002.04745"
    ),
    equations=EQUATIONS,
    cores={
        "torch": "seqbench_models.transformer.torch_core:Core",
        "numba": "seqbench_models.transformer.numba_core:Core",
        "numba-ref": "seqbench_models.transformer.numba_core:Reference",
    },
    decoders={
        "torch": "seqbench_models.transformer.torch_core:Decoder",
        "numba": "seqbench_models.transformer.numba_core:Decoder",
        "numba-ref": "seqbench_models.transformer.numba_core:ReferenceDecoder",
    },
    code=("seqbench.backends.kernels.plain_transformer",),
    options=Options,
    can=frozenset({"causal", "bidirectional", "step"}),
    width_multiple=width_multiple,
    fine="feed_forward",
    layers=2,
    parameters=parameters,
)
