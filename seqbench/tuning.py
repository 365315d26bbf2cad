"""Equal tuning: all models try as many settings, validation chooses, fresh seeds are trained with the choice."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from seqbench.api import Model
from seqbench.axes import TUNABLE, Setting, check_counts, check_names, settings
from seqbench.errors import SpecError
from seqbench.options import build_options, to_dict
from seqbench.plan import Row
from seqbench.quantities import Budget
from seqbench.spec import RunSpec, Trial, parse_choice

LEAST_SHARE = 1e-60
"""A probability below is none, however large the loss that it weighs."""

OF_SIZE = ("width", "layers", "parameters", "core_parameters", "model_options", "advice", "blocked")
"""What of a trial follows from its row and its options, and is found when it is sized."""


# --- what is tried ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Try:
    """A setting that a row tries.

    Attributes:
        row: with the setting's options of the model: it has a size of its own.
        setting: all that is tuned.
    """

    row: Row
    setting: Setting


def tries_of(spec: RunSpec, rows: Sequence[Row], cards: Mapping[str, Model]) -> list[Try]:
    """All that is tried, setting by setting, as often by every row.

    Args:
        spec: of the run.
        rows: of all models.
        cards: of the models, by name.

    Raises:
        UsageError: ``tune`` cannot be read, something else fixes what it tunes, or it is not fair.
    """
    used = {row.model: cards[row.model] for row in rows}
    check_names(spec.tune, used)
    of_rows = [settings(spec.tune, spec.tune_samples, row.training.lr, used[row.model]) for row in rows]
    for row, tried in zip(rows, of_rows, strict=True):
        _check_free(spec, row, {name for setting in tried for name in setting})
    check_counts({row.label: len(tried) for row, tried in zip(rows, of_rows, strict=True)})
    return [
        Try(_with_options(row, setting, used[row.model]), setting)
        for of_setting in zip(*of_rows, strict=True)
        for row, setting in zip(rows, of_setting, strict=True)
    ]


def _check_free(spec: RunSpec, row: Row, names: set[str]) -> None:
    """Nothing else may fix what a row tunes."""
    if "lr" in names and spec.lr is not None and "lr" not in spec.tune:
        raise SpecError(f"--lr {spec.lr:g} and a range of --tune lr are both given; leave one out.")
    for text in spec.model if spec.aa is None else (spec.aa,):
        choice = parse_choice(text)
        for name in sorted(names & dict(choice.options).keys()):
            if choice.name == row.model:
                raise SpecError(f"{text} has a {name} already; leave it out, or do not --tune {name}.")


def _with_options(row: Row, setting: Setting, card: Model) -> Row:
    """The row with the setting's options, checked together."""
    own = {name: value for name, value in setting.items() if name not in TUNABLE}
    if not own:
        return row
    options = build_options(card.options, {**row.model_options, **own}, f"model {card.name!r}")
    return replace(row, model_options=to_dict(options))


def key_of(row: Row) -> tuple[str, ...]:
    """Tells rows apart, the variants of a row too."""
    return (row.task_label, row.label, row.backend, json.dumps(row.model_options, sort_keys=True))


def tuning_trials(tries: Sequence[Try], sized: Mapping[tuple[str, ...], Trial], seed: int) -> list[Trial]:
    """A trial for each try.

    Args:
        tries: what is tried.
        sized: a trial of each row with its size, by ``key_of``.
        seed: one that no row is trained with afterwards.
    """
    trials = [with_setting(sized[key_of(tried.row)], tried.setting) for tried in tries]
    return [replace(trial, seed=seed, purpose="tuning") for trial in trials]


def with_setting(trial: Trial, setting: Setting) -> Trial:
    """The trial with the hyper-parameters of a setting; options of its model are what its size follows from."""
    lr = setting.get("lr", trial.training.lr)
    decay = setting.get("weight_decay", trial.training.weight_decay)
    training = replace(trial.training, lr=lr, weight_decay=decay)
    return replace(trial, training=training, dropout=setting.get("dropout", trial.dropout), setting=setting)


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
            found.append(_as_tried(trial, chosen["trial"]))
        else:
            found.append(replace(trial, blocked=trial.blocked or _no_choice(tried)))
    return found


def _as_tried(trial: Trial, tried: Mapping[str, Any]) -> Trial:
    """The trial with a tuning trial's setting, and with the size and steps that follow from it."""
    training = trial.training
    if training.budget.kind == "steps":  # seconds are timed anew
        training = replace(training, budget=Budget(**tried["training"]["budget"]))
    size = {name: tried[name] for name in OF_SIZE}
    return with_setting(replace(trial, training=training, **size), tried["setting"])


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
