"""Options of a card: text to typed values, checked against the card's dataclass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from seqbench.errors import SpecError, UnknownName

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def build_options(options: type[Any], given: Mapping[str, Any], owner: str) -> Any:
    """An instance of a card's options dataclass.

    Args:
        options: the dataclass, its fields made with ``api.option``.
        given: names to values, as text or already of their type.
        owner: how messages name the card: ``"model 'lstm'"``.

    Raises:
        UnknownName: the card has no such option.
        SpecError: a value is not of the option's type, not among its choices or out of its range.
    """
    values = {name: option_value(options, name, value, owner) for name, value in given.items()}
    try:
        return options(**values)
    except ValueError as error:  # a card may refuse a combination
        raise SpecError(f"{owner}: {error}") from error
    except Exception as error:  # a stranger's code may raise anything
        raise SpecError(f"{owner} refuses these options with {type(error).__name__}: {error}") from error


def option_value(options: type[Any], name: str, value: Any, owner: str) -> Any:
    """A single option's value, typed.

    Args:
        options: as ``build_options`` takes it.
        name: of the option.
        value: as text or already of its type.
        owner: how messages name the card.

    Raises:
        UnknownName: the card has no such option.
        SpecError: the value is not of the option's type, not among its choices or out of its range.
    """
    fields = {f.name: f for f in dataclasses.fields(options)}
    if name not in fields:
        raise UnknownName(f"option of {owner}:", name, fields)
    return _checked(fields[name], value, owner)


def _checked(field: dataclasses.Field[Any], value: Any, owner: str) -> Any:
    where = f"Option {field.name!r} of {owner} is {value!r}; expected"
    kind = type(field.default)
    converted = _convert(kind, value)
    if converted is None:
        raise SpecError(f"{where} {_KINDS[kind]}.")
    choices, low, high = (field.metadata[key] for key in ("choices", "low", "high"))
    if choices is not None and converted not in choices:
        raise SpecError(f"{where} one of {', '.join(map(str, choices))}.")
    if (low is not None and converted < low) or (high is not None and converted > high):
        raise SpecError(f"{where} {bounds(low, high)}.")
    return converted


def _convert(kind: type, value: Any) -> Any:
    """The value in its type, or None."""
    if kind is bool:
        return value if isinstance(value, bool) else _BOOLEANS.get(str(value).lower())
    if kind is str:
        return str(value)
    try:
        number = kind(value)
        fits = math.isfinite(number) and not isinstance(value, bool) and number == float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if fits else None


def bounds(low: float | None, high: float | None) -> str:
    """``"from 1 to 8"``, ``"at least 1"``, ``"at most 8"``; empty where there is no bound."""
    if low is not None and high is not None:
        return f"from {low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}" if high is not None else ""


def to_dict(options: Any) -> dict[str, Any]:
    """Every option with its value, in the card's order."""
    return dataclasses.asdict(options)


def changed(options: Any) -> dict[str, Any]:
    """The options that differ from their defaults."""
    return {f.name: v for f in dataclasses.fields(options) if (v := getattr(options, f.name)) != f.default}
