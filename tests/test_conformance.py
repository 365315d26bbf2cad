"""Each proof catches the fault it is there for: cores that are broken on purpose."""

import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seqbench import conformance
from seqbench.api import CoreSpec, Model, NoOptions, option
from seqbench.conformance import ConformanceError, number_proofs

HERE = __name__


class Sound(nn.Module):
    """A correct core: ``h_t = h_{t-1} / 2 + tanh(W x_t + b)``, in a plain loop. The faults are subclasses."""

    max_length: int | None = None

    def __init__(self, spec: CoreSpec, _options: Any) -> None:
        super().__init__()
        self.output_size = spec.width
        self.linear = nn.Linear(spec.input_size, spec.width)

    def mixed(self, x: Tensor, _lengths: Tensor | None) -> Tensor:
        return self.linear(x).tanh()

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        B, _T, _ = x.shape
        h = x.new_zeros(B, self.output_size) if state is None else state
        after, hs = h, []
        for t, m_t in enumerate(self.mixed(x, lengths).unbind(1)):
            h = h / 2 + m_t
            within = torch.full((B,), True) if lengths is None else t < lengths
            within = within.to(x.device)
            after = torch.where(within.unsqueeze(1), h, after)
            hs.append(torch.where(within.unsqueeze(1), h, torch.zeros_like(h)))
        return torch.stack(hs, dim=1), None if state is None else after

    def initial_state(self, B: int, capacity: int) -> Any:
        return self.linear.weight.new_zeros(B, self.output_size)

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        h = state / 2 + self.linear(x_t).tanh()
        return h, h

    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        return y[:, -1] if lengths is None else y[torch.arange(len(y)), lengths.to(y.device) - 1]

    def flops(self, B: int, T: int) -> int:
        return 2 * B * T * self.linear.in_features * self.output_size


class LooksAhead(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths).roll(-1, dims=1)


class LooksBothWays(Sound):
    """Claims to be bidirectional and is not."""


class LeaksPadding(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) + x.mean(dim=(1, 2), keepdim=True)


class ReadsTheBatch(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.norm = nn.BatchNorm1d(spec.width)

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.norm(super().mixed(x, lengths).transpose(1, 2)).transpose(1, 2)


class SummarisesPadding(Sound):
    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        return y.mean(dim=1)


class SpeaksBeyondTheEnd(Sound):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state, lengths)
        return y + 1e-6, state


class ForgetsItsState(Sound):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        zero = None if state is None else torch.zeros_like(state)
        return super().forward(x, zero, lengths)


class StateOfThePadding(Sound):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        y, _ = super().forward(x, state, lengths)
        return y, None if state is None else super().forward(x, state, None)[1]


class ConsumesItsState(Sound):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        y, after = super().forward(x, None if state is None else state.clone(), lengths)
        if state is not None:
            with torch.no_grad():
                state.zero_().add_(1.0)
        return y, after


class AlwaysReturnsState(Sound):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        start = self.initial_state(len(x), 0) if state is None else state
        return super().forward(x, start, lengths)


class StepDiffers(Sound):
    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        h = state / 2 + self.linear(x_t).tanh() * (1 + 1e-6)
        return h, h


class StepRecords(Sound):
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        h = state / 2 + self.linear(x_t).tanh()
        return h, h


class MixesRows(Sound):
    """A state whose rows know their place in the batch."""

    def initial_state(self, B: int, capacity: int) -> Any:
        return super().initial_state(B, capacity), torch.arange(B).double().unsqueeze(1)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        if state is None:
            return super().forward(x, None, lengths)
        y, after = super().forward(x, state[0], lengths)
        moved = (state[1] - torch.arange(len(x)).unsqueeze(1)).unsqueeze(1)
        return y + moved, (after, state[1])

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, h = super().step(x_t, state[0])
        return y, (h, state[1])


class BatchComesSecond(Sound):
    def initial_state(self, B: int, capacity: int) -> Any:
        return super().initial_state(B, capacity).t()


class StateGrows(Sound):
    def initial_state(self, B: int, capacity: int) -> Any:
        return super().initial_state(B, capacity), torch.zeros(B, capacity)


class WrongFlops(Sound):
    def flops(self, B: int, T: int) -> int:
        return super().flops(B, T) // 2


class WrongDerivative(Sound):
    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return x.tanh()

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            return dy * (1 - x.tanh())  # the square is missing

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.Tanh.apply(self.linear(x))


class CutsTheState(Sound):
    """The gradient does not reach the state that came in."""

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        return super().forward(x, None if state is None else state.detach() + 0 * state, lengths)


