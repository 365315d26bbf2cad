"""The proofs about a decoder of a model's own. One that the harness's bridge makes of a core needs none of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.autograd.gradcheck import gradcheck

from seqbench.api import Memory
from seqbench.conformance.comparing import close, counted_flops, equal, error_of, gradients, normal, same_tree, seeded
from seqbench.conformance.subjects import Lengths, Subject, beyond
from seqbench.registry import resolve
from seqbench.states import leaves, map_leaves

M = 8
"""Width of the memories that decoders read here."""


def decoder_checks(subject: Subject) -> list[Callable[[Subject], None]]:
    """The proofs that apply: none if the model brings no decoder."""
    if not subject.causal or subject.backend not in subject.card.decoders:
        return []
    return [
        check_decoder_shapes,
        check_decoder_padding,
        check_decoder_causality,
        check_decoder_steps,
        check_decoder_reordering,
        check_decoder_alignment,
        check_decoder_gradients,
        *([check_decoder_backends] if subject.backend != "torch" and "torch" in subject.card.decoders else []),
        check_decoder_flops,
    ]


# --- the proofs -----------------------------------------------------------------------------------


def check_decoder_shapes(subject: Subject) -> None:
    """Shapes and types for a whole target; started with capacity 0, it returns no state; the memory is read."""
    B, U, S = 3, 6, 4
    decoder, x, memory = _decoder(subject), subject.inputs(B, U), _memory(B, S)
    y, state = decoder(x, decoder.start(memory, 0))
    equal(subject, "shape of a decoder's y", tuple(y.shape), (B, U, decoder.output_size), "output_size is the width")
    equal(subject, "dtype of a decoder's y", y.dtype, x.dtype, "a tensor is made with torch's default dtype")
    equal(subject, "state after a start with capacity 0", state, None, "capacity 0 asks for no caches and no state")
    other, _ = decoder(x, decoder.start(_memory(B, S, seed=5), 0))
    reads = bool((y - other).abs().max() > 0)
    equal(subject, "a decoder's y depends on the memory", reads, True, "start or the call ignores the memory")


def check_decoder_padding(subject: Subject) -> None:
    """A row of a batch with ragged sources and targets gives what it gives alone; beyond its length ``y`` is 0."""
    lengths, target_lengths = (4, 6, 1), (5, 2, 3)
    decoder, x, memory = _decoder(subject), subject.inputs(3, 5), _memory(3, 6, lengths)
    x[beyond(target_lengths, 5)] = 1e3
    y, _ = decoder(x, decoder.start(memory, 0), torch.tensor(target_lengths))
    cause = "padding or another row enters, of the source or of the target"
    for row, (S, U) in enumerate(zip(lengths, target_lengths, strict=True)):
        alone = Memory(memory.outputs[row : row + 1, :S], None, memory.summary[row : row + 1])
        want, _ = decoder(x[row : row + 1, :U], decoder.start(alone, 0))
        close(subject, f"a decoder's y of row {row} in a batch, against alone", y[row, :U], want[0], cause)
    past = y[beyond(target_lengths, 5)]
    close(subject, "a decoder's y beyond lengths", past, torch.zeros(()), "y is not masked with lengths", tolerance=0.0)


def check_decoder_causality(subject: Subject) -> None:
    """A later target token changes nothing before it."""
    U = 6
    decoder, x, memory = _decoder(subject), subject.inputs(2, U), _memory(2, 4)
    y, _ = decoder(x, decoder.start(memory, 0))
    for u in (0, U // 2):
        changed = torch.cat([x[:, : u + 1], subject.inputs(2, U - u - 1, seed=u + 9)], dim=1)
        got, _ = decoder(changed, decoder.start(memory, 0))
        what = f"a decoder's y up to step {u} with another future"
        close(subject, what, got[:, : u + 1], y[:, : u + 1], "the decoder looks ahead in the target")


def check_decoder_steps(subject: Subject) -> None:
    """Single steps and chunks equal the whole target; the memory part of the state stays as it is."""
    B, U, S = 3, 6, 5
    decoder, x, memory = _decoder(subject), subject.inputs(B, U), _memory(B, S, (5, 2, 4))
    whole, _ = decoder(x, decoder.start(memory, 0))
    for chunk in (0, 2):
        state = decoder.start(memory, U)
        _check_form(subject, state, B)
        kept = map_leaves(Tensor.clone, state[0])
        if chunk:
            y, state = decoder(x[:, :chunk], state)
            close(subject, f"a decoder's first {chunk} steps in a chunk", y, whole[:, :chunk], "the caches are wrong")
        state = map_leaves(Tensor.detach, state)
        for u in range(chunk, U):
            y_u, state = decoder.step(x[:, u], state)
            what = f"step {u} of a decoder after a chunk of {chunk}, against the whole target"
            close(subject, what, y_u, whole[:, u], "step computes something else, or loses the state")
            equal(subject, "step of a decoder has a gradient", y_u.requires_grad, False, "use torch.no_grad()")
        cause = "the memory part must not change: a beam search does not copy it"
        same_tree(subject, "memory part of the state after decoding", state[0], kept, cause)


def check_decoder_reordering(subject: Subject) -> None:
    """The rows of the own part can be reordered among equal sources, as a beam search does."""
    U, half, order = 6, 3, torch.tensor([2, 0, 0])
    decoder, x = _decoder(subject), subject.inputs(3, U)
    one = _memory(1, 4)
    memory = Memory(one.outputs.expand(3, -1, -1), None, one.summary.expand(3, -1))
    whole, _ = decoder(torch.cat([x[order, :half], x[:, half:]], dim=1), decoder.start(memory, 0))
    _, (kept, own) = decoder(x[:, :half], decoder.start(memory, U))
    state: Any = (kept, map_leaves(lambda leaf: leaf.detach()[order], own))
    for u in range(half, U):
        y_u, state = decoder.step(x[:, u], state)
        close(subject, f"step {u} of a decoder after reordering", y_u, whole[:, u], "a leaf of the state mixes rows")


def check_decoder_alignment(subject: Subject) -> None:
    """``explain``'s alignment, if there is one: weights, each row sums to 1, 0 where there is no source."""
    lengths, U, S = (4, 6, 1), 5, 6
    decoder, x, memory = _decoder(subject).eval(), subject.inputs(3, U), _memory(3, S, lengths)
    with torch.no_grad():
        weights = decoder.explain(x, decoder.start(memory, 0)).get("alignment")
    if weights is None:
        return
    equal(subject, "shape of the alignment", tuple(weights.shape), (3, U, S), "(B, U, S): target rows, source columns")
    close(subject, "sums of the alignment's rows", weights.sum(-1), torch.ones(()), "not a softmax over the source")
    equal(subject, "the alignment has no weight below 0", bool((weights >= 0).all()), True, "these are not weights")
    past = weights.movedim(1, 2)[beyond(lengths, S)]
    close(subject, "alignment beyond the source's lengths", past, torch.zeros(()), "padding gets weight", tolerance=0.0)


