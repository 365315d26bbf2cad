"""Seeds in rounds: when the verdicts are looked at, and how sure each look must be. Fixed before the first trial."""

from __future__ import annotations

from collections.abc import Sequence

from seqbench.stats import LEVEL
from seqbench.verdicts import Verdict


def looks(first: int, most: int) -> tuple[int, ...]:
    """The numbers of seeds at which verdicts are looked at: twice as many each time, ``most`` at last.

    Args:
        first: seeds of the first round.
        most: seeds after which there is no further round; 0: there is one round.
    """
    found = [first]
    while found[-1] < most:
        found.append(min(2 * found[-1], most))
    return tuple(found)


def level_of(first: int, most: int) -> float:
    """The level of each look: whoever looks several times has as many chances to be wrong (Bonferroni)."""
    return LEVEL / len(looks(first, most))


def next_look(seeds: int, first: int, most: int, verdicts: Sequence[Verdict]) -> int:
    """How many seeds the next round ends at; 0 where all pairs are told apart, or there is no next round."""
    if all(verdict.differ for verdict in verdicts):
        return 0
    return next((look for look in looks(first, most) if look > seeds), 0)
