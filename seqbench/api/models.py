"""Models: the interface of a core and of a decoder, and the card of an architecture."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, Union

from seqbench.api.checks import check, check_card, check_factory, check_module, check_options

if TYPE_CHECKING:
    from torch import Tensor

State: TypeAlias = Union["Tensor", tuple["State", ...], None]
"""A tree of tuples. Every leaf is a tensor whose first axis is the batch, positions included."""


@dataclass(frozen=True)
class CoreSpec:
    """What the harness asks of a core.

    Attributes:
        input_size: ``D``, the width of the vectors that come in.
        width: ``H``, the hidden width; what the parameter budget solves for.
        layers: ``L``.
        causal: the output at ``t`` may depend on inputs up to ``t`` only; False asks for both directions.
        dropout: probability of dropping a unit, in training only.
        train_length: the longest ``T`` of training (for chrono initialisation and learned positions).
        memory_size: ``M``, the width of the memory that a decoder reads; 0: not a decoder.
    """

    input_size: int
    width: int
    layers: int = 1
    causal: bool = True
    dropout: float = 0.0
    train_length: int = 128
    memory_size: int = 0


class Core(Protocol):
    """The sequence-mixing network that a model provides: a ``torch.nn.Module`` built as ``Core(spec, options)``.

    Attributes:
        output_size: width of ``y``.
        max_length: the longest legal ``T``, or None where there is no limit.
    """

    output_size: int
    max_length: int | None

    def __call__(self, x: Tensor, state: State = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """Map a whole sequence (or, with ``state``, the next chunk of one).

        Args:
            x: ``(B, T, D)``.
            state: what ``initial_state`` or an earlier call gave. Without it, no state is returned: None.
            lengths: ``(B,)`` int64 on the CPU, each in 1..T; None means that every row is full.

        Returns:
            ``y (B, T, output_size)``, which is 0 beyond ``lengths``, and the state after the last valid step of
            each row. ``y`` is differentiable in ``x``, ``state`` and the parameters.
        """

    def initial_state(self, B: int, capacity: int) -> State:
        """The state before the first step, with room for ``capacity`` steps."""

    def step(self, x_t: Tensor, state: State) -> tuple[Tensor, State]:
        """One step without gradients: ``x_t (B, D)`` to ``y_t (B, output_size)``; consumes ``state``."""

    def summary(self, y: Tensor, lengths: Tensor | None) -> Tensor:
        """One vector ``(B, output_size)`` for each sequence: its last step (backward direction: its first)."""

    def flops(self, B: int, T: int) -> int:
        """Floating-point operations of the matrix products of one forward pass (a multiply-add counts as 2)."""


@dataclass(frozen=True)
class Memory:
    """A source sequence as a decoder sees it.

    Attributes:
        outputs: ``(B, S, M)``, the encoder's output at each step, 0 beyond ``lengths``.
        lengths: ``(B,)`` int64 on the CPU, or None where every row is full.
        summary: ``(B, M)``, the encoder's ``summary``.
        state: the encoder's state after its last step; None unless the decoder is seeded with it.
    """

    outputs: Tensor
    lengths: Tensor | None
    summary: Tensor
    state: State = None


class Decoder(Core, Protocol):
    """A causal core that reads a memory too; built as ``Decoder(spec, options)`` with ``spec.memory_size > 0``.

    Its state is a pair ``(memory part, own part)``. The memory part does not change from step to step and is the same
    for all hypotheses of a sentence, so that a beam search never moves it. ``initial_state`` is not called.
    """

    def start(self, memory: Memory, capacity: int) -> State:
        """The state before the first step, with room for ``capacity`` steps.

        Capacity 0 announces one call on the whole sequence: no caches are made, and that call returns no state.
        """

    def explain(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """What explains the outputs of a whole sequence ``x (B, U, D)`` after ``start(memory, 0)``.

        ``"alignment"``, if the decoder attends: ``(B, U, S)``, the weight of each source step at each target step, 0
        beyond the source's lengths; rows sum to 1.
        """

    def flops(self, B: int, T: int, S: int = 0) -> int:
        """As a core's, for ``T`` target steps over a memory of ``S`` steps; what ``start`` computes is included."""


def option(
    default: Any,
    help: str,  # noqa: A002 - the word that argparse, click and this project's users know
    *,
    choices: Sequence[Any] | None = None,
    low: float | None = None,
    high: float | None = None,
) -> Any:
    """A field of an options dataclass: its type is that of ``default``.

    Args:
        default: bool, int, float or str.
        help: one sentence, shown by ``seqbench info``.
        choices: the only legal values.
        low: the smallest legal value.
        high: the largest legal value.
    """
    return field(default=default, metadata={"help": help, "choices": choices, "low": low, "high": high})


