"""What ``--tune`` asks for: axes of values, and the settings that a model tries."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seqbench.api import Model
from seqbench.errors import SpecError, UnknownName
from seqbench.options import option_value

Setting = Mapping[str, Any]
"""Name to value of each hyper-parameter that is tuned; options of the model among them."""

MOST_SETTINGS = 1000
"""More are a slip: every model trains each of them."""

DOUBLINGS = 8
"""How often more Sobol points are drawn where some come to the same setting."""

HALF_DECADE = math.sqrt(10)
_NUMBER = r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::([0-9]{{1,4}}))?")
_POINTS = 5
"""Values of a range that is not spaced by factors, where nobody says how many."""


@dataclass(frozen=True)
class Tunable:
    """A hyper-parameter that all models have.

    Attributes:
        low: its smallest value.
        high: its largest value.
        log: whether it is spaced by factors.
    """

    low: float
    high: float
    log: bool


TUNABLE = {
    "lr": Tunable(1e-8, 100.0, log=True),
    "weight_decay": Tunable(1e-8, 100.0, log=True),
    "dropout": Tunable(0.0, 0.99, log=False),
}


@dataclass(frozen=True)
class Axis:
    """The values of one hyper-parameter; between the first and the last one Sobol points may lie anywhere.

    Attributes:
        name: one of ``TUNABLE``, or an option.
        values: ascending; words as they were given.
        between: they are a range, not a list of choices.
    """

    name: str
    values: tuple[Any, ...]
    between: bool

    def at(self, share: float) -> Any:
        """The value at a share, from 0 to below 1, of the way."""
        if not self.between:
            return self.values[int(share * len(self.values))]
        low, high = self.values[0], self.values[-1]
        if isinstance(low, int):
            return low + int(share * (high - low + 1))
        if self.name in TUNABLE and TUNABLE[self.name].log:
            return _rounded(low * (high / low) ** share)
        return _rounded(low + (high - low) * share)


def shown(value: Any) -> str:
    """A value as people read it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_number(value: Any) -> bool:
    """Whether larger and smaller mean something."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def options_of(card: Model) -> list[str]:
    """The names of a card's own options."""
    return [f.name for f in dataclasses.fields(card.options)]


# --- one axis ---------------------------------------------------------------------------------------


def parse_axis(text: str, lr: float, card: Model | None = None) -> Axis | None:
    """``"lr"``, ``"lr=1e-4..1e-2"`` (half decades), ``"lr=1e-4..1e-2:5"``, ``"dropout=0,0.1,0.3"``, ``"kernel=3,5"``.

    Args:
        text: what stands behind ``--tune``.
        lr: the task's learning rate, around which ``"lr"`` alone lies: two half decades to either side.
        card: of the model whose options may be meant.

    Returns:
        None where it is about another model: ``"tcn.kernel=3,5"``.

    Raises:
        SpecError: it is none of these.
    """
    name, equals, given = (part.strip() for part in text.partition("="))
    kind = TUNABLE.get(name)
    if kind is None:
        return _option_axis(text, name, given, card)
    if name == "lr" and not equals:
        return Axis(name, tuple(_rounded(lr * HALF_DECADE**k) for k in range(-2, 3)), between=True)
    match = _RANGE.fullmatch(given)
    values = _spaced(match, kind.log) if match else _listed(given)
    if not values or not all(kind.low <= v <= kind.high for v in values) or len(set(values)) != len(values):
        raise SpecError(
            f"--tune {text!r}: expected {_forms(name)}, with values from {kind.low:g} to {kind.high:g}, each once."
        )
    return Axis(name, tuple(sorted(values)), between=match is not None)


def _forms(name: str) -> str:
    return f"{name}=LOW..HIGH, {name}=LOW..HIGH:HOW_MANY or {name}=VALUE,VALUE"


def _option_axis(text: str, name: str, given: str, card: Model | None) -> Axis | None:
    """Of an option of a card, each value typed and checked as ``name[option=value]`` would be."""
    model, dot, option = name.rpartition(".")
    if card is None:
        raise SpecError(f"--tune {text!r}: {name!r} cannot be tuned; expected one of {', '.join(TUNABLE)}.")
    if dot and model != card.name:
        return None
    default = next((f.default for f in dataclasses.fields(card.options) if f.name == option), None)
    number = is_number(default)
    match = _RANGE.fullmatch(given) if number else None
    if match is None:
        words: Iterable[Any] = filter(None, (part.strip() for part in given.split(",")))
    else:
        words = _whole(_spaced(match, log=False)) if isinstance(default, int) else _spaced(match, log=False)
    values = [option_value(card.options, option, word, f"model {card.name!r}") for word in words]
    if not values or len(set(values)) != len(values):
        forms = _forms(name) if number else f"{name}=VALUE,VALUE"
        raise SpecError(f"--tune {text!r}: expected {forms}, each value once.")
    return Axis(option, tuple(sorted(values) if number else values), between=match is not None)


def _listed(given: str) -> list[float]:
    parts = [part.strip() for part in given.split(",")]
    return [float(part) for part in parts] if all(re.fullmatch(_NUMBER, part) for part in parts) else []


