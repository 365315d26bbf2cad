"""Numbers with units as users write them: ``50k±1%`` parameters, budgets of ``2000steps``, ``60s``, ``2Mtokens``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from seqbench.errors import SpecError

TOLERANCE = 0.02
"""A parameter count further from its target than this share gets a warning, unless another is asked for."""

_COUNT = re.compile(r"([0-9][0-9_]{0,17})(?:\.([0-9]+))?\s*([kKmM]?)")
_ZEROS = {"": 0, "k": 3, "m": 6}
_PARAMETERS = re.compile(r"(.+?)\s*(?:±|\+/?-)\s*([0-9]+(?:\.[0-9]+)?)\s*%")
_BUDGET = re.compile(r"([0-9][0-9_]{0,17}(?:\.[0-9]+)?)\s*(steps?|s|sec|seconds|min|m|h)")
_WORK = re.compile(
    r"([0-9][0-9_]{0,17}(?:\.[0-9]+)?(?:e\+?[0-9]{1,2})?)\s*([kmgtp]?)\s*(tokens?|flops?)", re.IGNORECASE
)
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_PREFIXES = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12, "p": 15}

MOST_STEPS = 10**9
"""More are a slip: a training step takes a millisecond at least."""


def parse_count(text: str | int, what: str) -> int:
    """``"50k"``, ``"1.3M"``, ``"130_000"`` to a whole number above 0.

    Raises:
        SpecError: it is no such number.
    """
    match = _COUNT.fullmatch(str(text).strip())
    value = 0
    if match is not None:  # in whole numbers: 1.001 * 1e3 is not 1001
        whole, fraction, zeros = match[1].replace("_", ""), (match[2] or "").rstrip("0"), _ZEROS[match[3].lower()]
        value = int(whole + fraction.ljust(zeros, "0")) if len(fraction) <= zeros else 0
    if value < 1:
        raise SpecError(f"{what} is {text!r}; expected a whole number above 0, such as 50k, 130_000 or 1.5M.")
    return value


@dataclass(frozen=True)
class Target:
    """How many trainable parameters a network shall have.

    Attributes:
        count: of the whole network.
        tolerance: the share of it by which a network may miss it.
    """

    count: int
    tolerance: float = TOLERANCE


def parse_target(text: str | int) -> Target:
    """``"50k"``, or ``"50k±1%"``, also written ``50k+-1%``.

    Raises:
        SpecError: it is neither, or the tolerance is not above 0 and below 100 %.
    """
    match = _PARAMETERS.fullmatch(str(text).strip())
    if match is None and re.search(r"±|\+/?-", str(text)):
        raise SpecError(
            f"--params is {text!r}; expected a count and a tolerance in per cent, such as 50k±1% or 50k±0.5%."
        )
    if match is None:
        return Target(parse_count(text, "--params"))
    tolerance = float(match[2]) / 100
    if not 0 < tolerance < 1:
        raise SpecError(f"--params is {text!r}; expected a tolerance above 0 and below 100 %, as in 50k±1%.")
    return Target(parse_count(match[1], "--params"), tolerance)


def parse_percent(text: str, what: str) -> float:
    """``"2%"`` or ``"2"`` to 0.02.

    Raises:
        SpecError: it is no number of per cent from 0 on.
    """
    match = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*%?\s*", text)
    if match is None:
        raise SpecError(f"{what} is {text!r}; expected per cent, such as 2%.")
    return float(match[1]) / 100


@dataclass(frozen=True)
class Budget:
    """How long a trial trains.

    A budget of tokens or FLOPs is turned into steps when the run is planned, one of seconds by a timed warm-up.
    """

    kind: Literal["steps", "seconds", "tokens", "flops"]
    amount: float

    def __post_init__(self) -> None:
        """1000 and 1000.0 are one budget: equal trials have equal ids."""
        object.__setattr__(self, "amount", float(self.amount))

    def __str__(self) -> str:
        if self.kind == "seconds":
            return f"{self.amount:g} seconds"
        return f"{self.amount:.4g} FLOPs" if self.kind == "flops" else f"{self.amount:,.0f} {self.kind}"


def parse_budget(text: str) -> Budget:
    """``"2000steps"``, ``"60s"``, ``"5min"``, ``"2Mtokens"``, ``"1e12flops"``, ``"500Gflops"``.

    Raises:
        SpecError: it is none of these.
    """
    budget = _budget(str(text).strip())
    if budget is None or budget.amount <= 0 or (budget.kind in {"steps", "tokens"} and budget.amount % 1):
        raise SpecError(
            f"--budget is {text!r}; expected steps, seconds, tokens or FLOPs above 0, such as 2000steps, 60s, 5min, "
            f"2Mtokens or 1e12flops (k, M, G, T, P and exponents go with tokens and FLOPs alone)."
        )
    if budget.kind == "steps" and budget.amount > MOST_STEPS:
        raise SpecError(f"--budget is {text!r}; at most {MOST_STEPS:,} steps are allowed.")
    return budget


def _budget(text: str) -> Budget | None:
    if match := _WORK.fullmatch(text):
        kind: Literal["tokens", "flops"] = "tokens" if match[3].lower().startswith("token") else "flops"
        # in decimals: 1.001 * 1e6 is not 1001000
        return Budget(kind, float(Decimal(match[1].replace("_", "")).scaleb(_PREFIXES[match[2].lower()])))
    if match := _BUDGET.fullmatch(text):
        amount = float(match[1].replace("_", ""))
        return (
            Budget("steps", amount) if match[2].startswith("step") else Budget("seconds", amount * _SECONDS[match[2]])
        )
    return None