class KeepsAPrivateNumber(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.private = float(torch.rand(()))

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) * self.private


class OwnSeed(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.constant_(self.linear.bias, 0.1)


class NeverTheSame(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) + 1e-3 * torch.rand(())


class DropsInEvaluation(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.scale = 1 - spec.dropout

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) * self.scale


class ChangesThreads(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        torch.set_num_threads(2)


class DrawsNumbers(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        torch.rand(())
        return super().mixed(x, lengths)


class WrongWidth(Sound):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state, lengths)
        return y[..., 1:], state


class SinglePrecision(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths).float()

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state, lengths)
        return y.float(), state


class ReadsTheLength(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) / x.shape[1]


class Raises(Sound):
    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        raise RuntimeError("no summary today")


class LooksAheadAtLast(Sound):
    """A dilation of 128 that reaches one step too far: short sequences never see it."""

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        m = super().mixed(x, lengths)
        later = nn.functional.pad(m[:, 129:], (0, 0, 0, min(129, m.shape[1])))
        return m + torch.cat([later[:, : m.shape[1] - 128] * 0, later[:, :128]], dim=1)[:, : m.shape[1]]


class LeakyConvolution(Sound):
    """Padded on both sides instead of on the left alone."""

    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.convolution = nn.Conv1d(spec.width, spec.width, 3, padding=1)

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.convolution(super().mixed(x, lengths).mT).mT


class MaskOffByOne(Sound):
    """Attention whose mask begins one step late."""

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        m = super().mixed(x, lengths)
        ahead = torch.ones(x.shape[1], x.shape[1], device=x.device).triu(2).bool()
        return (m @ m.mT).masked_fill(ahead, -torch.inf).softmax(-1) @ m


class ChangesItsInput(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if not x.requires_grad:
            x.mul_(0.5)
        return super().mixed(x, lengths)


class DropoutNeverEnds(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.rate = spec.dropout

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return nn.functional.dropout(super().mixed(x, lengths), self.rate)


class BiasWithoutGradient(Sound):
    """A hand-written backward that forgets the bias."""

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            ctx.save_for_backward(x, weight)
            return x @ weight.mT + bias

        @staticmethod
        def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, None]:
            x, weight = ctx.saved_tensors
            return dy @ weight, dy.flatten(0, 1).mT @ x.flatten(0, 1), None

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.Linear.apply(x, self.linear.weight, self.linear.bias).tanh()


class CastsOnTheWay(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths).float().to(x.dtype)


class HalfPrecision(Sound):
    """Exact in float64, rough in float32: a fast path that only real use takes."""

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        m = super().mixed(x, lengths)
        return m.bfloat16().float() if m.dtype == torch.float32 else m


class SeedsTheGenerator(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        torch.manual_seed(0)


class DrawsFromNumpy(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        np.random.rand()


class HasAnIdleParameter(Sound):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.idle = nn.Parameter(torch.rand(3))


class MakesParametersLate(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        if not hasattr(self, "late"):
            self.late = nn.Parameter(torch.ones((), dtype=x.dtype))
        return super().mixed(x, lengths) * self.late


class StaysOnTheCpu(Sound):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) + torch.zeros(self.output_size, device="cpu")


class Saturated(Sound):
    """So large a start that tanh has no slope left."""

    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        with torch.no_grad():
            self.linear.weight.mul_(100)
            self.linear.bias.mul_(1000)

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths) * 1e-3


class Gated(Sound):
    """A correct core with two gates: ``h = z h + (1 - z) n``."""

    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.gates = nn.Linear(spec.input_size, 2 * spec.width)

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        z, n = self.gates(x).chunk(2, dim=-1)
        return self.linear(x).tanh() * self.blend(z.sigmoid(), n.tanh())

    def blend(self, z: Tensor, n: Tensor) -> Tensor:
        return 1 - z + z * n

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        h = state / 2 + self.mixed(x_t.unsqueeze(1), None).squeeze(1)
        return h, h

    def flops(self, B: int, T: int) -> int:
        return 3 * super().flops(B, T)


class UpdateGateSwapped(Gated):
    def blend(self, z: Tensor, n: Tensor) -> Tensor:
        return super().blend(1 - z, n)


class GatesInAnotherOrder(Gated):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        n, z = self.gates(x).chunk(2, dim=-1)
        return self.linear(x).tanh() * self.blend(z.sigmoid(), n.tanh())


class StartsElsewhere(Gated):
    """The same layers, made in another order: other numbers from one seed."""

    def __init__(self, spec: CoreSpec, options: Any) -> None:
        nn.Linear(1, 1)
        super().__init__(spec, options)


class OtherNames(Gated):
    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.gate, self.gates = self.gates, None

    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        z, n = self.gate(x).chunk(2, dim=-1)
        return self.linear(x).tanh() * self.blend(z.sigmoid(), n.tanh())


def declared(spec: CoreSpec, _options: Any) -> int:
    return spec.input_size * spec.width  # the bias is missing


def card_of(core: type[nn.Module], can: tuple[str, ...] = ("causal", "step")) -> Model:
    factory = f"{HERE}:{core.__name__}"
    cores = {"torch": factory} if not issubclass(core, Gated) else {"torch": f"{HERE}:Gated", "other": factory}
    formula = declared if core is Miscounted else None
    return Model("broken", "s", "c", cores, can=frozenset(can), state_is_summary=True, parameters=formula)


class Miscounted(Sound):
    """Its card's formula is wrong."""


def subject_of(core: type[nn.Module]) -> conformance.Subject:
    """On the backend that is broken."""
    card = card_of(core)
    (subject,) = conformance.subjects(card, backend=list(card.cores)[-1])
    return subject


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("core", [Sound, Gated])
def test_a_sound_core_passes(core: type[nn.Module]) -> None:
    card = card_of(core)
    for proof in conformance.proofs(card):
        proof()


# What is broken, the proof that is there for it, what is broken in words, what the proof says.
FAULTS = [
    (LooksAhead, "check_causality", "reads the next step", "with another future: .* the core looks ahead"),
    (LeakyConvolution, "check_causality", "convolution padded on both sides", "with another future: .* wrong side"),
    (MaskOffByOne, "check_causality", "attention mask off by one", "with another future: .* a missing mask"),
    (LooksAheadAtLast, "check_long", "a dilation of 128 one step too far", "off by one"),
    (LeaksPadding, "check_zero_beyond_lengths", "a mean over padding", "gradient of x beyond lengths: .* is read"),
    (SpeaksBeyondTheEnd, "check_zero_beyond_lengths", "output not masked", "y beyond lengths: .* 1.0e-06"),
    (LeaksPadding, "check_padding", "a mean over padding", "row 0 in a batch, against alone: .* another row enters"),
    (ReadsTheBatch, "check_padding", "batch normalisation", "against alone: .* batch statistics"),
    (SummarisesPadding, "check_padding", "a summary over padding", "summary of row 0 in a batch, against alone"),
    (ForgetsItsState, "check_state", "state not carried on", "in chunks .* the state is not carried on"),
    (StateOfThePadding, "check_state", "state of the last padded step", "in chunks .* not from the last valid step"),
    (ConsumesItsState, "check_state", "state changed by a call", "the state given to a call, .* only step may"),
    (StepDiffers, "check_state", "step computes something else", "step 0 after a chunk of 0, against the whole"),
    (StepRecords, "check_state", "state of a step not detached", "step has a gradient: expected False, got True"),
    (MixesRows, "check_state", "state that knows its row", "after reordering the rows of the state: .* mixes rows"),
    (BatchComesSecond, "check_state", "state with the batch second", "first axis of every leaf"),
    (StateGrows, "check_state", "growing state called a summary", "size of the state for another capacity"),
    (AlwaysReturnsState, "check_shapes", "state out, none in", "state of a call without state: expected None"),
    (WrongWidth, "check_shapes", "output narrower than said", "shape of y: expected"),
    (SinglePrecision, "check_shapes", "float32 comes out of float64", "dtype of y: expected torch.float64"),
    (ReadsTheLength, "check_short", "scaled by the length", "y for B = T = 1: .* reads the length"),
    (ChangesItsInput, "check_inputs_untouched", "input changed in place", "x after a call: .* in place"),
    (WrongDerivative, "check_gradients", "a wrong derivative", "expected those of finite differences"),
    (BiasWithoutGradient, "check_gradients", "gradient of one bias missing", "expected those of finite differences"),
    (CutsTheState, "check_gradients", "gradient cut at the state", "expected those of finite differences"),
    (Miscounted, "check_parameters", "parameter count misdeclared", r"counts them .*: expected \d+, got \d+"),
    (HasAnIdleParameter, "check_parameters", "a parameter that nothing reads", "idle moves the output"),
    (MakesParametersLate, "check_parameters", "parameters made when first used", "parameters after the first call"),
    (KeepsAPrivateNumber, "check_state_dict", "a number outside the state_dict", "after loading the state_dict"),
    (OwnSeed, "check_determinism", "a start that ignores the seed", "another seed gives other parameters"),
    (NeverTheSame, "check_determinism", "noise in evaluation", "a second call in evaluation mode"),
    (DropoutNeverEnds, "check_determinism", "dropout left on in evaluation", "a second call in evaluation mode"),
    (DropsInEvaluation, "check_determinism", "scaled by the dropout", "evaluation mode with dropout"),
    (ChangesThreads, "check_no_global_state", "threads set for everyone", "torch's global settings"),
    (DrawsNumbers, "check_no_global_state", "random numbers in evaluation", "the random generator is untouched"),
    (SeedsTheGenerator, "check_no_global_state", "generator seeded", "after building depend on the seed"),
    (DrawsFromNumpy, "check_no_global_state", "numpy's generator used", "generators of numpy and Python"),
    (Saturated, "check_learns", "saturated from the start", "loss on 8 random labels"),
    (CastsOnTheWay, "check_precision", "cast to float32 and back", "y changes by about 1e-11"),
    (HalfPrecision, "check_single_precision", "half precision on the fast path", "y in float32: .* approximation"),
    (UpdateGateSwapped, "check_backends", "update gate swapped in one backend", "y, against torch: .* order of the"),
    (GatesInAnotherOrder, "check_backends", "wrong gate order in one backend", "y, against torch: .* order of the"),
    (StartsElsewhere, "check_backends", "another start in one backend", "from the same seed, against torch"),
    (OtherNames, "check_backends", "state_dict of one backend alone", "names and shapes of the state_dict"),
    (StaysOnTheCpu, "check_device", "a tensor made on the CPU", "all tensors there"),
    (WrongFlops, "check_flops", "half of the operations", r"flops\(B=1, T=3\): expected 6, got 3"),
]
IDS = [f"{core.__name__}-{check}" for core, check, _, _ in FAULTS]


@pytest.mark.parametrize(("core", "check", "what", "message"), FAULTS, ids=IDS)
def test_a_planted_fault_is_caught(core: type[nn.Module], check: str, what: str, message: str) -> None:
    """By the proof that is meant for it, with a smallest case."""
    proof = conformance.Proof(subject_of(core), getattr(conformance, check))
    with pytest.raises(ConformanceError, match=message) as caught:
        proof()
    told = r"^broken \((torch|other), causal, .*Smallest case found: B=\d, T=\d, D=\d, H=\d, L=\d\.$"
    assert re.search(told, str(caught.value))
    torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("ours", "message"),
    [
        ((4.0, 1.0, 1.0, 1.0), None),
        ((1.0, 4.0, 4.0, 4.0), r"y in float32: .* within 3\.0e-06 .*three times torch's own error"),
        ((1.0, 1.0, 1.0, 11.0), r"y in float32: .* within 1\.0e-05 of float64, relative, in the norm, got 1\.1e-05"),
    ],
    ids=["large-once", "large-but-once", "beyond-the-bound-once"],
)
def test_errors_in_float32_are_compared_over_several_draws(
    ours: tuple[float, ...], message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With torch's, that is; none may be beyond the bound that holds without torch."""

    def errors(_subject: Any, seed: int) -> dict[str, tuple[float, float]]:
        return {"y": (ours[seed] * 1e-6, 1e-6 if max(ours) < 10 else 1.0)}

    monkeypatch.setattr(number_proofs, "_errors", errors)
    with pytest.raises(ConformanceError, match=message) if message else nullcontext():
        conformance.check_single_precision(subject_of(Sound))


@pytest.mark.parametrize("core", [SpeaksBeyondTheEnd, ForgetsItsState, UpdateGateSwapped])
def test_a_broken_core_does_not_pass_as_a_whole(core: type[nn.Module]) -> None:
    subject = subject_of(core)
    with pytest.raises(ConformanceError, match=r"^broken \((torch|other), causal, "):
        conformance.check_all(subject.card, backend=subject.backend)


def test_the_smallest_case_is_one_that_fails_and_what_is_smaller_does_not() -> None:
    """The reach of 128 steps needs more than 128 of them."""
    proof = conformance.Proof(subject_of(LooksAheadAtLast), conformance.check_long)
    with pytest.raises(ConformanceError) as caught:
        proof()
    assert "of 300 steps alone" in str(caught.value), "128 steps and fewer have been tried, and hold"
    with pytest.raises(ConformanceError, match=r"Smallest case found: B=1, T=2, D=1, H=1, L=1\."):
        conformance.Proof(subject_of(LooksAhead), conformance.check_causality)()


def test_a_core_that_raises_fails() -> None:
    class_of_error = r"check_shapes: expected no exception, got RuntimeError: .* does not keep to the interface"
    with pytest.raises(ConformanceError, match=class_of_error):
        conformance.Proof(subject_of(Raises), conformance.check_shapes)()


def test_a_false_claim_to_read_both_ways_is_caught() -> None:
    (subject,) = conformance.subjects(card_of(LooksBothWays, ("bidirectional",)))
    with pytest.raises(ConformanceError, match=r"ignores spec\.causal=False"):
        conformance.check_both_directions(subject)


def test_every_proof_of_the_module_is_run() -> None:
    """A proof that nobody runs proves nothing; those with other arguments are for a plugin's own tests."""
    settings = [subject_of(Sound), subject_of(Gated), *conformance.subjects(card_of(Sound, ("bidirectional",)))]
    run = {check.__name__ for subject in settings for check in conformance.checks(subject)}
    all_proofs = {name for name in vars(conformance) if name.startswith("check_") and "decoder" not in name}
    assert all_proofs - run == {"check_all", "check_oracle", "check_parameter_count"}
    assert {check for _, check, _, _ in FAULTS} == run - {"check_both_directions"}


def test_the_documentation_names_every_proof_and_every_fault() -> None:
    page = (Path(__file__).parents[1] / "docs" / "conformance.md").read_text(encoding="utf-8")
    assert [row for _, check, what, _ in FAULTS
            if f"| {what} | `{check.removeprefix('check_')}` |" not in page and (row := what)] == []  # fmt: skip
    assert page.count("```") == 2
    proofs = {name.removeprefix("check_") for name in vars(conformance) if name.startswith("check_")}
    assert {p for p in proofs - {"all", "oracle", "parameter_count"} if f"\n- `{p}`: " not in page} == set()


def test_parameter_count() -> None:
    core = Sound(CoreSpec(3, 4), None)
    conformance.check_parameter_count(core, 16)
    with pytest.raises(ConformanceError, match="trainable parameters: expected 17, got 16"):
        conformance.check_parameter_count(core, 17)


@pytest.mark.parametrize("fault", ["value", "input gradient", "parameter gradient", "shape", "mapping"])
def test_oracle_catches(fault: str) -> None:
    core = Sound(CoreSpec(conformance.D, 4), None).double()
    x = torch.ones(2, 3, conformance.D, dtype=torch.float64, requires_grad=True)

    def oracle(x: Tensor) -> Tensor:
        if fault == "input gradient":
            x = x.detach() + 0.5 * (x - x.detach())
        y = core(x)[0]
        if fault == "parameter gradient":
            y = y + (core.linear.bias - core.linear.bias.detach()).sum()
        return {"value": y + 1e-6, "shape": y[:, :1]}.get(fault, y)

    wanted = {
        "value": "output 0 against the oracle",
        "input gradient": "gradient of input 0",
        "parameter gradient": "gradient of linear.bias",
        "shape": r"expected shape \(2, 1, 4\), got shape \(2, 3, 4\)",
        "mapping": "parameters mapped",
    }
    with pytest.raises(ConformanceError, match=wanted[fault]):
        conformance.check_oracle(core, oracle, (x,), {} if fault == "mapping" else None)


def test_not_a_number_is_an_error() -> None:
    class NotANumber(Sound):
        def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
            return super().mixed(x, lengths) * float("nan")

    core = NotANumber(CoreSpec(conformance.D, 4), None).double()
    x = torch.ones(1, 2, conformance.D, dtype=torch.float64)
    with pytest.raises(ConformanceError, match="max abs error inf"):
        conformance.check_oracle(core, lambda x: core(x)[0] * 0, (x,))


@dataclass(frozen=True)
class Many:
    """One option of each kind."""

    flag: bool = option(False, "h")
    word: str = option("a", "h", choices=("a", "b", "c"))
    free: str = option("any", "h")
    count: int = option(3, "h", low=1)
    size: int = option(0, "h", low=0)
    capped: int = option(5, "h", low=5, high=6)
    rate: float = option(0.25, "h")

    def __post_init__(self) -> None:
        if self.word == "c":
            raise ValueError("no c")


def test_cases_cover_every_option() -> None:
    card = Model("many", "s", "c", {"torch": "m:C"}, options=Many)
    default, *others = conformance.cases(card)
    assert default == Many()
    changed = [Many(flag=True), Many(word="b"), Many(count=1), Many(size=7), Many(capped=6), Many(rate=0.75)]
    assert others == changed


def test_a_card_without_direction_is_refused() -> None:
    with pytest.raises(ConformanceError, match="expected 'causal' or 'bidirectional'"):
        conformance.subjects(Model("m", "s", "c", {"torch": "m:C"}, options=NoOptions, can=frozenset({"step"})))
