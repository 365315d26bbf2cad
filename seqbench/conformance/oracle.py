"""Comparing a core with an independent implementation, and its size with a formula."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from seqbench.conformance.comparing import TOLERANCE, close, equal, gradients, normal
from seqbench.states import leaves, map_leaves


def check_parameter_count(core: Any, expected: int) -> None:
    """The core has as many trainable parameters as its formula says."""
    got = sum(p.numel() for p in core.parameters() if p.requires_grad)
    equal(type(core).__name__, "trainable parameters", got, expected, "a bias too many or too few, or a shared matrix")


def check_oracle(
    core: Any,
    oracle: Callable[..., Any],
    inputs: Sequence[Any],
    parameters: Mapping[str, Tensor] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """A core and an independent implementation agree: outputs, and gradients in inputs and parameters.

    Args:
        core: the core under test, called as ``core(*inputs)``.
        oracle: called in the same way; its outputs are compared leaf by leaf.
        inputs: ``x``, ``state``, ``lengths`` or a part of it.
        parameters: for each name of ``core.named_parameters()`` the oracle's tensor of the same role; None where the
            oracle computes from the core's own parameters.
        tolerance: as ``TOLERANCE``.
    """
    inputs = map_leaves(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), tuple(inputs))
    own = dict(core.named_parameters())
    theirs = own if parameters is None else dict(parameters)
    equal(type(core).__name__, "parameters mapped", sorted(theirs), sorted(own), "the test's mapping is incomplete")
    given = [leaf for leaf in leaves(inputs) if leaf.requires_grad]
    names = [*(f"input {n}" for n in range(len(given))), *own]
    results = []
    for call, learned in ((core, own), (oracle, theirs)):
        outputs = [leaf for leaf in leaves(call(*inputs)) if leaf.is_floating_point()]
        loss = sum((y * normal(y.shape, n).to(y)).sum() for n, y in enumerate(outputs))
        results.append((outputs, gradients(loss, [*given, *(learned[name] for name in own)])))
    (got, got_gradients), (want, want_gradients) = results
    who, cause = type(core).__name__, "the definition differs: gate order, sign, bias, mask, or layout of a matrix"
    for n, (g, w) in enumerate(zip(got, want, strict=True)):
        close(who, f"output {n} against the oracle", g, w, cause, tolerance)
    for name, g, w in zip(names, got_gradients, want_gradients, strict=True):
        close(who, f"gradient of {name} against the oracle", g, w, cause, tolerance)
