"""A model in one file: each output is a linear map of the mean of all inputs so far."""

from __future__ import annotations

import torch
from torch import nn

from seqbench.api import Model, hookimpl


class Core(nn.Module):
    """``y_t = W mean(x_1 .. x_t) + b``; state: ``(sum of the inputs (B, D), how many (B,))``."""

    max_length = None

    def __init__(self, spec, options):
        super().__init__()
        self.spec, self.output_size = spec, spec.width
        self.linear = nn.Linear(spec.input_size, spec.width)

    def forward(self, x, state=None, lengths=None):
        B, T, _ = x.shape
        total, seen = self.initial_state(B, T) if state is None else state
        sums = total[:, None] + x.cumsum(1)  # (B, T, D)
        counts = seen[:, None] + torch.arange(1, T + 1, device=x.device)  # (B, T)
        last = torch.full((B,), T) if lengths is None else lengths
        valid = (torch.arange(T) < last[:, None]).to(x.device)  # (B, T)
        y = self.linear(sums / counts[..., None]).masked_fill(~valid[..., None], 0.0)  # (B, T, H)
        return y, None if state is None else (sums[torch.arange(B), last - 1], seen + last.to(x.device))

    def initial_state(self, B, capacity):
        like = self.linear.weight
        return like.new_zeros(B, self.spec.input_size), torch.zeros(B, dtype=torch.int64, device=like.device)

    @torch.no_grad()
    def step(self, x_t, state):
        y, state = self(x_t[:, None], state)
        return y[:, 0], state

    def summary(self, y, lengths):
        return y[:, -1] if lengths is None else y[torch.arange(len(y)), lengths - 1]  # (B, H)

    def flops(self, B, T):
        return 2 * B * T * self.spec.input_size * self.spec.width


@hookimpl
def register_models(register):
    summary = "A linear map of the mean of all inputs so far."
    register.model(Model("running-mean", summary, citation="none", cores={"torch": f"{__name__}:Core"}))
