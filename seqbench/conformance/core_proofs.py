"""The proofs about every core, but for its state."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import gradcheck

from seqbench.api import State
from seqbench.conformance.comparing import close, counted_flops, equal, error_of, gradients, normal, seeded
from seqbench.conformance.subjects import TRAIN_LENGTH, Subject, beyond, inputs
from seqbench.states import leaves, map_leaves


def check_shapes(subject: Subject) -> None:
    """Shapes and types of what comes out; no state in, no state out."""
    B, T = 3, 7
    core, x = subject.core(), inputs(B, T)
    y, state = core(x)
    equal(subject, "shape of y", tuple(y.shape), (B, T, core.output_size), "output_size is the width of y")
    equal(subject, "dtype of y", y.dtype, x.dtype, "a tensor is made with torch's default dtype; use x.new_zeros")
    equal(subject, "state of a call without state", state, None, "a state is returned although none came in")
    equal(subject, "shape of summary", tuple(core.summary(y, None).shape), (B, core.output_size), "")
    longest = core.max_length
    equal(subject, "max_length", longest is None or longest >= TRAIN_LENGTH, True, "shorter than spec.train_length")


def check_short(subject: Subject) -> None:
    """A batch of one sequence of one step works and equals the first step of a longer one, where causal."""
    core, x = subject.core(), inputs(2, 6)
    y, _ = core(x[:1, :1])
    equal(subject, "shape of y for B = T = 1", tuple(y.shape), (1, 1, core.output_size), "an axis is squeezed away")
    if subject.causal:
        close(subject, "y for B = T = 1", y, core(x)[0][:1, :1], "the first step reads the length of the sequence")


def check_zero_beyond_lengths(subject: Subject) -> None:
    """``y`` is exactly 0 beyond ``lengths``, and nothing there has a gradient."""
    lengths = (4, 7, 1)
    core, x = subject.core(), inputs(3, 7).requires_grad_()
    y, _ = core(x, None, torch.tensor(lengths))
    (dx,) = torch.autograd.grad((y * normal(y.shape, 1)).sum(), x)
    padding = beyond(lengths, 7)
    zero = torch.zeros(())
    close(subject, "y beyond lengths", y[padding], zero, "the output is not masked with lengths", tolerance=0.0)
    close(subject, "gradient of x beyond lengths", dx[padding], zero, "padding is read by a valid step", tolerance=0.0)


def check_padding(subject: Subject) -> None:
    """Each row of a ragged batch gives what it gives alone: values, summary and parameter gradients.

    The padding holds large numbers. The core is in training mode, where batch statistics would be used.
    """
    lengths = (4, 7, 1)
    core, x = subject.core(), inputs(3, 7)
    x[beyond(lengths, 7)] = 1e3
    cause = "padding or another row enters: batch statistics, an unmasked mean or attention, a reversal of padded rows"
    parameters = list(core.parameters())
    y, together = _row_outputs(core, x, torch.tensor(lengths))
    alone = torch.zeros_like(together)
    for row, length in enumerate(lengths):
        y_row, summary = _row_outputs(core, x[row : row + 1, :length], None)
        close(subject, f"y of row {row} in a batch, against alone", y[row, :length], y_row[0], cause)
        close(subject, f"summary of row {row} in a batch, against alone", together[row], summary[0], cause)
        alone[row] = summary[0]
    got, want = (gradients(s.pow(2).sum(), parameters) for s in (together, alone))
    for (name, _), g, w in zip(core.named_parameters(), got, want, strict=True):
        close(subject, f"gradient of {name} in a batch, against row by row", g, w, cause)


def check_causality(subject: Subject) -> None:
    """What comes later changes nothing before it: by values and by gradients."""
    T = 8
    core, x = subject.core(), inputs(2, T).requires_grad_()
    y, _ = core(x)
    cause = "the core looks ahead: padding on the wrong side, a missing mask, a backward direction"
    for t in (0, T // 2, T - 2):
        changed = torch.cat([x[:, : t + 1], inputs(2, T - t - 1, seed=t + 9)], dim=1)
        close(subject, f"y up to step {t} with another future", core(changed)[0][:, : t + 1], y[:, : t + 1], cause)
        (dx,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        close(subject, f"gradient of y at step {t} in x after it", dx[:, t + 1 :], torch.zeros(()), cause)


def check_both_directions(subject: Subject) -> None:
    """With ``causal=False`` the first output depends on the last input and the last on the first."""
    core, x = subject.core(), inputs(2, 5).requires_grad_()
    y, _ = core(x)
    for at, seen in ((0, -1), (-1, 0)):
        (dx,) = torch.autograd.grad(y[:, at].pow(2).sum(), x, retain_graph=True)
        depends = bool(dx[:, seen].abs().max() > 0)
        equal(subject, f"y[{at}] depends on x[{seen}]", depends, True, "the core ignores spec.causal=False")


def check_gradients(subject: Subject) -> None:
    """The derivatives in ``x``, the state and every parameter equal finite differences."""
    B, T = 2, 5
    core, lengths = subject.core(), torch.tensor([5, 3])
    x, state = inputs(B, T).requires_grad_(), None
    if subject.has_state:
        _, state = core(inputs(B, 2, seed=3), core.initial_state(B, T + 2))
    state = map_leaves(lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), state)
    learned = [leaf for leaf in [x, *leaves(state), *core.parameters()] if leaf.requires_grad]

    def outputs(*_: Tensor) -> tuple[Tensor, ...]:
        y, after = core(x, state, lengths)
        return (y, *(leaf for leaf in leaves(after) if leaf.requires_grad))

    try:
        with seeded(0):
            gradcheck(outputs, learned, fast_mode=True)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:400]
        cause = "a hand-written backward is wrong, or tensors inside a tuple were handed to an autograd.Function"
        raise error_of(subject, "gradients", "those of finite differences", message, cause) from error


def check_state_dict(subject: Subject) -> None:
    """A saved and loaded core gives the same outputs, whole and step by step, even if it has run before."""
    B, T = 2, 4
    saved, other, x = subject.core(seed=0).eval(), subject.core(seed=1).eval(), inputs(B, T)
    run_all(subject, other, x)  # whatever the core keeps from a run must not outlive the loading
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    cause = "something that counts is not a parameter or buffer, or a value computed from the parameters is kept"
    for name, got in run_all(subject, other, x).items():
        close(subject, f"{name} after loading the state_dict", got, run_all(subject, saved, x)[name], cause)


def check_determinism(subject: Subject) -> None:
    """The same seed gives the same parameters, another seed others; the same input the same output; dropout ends."""
    x = inputs(2, 6)
    first, again, other = (list(subject.core(seed).parameters()) for seed in (0, 0, 1))
    cause = "parameters must come from torch's global generator and from nothing else"
    for a, b in zip(first, again, strict=True):
        close(subject, "parameters built twice from one seed", b, a, cause, tolerance=0.0)
    differ = any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))
    equal(subject, "another seed gives other parameters", differ or not first, True, cause)
    core = subject.core(dropout=0.5).eval()
    cause = "dropout or noise is active in evaluation mode, or something is kept from call to call"
    close(subject, "a second call in evaluation mode", core(x)[0], core(x)[0], cause, tolerance=0.0)
    close(subject, "evaluation mode with dropout", core(x)[0], subject.core().eval()(x)[0], cause)


def check_no_global_state(subject: Subject) -> None:
    """Building and running a core leaves torch's settings as they were, and running draws no random number."""
    before = _global_settings()
    core = subject.core()
    random = torch.random.get_rng_state()
    run_all(subject, core.eval(), inputs(2, 4))
    cause = "the core changes torch for everyone; leave threads, dtypes and flags to the harness"
    equal(subject, "torch's global settings", _global_settings(), before, cause)
    same = torch.equal(random, torch.random.get_rng_state())
    equal(subject, "the random generator is untouched in evaluation mode", same, True, cause)


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
            want = T * counted_flops(core.step, inputs(B, 1)[:, 0], state)
        else:
            want = counted_flops(core, inputs(B, T))
        cause = "flops counts 2 for each multiply-add of matrix products and convolutions, in all layers and directions"
        equal(subject, f"flops(B={B}, T={T})", core.flops(B, T), want, cause)


def _row_outputs(core: Any, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    y, _ = core(x, None, lengths)
    return y, core.summary(y, lengths)


def run_all(subject: Subject, core: Any, x: Tensor) -> dict[str, Tensor]:
    """All ways to run a core, without gradients."""
    with torch.no_grad():
        found = {"y": core(x)[0]}
        if subject.has_state:
            state: State = core.initial_state(*x.shape[:2])
            found["step"], _ = core.step(x[:, 0], state)
    return found


def _global_settings() -> dict[str, Any]:
    return {
        "threads": torch.get_num_threads(),
        "default dtype": torch.get_default_dtype(),
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul precision": torch.get_float32_matmul_precision(),
        "cudnn benchmark": torch.backends.cudnn.benchmark,
        "anomaly detection": torch.is_anomaly_enabled(),
    }