def _whole(values: Iterable[float]) -> list[int]:
    """The nearest whole numbers, each once."""
    return list(dict.fromkeys(map(round, values)))


def _spaced(match: re.Match[str], log: bool) -> list[float]:
    """The values of a range, both ends included; nothing where it is none."""
    low, high = float(match[1]), float(match[2])
    if not low < high or (log and low <= 0) or match[3] in {"0", "1"}:
        return []
    half_decades = round(2 * math.log10(high / low)) + 1 if log else _POINTS
    count = int(match[3] or max(2, half_decades))
    shares = [k / (count - 1) for k in range(count)]
    between = [low * (high / low) ** s if log else low + (high - low) * s for s in shares[1:-1]]
    return [low, *map(_rounded, between), high]


def _rounded(value: float) -> float:
    """Three digits: settings are read by people."""
    return float(f"{value:.3g}")


# --- all axes of a model ----------------------------------------------------------------------------


def settings(tune: Sequence[str], samples: int, lr: float, card: Model | None = None) -> list[Setting]:
    """All settings that a model tries: the whole grid of its axes, or Sobol points in it.

    Args:
        tune: an axis each.
        samples: how many Sobol points; 0: the grid.
        lr: the task's learning rate.
        card: of the model.

    Raises:
        SpecError: an axis cannot be read or stands twice, or there are too many settings, or too few for the samples.
    """
    axes = [axis for text in tune if (axis := parse_axis(text, lr, card)) is not None]
    names = [axis.name for axis in axes]
    if len(set(names)) != len(names):
        raise SpecError(f"--tune names {next(n for n in names if names.count(n) > 1)!r} twice.")
    count = samples or math.prod(len(axis.values) for axis in axes)
    if count > MOST_SETTINGS:
        raise SpecError(f"--tune asks for {count:,} settings of every model; at most {MOST_SETTINGS} are allowed.")
    if samples and axes:
        return _sobol(axes, samples)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def _sobol(axes: Sequence[Axis], samples: int) -> list[Setting]:
    """Scrambled Sobol points (Owen 1998), always the same ones: they fill a space more evenly than a grid's shadow.

    Points that come to the same setting count once; then the sequence goes on.
    """
    from scipy.stats import qmc

    most = math.prod(len(axis.values) for axis in axes)
    if samples > most and not any(axis.between for axis in axes):
        raise SpecError(f"--tune-samples is {samples}; there are {most} settings of {', '.join(a.name for a in axes)}.")
    engine = qmc.Sobol(len(axes), scramble=True, rng=0)
    found: dict[tuple[Any, ...], Setting] = {}
    first = math.ceil(math.log2(samples))
    for power in (first, *range(first, first + DOUBLINGS)):  # each draw after the first doubles what was drawn
        for point in engine.random_base2(power):
            values = tuple(axis.at(float(share)) for axis, share in zip(axes, point, strict=True))
            found[values] = {axis.name: value for axis, value in zip(axes, values, strict=True)}
        if len(found) >= samples:
            return list(found.values())[:samples]
    raise SpecError(f"--tune-samples is {samples}; only {len(found)} different settings were found: ask for fewer.")


# --- all models -------------------------------------------------------------------------------------


def check_names(tune: Sequence[str], cards: Mapping[str, Model]) -> None:
    """Make sure that what shall be tuned is there, and that it is fair: a bare name is one that every model has.

    Args:
        tune: as ``settings`` takes it.
        cards: of all models of the run, by name.

    Raises:
        UnknownName: no model has such an option, or the run has no such model.
        SpecError: some models have the option and some do not.
    """
    for text in tune:
        name = text.partition("=")[0].strip()
        if name not in TUNABLE:
            _check_option(text, name, cards)


def _check_option(text: str, name: str, cards: Mapping[str, Model]) -> None:
    model, dot, option = name.rpartition(".")
    if dot and model not in cards:
        raise UnknownName("model in this run:", model, cards, f"(--tune {text!r})")
    among = {model: cards[model]} if dot else cards
    lacking = [other for other, card in among.items() if option not in options_of(card)]
    if len(lacking) == len(among):
        known = {own for card in among.values() for own in options_of(card)}
        raise UnknownName("hyper-parameter", option, known if dot else {*TUNABLE, *known}, f"(--tune {text!r})")
    if lacking:
        has = next(other for other in among if other not in lacking)
        raise SpecError(
            f"--tune {text!r}: {', '.join(lacking)} cannot try it, and every model must try as many settings. Write "
            f"{has}.{name} and name as many values of an option for each of the others, or use --tune-samples."
        )


def check_counts(counts: Mapping[str, int]) -> None:
    """Make sure that every model tries as many settings.

    Args:
        counts: of each model, by its label.

    Raises:
        SpecError: they are not equal.
    """
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise SpecError(
            f"--tune gives the models different numbers of settings ({said}); every model must try as many. Name more "
            f"values for those with fewer (lr is every model's), or draw as many from each with --tune-samples."
        )
