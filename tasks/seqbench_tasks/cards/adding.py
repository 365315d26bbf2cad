"""The card of ``adding``."""

from __future__ import annotations

from dataclasses import dataclass

from seqbench.api import Dataset, Defaults, Metric, SectionCard, TaskCard, option


@dataclass(frozen=True)
class AddingOptions:
    """Options of ``adding``."""

    T: int = option(100, "the length of a sequence", low=2, high=10_000)


ADDING = TaskCard(
    name="adding",
    summary="The adding problem: sum the two marked numbers among T.",
    factory="seqbench_tasks.adding:Adding",
    metrics=(Metric("mse", "mean squared error of the sum (1/6 for always answering 1)", solved=0.01),),
    datasets=(
        Dataset("embedded", "made from a seed: endless training data, 1000 fixed sequences each for valid and test"),
    ),
    select="mse",
    options=AddingOptions,
    defaults=Defaults(parameters=50_000, steps=1000, batch=32, lr=3e-3),
    citation="Hochreiter, Schmidhuber 1997, Long Short-Term Memory, experiment 4; in the form of Le, Jaitly, Hinton "
    "2015, A Simple Way to Initialize Recurrent Networks of Rectified Linear Units, arXiv:1504.00941, section 4.1",
)

ADDING_SECTION = SectionCard("adding-memory", "adding", "seqbench_tasks.memory_report:adding_memory")