@dataclass(frozen=True)
class NoOptions:
    """The options of a card that has none."""


def _one(_options: Any) -> int:
    return 1


@dataclass(frozen=True)
class Model:
    """The card of an architecture.

    Attributes:
        name: lower case, words joined by ``-``; what ``--model`` takes.
        summary: one sentence.
        citation: authors, year, title, identifier.
        equations: the definition, in plain text; shown by ``seqbench info``.
        cores: backend name to factory, ``{"torch": "package.module:Core"}``; imported only when used. A backend whose
            name ends in ``-ref`` is a plain path to prove another one against, in float64.
        decoders: the same for a decoder of the model's own; without one, the harness's bridge makes a decoder of the
            core, with the attention that the task asks for.
        options: a frozen dataclass of ``option(...)`` fields.
        can: any of ``"causal"``, ``"bidirectional"``, ``"step"``; what is not declared is refused, with a reason.
        state_is_summary: the state has a fixed size and sums up the past (recurrent networks).
        recurrence: ``"module:function"`` in a module that imports no torch; the function gives for some options the
            ``seqbench.backends.recurrence.Recurrence`` that all layers are. Networks of such a model can be exported
            and streamed where there is no torch.
        code: modules to read beside the equations, the plainest code of the model; ``seqbench info --code`` shows them.
            None named: the one of the first core.
        width_multiple: the width must be a multiple of this, given the options (attention heads).
        fine: the name of an integer option (0 = automatic), a second size that closes the gap to the parameter
            budget that the width alone leaves.
        layers: the default number of layers, or a function ``(options, train_length) -> int``.
        parameters: ``(spec, options) -> int``: how many trainable parameters a core has; shown by ``seqbench info`` and
            compared with what is counted by ``seqbench check``.
        advice: ``(options, layers, train_length) -> str | None``: a remark about this setting, shown beside the
            model's row (a receptive field shorter than the task, say); starts with ``"warning: "`` if it matters.
        api: the ``API_VERSION`` that the card was written for; empty: not stated.
    """

    name: str
    summary: str
    citation: str
    cores: Mapping[str, str]
    decoders: Mapping[str, str] = field(default_factory=dict)
    equations: str = ""
    options: type[Any] = NoOptions
    can: frozenset[str] = frozenset({"causal", "step"})
    state_is_summary: bool = False
    recurrence: str | None = None
    code: tuple[str, ...] = ()
    width_multiple: Callable[[Any], int] = _one
    fine: str | None = None
    layers: int | Callable[[Any, int], int] = 1
    parameters: Callable[[CoreSpec, Any], int] | None = None
    advice: Callable[[Any, int, int], str | None] | None = None
    api: str = ""

    def __post_init__(self) -> None:
        """Check the card.

        Raises:
            PluginError: a field is not of the form above.
        """
        check_card("model", self)
        check(bool(self.cores), f"model {self.name!r} names no core: give cores={{'torch': 'module:Class'}}")
        check("auto" not in self.cores, f"model {self.name!r}: no backend can be called 'auto', which chooses one")
        for backend, factory in [*self.cores.items(), *self.decoders.items()]:
            check_factory(f"model {self.name!r}, backend {backend!r}", factory)
        if self.recurrence is not None:
            check_factory(f"model {self.name!r}, recurrence", self.recurrence)
        for module in self.code:
            check_module(f"model {self.name!r}, code", module)
        check_options(f"model {self.name!r}", self.options)
        unknown = set(self.can) - {"causal", "bidirectional", "step"}
        check(not unknown, f"model {self.name!r} declares unknown abilities {sorted(unknown)}")
        if self.fine is not None:
            names = {f.name for f in dataclasses.fields(self.options)}
            check(self.fine in names, f"model {self.name!r}: fine={self.fine!r} is not one of its options")

    def default_layers(self, options: Any, train_length: int) -> int:
        """``L`` where the user names none."""
        return self.layers(options, train_length) if callable(self.layers) else self.layers


def recurrent_parameters(spec: CoreSpec, gates: int, biases: int) -> int:
    """How many parameters ``L`` recurrent layers have, in one direction or in both; for ``Model.parameters``.

    Args:
        spec: of the core.
        gates: of a layer; each has ``W (H, D)``, ``U (H, H)`` and so many biases ``(H,)``.
        biases: of each gate.
    """
    H, directions = spec.width, 1 if spec.causal else 2
    sizes = [spec.input_size] + [directions * H] * (spec.layers - 1)
    return sum(directions * gates * (H * (size + H) + biases * H) for size in sizes)
