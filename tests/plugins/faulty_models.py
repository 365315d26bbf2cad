"""Models that fail in every way a stranger's can; used by tests/test_run.py."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

from seqbench.api import Model, hookimpl, option

FAULTS = ("none", "raise", "nan", "hang", "exit", "kill", "memory", "construct")


@dataclass(frozen=True)
class Options:
    """How it fails."""

    fault: str = option("none", "what goes wrong", choices=FAULTS)


def fail(fault: str) -> None:
    if fault == "raise":
        raise ValueError("a planted fault <b>")
    if fault == "hang":
        time.sleep(600)
    if fault == "exit":
        os._exit(5)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "memory":
        raise MemoryError("no room for 1 PiB")


def make_core(spec, options: Options):
    """A linear map at every step that counts its calls in training and fails at the third."""
    from torch import nn

    if options.fault == "construct":
        raise NameError("a planted fault")

    class Core(nn.Module):
        output_size, max_length = spec.width, None

        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(spec.input_size, spec.width)
            self.calls = 0

        def forward(self, x, state=None, lengths=None):
            self.calls += self.training
            if self.calls == 3:
                fail(options.fault)
            return self.map(x) * (float("nan") if options.fault == "nan" and self.calls >= 3 else 1.0), None

        def summary(self, y, lengths):
            return y[:, -1]

        def flops(self, B: int, T: int) -> int:
            return 2 * B * T * spec.input_size * spec.width

    return Core()


@hookimpl
def register_models(register) -> None:
    core = {"torch": f"{__name__}:make_core"}
    for name, ability in (("faulty", "causal"), ("looks-ahead", "bidirectional")):
        register.model(Model(name, "Fails.", "nobody", core, options=Options, can=frozenset({ability})))
