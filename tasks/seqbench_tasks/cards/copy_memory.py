"""The card of ``copy``."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import Dataset, Defaults, Metric, SectionCard, TaskCard, option


@dataclass(frozen=True)
class CopyOptions:
    """Options of ``copy``."""

    T: int = option(50, "the delay: sequences are T + 20 symbols long", low=1, high=10_000)


COPY = TaskCard(
    name="copy",
    summary="Copy memory: repeat ten symbols after a delay of T steps.",
    factory="seqbench_tasks.copy_memory:CopyMemory",
    metrics=(
        Metric(
            "recall", "share of the ten remembered symbols that are right (12.5 by chance)", "%", False, solved=99.0
        ),
        Metric("loss", "cross-entropy averaged over all T + 20 positions", "nats"),
    ),
    datasets=(
        Dataset("embedded", "made from a seed: endless training data, 1000 fixed sequences each for valid and test"),
    ),
    select="loss",
    options=CopyOptions,
    defaults=Defaults(parameters=50_000, steps=1000, batch=32, lr=3e-3),
    citation="Arjovsky, Shah, Bengio 2016, Unitary Evolution Recurrent Neural Networks, arXiv:1511.06464, section 5.1; "
    "after Hochreiter, Schmidhuber 1997, Long Short-Term Memory",
)

COPY_SECTION = SectionCard("copy-memory", "copy", "seqbench_tasks.memory_report:copy_memory")
