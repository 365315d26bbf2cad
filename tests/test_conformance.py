"""Each proof catches the fault it is there for: cores that are broken on purpose."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqbench import conformance
from seqbench.api import CoreSpec, Model, NoOptions, option
from seqbench.conformance import ConformanceError

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
        return y[:, -1] if lengths is None else y[torch.arange(len(y)), lengths - 1]

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


def card_of(core: type[nn.Module], can: tuple[str, ...] = ("causal", "step")) -> Model:
    factory = f"{HERE}:{core.__name__}"
    return Model("broken", "s", "c", {"torch": factory}, can=frozenset(can), state_is_summary=True)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_sound_core_passes() -> None:
    conformance.check_all(card_of(Sound))


FAULTS = [
    (LooksAhead, "check_causality", "with another future: expected equal .* the core looks ahead"),
    (LeaksPadding, "check_zero_beyond_lengths", "gradient of x beyond lengths: .* padding is read"),
    (LeaksPadding, "check_padding", "row 0 in a batch, against alone: .* padding or another row enters"),
    (ReadsTheBatch, "check_padding", "against alone: .* batch statistics"),
    (SummarisesPadding, "check_padding", "summary of row 0 in a batch, against alone"),
    (SpeaksBeyondTheEnd, "check_zero_beyond_lengths", "y beyond lengths: .* got max abs error 1.0e-06"),
    (ForgetsItsState, "check_state", "in chunks .* the state is not carried on"),
    (StateOfThePadding, "check_state", "in chunks .* not from the last valid step"),
    (ConsumesItsState, "check_state", "the state given to a call, afterwards: .* only step may consume it"),
    (AlwaysReturnsState, "check_shapes", "state of a call without state: expected None"),
    (StepDiffers, "check_state", "step 0 after a chunk of 0, against the whole sequence"),
    (StepRecords, "check_state", "step has a gradient: expected False, got True"),
    (MixesRows, "check_state", "after reordering the rows of the state: .* a leaf mixes rows"),
    (BatchComesSecond, "check_state", "first axis of every leaf"),
    (StateGrows, "check_state", "size of the state for another capacity: .* state_is_summary"),
    (WrongFlops, "check_flops", r"flops\(B=1, T=3\): expected 180, got 90"),
    (WrongDerivative, "check_gradients", "expected those of finite differences"),
    (CutsTheState, "check_gradients", "expected those of finite differences"),
    (KeepsAPrivateNumber, "check_state_dict", "after loading the state_dict"),
    (OwnSeed, "check_determinism", "another seed gives other parameters: expected True"),
    (NeverTheSame, "check_determinism", "a second call in evaluation mode"),
    (DropsInEvaluation, "check_determinism", "evaluation mode with dropout"),
    (ChangesThreads, "check_no_global_state", "torch's global settings"),
    (DrawsNumbers, "check_no_global_state", "the random generator is untouched"),
    (WrongWidth, "check_shapes", "shape of y: expected"),
    (SinglePrecision, "check_shapes", "dtype of y: expected torch.float64, got torch.float32"),
    (ReadsTheLength, "check_short", "y for B = T = 1: .* reads the length"),
]


@pytest.mark.parametrize(("core", "check", "message"), FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_planted_fault_is_caught(core: type[nn.Module], check: str, message: str) -> None:
    (subject,) = conformance.subjects(card_of(core))
    with pytest.raises(ConformanceError, match=message):
        getattr(conformance, check)(subject)
    torch.set_num_threads(1)
    with pytest.raises(ConformanceError, match=r"^broken \(torch, causal, "):
        conformance.check_all(card_of(core))


def test_a_core_that_raises_fails() -> None:
    class_of_error = r"check_shapes: expected no exception, got RuntimeError: .* does not keep to the interface"
    with pytest.raises(ConformanceError, match=class_of_error):
        conformance.check_all(card_of(Raises))


def test_a_false_claim_to_read_both_ways_is_caught() -> None:
    (subject,) = conformance.subjects(card_of(LooksBothWays, ("bidirectional",)))
    with pytest.raises(ConformanceError, match=r"ignores spec\.causal=False"):
        conformance.check_both_directions(subject)


def test_every_proof_of_the_module_is_run() -> None:
    """A proof that nobody runs proves nothing; those with other arguments are for a plugin's own tests."""
    (subject,) = conformance.subjects(card_of(Sound))
    (both,) = conformance.subjects(card_of(Sound, ("bidirectional",)))
    run = {c.__name__ for c in [*conformance.checks(subject), *conformance.checks(both)]}
    all_proofs = {name for name in vars(conformance) if name.startswith("check_") and "decoder" not in name}
    assert all_proofs - run == {"check_all", "check_oracle", "check_parameter_count"}
    assert run >= {check for _, check, _ in FAULTS}
    assert {check for _, check, _ in FAULTS} == run - {"check_both_directions"}


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
