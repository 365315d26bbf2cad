"""Multi-query associative recall (Arora et al. 2023) as a task of seqbench: its cards. Importing this is light."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import Dataset, Defaults, Metric, Register, SectionCard, TaskCard, UsageError, hookimpl, option


@dataclass(frozen=True)
class Options:
    """Options of ``mqar``."""

    pairs: int = option(4, "pairs of key and value at the beginning; each key is asked for once", low=1, high=1000)
    length: int = option(32, "steps of a sequence; even, at least 4 for each pair", low=4, high=10_000)
    vocabulary: int = option(32, "tokens; even, the lower half keys, the upper half values", low=2, high=100_000)
    power: float = option(0.01, "a: a query comes after k places with p ~ k**(a - 1); 1: anywhere", low=0.001, high=10)

    def __post_init__(self) -> None:
        """Refuse sizes that do not fit together.

        Raises:
            UsageError: the length or the vocabulary is odd, or too small for the pairs.
        """
        if self.length % 2 or self.length < 4 * self.pairs:
            raise UsageError(
                f"mqar: length={self.length} does not hold {self.pairs} pairs and their queries; "
                f"give an even length of at least {4 * self.pairs}"
            )
        if self.vocabulary % 2 or self.vocabulary < 2 * self.pairs:
            raise UsageError(
                f"mqar: vocabulary={self.vocabulary} has not {self.pairs} keys and as many values; "
                f"give an even number of at least {2 * self.pairs}"
            )


MQAR = TaskCard(
    name="mqar",
    summary="Multi-query associative recall: after pairs of key and value, name the value of each key.",
    factory="seqbench_mqar.task:Recall",
    metrics=(
        Metric("recall", "share of the queries whose likeliest token is the key's value", "%", False, solved=99.0),
        Metric("loss", "cross-entropy, mean over the queries", "nats"),
    ),
    datasets=(
        Dataset("embedded", "made from a seed: endless training data, 1000 fixed sequences each for valid and test"),
    ),
    select="loss",
    options=Options,
    defaults=Defaults(parameters=50_000, steps=1000, batch=64, lr=3e-3),
    citation="Arora, S., Eyuboglu, S., Timalsina, A., Johnson, I., Poli, M., Zou, J., Rudra, A., Ré, C. (2023). "
    "Zoology: Measuring and improving recall in efficient language models. arXiv:2312.04927",
)

BY_DISTANCE = SectionCard("recall-by-distance", "mqar", "seqbench_mqar.report:recall_by_distance")


@hookimpl
def register_tasks(register: Register) -> None:
    """Add the task."""
    register.task(MQAR)


@hookimpl
def register_sections(register: Register) -> None:
    """Add its section of the report."""
    register.section(BY_DISTANCE)
