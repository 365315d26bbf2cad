"""The proofs about what a core makes of a whole sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqbench.conformance.comparing import close, equal, gradients, normal
from seqbench.conformance.subjects import Subject, beyond


def check_shapes(subject: Subject) -> None:
    """Shapes and types of what comes out; no state in, no state out."""
    B, T = subject.sizes.B, subject.sizes.T
    core, x = subject.core(), subject.inputs()
    y, state = core(x)
    equal(subject, "shape of y", tuple(y.shape), (B, T, core.output_size), "output_size is the width of y")
    equal(subject, "dtype of y", y.dtype, x.dtype, "a tensor is made with torch's default dtype; use x.new_zeros")
    equal(subject, "state of a call without state", state, None, "a state is returned although none came in")
    equal(subject, "shape of summary", tuple(core.summary(y, None).shape), (B, core.output_size), "")
    longest = core.max_length
    equal(
        subject,
        "max_length",
        longest is None or longest >= subject.spec().train_length,
        True,
        "shorter than spec.train_length",
    )


def check_short(subject: Subject) -> None:
    """A batch of one sequence of one step works and equals the first step of a longer one, where causal."""
    core, x = subject.core(), subject.inputs(B=2)
    y, _ = core(x[:1, :1])
    equal(subject, "shape of y for B = T = 1", tuple(y.shape), (1, 1, core.output_size), "an axis is squeezed away")
    if subject.causal:
        close(subject, "y for B = T = 1", y, core(x)[0][:1, :1], "the first step reads the length of the sequence")


def check_long(subject: Subject) -> None:
    """A long sequence gives finite numbers; where causal, every step is what it is with any other future.

    Row ``t`` of a batch shares its steps up to ``t`` with the sequence and nothing after them, so that one call asks at
    every ``t``; calls on shorter sequences ask whether a length by itself changes anything (a cache or a dilation that
    is cut to the length).
    """
    T = subject.sizes.long
    core, x = subject.core(train_length=T).eval(), subject.inputs(B=1, T=T)
    with torch.no_grad():
        y, _ = core(x)
        equal(subject, f"all numbers of y for T = {T} are finite", bool(y.isfinite().all()), True, "it overflows")
        if not subject.causal:
            return
        cause = "the core looks ahead at this length only: a dilation, a block or a mask that is off by one"
        for n in sorted({n for k in range(9) for n in (2**k - 1, 2**k, 2**k + 1) if 1 <= n < T}):
            close(subject, f"y of the first {n} of {T} steps alone", core(x[:, :n])[0], y[:, :n], cause)
        for rows in torch.arange(T - 1).tensor_split(-(-(T - 1) // 32)):  # few at a time: attention keeps (rows, T, T)
            future = torch.arange(T) > rows.unsqueeze(1)  # (rows, T)
            other = torch.where(future.unsqueeze(-1), subject.inputs(B=len(rows), T=T, seed=1), x)
            got = core(other)[0].masked_fill(future.unsqueeze(-1), 0.0)
            want = y.expand_as(got).masked_fill(future.unsqueeze(-1), 0.0)
            close(subject, f"y up to steps {int(rows[0])}..{int(rows[-1])} with another future", got, want, cause)


def check_zero_beyond_lengths(subject: Subject) -> None:
    """``y`` is exactly 0 beyond ``lengths``, and nothing there has a gradient."""
    lengths = subject.sizes.lengths
    core, x = subject.core(), subject.inputs().requires_grad_()
    y, _ = core(x, None, torch.tensor(lengths))
    (dx,) = torch.autograd.grad((y * normal(y.shape, 1)).sum(), x)
    padding = beyond(lengths, subject.sizes.T)
    zero = torch.zeros(())
    close(subject, "y beyond lengths", y[padding], zero, "the output is not masked with lengths", tolerance=0.0)
    close(subject, "gradient of x beyond lengths", dx[padding], zero, "padding is read by a valid step", tolerance=0.0)


def check_padding(subject: Subject) -> None:
    """Each row of a ragged batch gives what it gives alone: values, summary and parameter gradients.

    The padding holds large numbers. The core is in training mode, where batch statistics would be used.
    """
    lengths = subject.sizes.lengths
    core, x = subject.core(), subject.inputs()
    x[beyond(lengths, subject.sizes.T)] = 1e3
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
    T = subject.sizes.T
    core, x = subject.core(), subject.inputs(B=2).requires_grad_()
    y, _ = core(x)
    cause = "the core looks ahead: padding on the wrong side, a missing mask, a backward direction"
    for t in range(T - 1):
        changed = torch.cat([x[:, : t + 1], subject.inputs(2, T - t - 1, seed=t + 9)], dim=1)
        close(subject, f"y up to step {t} with another future", core(changed)[0][:, : t + 1], y[:, : t + 1], cause)
        (dx,) = torch.autograd.grad(y[:, t].sum(), x, retain_graph=True)
        close(subject, f"gradient of y at step {t} in x after it", dx[:, t + 1 :], torch.zeros(()), cause)


def check_both_directions(subject: Subject) -> None:
    """With ``causal=False`` the first output of three depends on the last input and the last on the first."""
    core, x = subject.core(), subject.inputs(B=2, T=3).requires_grad_()
    y, _ = core(x)
    for at, seen in ((0, -1), (-1, 0)):
        (dx,) = torch.autograd.grad(y[:, at].pow(2).sum(), x, retain_graph=True)
        depends = bool(dx[:, seen].abs().max() > 0)
        equal(subject, f"y[{at}] depends on x[{seen}]", depends, True, "the core ignores spec.causal=False")


def check_inputs_untouched(subject: Subject) -> None:
    """What is handed in is as it was afterwards: the input, the lengths, a step's input."""
    core, lengths = subject.core().eval(), torch.tensor(subject.sizes.lengths)
    given, x = subject.inputs(), subject.inputs()
    kept = lengths.clone()
    cause = "an operation in place (x += ..., x.mul_(...)) writes into a tensor of the caller"
    with torch.no_grad():
        for ragged in (None, lengths):
            core(x, None, ragged)
            close(subject, "x after a call", x, given, cause, tolerance=0.0)
            equal(subject, "lengths after a call", lengths.tolist(), kept.tolist(), cause)
        if subject.has_state:
            x_t = x[:, 0].clone()
            core.step(x_t, core.initial_state(*x.shape[:2]))
            close(subject, "x_t after a step", x_t, given[:, 0], cause, tolerance=0.0)


def _row_outputs(core: Any, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
    y, _ = core(x, None, lengths)
    return y, core.summary(y, lengths)
