"""Each proof about decoders catches the fault it is there for: decoders that are broken on purpose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_conformance import Sound
from torch import Tensor, nn

from seqbench import conformance
from seqbench.api import CoreSpec, Memory, Model
from seqbench.conformance import ConformanceError

HERE = __name__


class SoundDecoder(Sound):
    """A correct decoder: the sound core, and dot-product attention on what it says. The faults are subclasses."""

    def __init__(self, spec: CoreSpec, options: Any) -> None:
        super().__init__(spec, options)
        self.keys = nn.Linear(spec.memory_size, spec.width)

    def start(self, memory: Memory, capacity: int) -> Any:
        B, S, _ = memory.outputs.shape
        lengths = torch.full((B,), S) if memory.lengths is None else memory.lengths
        there = torch.arange(S) < lengths.unsqueeze(1)  # (B, S)
        own = self.initial_state(B, capacity) if capacity else None
        return (self.keys(memory.outputs) + memory.summary.mean(-1)[:, None, None], there), own

    def weights(self, h: Tensor, memory: Any) -> Tensor:
        keys, there = memory
        return (h @ keys.mT).masked_fill(~there.unsqueeze(1), -torch.inf).softmax(-1)  # (B, U, S)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        memory, own = state
        h, after = super().forward(x, own, lengths)
        y = h + self.weights(h, memory) @ memory[0]
        if lengths is not None:
            y = y * (torch.arange(x.shape[1]) < lengths.unsqueeze(1)).unsqueeze(-1)
        return y, None if own is None else (memory, after)

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        memory, own = state
        h, own = super().step(x_t, own)
        return h + (self.weights(h.unsqueeze(1), memory) @ memory[0]).squeeze(1), (memory, own)

    def explain(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        memory, _ = state
        h, _ = Sound.forward(self, x)
        return {"alignment": self.weights(h, memory)}

    def flops(self, B: int, T: int, S: int = 0) -> int:
        H, M = self.output_size, self.keys.in_features
        return super().flops(B, T) + 2 * B * S * M * H + 4 * B * T * S * H


class IgnoresTheMemory(SoundDecoder):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        memory, own = state
        h, after = Sound.forward(self, x, own, lengths)
        return h, None if own is None else (memory, after)


class AlwaysReturnsState(SoundDecoder):
    def start(self, memory: Memory, capacity: int) -> Any:
        return super().start(memory, max(capacity, 1))


class AttendsToPadding(SoundDecoder):
    def start(self, memory: Memory, capacity: int) -> Any:
        (keys, there), own = super().start(memory, capacity)
        return (keys, torch.ones_like(there)), own


class SpeaksBeyondTheEnd(SoundDecoder):
    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        y, state = super().forward(x, state, lengths)
        return y + 1e-12, state


class LooksAhead(SoundDecoder):
    def mixed(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return super().mixed(x, lengths).roll(-1, dims=1)


class StepForgetsTheMemory(SoundDecoder):
    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = Sound.step(self, x_t, state[1])
        return y, (None, state)


class StepChangesTheMemory(SoundDecoder):
    """Turns the source round: attention does not notice, but a beam search that keeps the memory would."""

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, ((keys, there), own) = super().step(x_t, state)
        return y, ((keys.roll(1, 1), there.roll(1, 1)), own)


class StateIsNoPair(SoundDecoder):
    def start(self, memory: Memory, capacity: int) -> Any:
        return (*super().start(memory, capacity), None) if capacity else super().start(memory, capacity)

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        return super().forward(x, state[:2], lengths)


class MixesRows(SoundDecoder):
    def start(self, memory: Memory, capacity: int) -> Any:
        first, own = super().start(memory, capacity)
        return first, None if own is None else (own, torch.arange(len(own)).unsqueeze(1))

    def forward(self, x: Tensor, state: Any = None, lengths: Tensor | None = None) -> tuple[Tensor, Any]:
        memory, own = state
        if own is None:
            return super().forward(x, state, lengths)
        y, (memory, after) = super().forward(x, (memory, own[0]), lengths)
        return y, (memory, (after, own[1]))

    @torch.no_grad()
    def step(self, x_t: Tensor, state: Any) -> tuple[Tensor, Any]:
        memory, (own, row) = state
        y, (memory, own) = super().step(x_t, (memory, own))
        return y + row - torch.arange(len(row)).unsqueeze(1), (memory, (own, row))


class AlignsWithoutSoftmax(SoundDecoder):
    def explain(self, x: Tensor, state: Any) -> dict[str, Tensor]:
        return {"alignment": super().explain(x, state)["alignment"] * 0.9}


class CutsTheMemory(SoundDecoder):
    """No gradient reaches the encoder."""

    def start(self, memory: Memory, capacity: int) -> Any:
        outputs = memory.outputs.detach() + 0 * memory.outputs
        return super().start(Memory(outputs, memory.lengths, memory.summary), capacity)


class WrongFlops(SoundDecoder):
    def flops(self, B: int, T: int, S: int = 0) -> int:
        return super().flops(B, T, 0)


class ScaledInOneBackend(SoundDecoder):
    """Scaled attention where the torch decoder's is plain."""

    def weights(self, h: Tensor, memory: Any) -> Tensor:
        return super().weights(h / 2, memory)