def check_decoder_gradients(subject: Subject) -> None:
    """The derivatives in the target, the memory and every parameter equal finite differences."""
    decoder, target_lengths = _decoder(subject), torch.tensor([4, 2])
    lengths = torch.tensor([3, 2])
    x, memory = subject.inputs(2, 4).requires_grad_(), _memory(2, 3, (3, 2))
    outputs, summary = memory.outputs.requires_grad_(), memory.summary.requires_grad_()

    def run(*_: Tensor) -> Tensor:
        y: Tensor = decoder(x, decoder.start(Memory(outputs, lengths, summary), 0), target_lengths)[0]
        return y

    try:
        with seeded(0):
            gradcheck(run, [x, outputs, summary, *decoder.parameters()], fast_mode=True)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:400]
        cause = "a hand-written backward is wrong, or a tensor is detached"
        raise error_of(subject, "gradients of the decoder", "those of finite differences", message, cause) from error


def check_decoder_backends(subject: Subject) -> None:
    """A decoder of a backend beside torch has torch's numbers in float64, gradients included, on torch's parameters."""
    theirs, ours = _decoder(replace(subject, backend="torch")), _decoder(subject)
    ours.load_state_dict(theirs.state_dict())
    lengths, target_lengths = (4, 6, 1), torch.tensor((5, 2, 3))
    x = subject.inputs(3, 5).requires_grad_()
    results = []
    for decoder in (ours, theirs):
        memory = _memory(3, 6, lengths)
        outputs, summary = memory.outputs.requires_grad_(), memory.summary.requires_grad_()
        y, _ = decoder(x, decoder.start(Memory(outputs, memory.lengths, summary), 0), target_lengths)
        learned = {"x": x, "the memory": outputs, "its summary": summary, **dict(decoder.named_parameters())}
        found = gradients((y * normal(y.shape, 1)).sum(), list(learned.values()))
        results.append({"y": y, **{f"gradient of {n}": g for n, g in zip(learned, found, strict=True)}})
    cause = "the definitions differ: a mask, a scale, a bias, the layout of a matrix; or a derivative of one is wrong"
    for name, value in results[0].items():
        close(subject, f"a decoder's {name}, against torch", value, results[1][name], cause)


def check_decoder_flops(subject: Subject) -> None:
    """``flops(B, T, S)`` is what torch counts in the matrix products of ``start`` and one call.

    Of other backends torch sees nothing: theirs is what the torch decoder says, if there is one.
    """
    if subject.backend != "torch" and "torch" not in subject.card.decoders:
        return
    for B, U, S in ((1, 3, 5), (2, 6, 4)):
        decoder, x, memory = _decoder(subject).eval(), subject.inputs(B, U), _memory(B, S)
        if subject.backend == "torch":
            counted = counted_flops(lambda d=decoder, x=x, m=memory: d(x, d.start(m, 0)))
        else:
            counted = _decoder(replace(subject, backend="torch")).flops(B, U, S)
        cause = "flops counts 2 for each multiply-add, what start computes of the memory included"
        equal(subject, f"a decoder's flops(B={B}, T={U}, S={S})", decoder.flops(B, U, S), counted, cause)


# --- helpers --------------------------------------------------------------------------------------


def _decoder(subject: Subject) -> Any:
    """A float64 decoder in training mode, without dropout."""
    with seeded(0):
        factory = resolve(subject.card.decoders[subject.backend])
        return factory(subject.spec(memory_size=M), subject.options).double()


def _memory(B: int, S: int, lengths: Lengths | None = None, seed: int = 3) -> Memory:
    """What an encoder might give: 0 beyond the lengths."""
    outputs = normal((B, S, M), seed)
    if lengths is not None:
        outputs[beyond(lengths, S)] = 0
    return Memory(outputs, None if lengths is None else torch.tensor(lengths), normal((B, M), seed + 1))


def _check_form(subject: Subject, state: Any, B: int) -> None:
    pair = isinstance(state, tuple) and len(state) == 2
    equal(subject, "a decoder's state is a pair (memory part, own part)", pair, True, "start returns something else")
    for leaf in leaves(state):
        equal(subject, "first axis of every leaf of a decoder's state", leaf.shape[:1], (B,), "the batch comes first")
