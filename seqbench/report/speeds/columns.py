"""The figures of each subject, made of its raw samples: columns named and documented here."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from seqbench.frame import Column, look_up
from seqbench.report.speeds.growth import growth
from seqbench.report.speeds.levels import levels

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]

OPERATIONS = {
    "train": "a training step: forward pass, loss, backward pass, clipping, AdamW",
    "infer": "the outputs of whole sequences, without gradients",
    "step": "a sequence read step by step at batch 1, as in a stream",
    "decode": "greedy decoding of as many steps as the source has, from a cached state; tasks with a decoder only",
}

NOISY = 0.1
"""Quartiles further apart than this share of the median are flagged."""

LEAST_MEMORY_MIB = 1.0
"""Less is a few pages more or less, and no sign of how memory grows."""


def with_figures(records: Sequence[Record]) -> list[dict[str, Any]]:
    """The records with figures made of their samples.

    ``wall`` and ``cpu`` (seconds: ``p10``, ``q1``, ``median``, ``q3``; the median is that of ``levels``), ``growth`` by
    length, and ``times_fastest``: the same percentiles of ratios, or None where there is nothing to compare with.
    """
    found = [{**record, **_figures(record)} for record in records]
    _level([record for record in found if record["status"] == "ok"])
    for record in found:
        kin = [other for other in found if _kind(other) == _kind(record) and other["status"] == "ok"]
        record["growth"] = {"time": _growth(kin, seconds), "memory": _growth(kin, _call_memory)}
        record["times_fastest"] = _times_fastest(record, found)
    return found


def _figures(record: Record) -> dict[str, Any]:
    return {name: _percentiles(record["samples"][name]) for name in ("wall", "cpu") if record["samples"].get(name)}


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    parts = statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else [values[0]] * 19
    return {"p10": parts[1], "q1": parts[4], "median": parts[9], "q3": parts[14]}


def _level(records: Sequence[Record]) -> None:
    """Replace the medians of those that were measured together, in the same rounds; by nothing beyond the quartiles."""
    groups: dict[Any, list[Record]] = {}
    for record in records:
        groups.setdefault((record["length"], record["batch"]), []).append(record)
    for group in groups.values():
        for clock in ("wall", "cpu"):
            for record, level in zip(group, levels([r["samples"][clock] for r in group]), strict=True):
                own = record[clock]
                own["median"] = min(max(level, own["q1"]), own["q3"])


def _kind(record: Record) -> tuple[Any, ...]:
    """What differs in length alone."""
    return tuple(record[key] for key in ("label", "backend", "operation", "batch"))


def _times_fastest(record: Record, records: Sequence[Record]) -> dict[str, float] | None:
    """Its samples by those that the fastest took in the same rounds: what slows a round down slows both down."""
    rivals = [other for other in records if _same_work(other) == _same_work(record) and other["status"] == "ok"]
    if record["status"] != "ok" or len(rivals) < 2:
        return None
    fastest = min(rivals, key=seconds)
    pairs = zip(record["samples"]["wall"], fastest["samples"]["wall"], strict=True)
    return _percentiles([own / other for own, other in pairs])


def _same_work(record: Record) -> tuple[Any, ...]:
    """What differs in the model alone: backends are never ranked against one another."""
    return tuple(record[key] for key in ("backend", "operation", "length", "batch"))


def _growth(kin: Sequence[Record], read: Callable[[Record], float]) -> dict[str, float] | None:
    found = growth([record["length"] for record in kin], [read(record) for record in kin])
    return None if found is None else asdict(found)


def seconds(record: Record) -> float:
    """Median of a call, of a single step for ``step``."""
    median: float = record["wall"]["median"]
    return median / record["length"] if record["operation"] == "step" else median


def _call_memory(record: Record) -> float:
    mib: float = record["memory"]["call_mib"]
    return mib if mib >= LEAST_MEMORY_MIB else 0.0


def spread(record: Record) -> float | None:
    """The distance of the quartiles as a share of the median."""
    wall = record.get("wall")
    return None if wall is None else (wall["q3"] - wall["q1"]) / wall["median"]


def noisy(record: Record) -> bool | None:
    """The quartiles are further apart than ``NOISY``."""
    found = spread(record)
    return None if found is None else found > NOISY


def _of(*keys: str, scale: float = 1.0) -> Callable[[Record], Any]:
    def read(record: Record) -> Any:
        value = look_up(record, *keys)
        return value * scale if isinstance(value, float) and scale != 1.0 else value

    return read


def _per_token(record: Record) -> float | None:
    median = look_up(record, "wall", "median")
    return None if median is None else 1e6 * median / record["tokens"]


def _rate(record: Record) -> float | None:
    median = look_up(record, "wall", "median")
    return None if median is None else record["tokens"] / median


def _busy(record: Record) -> float | None:
    wall, cpu = look_up(record, "wall", "median"), look_up(record, "cpu", "median")
    return None if wall is None else cpu / wall


COLUMNS = (
    Column("model", "model, with the options that differ from its defaults", _of("label")),
    Column("backend", "the code that ran it", _of("backend")),
    Column("device", "cpu or cuda", _of("device")),
    Column("threads", "CPU threads that it was given", _of("threads")),
    Column("operation", "train, infer, step or decode: what a call does", _of("operation")),
    Column("length", "T, time steps of each sequence; a call of step reads so many, one of decode writes so many",
           _of("length")),
    Column("batch", "B, sequences of a call", _of("batch")),
    Column("status", "ok, error, out_of_memory, timeout, killed or refused", _of("status")),
    Column("cause", "why there are no figures", _of("cause")),
    Column("median_ms", "wall time of a call, median over the rounds, less what a round did to all that were measured "
           "in it", _of("wall", "median", scale=1e3), "ms"),
    Column("q1_ms", "lower quartile of the samples as they are", _of("wall", "q1", scale=1e3), "ms"),
    Column("q3_ms", "upper quartile", _of("wall", "q3", scale=1e3), "ms"),
    Column("p10_ms", "10th percentile: what a call takes when little disturbs it", _of("wall", "p10", scale=1e3), "ms"),
    Column("times_fastest", "its sample by the sample of the same round of the fastest model (smallest median_ms; same "
           "operation, length, batch and backend), median over the rounds: the figure to compare models by",
           _of("times_fastest", "median")),
    Column("times_fastest_q1", "its lower quartile", _of("times_fastest", "q1")),
    Column("times_fastest_q3", "its upper quartile", _of("times_fastest", "q3")),
    Column("spread", "(q3 - q1) / median", spread),
    Column("noisy", "the spread is above 0.1: measure again on a quieter machine", noisy),
    Column("cpu_median_ms", "processor time of a call, all threads of the process together, median as above",
           _of("cpu", "median", scale=1e3), "ms"),
    Column("busy", "cpu_median_ms / median_ms: cores at work; below 1 it waited, or had to wait for a core", _busy),
    Column("us_per_token", "median_ms by the tokens of a call; of step, the latency of one step", _per_token, "µs"),
    Column("tokens_per_s", "its inverse", _rate, "1/s"),
    Column("time_exponent", "p of T ** p, fitted to the medians over the lengths (of step: to the time of one step)",
           _of("growth", "time", "exponent")),
    Column("time_exponent_error", "standard error of p", _of("growth", "time", "error")),
    Column("build_seconds", "making the network and its optimiser, import of the core's code included",
           _of("build_seconds"), "s"),
    Column("first_call_seconds", "the first call on 2 steps and the first one of full size: compiling, loading of "
           "libraries", _of("first_call_seconds"), "s"),
    Column("peak_memory_mib", "CPU: largest resident size of the process above what it was before the network was "
           "built; CUDA: the same of the allocator", _of("memory", "peak_mib"), "MiB"),
    Column("call_memory_mib", "of which above what was held after the call on 2 steps: without weights, optimiser and "
           "code", _of("memory", "call_mib"), "MiB"),
    Column("memory_exponent", "p of T ** p, fitted to call_memory_mib over the lengths; those below 1 MiB do not count",
           _of("growth", "memory", "exponent")),
    Column("memory_exponent_error", "standard error of p", _of("growth", "memory", "error")),
    Column("extra_threads", "operating-system threads at the end beyond those at the start and those it was given",
           _of("extra_threads")),
    Column("forward_flops_per_token", "matrix-product FLOPs of the core's forward pass at this length per time step, "
           "by its formula", _of("forward_flops_per_token"), "FLOP"),
    Column("parameters", "trainable parameters of the whole network", _of("parameters", "network")),
    Column("core_parameters", "of which in the core, the model itself", _of("parameters", "core")),
    Column("width", "hidden width H", _of("width")),
    Column("layers", "number of layers L", _of("layers")),
    Column("samples", "how many there are", lambda record: len(record["samples"].get("wall", ()))),
    Column("calls", "calls in a sample", _of("calls")),
)  # fmt: skip


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a subject: the columns of ``COLUMNS``.

    Args:
        records: from ``with_figures``.
    """
    import pandas as pd

    rows = [{column.name: column.read(record) for column in COLUMNS} for record in records]
    table = pd.DataFrame(rows, columns=None if rows else [c.name for c in COLUMNS])
    return table.convert_dtypes()  # whole numbers stay whole beside rows that have none