def card_of(decoder: type[nn.Module]) -> Model:
    factory = f"{HERE}:{decoder.__name__}"
    decoders = {"torch": factory}
    if decoder is ScaledInOneBackend:
        decoders = {"torch": f"{HERE}:SoundDecoder", "other": factory}
    return Model(
        "broken",
        "s",
        "c",
        dict.fromkeys(decoders, f"{Sound.__module__}:Sound"),
        decoders=decoders,
        can=frozenset({"causal", "step"}),
        state_is_summary=True,
    )


def subject_of(decoder: type[nn.Module]) -> conformance.Subject:
    """On the backend that is broken."""
    card = card_of(decoder)
    (subject,) = conformance.subjects(card, backend=list(card.cores)[-1])
    return subject


FAULTS = [
    (IgnoresTheMemory, "check_decoder_shapes", "depends on the memory: expected True, got False"),
    (AlwaysReturnsState, "check_decoder_shapes", "after a start with capacity 0: expected None"),
    (AttendsToPadding, "check_decoder_padding", "row 0 in a batch, against alone: .* padding"),
    (SpeaksBeyondTheEnd, "check_decoder_padding", "beyond lengths: .* not masked"),
    (LooksAhead, "check_decoder_causality", "looks ahead in the target"),
    (StepForgetsTheMemory, "check_decoder_steps", "step 0 of a decoder after a chunk of 0"),
    (StepChangesTheMemory, "check_decoder_steps", "memory part of the state after decoding: .* does not copy it"),
    (StateIsNoPair, "check_decoder_steps", "is a pair"),
    (MixesRows, "check_decoder_reordering", "after reordering: .* mixes rows"),
    (AlignsWithoutSoftmax, "check_decoder_alignment", "sums of the alignment's rows"),
    (AttendsToPadding, "check_decoder_alignment", "beyond the source's lengths"),
    (CutsTheMemory, "check_decoder_gradients", "expected those of finite differences"),
    (ScaledInOneBackend, "check_decoder_backends", "y, against torch: .* the definitions differ"),
    (WrongFlops, "check_decoder_flops", r"flops\(B=1, T=3, S=5\)"),
]


def test_a_sound_decoder_passes() -> None:
    conformance.check_all(card_of(SoundDecoder))


@pytest.mark.parametrize(("decoder", "check", "message"), FAULTS, ids=lambda v: getattr(v, "__name__", None))
def test_a_planted_fault_is_caught(decoder: type[nn.Module], check: str, message: str) -> None:
    with pytest.raises(ConformanceError, match=message):
        conformance.Proof(subject_of(decoder), getattr(conformance, check))()


def test_every_proof_about_decoders_is_run_and_has_its_fault() -> None:
    run = {check.__name__ for decoder in (SoundDecoder, ScaledInOneBackend)
           for check in conformance.checks(subject_of(decoder))}  # fmt: skip
    there = {name for name in vars(conformance) if name.startswith("check_decoder")}
    assert there <= run
    assert there == {check for _, check, _ in FAULTS}


def test_a_card_without_decoder_is_asked_for_none() -> None:
    card = Model("plain", "s", "c", {"torch": f"{Sound.__module__}:Sound"}, state_is_summary=True)
    (subject,) = conformance.subjects(card)
    assert not any("decoder" in check.__name__ for check in conformance.checks(subject))
