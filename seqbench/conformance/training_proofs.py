"""The proofs about what training needs: gradients, parameters, random numbers, saving and loading, learning."""

from __future__ import annotations

import io
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.gradcheck import gradcheck

from seqbench.conformance.comparing import close, equal, error_of, generators, gradients, normal, seeded
from seqbench.conformance.subjects import Sizes, Subject
from seqbench.registry import resolve
from seqbench.states import leaves, map_leaves


def check_gradients(subject: Subject) -> None:
    """The derivatives in ``x``, the state and every parameter equal finite differences."""
    T = min(5, subject.sizes.T)
    core, lengths = subject.core(), torch.tensor([T, max(1, T - 2)])
    x, state = subject.inputs(2, T).requires_grad_(), None
    if subject.has_state:
        _, state = core(subject.inputs(2, 2, seed=3), core.initial_state(2, T + 2))
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


def check_parameters(subject: Subject) -> None:
    """Every trainable parameter is there from the start and moves the output; there are as many as the card says."""
    core, x = subject.core(), subject.inputs()
    names = {name: p.numel() for name, p in core.named_parameters() if p.requires_grad}
    if subject.card.parameters is not None:
        declared = subject.card.parameters(subject.spec(), subject.options)
        cause = "the card's formula leaves out a bias, a layer or a direction, or counts what is not trained"
        equal(subject, f"parameters, as the card counts them (D={x.shape[-1]}, H={subject.width})",
              sum(names.values()), declared, cause)  # fmt: skip
    y, _ = core(x)
    later = {name: p.numel() for name, p in core.named_parameters() if p.requires_grad}
    equal(subject, "parameters after the first call", later, names, "parameters are made when first used (Lazy...)")
    for (name, _), g in zip(core.named_parameters(), gradients((y * normal(y.shape, 1)).sum(), [*core.parameters()]),
                            strict=True):  # fmt: skip
        moves = bool(g.abs().max() > 0) or name not in names
        cause = "a parameter that nothing reads makes a model look larger than it is, or its gradient is cut off"
        equal(subject, f"{name} moves the output", moves, True, cause)


def check_state_dict(subject: Subject) -> None:
    """A saved and loaded core gives the same outputs, whole and step by step, even if it has run before."""
    saved, other = subject.core(seed=0).eval(), subject.core(seed=1).eval()
    x = subject.inputs()
    subject.walk(other, x)  # whatever the core keeps from a run must not outlive the loading
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    cause = "something that counts is not a parameter or buffer, or a value computed from the parameters is kept"
    want = subject.walk(saved, x)
    for name, got in subject.walk(other, x).items():
        close(subject, f"{name} after loading the state_dict", got, want[name], cause)


def check_determinism(subject: Subject) -> None:
    """The same seed gives the same parameters, another seed others; the same input the same output; dropout ends."""
    x = subject.inputs()
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
    if subject.has_state:
        with torch.no_grad():
            y, _ = core.step(x[:, 0], core.initial_state(*x.shape[:2]))
        close(subject, "a step in evaluation mode with dropout", y, core(x)[0][:, 0], cause)


def check_no_global_state(subject: Subject) -> None:
    """Building and running a core leaves the process as it was: settings, and random numbers but those it may draw.

    Building may draw from torch's generator, and training with dropout may; nothing may seed it. Evaluation draws
    nothing.
    """
    settings, before = _global_settings(), generators()
    core, x = subject.core(dropout=0.5), subject.inputs()
    seeded_by = "the core seeds torch's generator; the harness does, once for each seed of a run"
    equal(subject, "random numbers after building depend on the seed", _generator_differs(subject, x), True, seeded_by)
    drawn = generators()["torch"]
    subject.walk(core.eval(), x)
    cause = "the core changes torch for everyone; leave threads, dtypes and flags to the harness"
    equal(subject, "torch's global settings", _global_settings(), settings, cause)
    after = generators()
    cause = "the core draws random numbers where nothing is trained"
    equal(subject, "the random generator is untouched in evaluation mode", after["torch"] == drawn, True, cause)
    cause = "the core draws from, or seeds, the generators of numpy or Python; use torch's"
    same = all(after[name] == before[name] for name in ("numpy", "Python"))
    equal(subject, "the generators of numpy and Python are untouched", same, True, cause)


def check_learns(subject: Subject) -> None:
    """A core with a linear layer on top learns one batch of random labels by heart."""
    wide = Subject(subject.card, subject.options, subject.causal, subject.backend, Sizes(B=2, T=4, D=8, H=32, L=1))
    with seeded(0):
        core = resolve(wide.card.cores[wide.backend])(wide.spec(), wide.options).double()
        head = nn.Linear(core.output_size, 2).double()
        labels = torch.randint(2, (2, 4))
    x = wide.inputs()
    parameters = [*core.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.02)
    for _ in range(150):
        loss = nn.functional.cross_entropy(head(core(x)[0]).flatten(0, 1), labels.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if float(loss.detach()) < LEARNT:
            return
    cause = "the output hardly depends on the parameters or the input: saturated at the start, cut off, scaled away"
    raise error_of(subject, "loss on 8 random labels after 150 steps of Adam", f"below {LEARNT} nats",
                   f"{float(loss.detach()):.3g}", cause)  # fmt: skip


LEARNT = 0.1
"""Nats; guessing costs ln 2 = 0.69."""


def _generator_differs(subject: Subject, x: Tensor) -> bool:
    """Whether the numbers that come after building and training differ from seed to seed."""
    after = []
    for seed in (0, 1):
        with seeded(seed):
            core = resolve(subject.card.cores[subject.backend])(subject.spec(dropout=0.5), subject.options).double()
            core(x)
            after.append(torch.rand(4))
    return not torch.equal(*after)


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
