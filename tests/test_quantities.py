"""Numbers with units, as users write them."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.errors import SpecError
from seqbench.quantities import Budget, Target, parse_budget, parse_count, parse_target


@pytest.mark.parametrize(
    ("text", "count"),
    [("50k", 50_000), ("50K", 50_000), ("1.5M", 1_500_000), ("130_000", 130_000), (" 7 ", 7), (9, 9), ("1.50 k", 1500)],
)
def test_count(text: str | int, count: int) -> None:
    assert parse_count(text, "--params") == count


@given(st.integers(1, 10**12), st.sampled_from([("k", 1000), ("m", 10**6)]))
@settings(deadline=None)
def test_count_is_exact_however_it_is_written(count: int, unit: tuple[str, int]) -> None:
    """1.001 * 1e3 is 1000.9999999999999."""
    letter, size = unit
    fraction = Fraction(count, size)
    whole, rest = divmod(fraction, 1)
    text = f"{whole}.{int(rest * size):0{len(str(size)) - 1}d}{letter}"
    assert parse_count(text, "--params") == count
    assert parse_count(f"{count:_}", "--params") == count


@pytest.mark.parametrize(
    "text", ["", "0", "0k", "-5", "1.5", "1.0001k", "50kk", "5e4", "fifty", "1e400", "9" * 400, "٣", "0x10", None]
)
def test_count_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"--params is .*; expected a whole number above 0, such as 50k"):
        parse_count(text, "--params")


@pytest.mark.parametrize(
    ("text", "kind", "amount"),
    [
        ("2000steps", "steps", 2000),
        ("1 step", "steps", 1),
        ("2_000steps", "steps", 2000),
        ("60s", "seconds", 60),
        ("1.5 sec", "seconds", 1.5),
        ("5min", "seconds", 300),
        ("5m", "seconds", 300),
        ("0.5h", "seconds", 1800),
        ("2Mtokens", "tokens", 2e6),
        ("2M tokens", "tokens", 2e6),
        ("1.5k token", "tokens", 1500),
        ("3_000tokens", "tokens", 3000),
        ("1e12flops", "flops", 1e12),
        ("500Gflops", "flops", 5e11),
        ("1.5 TFLOPs", "flops", 1.5e12),
        ("2e+3kflops", "flops", 2e6),
    ],
)
def test_budget(text: str, kind: str, amount: float) -> None:
    assert dataclasses.astuple(parse_budget(text)) == (kind, amount)


NO_BUDGET = ["", "60", "s", "0s", "0steps", "-5s", "1.5steps", "5 days", "nan s", "9" * 400 + "s", "9" * 400 + "steps"]
NO_WORK = ["1.5tokens", "0flops", "2Msteps", "1e3s", "2Xtokens", "1e-3flops", "1e999flops", "flops"]


@pytest.mark.parametrize("text", [*NO_BUDGET, *NO_WORK])
def test_budget_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"--budget is .*; expected steps, seconds, tokens or FLOPs above 0"):
        parse_budget(text)


@given(st.sampled_from(["steps", "seconds", "tokens", "flops"]), st.integers(1, 9999), st.integers(0, 8))
@settings(deadline=None)
def test_a_budget_reads_back_as_it_is_shown(kind: str, digits: int, zeros: int) -> None:
    budget = Budget(kind, digits * 10 ** min(zeros, 5 if kind == "steps" else 8))  # type: ignore[arg-type]
    if kind != "seconds":  # only they have no unit of their own when shown as 1e+08
        assert parse_budget(str(budget).replace(",", "_")) == budget
    elif zeros < 3:
        assert parse_budget(str(budget)) == budget


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("50k±1%", Target(50_000, 0.01)),
        ("50k ± 0.5 %", Target(50_000, 0.005)),
        ("1.5M+-2%", Target(1_500_000, 0.02)),
        ("7+/-50%", Target(7, 0.5)),
        ("50k", Target(50_000, 0.02)),
        (9, Target(9, 0.02)),
    ],
)
def test_target(text: str | int, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize("text", ["50k-1%", "50q±1%", "0±1%"])
def test_count_of_a_target_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match=r"--params is .*; expected a whole number above 0"):
        parse_target(text)


@pytest.mark.parametrize("text", ["±1%", "50k±", "50k±1", "50k±-1%", "50k±1%%", "50k±.5%"])
def test_tolerance_that_is_none(text: str) -> None:
    with pytest.raises(SpecError, match="expected a count and a tolerance in per cent, such as 50k±1%"):
        parse_target(text)


@given(st.integers(1, 10**9), st.sampled_from(["k", "M", "G"]))
@settings(deadline=None)
def test_tokens_are_exact_however_they_are_written(thousandths: int, prefix: str) -> None:
    """1.001 * 1e6 is 1000999.9999999999."""
    zeros = {"k": 3, "M": 6, "G": 9}[prefix]
    text = f"{thousandths // 1000}.{thousandths % 1000:03d}{prefix}tokens"
    assert parse_budget(text).amount == thousandths * 10 ** (zeros - 3)


def test_more_steps_than_anyone_waits_for_are_a_slip() -> None:
    with pytest.raises(SpecError, match="at most 1,000,000,000 steps are allowed"):
        parse_budget("1000000001steps")


@pytest.mark.parametrize("text", ["50k±0%", "50k±100%", "50k±0.0%"])
def test_tolerance_out_of_range(text: str) -> None:
    with pytest.raises(SpecError, match="expected a tolerance above 0 and below 100 %, as in 50k±1%"):
        parse_target(text)
