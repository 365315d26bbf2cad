"""A card and a form in, a network out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

from torch import nn

from seqbench.api import Core, CoreSpec, Decoder, DecoderForm, Form, Model
from seqbench.bridge import Bridge, Start
from seqbench.encoder_decoder import EncoderDecoder
from seqbench.errors import Refused
from seqbench.network import Network
from seqbench.registry import resolve

AnyNetwork: TypeAlias = Network | EncoderDecoder


def build(card: Model, backend: str, spec: CoreSpec, options: Any, form: Form) -> AnyNetwork:
    """Assemble a network, on torch's current default device, with torch's current random state.

    Raises:
        Refused: the card has no such backend, or does not declare what the task needs.
    """
    _check(card, backend, form)
    core = resolve(card.cores[backend])(spec, options)
    _check_length(card, core, form.length)
    if form.decoder is None:
        return Network(form, core, spec.input_size)
    decoder = _decoder(card, backend, replace(spec, causal=True, memory_size=core.output_size), options, form)
    _check_length(card, decoder, form.decoder.length)
    seeded = isinstance(decoder, Bridge) and decoder.start_from == "state"
    return EncoderDecoder(form, core, decoder, spec.input_size, seeded)


def _check(card: Model, backend: str, form: Form) -> None:
    """What the task needs against what the card declares."""
    if backend not in card.cores:
        raise Refused(f"{card.name} has no {backend!r} backend; it has {', '.join(card.cores)}")
    if form.causal and "causal" not in card.can:
        raise Refused(f"the task needs a model that does not look ahead; {card.name} does not declare 'causal'")
    if form.bidirectional and "bidirectional" not in card.can:
        raise Refused(
            f"the task's options ask for a model that reads in both directions; {card.name} does not declare "
            f"'bidirectional'"
        )
    missing = {"causal", "step"} - card.can
    if form.decoder and missing:
        lacks = " and ".join(repr(name) for name in sorted(missing))
        raise Refused(f"the task needs a decoder that goes step by step; {card.name} does not declare {lacks}")


def _check_length(card: Model, core: Core | Decoder, length: int) -> None:
    if core.max_length is not None and core.max_length < length:
        raise Refused(f"the task needs sequences of {length} steps; {card.name}'s longest is {core.max_length}")


def has_own_decoder(card: Model, backend: str, form: DecoderForm) -> bool:
    """Whether the model brings a decoder for this form, so that the bridge's attention is not used."""
    return backend in card.decoders and form.attention != "none"


def chosen_backend(card: Model, device: str, form: Form) -> tuple[str, str]:
    """What ``--backend auto`` stands for, and why: numba on the CPU where the model has it, else torch.

    A model with a decoder of its own must have that on numba too. One that has neither backend gets its first.
    """
    own = form.decoder is not None and has_own_decoder(card, "torch", form.decoder)
    has_it = "numba" in card.cores and (not own or "numba" in card.decoders)
    if device == "cpu" and has_it:
        return "numba", "which is made for the CPU"
    backend = "torch" if "torch" in card.cores else next(iter(card.cores))
    return backend, f"for {card.name} has no numba core" if device == "cpu" else f"since the device is {device}"


def _decoder(card: Model, backend: str, spec: CoreSpec, options: Any, form: Form) -> Any:
    """The model's own decoder, or the bridge around a core."""
    assert form.decoder is not None
    if has_own_decoder(card, backend, form.decoder):
        return resolve(card.decoders[backend])(spec, options)
    start = _start(card, form)
    longest = spec.train_length + (start == "prefix")  # the prefix is a step too
    core: nn.Module = resolve(card.cores[backend])(replace(spec, memory_size=0, train_length=longest), options)
    return Bridge(core, spec.input_size, spec.memory_size, form.decoder.attention, start)


def _start(card: Model, form: Form) -> Start:
    if not card.state_is_summary:
        return "prefix"
    return "map" if form.bidirectional else "state"


def core_spec(card: Model, form: Form, width: int, layers: int, dropout: float = 0.0) -> CoreSpec:
    """What the harness asks of a card's core on a task: in one direction wherever the card can and the form lets it."""
    return CoreSpec(
        input_size=width,
        width=width,
        layers=layers,
        causal="causal" in card.can and not form.bidirectional,
        dropout=dropout,
        train_length=form.longest,
    )


def count(*modules: nn.Module) -> int:
    """Trainable parameters; a shared one counts once."""
    return sum(p.numel() for p in {id(p): p for m in modules for p in m.parameters() if p.requires_grad}.values())
