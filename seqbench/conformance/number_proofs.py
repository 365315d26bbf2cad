"""The proofs about numbers: precision, the backends against each other, devices, the count of operations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from seqbench.conformance.comparing import close, counted_flops, equal, error_of, gradients, normal
from seqbench.conformance.subjects import Subject

SINGLE = 1e-5
"""Largest error accepted of values in float32, in the norm, relative to float64."""

SINGLE_GRADIENT = 1e-4
"""The same of gradients, which sum over steps and rows."""

TIMES_TORCH = 3
"""How many times torch's own float32 error another backend may err; below ``ROUNDING`` all are equal."""

ROUNDING = 1e-6

DRAWS = 4
"""Of parameters and inputs, over which errors are compared with torch's."""


def check_precision(subject: Subject) -> None:
    """In float64 a change of the input by 1e-11 is seen: nothing on the way is of single precision."""
    core, x = subject.core().eval(), subject.inputs()
    with torch.no_grad():
        change = (core(x * (1 + 1e-11))[0] - core(x)[0]).abs().max()
    fine = 0 < float(change) < 1e-8
    cause = "something is cast to float32 on the way (a buffer, .float(), a constant) and back"
    equal(subject, f"y changes by about 1e-11 with x (it changes by {float(change):.1e})", fine, True, cause)


def check_single_precision(subject: Subject) -> None:
    """In float32 values and gradients are those of float64 up to rounding, and of type float32.

    A backend beside torch may err at most three times as much as torch does, in the root mean square over some draws of
    parameters and inputs: in a single one either error may be large or small by chance.
    """
    draws = [_errors(subject, seed) for seed in range(DRAWS)]
    for name in draws[0]:
        ours, torchs = zip(*(draw[name] for draw in draws), strict=True)
        bound = SINGLE_GRADIENT if name.startswith("gradient") else SINGLE
        _require_small(subject, name, max(ours), bound, "")
        torchs_bound = max(ROUNDING, TIMES_TORCH * _root_mean_square(torchs))
        _require_small(subject, name, _root_mean_square(ours), torchs_bound, ", three times torch's own error")


def _require_small(subject: Subject, name: str, error: float, bound: float, what: str) -> None:
    if not error <= bound:
        cause = "an approximation (a fast exp, half precision) or a sum that cancels"
        wanted = f"within {bound:.1e} of float64, relative, in the norm{what}"
        raise error_of(subject, f"{name} in float32", wanted, f"{error:.1e}", cause)


def _root_mean_square(values: Sequence[float]) -> float:
    return math.sqrt(sum(value**2 for value in values) / len(values))


def _errors(subject: Subject, seed: int) -> dict[str, tuple[float, float]]:
    """Of values and gradients in float32: the backend's and torch's, or infinity where there is no torch beside it."""
    exact = _outcome(subject.core(seed), subject, torch.float64, seed)
    rounded = _outcome(subject.core(seed).float(), subject, torch.float32, seed)
    for name, got in rounded.items():
        equal(subject, f"type of {name} in float32", got.dtype, torch.float32, "a constant is of float64")
    theirs: dict[str, Tensor] = {}
    if subject.backend != "torch" and "torch" in subject.card.cores:
        theirs = _outcome(replace(subject, backend="torch").core(seed).float(), subject, torch.float32, seed)
    return {
        name: (_error(got, exact[name]), _error(theirs[name], exact[name]) if theirs else math.inf)
        for name, got in rounded.items()
    }


