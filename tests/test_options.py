"""Options of a card: text to typed values, and what is said of those that do not fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqbench.api import option
from seqbench.errors import SpecError, UnknownName, UsageError
from seqbench.options import bounds, build_options, changed, to_dict
from seqbench.registry import Registry


@dataclass(frozen=True)
class Options:
    gate: bool = option(True, "a switch")
    taps: int = option(3, "a whole number", low=2, high=64)
    scale: float = option(1.0, "a number", low=0.0)
    norm: str = option("pre", "a word", choices=("pre", "post"))
    note: str = option("", "any text")

    def __post_init__(self) -> None:
        if self.taps == 64 and not self.gate:
            raise ValueError("64 taps need the gate")
        if self.note == "odd":
            raise KeyError("odd")


def build(**given_: Any) -> Options:
    return build_options(Options, given_, "model 'x'")


@pytest.mark.parametrize(
    ("name", "given_", "value"),
    [
        ("gate", "true", True),
        ("gate", "No", False),
        ("gate", "0", False),
        ("gate", 1, True),
        ("gate", False, False),
        ("taps", "5", 5),
        ("taps", 5.0, 5),
        ("taps", "64", 64),
        ("taps", "2", 2),
        ("scale", "1e-3", 0.001),
        ("scale", 2, 2.0),
        ("scale", "0", 0.0),
        ("norm", "post", "post"),
        ("note", "50", "50"),
    ],
)
def test_a_value_gets_its_type(name: str, given_: Any, value: Any) -> None:
    built = getattr(build(**{name: given_}), name)
    assert built == value
    assert type(built) is type(value)


@pytest.mark.parametrize(
    ("name", "given_", "message"),
    [
        ("gate", "maybe", r"Option 'gate' of model 'x' is 'maybe'; expected true or false\."),
        ("gate", 2, "expected true or false"),
        ("taps", "3.0", r"is '3\.0'; expected a whole number\."),
        ("taps", 3.5, "expected a whole number"),
        ("taps", "many", "expected a whole number"),
        ("taps", True, "is True; expected a whole number"),
        ("taps", None, "expected a whole number"),
        ("taps", "1" * 400, "expected a whole number"),
        ("taps", float("inf"), "expected a whole number"),
        ("taps", "1", r"expected from 2 to 64\."),
        ("taps", "65", "expected from 2 to 64"),
        ("scale", "-1e-9", r"expected at least 0\."),
        ("scale", "nan", r"is 'nan'; expected a number\."),
        ("scale", "inf", "expected a number"),
        ("scale", 10**400, "expected a number"),
        ("scale", False, "expected a number"),
        ("norm", "Pre", r"is 'Pre'; expected one of pre, post\."),
    ],
)
def test_a_value_that_does_not_fit(name: str, given_: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(**{name: given_})


def test_an_unknown_option_names_the_nearest_and_all() -> None:
    with pytest.raises(UnknownName, match=r"no option of model 'x': 'tap'. Did you mean 'taps'\? Known: gate, norm,"):
        build(tap=3)


def test_a_card_may_refuse_a_combination(cards: Registry) -> None:
    with pytest.raises(SpecError, match="model 'x': 64 taps need the gate"):
        build(taps=64, gate=False)
    with pytest.raises(SpecError, match="model 'x' refuses these options with KeyError: 'odd'"):
        build(note="odd")
    with pytest.raises(UsageError, match="both set the forget gate's bias"):
        build_options(cards.model("lstm").options, {"chrono": "true", "forget_bias": "2"}, "model 'lstm'")


@given(
    st.fixed_dictionaries(
        {
            "gate": st.just(True),
            "taps": st.integers(2, 64),
            "scale": st.floats(0, allow_infinity=False, allow_nan=False),
            "norm": st.sampled_from(["pre", "post"]),
            "note": st.text(),
        }
    )
)
@settings(deadline=None)
def test_every_legal_value_survives_text(values: dict[str, Any]) -> None:
    assert to_dict(build(**{name: str(value) for name, value in values.items()})) == values
    assert to_dict(build(**values)) == values


def test_changed_is_what_differs_from_the_defaults() -> None:
    assert changed(build()) == {}
    assert changed(build(taps=3, scale="2", norm="post")) == {"scale": 2.0, "norm": "post"}


def test_defaults_of_every_installed_card_are_legal(cards: Registry) -> None:
    for card in [*cards.models.values(), *cards.tasks.values()]:
        defaults = to_dict(card.options())
        assert to_dict(build_options(card.options, defaults, card.name)) == defaults
        as_text = {name: str(value) for name, value in defaults.items()}
        assert to_dict(build_options(card.options, as_text, card.name)) == defaults


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1, 8, "from 1 to 8"), (0, None, "at least 0"), (None, 0.5, "at most 0.5"), (None, None, "")],
)
def test_bounds(low: float | None, high: float | None, text: str) -> None:
    assert bounds(low, high) == text
