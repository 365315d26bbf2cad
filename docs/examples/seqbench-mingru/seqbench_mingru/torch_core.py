"""minGRU and minLSTM on torch; layers, directions, masks and state are those of seqbench's recurrent cores."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from seqbench.backends.torch_recurrent import RecurrentCore, RecurrentLayer, chrono_
from seqbench_mingru.scan import scan

if TYPE_CHECKING:
    from seqbench.api import CoreSpec
    from seqbench_mingru import Options


def positive(v: Tensor) -> Tensor:
    """The paper's ``g``, continuous and above 0: ``v + 1/2`` where ``v >= 0``, ``sigmoid(v)`` elsewhere."""
    return torch.where(v >= 0, v + 0.5, torch.sigmoid(v))


class Layer(RecurrentLayer):
    """``h_t = keep_t * h_{t-1} + (1 - keep_t) * n_t``, where ``x_t`` alone says what ``keep_t`` and ``n_t`` are."""

    def __init__(self, input_size: int, spec: CoreSpec, options: Options) -> None:
        super().__init__(input_size, spec.width)
        self.positive = options.candidate == "positive"
        self.linear = nn.Linear(input_size, self.gates * spec.width)
        if options.chrono:
            with torch.no_grad():
                memory = torch.empty(spec.width)
                chrono_(memory, spec.train_length)
                self.start_keeping(memory)

    @abstractmethod
    def start_keeping(self, memory: Tensor) -> None:
        """Set biases so that ``keep`` is ``sigmoid(memory)`` where the input is 0; ``memory (H,)``."""

    @abstractmethod
    def keep_logit(self, products: tuple[Tensor, ...]) -> Tensor:
        """What ``keep`` is the sigmoid of, from all products with the input but the candidate's."""

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``a`` and ``b`` of ``h_t = a_t * h_{t-1} + b_t``: ``x (..., D)`` to twice ``(..., H)``."""
        *products, v = self.linear(x).chunk(self.gates, dim=-1)  # each (..., H)
        logit = self.keep_logit(tuple(products))
        candidate = positive(v) if self.positive else v
        return torch.sigmoid(logit), torch.sigmoid(-logit) * candidate  # 1 - sigmoid loses digits near 1

    def sequence(self, x: Tensor, h0: Tensor | None) -> Tensor:
        """All steps, ``(B, T, D)`` to ``(B, T, H)``."""
        a, b = self.terms(x)  # 2 x (B, T, H)
        if h0 is not None:
            first = torch.addcmul(b[:, 0], a[:, 0], h0)  # (B, H)
            b = torch.cat([first.unsqueeze(1), b[:, 1:]], dim=1)  # (B, T, H)
        return scan(a, b)

    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step, ``(B, D)`` to ``(B, H)``."""
        a, b = self.terms(x_t)  # 2 x (B, H)
        h = torch.addcmul(b, a, state)
        return h, h


class MinGRULayer(Layer):
    """The rows of the matrix are z, n; state ``h (B, H)``."""

    gates = 2

    def start_keeping(self, memory: Tensor) -> None:
        """``1 - z = sigmoid(-b_z)``."""
        self.linear.bias[: self.width] = -memory

    def keep_logit(self, products: tuple[Tensor, ...]) -> Tensor:
        """Of ``1 - z``."""
        (z,) = products
        return -z


class MinLSTMLayer(Layer):
    """The rows of the matrix are f, i, n; state ``h (B, H)``."""

    gates = 3

    def start_keeping(self, memory: Tensor) -> None:
        """``b_f = -b_i`` as in ``lstm``: then ``f / (f + i) = f``, for ``f + i`` is 1."""
        self.linear.bias[: 2 * self.width] = torch.cat([memory, -memory])

    def keep_logit(self, products: tuple[Tensor, ...]) -> Tensor:
        """Of ``f / (f + i) = sigmoid(ln f - ln i)``; the quotient would be 0 / 0 where both gates are shut."""
        f, i = products
        return logsigmoid(f) - logsigmoid(i)


class Core(RecurrentCore):
    """What the two models share."""

    layer: type[Layer]
    options: Options

    def make_layer(self, input_size: int) -> RecurrentLayer:
        """One layer in one direction."""
        return self.layer(input_size, self.spec, self.options)

    def flops(self, B: int, T: int) -> int:
        """One product of ``gates * H`` rows with ``x`` a step, layer and direction; none with ``h``."""
        layers: list[Any] = [*self.layers, *self.backward_layers]
        return sum(2 * B * T * layer.gates * layer.width * layer.input_size for layer in layers)


class MinGRU(Core):
    """minGRU; see the card for its equations."""

    layer = MinGRULayer


class MinLSTM(Core):
    """minLSTM; see the card for its equations."""

    layer = MinLSTMLayer