def check_backends(subject: Subject) -> None:
    """A backend beside torch has the same parameters from the same seed, and the same numbers in float64.

    Compared are values and every gradient, ragged and with a state, on parameters loaded from the torch core; so a
    ``state_dict`` passes from one to the other.
    """
    theirs, ours = replace(subject, backend="torch").core(), subject.core()
    cause = "the backends build their parameters in another order or layout; initialise in one place for all"
    shapes = [{name: tuple(p.shape) for name, p in core.state_dict().items()} for core in (ours, theirs)]
    equal(subject, "names and shapes of the state_dict, against torch", shapes[0], shapes[1], cause)
    for name, p in theirs.state_dict().items():
        close(subject, f"{name} from the same seed, against torch", ours.state_dict()[name], p, cause, tolerance=0.0)
    theirs.load_state_dict(replace(subject, backend="torch").core(seed=1).state_dict())
    ours.load_state_dict(theirs.state_dict())
    got, want = (_outcome(core, subject, torch.float64) for core in (ours, theirs))
    cause = "the definitions differ: order of the gates, a sign, a bias, a mask; or a derivative of one is wrong"
    for name, value in got.items():
        close(subject, f"{name}, against torch", value, want[name], cause)


def check_device(subject: Subject) -> None:
    """Moved to another device, a core makes all its tensors there: to CUDA where there is one, else to torch's meta.

    The meta device computes no numbers; what it cannot run (a step that depends on values) is not held against a core.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "meta")
    core, x = subject.core().eval(), subject.inputs()
    want = subject.walk(core, x)
    try:
        got = subject.walk(core.to(device), x.to(device))
    except NotImplementedError:
        return
    except RuntimeError as error:
        if "device" not in str(error):
            return
        message = " ".join(str(error).split())[:300]
        cause = "a tensor is made on the CPU whatever the device is; use x.new_zeros, device=x.device, register_buffer"
        raise error_of(subject, f"a core on {device.type}", "all tensors there", message, cause) from error
    for name, value in got.items():
        if device.type == "meta":
            equal(subject, f"shape of {name} on {device.type}", value.shape, want[name].shape, "")
        else:
            close(subject, f"{name} on {device.type}", value.cpu(), want[name], "another code path on that device")


def check_flops(subject: Subject) -> None:
    """``flops(B, T)`` is what torch counts in the matrix products of a forward pass, or what the torch core says.

    Counted over ``T`` single steps where the state is of a fixed size, since fused recurrent kernels hide their
    products from the counter; otherwise over a whole call in float64. Of other backends torch sees nothing; without a
    torch core beside them there is nothing to compare with.
    """
    for B, T in ((1, 3), (2, 8)):
        core = subject.core().eval()
        if subject.backend != "torch" and "torch" not in subject.card.cores:
            return
        if subject.backend != "torch":
            want = replace(subject, backend="torch").core().flops(B, T)
        elif subject.has_state and subject.card.state_is_summary:
            state = core.initial_state(B, T)
            want = T * counted_flops(core.step, subject.inputs(B, 1)[:, 0], state)
        else:
            want = counted_flops(core, subject.inputs(B, T))
        cause = "flops counts 2 for each multiply-add of matrix products and convolutions, in all layers and directions"
        equal(subject, f"flops(B={B}, T={T})", core.flops(B, T), want, cause)


def _outcome(core: Any, subject: Subject, dtype: torch.dtype, seed: int = 0) -> dict[str, Tensor]:
    """Values and every gradient, by name: whole, ragged, and twice more with the state carried on.

    States themselves are left out: each backend may keep its own.
    """
    x = subject.inputs(seed=seed).to(dtype).requires_grad_()
    found = {"y": core(x)[0], "y of a ragged batch": core(x, None, torch.tensor(subject.sizes.lengths))[0]}
    if subject.has_state:
        state = core.initial_state(subject.sizes.B, 3 * subject.sizes.T)
        for chunk in ("first", "second", "third"):
            found[f"y of the {chunk} chunk"], state = core(x, state)
    loss = torch.stack([(v * normal(v.shape, n).to(v)).sum() for n, v in enumerate(found.values())]).sum()
    learned = {"x": x, **dict(core.named_parameters())}
    for name, g in zip(learned, gradients(loss, list(learned.values())), strict=True):
        found[f"gradient of {name}"] = g
    return {name: value.detach() for name, value in found.items()}


def _error(got: Tensor, want: Tensor) -> float:
    """In the norm, relative; absolute where nothing is expected."""
    scale = float(want.double().norm())
    return float((got.double() - want.double()).norm()) / (scale or 1.0)
