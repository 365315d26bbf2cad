"""Every core in every option setting on a CUDA device, against the float64 core on the CPU: values and gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor

from seqbench import conformance
from seqbench.states import leaves
from seqbench_models import gru, janet, lstm, rnn, tcn, transformer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: torch.cuda.is_available() is False"),
]

CARDS = [rnn.card, lstm.card, gru.card, janet.card, tcn.card, transformer.card]
SUBJECTS = [s for card in CARDS for options in conformance.cases(card) for s in conformance.subjects(card, options)]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}
B, T = 3, 9


@pytest.fixture(autouse=True)
def full_precision() -> Any:
    """cuDNN uses TF32 by default, which keeps three digits only."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


def _moved(tree: Any, like: Tensor) -> Any:
    """A tree of tensors on the device and in the dtype of ``like``; positions keep their integer dtype."""
    if isinstance(tree, Tensor):
        return tree.to(like) if tree.is_floating_point() else tree.to(like.device)
    return None if tree is None else tuple(_moved(branch, like) for branch in tree)


def _outcome(core: Any, x: Tensor, state: Any, lengths: Tensor | None) -> list[Tensor]:
    """Outputs, the float leaves of the state after, the summary, and the gradients in x and all parameters."""
    x = x.detach().requires_grad_()
    y, after = core(x, state, lengths)
    outputs = [y, core.summary(y, lengths), *(leaf for leaf in leaves(after) if leaf.is_floating_point())]
    loss = sum((out * torch.linspace(-1, 1, out.numel()).to(out).view_as(out)).sum() for out in outputs)
    gradients = torch.autograd.grad(loss, [x, *core.parameters()], allow_unused=True, materialize_grads=True)
    return [*outputs, *gradients]


def _close(got: Tensor, want: Tensor, dtype: torch.dtype) -> None:
    scale = max(1.0, float(want.abs().max()) if want.numel() else 1.0)
    torch.testing.assert_close(got.cpu().double(), want, atol=TOLERANCE[dtype] * scale, rtol=0)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("subject", SUBJECTS, ids=str)
def test_equals_the_cpu(subject: conformance.Subject, dtype: torch.dtype) -> None:
    reference, core = subject.core(), subject.core().to("cuda", dtype)
    like = next(core.parameters())
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(B, T, conformance.D, generator=generator, dtype=torch.float64)
    for lengths in (None, torch.tensor([4, 9, 1])):
        for with_state in (False, True)[: 1 + subject.has_state]:
            starts = (c.initial_state(B, T) if with_state else None for c in (core, reference))
            got = _outcome(core, x.to(like), _moved(next(starts), like), lengths)
            want = _outcome(reference, x, next(starts), lengths)
            for g, w in zip(got, want, strict=True):
                _close(g, w, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("subject", [s for s in SUBJECTS if s.has_state], ids=str)
def test_chunk_and_steps_equal_the_cpu(subject: conformance.Subject, dtype: torch.dtype) -> None:
    reference, core = subject.core().eval(), subject.core().to("cuda", dtype).eval()
    like = next(core.parameters())
    x = torch.randn(B, T, conformance.D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    want, _ = reference(x)
    with torch.no_grad():
        y, state = core(x[:, :4].to(like), core.initial_state(B, T))
        _close(y, want[:, :4].detach(), dtype)
        for t in range(4, T):
            y_t, state = core.step(x[:, t].to(like), state)
            _close(y_t, want[:, t].detach(), dtype)
