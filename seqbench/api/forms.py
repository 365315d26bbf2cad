"""What passes between a task and a network: the form of input and output, batches, predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from seqbench.api.checks import check

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Tokens:
    """The input is integers in ``0 .. vocabulary-1``; they enter through an embedding."""

    vocabulary: int


@dataclass(frozen=True)
class Vectors:
    """The input is vectors of ``size`` numbers; they enter through a linear layer."""

    size: int


@dataclass(frozen=True)
class DecoderForm:
    """The second half of a sequence-to-sequence task's form: the sequence that comes out.

    Attributes:
        length: the longest ``U`` of training.
        begin: the token that the decoder reads first.
        end: the token that ends an output.
        attention: how the harness's bridge joins decoder and memory: ``"dot"``, ``"scaled-dot"``, ``"additive"``, or
            ``"none"``, by the encoder's state or summary alone. A model's own
            decoder serves wherever this is not ``"none"``.
    """

    length: int
    begin: int
    end: int
    attention: Literal["none", "dot", "scaled-dot", "additive"] = "additive"


@dataclass(frozen=True)
class Form:
    """What a task needs of a network.

    Attributes:
        input: ``Tokens`` or ``Vectors``.
        output: width of the output at each position: classes, or numbers.
        head: ``"step"``, an output at every step, ``(B, T, output)``; ``"pooled"``, one a sequence, ``(B, output)``;
            ``"decoder"``, another sequence of tokens, ``(B, U, output)``, with ``decoder`` saying more.
        target: ``"class"``, int64 class numbers under cross-entropy; ``"value"``, float32 under squared error.
        length: the longest ``T`` of training (of the source, if there are two sequences).
        causal: the task needs a core that does not look ahead.
        bidirectional: the task needs a core (an encoder) that reads in both directions. With neither of the two, the
            core is causal wherever the card can.
        pooling: what the pooled head sees: ``"summary"``, the core's own (the last step; of a backward direction the
            first), or the ``"mean"`` or ``"max"`` over the valid steps.
        decoder: with head ``"decoder"``, and only there.
    """

    input: Tokens | Vectors
    output: int
    head: Literal["step", "pooled", "decoder"]
    target: Literal["class", "value"]
    length: int
    causal: bool = True
    bidirectional: bool = False
    pooling: Literal["summary", "mean", "max"] = "summary"
    decoder: DecoderForm | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            PluginError: they do not.
        """
        check(not (self.causal and self.bidirectional), "a form cannot be both causal and bidirectional")
        fits = (self.head == "decoder") == (self.decoder is not None)
        check(fits, "a form has decoder=DecoderForm(...) if its head is 'decoder', and only then")
        check(self.decoder is None or self.target == "class", "what a decoder puts out are tokens: target='class'")

    @property
    def longest(self) -> int:
        """The longest sequence of training, on either side."""
        return max(self.length, self.decoder.length if self.decoder else 0)


@dataclass(frozen=True)
class Batch:
    """A batch as numpy arrays.

    Attributes:
        x: int64 ``(B, T)`` of tokens, or float32 ``(B, T, size)``.
        target: int64 ``(B, T)`` (head ``step``), ``(B,)`` (``pooled``) or ``(B, U)`` (``decoder``); float32 with a
            last axis ``output``.
        lengths: int64 ``(B,)``, each in 1..T; None where every row is full.
        weight: float32, of the target's first axes, the weight of each target in the loss; None where all weigh 1 (and
            targets beyond ``lengths``, or beyond ``target_lengths``, weigh 0).
        y_in: int64 ``(B, U)``, what the decoder reads in training: the target, one step late. Head ``decoder`` only.
        target_lengths: int64 ``(B,)``, each in 1..U; None where every row is full. Head ``decoder`` only.
    """

    x: np.ndarray
    target: np.ndarray
    lengths: np.ndarray | None = None
    weight: np.ndarray | None = None
    y_in: np.ndarray | None = None
    target_lengths: np.ndarray | None = None


@dataclass(frozen=True)
class Prediction:
    """What a network says of a batch.

    Attributes:
        outputs: float32 ``(B, T, output)``, ``(B, output)`` or ``(B, U, output)``: logits, or values.
        loss: the weighted sum of the loss over the batch's targets.
        weight: the sum of the weights: ``loss / weight`` is the batch's mean.
    """

    outputs: np.ndarray
    loss: float
    weight: float


@dataclass(frozen=True)
class Decoded:
    """What a decoder makes of a batch of sources.

    Attributes:
        tokens: for each source the tokens before the end, int64; all of them where no end came within the limit.
        scores: float64 ``(B,)``, ``ln p(tokens, end | source) / (count of tokens and end) ** length_penalty``.
        ended: bool ``(B,)``, whether the end came within the limit.
    """

    tokens: list[np.ndarray]
    scores: np.ndarray
    ended: np.ndarray


class Predictor(Protocol):
    """A network, trained or not, as a task sees it: numpy in, numpy out."""

    can_step: bool

    def __call__(self, batch: Batch) -> Prediction:
        """Outputs and loss of one batch, from a zero state.

        Raises:
            Refused: the sequences are longer than the core can read.
        """

    def input_gradient(self, batch: Batch) -> np.ndarray:
        """How much each input step moves the batch's loss: float64 ``(B, T)``.

        The Euclidean norm of ``d loss / d x_t``, where ``loss`` is the weighted sum over the batch's targets and
        ``x_t`` what enters the core at step ``t``: the embedding of a token, or a vector behind its linear layer.
        Weights of 0 leave targets out, so that one step's loss can be followed back through time.

        Raises:
            Refused: the sequences are longer than the core can read.
        """

    def stream(self, batches: Iterable[Batch]) -> Iterator[Prediction]:
        """The same for the successive chunks of one set of sequences: the state is carried from batch to batch.

        Raises:
            Refused: the card does not declare ``"step"``, or the core would need more than its longest legal length.
        """

    def generate(self, prompt: np.ndarray, steps: int, rng: np.random.Generator, temperature: float) -> np.ndarray:
        """Continue token sequences ``prompt (B, P)`` by ``steps`` sampled tokens: ``(B, steps)``.

        Temperature 0 takes the likeliest token at each step.

        Raises:
            Refused: the card does not declare ``"step"``.
        """

    def decode(self, batch: Batch, limit: int, beam: int = 1, length_penalty: float = 1.0) -> Decoded:
        """Translate the sources ``batch.x``: the likeliest outputs found, of up to ``limit`` tokens with the end.

        Beam 1 takes the likeliest token at each step. A wider beam keeps that path besides the best others, so that its
        score is never lower than that of beam 1.
        """

    def align(self, batch: Batch) -> np.ndarray | None:
        """How the decoder attends as it reads ``batch.y_in``: float32 ``(B, U, S)``; None where it does not attend."""
