"""Equal tuning: all models try the same settings, validation chooses, fresh seeds are trained with the choice."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seqbench.errors import SpecError
from seqbench.spec import RunSpec, Trial, parse_choice

Setting = Mapping[str, float]
"""Name to value of each hyper-parameter that is tuned."""

MOST_SETTINGS = 1000
"""More are a slip: every model trains each of them."""

LEAST_SHARE = 1e-60
"""A probability below is none, however large the loss that it weighs."""

HALF_DECADE = math.sqrt(10)
_NUMBER = r"[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?"
_RANGE = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?::([0-9]{{1,4}}))?")


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
        name: one of ``TUNABLE``.
        values: ascending.
        between: they are a range, not a list of choices.
    """

    name: str
    values: tuple[float, ...]
    between: bool

    def at(self, share: float) -> float:
        """The value at a share, from 0 to below 1, of the way."""
        if not self.between:
            return self.values[int(share * len(self.values))]
        low, high = self.values[0], self.values[-1]
        if TUNABLE[self.name].log:
            return _rounded(low * (high / low) ** share)
        return _rounded(low + (high - low) * share)


def parse_axis(text: str, lr: float) -> Axis:
    """``"lr"``, ``"lr=1e-4..1e-2"`` (half decades), ``"lr=1e-4..1e-2:5"`` or ``"dropout=0,0.1,0.3"``.

    Args:
        text: what stands behind ``--tune``.
        lr: the task's learning rate, around which ``"lr"`` alone lies: two half decades to either side.

    Raises:
        SpecError: it is none of these.
    """
    name, equals, given = (part.strip() for part in text.partition("="))
    kind = TUNABLE.get(name)
    if kind is None:
        raise SpecError(f"--tune {text!r}: {name!r} cannot be tuned; expected one of {', '.join(TUNABLE)}.")
    if name == "lr" and not equals:
        return Axis(name, tuple(_rounded(lr * HALF_DECADE**k) for k in range(-2, 3)), between=True)
    match = _RANGE.fullmatch(given)
    values = _spaced(match, kind) if match else _listed(given)
    if not values or not all(kind.low <= v <= kind.high for v in values) or len(set(values)) != len(values):
        forms = f"{name}=LOW..HIGH, {name}=LOW..HIGH:HOW_MANY or {name}=VALUE,VALUE"
        raise SpecError(
            f"--tune {text!r}: expected {forms}, with values from {kind.low:g} to {kind.high:g}, each once."
        )
    return Axis(name, tuple(sorted(values)), between=match is not None)


def _listed(given: str) -> list[float]:
    parts = [part.strip() for part in given.split(",")]
    return [float(part) for part in parts] if all(re.fullmatch(_NUMBER, part) for part in parts) else []


def _spaced(match: re.Match[str], kind: Tunable) -> list[float]:
    """The values of a range, both ends included; nothing where it is none."""
    low, high = float(match[1]), float(match[2])
    if not low < high or (kind.log and low <= 0) or match[3] in {"0", "1"}:
        return []
    half_decades = round(2 * math.log10(high / low)) + 1 if kind.log else 5
    count = int(match[3] or max(2, half_decades))
    shares = [k / (count - 1) for k in range(count)]
    between = [low * (high / low) ** s if kind.log else low + (high - low) * s for s in shares[1:-1]]
    return [low, *map(_rounded, between), high]


def _rounded(value: float) -> float:
    """Three digits: settings are read by people."""
    return float(f"{value:.3g}")


