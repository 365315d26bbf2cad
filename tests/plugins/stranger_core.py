"""A core that is right, for tests/test_isolation.py: its strangers spoil one thing of it each."""

from __future__ import annotations

from torch import nn


class Core(nn.Module):
    """A linear map at every step; ``calls`` counts those of training."""

    max_length = None

    def __init__(self, spec, options):
        super().__init__()
        self.output_size = spec.width
        self.map = nn.Linear(spec.input_size, spec.width)
        self.calls = 0

    def forward(self, x, state=None, lengths=None):
        self.calls += self.training
        return self.map(x), None

    def summary(self, y, lengths):
        return y[:, -1]

    def flops(self, B, T):
        return 2 * B * T * self.map.in_features * self.map.out_features
