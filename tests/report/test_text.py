"""Numbers and strangers' texts as a reader sees them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqbench.report.text import kilo, number, percent, plain, short, tick, with_interval


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (99.213, 0.347, "99.21 ± 0.35"),
        (48.1, 12.3, "48 ± 12"),
        (0.0042, 0.0020, "0.0042 ± 0.0020"),
        (1.234e-5, 3.1e-6, "(1.23 ± 0.31)e-05"),
        (0.02, 3.2, "0.0 ± 3.2"),
        (5.0, 0.0, "5.000 ± 0"),
        (5.0, 1e-16, "5.000 ± 0"),
        (99.2, math.nan, "99.20"),
        (math.nan, math.nan, "–"),
        (-1.5, 0.25, "-1.50 ± 0.25"),
        (0.9996, 0.0999, "1.00 ± 0.10"),
    ],
)
def test_with_interval(mean: float, half: float, text: str) -> None:
    assert with_interval(mean, half) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.000"), (12.5, "12.50"), (1e-7, "1.000e-07"), (123456.0, "123456"), (None, "–"), (math.inf, "–")],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (50_012, "50.0k"),
        (1_300_000, "1.30M"),
        (999.7, "1.00k"),
        (18.4, "18"),
        (0.31, "0.31"),
        (1.02, "1.0"),
        (640, "640"),
        (0, "0"),
        (math.nan, "–"),
    ],
)
def test_kilo(value: float, text: str) -> None:
    assert kilo(value) == text


def test_small_ones() -> None:
    assert [tick(v) for v in (50_000, 1_500_000, 0.001, 1e-5, 47_500)] == ["50k", "1.5M", "0.001", "1e-05", "47.5k"]
    assert [percent(v) for v in (0.048, -0.021, 0.00024, math.nan)] == ["+4.8", "-2.1", "0.0", "–"]


def test_short_keeps_both_ends() -> None:
    assert short("janet[forget_bias=2.0,chrono=True]", 18) == "janet[forget…True]"
    assert short("lstm", 18) == "lstm"


@given(st.text(), st.integers(1, 40))
def test_short_is_short(text: str, length: int) -> None:
    assert len(short(text, length)) <= max(length, 1)


def test_plain_takes_out_what_steers_a_terminal_or_breaks_xml() -> None:
    assert plain("\x1b[31mred\x1b[0m") == "red"
    assert plain("a\x00b\x07\u202ec\r\nd\re\ud800") == "a\ufffdb\ufffd\ufffdc\nd\ne\ufffd"


@given(st.text())
def test_plain_is_fit_for_xml(text: str) -> None:
    from xml.etree import ElementTree as ET

    ET.fromstring(f"<a>{plain(text).replace('&', '&amp;').replace('<', '&lt;')}</a>")