def settings(tune: Sequence[str], samples: int, lr: float) -> list[Setting]:
    """All settings that every model tries: the whole grid, or Sobol points in it.

    Args:
        tune: an axis each.
        samples: how many Sobol points; 0: the grid.
        lr: the task's learning rate.

    Raises:
        SpecError: an axis cannot be read or stands twice, or there are too many settings.
    """
    axes = [parse_axis(text, lr) for text in tune]
    names = [axis.name for axis in axes]
    if len(set(names)) != len(names):
        raise SpecError(f"--tune names {next(n for n in names if names.count(n) > 1)!r} twice.")
    count = samples or math.prod(len(axis.values) for axis in axes)
    if count > MOST_SETTINGS:
        raise SpecError(f"--tune asks for {count:,} settings of every model; at most {MOST_SETTINGS} are allowed.")
    if samples:
        return _sobol(axes, samples)
    return [dict(zip(names, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


def _sobol(axes: Sequence[Axis], samples: int) -> list[Setting]:
    """Scrambled Sobol points (Owen 1998), always the same ones: they fill a space more evenly than a grid's shadow."""
    from scipy.stats import qmc

    engine = qmc.Sobol(len(axes), scramble=True, rng=0)
    points = engine.random_base2(math.ceil(math.log2(samples)))[:samples] if samples > 1 else engine.random(1)
    return [{axis.name: axis.at(float(share)) for axis, share in zip(axes, p, strict=True)} for p in points]


def with_setting(trial: Trial, setting: Setting) -> Trial:
    """The trial with other hyper-parameters."""
    lr = setting.get("lr", trial.training.lr)
    decay = setting.get("weight_decay", trial.training.weight_decay)
    training = replace(trial.training, lr=lr, weight_decay=decay)
    return replace(trial, training=training, dropout=setting.get("dropout", trial.dropout), setting=setting)


def check_tuning(spec: RunSpec, rates: Iterable[float]) -> None:
    """Make sure that ``tune`` can be read, and that nothing else fixes what it tunes.

    Args:
        spec: of the run.
        rates: the learning rates of its tasks.

    Raises:
        SpecError: it cannot, or something does.
    """
    names = {name for lr in rates for setting in settings(spec.tune, spec.tune_samples, lr) for name in setting}
    if "lr" in names and spec.lr is not None and "lr" not in spec.tune:
        raise SpecError(f"--lr {spec.lr:g} and a range of --tune lr are both given; leave one out.")
    for text in spec.model if spec.aa is None else (spec.aa,):
        if "dropout" in names & dict(parse_choice(text).options).keys():
            raise SpecError(f"{text} has a dropout already; leave it out, or do not --tune dropout.")


def tuning_trials(trials: Sequence[Trial], tune: Sequence[str], samples: int) -> list[Trial]:
    """A trial for each row and setting, on a seed that no row is trained with afterwards.

    Args:
        trials: all that shall be trained with what is chosen.
        tune: as ``settings`` takes it.
        samples: as ``settings`` takes it.
    """
    seed = max(trial.seed for trial in trials) + 1
    first = {trial.row_key: trial for trial in reversed(trials)}
    rows = [first[key] for key in dict.fromkeys(trial.row_key for trial in trials)]
    tried = [[with_setting(row, setting) for setting in settings(tune, samples, row.training.lr)] for row in rows]
    return [replace(trial, seed=seed, purpose="tuning") for of_rows in zip(*tried, strict=True) for trial in of_rows]


# --- the choice -------------------------------------------------------------------------------------


def validation(record: Mapping[str, Any]) -> float | None:
    """The best validation of a tuning trial that ended well, by the metric that selects checkpoints."""
    if record.get("status") != "ok":
        return None
    value = record["metrics"]["valid"].get(record["task"]["select"])
    return value if value is not None and math.isfinite(value) else None


def lower_is_better(record: Mapping[str, Any]) -> bool:
    """Of the metric that selects checkpoints."""
    select = record["task"]["select"]
    return bool(next(m["lower_is_better"] for m in record["task"]["metrics"] if m["name"] == select))


def best(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The record with the best validation, the first of equals; None where none has one."""
    known = [record for record in records if validation(record) is not None]
    if not known:
        return None
    sign = 1 if lower_is_better(known[0]) else -1
    return min(known, key=lambda record: sign * (validation(record) or 0.0))


def settled(trials: Sequence[Trial], records: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The trials with the setting that validation chose for their row; blocked where no setting ended well.

    Args:
        trials: those that shall be trained with it.
        records: of all tuning trials.
    """
    of_row: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        tried = record["trial"]
        of_row.setdefault((tried["task_label"], tried["label"], tried["backend"]), []).append(record)
    found = []
    for trial in trials:
        tried = of_row.get(trial.row_key, [])
        chosen = best(tried)
        if chosen is not None:
            found.append(with_setting(trial, chosen["trial"]["setting"]))
        else:
            found.append(replace(trial, blocked=trial.blocked or _no_choice(tried)))
    return found


def _no_choice(tried: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    first = next((record for record in tried if record.get("status") != "ok"), {})
    status = str(first.get("status") or "error")
    cause = f"none of the {len(tried)} settings of tuning ended well: {first.get('cause') or 'no cause known'}"
    return {"status": status, "cause": cause}


def expected_best(values: Sequence[float], lower: bool) -> list[float]:
    """What the best of ``k`` of these values is on average, for k = 1, 2, ..., all of them.

    Exact, over all subsets of size k (Dodge et al. 2019, "Show your work", there with replacement).
    """
    ordered = sorted(values, reverse=not lower)  # best first
    n = len(ordered)
    return [math.fsum(w * v for w, v in zip(_shares_of_best(n, k), ordered, strict=False)) for k in range(1, n + 1)]


def _shares_of_best(n: int, k: int) -> Iterator[float]:
    """The probability that the i-th best of ``n`` is the best of ``k`` drawn from them, for i = 0, 1, ...

    The other ``k - 1`` then come from those behind it: ``C(n - 1 - i, k - 1) / C(n, k)``, from one to the next by
    their ratio: with many settings exact binomials take seconds.
    """
    share = k / n
    for i in range(n - k + 1):
        yield share
        share *= (n - k - i) / (n - 1 - i) if i < n - 1 else 0.0
        if share < LEAST_SHARE:
            return
