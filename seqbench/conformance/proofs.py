"""Which proofs apply to a model, running them, and the smallest case in which one fails."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seqbench.api import Model
from seqbench.conformance.comparing import ConformanceError, error_of
from seqbench.conformance.core_proofs import (
    check_both_directions,
    check_causality,
    check_inputs_untouched,
    check_long,
    check_padding,
    check_shapes,
    check_short,
    check_zero_beyond_lengths,
)
from seqbench.conformance.decoder_proofs import decoder_checks
from seqbench.conformance.number_proofs import (
    check_backends,
    check_device,
    check_flops,
    check_precision,
    check_single_precision,
)
from seqbench.conformance.state_proofs import check_state
from seqbench.conformance.subjects import REFERENCE, Sizes, Subject, cases, subjects
from seqbench.conformance.training_proofs import (
    check_determinism,
    check_gradients,
    check_learns,
    check_no_global_state,
    check_parameters,
    check_state_dict,
)
from seqbench.errors import one_line

Check = Callable[[Subject], None]


@dataclass(frozen=True)
class Proof:
    """One proof about one model in one setting. Call it: it returns if the proof holds.

    Attributes:
        subject: the model and the setting.
        check: the proof, one of ``checks(subject)``.
    """

    subject: Subject
    check: Check

    def __str__(self) -> str:
        s = self.subject
        changed = [f"{k}={v}" for k, v in vars(s.options).items() if v != getattr(type(s.options)(), k)]
        return "-".join([self.name, s.card.name, s.backend, "causal" if s.causal else "bidirectional", *changed])

    @property
    def name(self) -> str:
        """``"state"`` of ``check_state``."""
        return self.check.__name__.removeprefix("check_")

    @property
    def summary(self) -> str:
        """What is proved, in one line."""
        return (inspect.getdoc(self.check) or "").splitlines()[0]

    def __call__(self) -> None:
        """Run the proof.

        Raises:
            ConformanceError: it fails; the message has the smallest case found in which it does.
        """
        error = self._failure(self.subject.sizes)
        if error is not None:
            smallest, error = self._smallest(error)
            raise ConformanceError(f"{error} Smallest case found: {smallest}.", error.what) from error

    def _failure(self, sizes: Sizes) -> ConformanceError | None:
        """What goes wrong with cores of these sizes; a core that raises has failed."""
        subject = replace(self.subject, sizes=sizes)
        try:
            self.check(subject)
        except ConformanceError as error:
            return error
        except Exception as error:  # noqa: BLE001 - a stranger's core may raise anything
            cause = "the core does not keep to the interface"
            found = error_of(subject, self.check.__name__, "no exception", one_line(error), cause)
            found.__cause__ = error
            return found
        return None

    def _smallest(self, error: ConformanceError) -> tuple[Sizes, ConformanceError]:
        """Make one size after another as small as it can be with the proof still failing in the same thing."""
        sizes = self.subject.sizes
        for name, smaller in _SMALLER.items():
            for value in smaller:
                candidate = replace(sizes, **{name: value})
                other = self._failure(candidate) if value < getattr(sizes, name) else None
                if other is not None and _kind(other) == _kind(error):
                    sizes, error = candidate, other
                    break
        return sizes, error


_SMALLER: dict[str, Sequence[int]] = {
    "L": (1,),
    "B": (1, 2),
    "long": (4, 8, 16, 32, 64, 128),
    "T": (2, 3, 4, 5),
    "H": (1, 2, 3),
    "D": (1, 2),
}
"""What is tried, in this order; below two steps too much holds by itself."""


def _kind(error: ConformanceError) -> str:
    """What failed, whatever the numbers in it."""
    return re.sub(r"\d+", "0", error.what)


def proofs(card: Model, backends: Sequence[str] = ()) -> list[Proof]:
    """Every proof that applies to what a card declares: one test each in a plugin's own test suite.

    Args:
        card: of the model.
        backends: keys of ``card.cores``; none: all.
    """
    settings = [
        subject
        for backend in backends or card.cores
        for options in cases(card)
        for subject in subjects(card, options, backend)
    ]
    return [Proof(subject, check) for subject in settings for check in checks(subject)]


def check_all(card: Model, options: Any = None, backend: str = "torch") -> None:
    """Run every proof that applies to a card in one setting, on one backend.

    Raises:
        ConformanceError: the first proof that fails.
    """
    for subject in subjects(card, options, backend):
        for check in checks(subject):
            Proof(subject, check)()


def checks(subject: Subject) -> list[Check]:
    """The proofs that apply to a subject."""
    return list(_checks(subject))


def _checks(subject: Subject) -> Iterator[Check]:
    yield check_no_global_state  # before another proof lets the core change something
    yield from (check_shapes, check_short, check_zero_beyond_lengths, check_padding)
    yield check_causality if subject.causal else check_both_directions
    yield from (check_long, check_inputs_untouched)
    if subject.has_state:
        yield check_state
    yield from (check_gradients, check_parameters, check_state_dict, check_determinism, check_learns)
    yield check_precision
    if not subject.backend.endswith(REFERENCE):
        yield check_single_precision
    if subject.backend == "torch":
        yield check_device
    elif "torch" in subject.card.cores:
        yield check_backends
    yield check_flops
    yield from decoder_checks(subject)
