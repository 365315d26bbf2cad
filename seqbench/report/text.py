"""Numbers and strangers' texts as a reader shall see them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from seqbench.stats import Share

DASH = "–"
_ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: object) -> str:
    """Text without characters that XML forbids, that steer a terminal or that turn the direction of writing."""
    lines = _ESCAPE_SEQUENCE.sub("", str(text)).replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", lines)


def short(text: str, length: int) -> str:
    """Text of at most ``length`` characters; what is left out of its middle becomes an ellipsis."""
    if len(text) <= length:
        return text
    tail = (length - 1) // 3
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :] if tail else ''}"


def missing(value: float | None) -> bool:
    """None, nan or infinite."""
    return value is None or not math.isfinite(value)


def number(value: float | None, digits: int = 4) -> str:
    """``digits`` significant digits, a dash where there is no number: ``99.21``, ``0.002346``, ``1.235e-05``."""
    if value is None or not math.isfinite(value):
        return DASH
    size = _exponent(value, digits)
    if value != 0 and not -4 < size < 6:
        return f"{value:.{digits - 1}e}"
    return f"{value:.{max(0, digits - 1 - size)}f}"


def with_interval(mean: float | None, half: float | None) -> str:
    """``99.21 ± 0.35``: the interval to two digits, the mean to the same place."""
    if mean is None or half is None or missing(mean) or missing(half):
        return number(mean)
    if half <= 1e-9 * abs(mean):  # all seeds gave the same, up to rounding
        return f"{number(mean)} ± 0"
    size = _exponent(max(abs(mean), half), 4)
    if not -4 < size < 6:
        places = min(4, max(0, size - _exponent(half, 2) + 1))
        return f"({mean / 10.0**size:.{places}f} ± {half / 10.0**size:.{places}f})e{size:+03d}"
    places = min(6, max(0, 1 - _exponent(half, 2)))
    return f"{mean:.{places}f} ± {half:.{places}f}"


def share(value: Share | None) -> str:
    """``3/5 [15, 95]``: seeds that did, and the interval in per cent; a dash where nothing can be done or not."""
    return DASH if value is None else f"{value.hits}/{value.n} [{100 * value.low:.0f}, {100 * value.high:.0f}]"


def span(places: tuple[int, int] | None) -> str:
    """``3``, or ``2–4``; a dash where there are none."""
    if places is None:
        return DASH
    first, last = places
    return str(first) if first == last else f"{first}–{last}"


def unit_of_differences(unit: str) -> str:
    """What stands behind a difference of two metrics, with a space before it: points for per cent."""
    return {"%": " points", "": ""}.get(unit, f" {plain(unit)}")


def kilo(value: float | None) -> str:
    """Three digits and a letter, ``49.9k``; below a thousand whole numbers, below ten two digits."""
    if value is None or not math.isfinite(value):
        return DASH
    for scale, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            scaled = value / scale
            return f"{scaled:.{max(0, 2 - _exponent(scaled, 3))}f}{letter}"
    return f"{value:.{max(0, 1 - _exponent(value, 2))}f}" if value else "0"


def tick(value: float, _place: object = None) -> str:
    """For an axis: ``0.001``, ``50k``, ``1.5M``."""
    for scale, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.6g}{letter}"
    return f"{value:.6g}"


def percent(value: float | None) -> str:
    """A relative difference with its sign: ``+0.1``, in per cent."""
    if value is None or missing(value):
        return DASH
    rounded = round(100 * value, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def distinct(values: Iterable[str]) -> list[str]:
    """Each value once, in order."""
    return list(dict.fromkeys(values))


def _exponent(value: float, digits: int) -> int:
    """The power of ten of the first digit, as it is after rounding to so many digits; 0 for 0."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2]) if value else 0
