"""Models that are odd in one way each, known to the millisecond, the byte or the thread; for the speed phase."""

from __future__ import annotations

import os
import threading
import time

import torch
from torch import nn

from seqbench.api import Model, hookimpl

SPIN, NAP = 0.03, 0.004


class Even(nn.Module):
    """``y_t = W x_t``: nothing odd."""

    max_length = None

    def __init__(self, spec, options):
        super().__init__()
        self.spec, self.output_size = spec, spec.width
        self.linear = nn.Linear(spec.input_size, spec.width)

    def forward(self, x, state=None, lengths=None):
        return self.linear(x), state

    def initial_state(self, B, capacity):
        return None

    @torch.no_grad()
    def step(self, x_t, state):
        return self.linear(x_t), state

    def summary(self, y, lengths):
        return y[:, -1]

    def flops(self, B, T):
        return 2 * B * T * self.spec.input_size * self.spec.width


class Slow(Even):
    """Computes ``SPIN`` seconds longer on whole sequences."""

    def forward(self, x, state=None, lengths=None):
        end = time.perf_counter() + SPIN
        while time.perf_counter() < end:
            pass
        return super().forward(x, state, lengths)


class Hungry(Even):
    """Holds 2 GiB while it computes, on any but the shortest sequences."""

    mib = 2048

    def forward(self, x, state=None, lengths=None):
        block = torch.ones(self.mib * 2**18 if x.shape[1] > 2 else 1)
        return super().forward(x, state, lengths)[0] + 0 * block[0], state


class Peckish(Hungry):
    """Holds 64 MiB."""

    mib = 64


class Leaky(Even):
    """Leaves a thread behind at every call."""

    def forward(self, x, state=None, lengths=None):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
        return super().forward(x, state, lengths)


class Sleepy(Even):
    """Sleeps ``NAP`` seconds in each step."""

    def step(self, x_t, state):
        time.sleep(NAP)
        return super().step(x_t, state)


class Greedy(Even):
    """Takes more threads than it was given."""

    def forward(self, x, state=None, lengths=None):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return super().forward(x, state, lengths)


class Mortal(Even):
    """Ends its process at the fifth call, which is the second sample."""

    calls = 0

    def forward(self, x, state=None, lengths=None):
        self.calls += 1
        if self.calls == 5:
            os._exit(7)
        time.sleep(0.03)  # so that a sample is one call
        return super().forward(x, state, lengths)


class Endless(Even):
    """Never comes back."""

    def forward(self, x, state=None, lengths=None):
        time.sleep(600)


class Raising(Even):
    """Raises."""

    def forward(self, x, state=None, lengths=None):
        raise ValueError("on purpose")


@hookimpl
def register_models(register):
    can = frozenset({"causal", "step"})
    for core in (Even, Slow, Hungry, Peckish, Leaky, Sleepy, Greedy, Mortal, Endless, Raising):
        name = core.__name__.lower()
        cores = {"torch": f"{__name__}:{core.__name__}"}
        register.model(Model(name, core.__doc__, citation="none", cores=cores, can=can))
    lacking = frozenset({"causal"})
    register.model(Model("stepless", "No steps.", "none", cores={"torch": f"{__name__}:Even"}, can=lacking))
