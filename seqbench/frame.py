"""Records as one pandas frame and as CSV: one row a trial, columns named and documented here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """A column of the frame: its meaning, its unit, how it is read off a record, and of which type its values are."""

    name: str
    summary: str
    read: Callable[[Record], Any]
    unit: str = ""
    type: type[str | int | float] = float


def look_up(record: Record, *keys: str) -> Any:
    """The value below ``keys``; None where a part of the way is missing or null."""
    value: Any = record
    for key in keys:
        value = value.get(key) if isinstance(value, (dict, Mapping)) else None  # a dict is told four times as fast
    return value


def _at(*keys: str) -> Callable[[Record], Any]:
    return lambda record: look_up(record, *keys)


def _options(record: Record) -> str:
    return ",".join(f"{k}={v}" for k, v in record["trial"]["model_options"].items())


def _relative_error(record: Record) -> float | None:
    trial, count = record["trial"], look_up(record, "parameters", "network")
    return None if count is None else count / trial["target_parameters"] - 1


COLUMNS = (
    Column("task", "task, with the options that differ from its defaults, and dataset: rows with the same one are "
           "compared", _at("task_label"), type=str),
    Column("model", "model, with the options that differ from its defaults", _at("trial", "label"), type=str),
    Column("backend", "the code that ran the model", _at("trial", "backend"), type=str),
    Column("device", "cpu or cuda", _at("trial", "device"), type=str),
    Column("seed", "gives the order of the data, the initial weights and the dropout masks", _at("trial", "seed"),
           type=int),
    Column("purpose", "score; or tuning: the trial chose hyper-parameters by validation and was not tested",
           lambda record: record["trial"].get("purpose", "score"), type=str),
    Column("status", "ok, diverged, error, out_of_memory, timeout, killed, refused or not_run", _at("status"),
           type=str),
    Column("cause", "why the trial did not end well", _at("cause"), type=str),
    Column("score", "value of the task's first metric on the test set, checkpoint chosen by validation", _at("score")),
    Column("score_metric", "which metric the score is", _at("task", "score"), type=str),
    Column("parameters", "trainable parameters of the whole network", _at("parameters", "network"), type=int),
    Column("core_parameters", "of which in the core, the model itself", _at("parameters", "core"), type=int),
    Column("parameters_error", "parameters / target - 1", _relative_error),
    Column("width", "hidden width H", _at("trial", "width"), type=int),
    Column("layers", "number of layers L", _at("trial", "layers"), type=int),
    Column("model_options", "every option of the model", _options, type=str),
    Column("lr", "peak learning rate", _at("trial", "training", "lr")),
    Column("weight_decay", "AdamW's, on matrices", _at("trial", "training", "weight_decay")),
    Column("dropout", "probability", _at("trial", "dropout")),
    Column("batch", "sequences in a training batch", _at("trial", "training", "batch"), type=int),
    Column("steps", "training steps", _at("steps"), type=int),
    Column("train_tokens", "time steps of all sequences trained on, sources and targets", _at("train_tokens"),
           type=int),
    Column("train_flops", "matrix-product FLOPs of all training steps, by the formulas of the network's parts: three "
           "forward passes a step", _at("train_flops"), "FLOP"),
    Column("best_step", "step of the checkpoint with the best validation", _at("best_step"), type=int),
    Column("train_tokens_per_s", "time steps of all sequences trained on, per second of training steps; measured in "
           "the trial, beside the other --jobs", _at("speed", "train_tokens_per_s"), "1/s"),
    Column("infer_tokens_per_s", "the same for scoring the test set, data and metric included",
           _at("speed", "infer_tokens_per_s"), "1/s"),
    Column("train_seconds", "wall time of all training steps", _at("speed", "train_seconds"), "s"),
    Column("first_step_seconds", "wall time of one step on a copy, before training: compiling, loading of libraries",
           _at("speed", "first_step_seconds"), "s"),
    Column("seconds", "wall time of the whole trial", _at("speed", "seconds"), "s"),
    Column("peak_memory_mib", "CPU: largest resident size of the trial's process above what it was before the network "
           "was built; CUDA: peak of the allocator", _at("memory", "peak_mib"), "MiB"),
    Column("forward_flops_per_token", "matrix-product FLOPs of the core's forward pass per time step, by its formula",
           _at("forward_flops_per_token"), "FLOP"),
    Column("threads", "CPU threads of the trial", _at("trial", "threads"), type=int),
    Column("id", "names the trial's files", _at("id"), type=str),
)  # fmt: skip


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """One row a trial: the columns of ``COLUMNS``, then ``test_<metric>`` and ``valid_<metric>`` for each metric.

    Metrics of tasks that a row is not about are nan.
    """
    import pandas as pd

    rows = []
    for record in records:
        row = {column.name: column.read(record) for column in COLUMNS}
        for split in ("test", "valid"):
            row |= {f"{split}_{name}": value for name, value in (_at("metrics", split)(record) or {}).items()}
        rows.append(row)
    return pd.DataFrame(rows, columns=None if rows else [c.name for c in COLUMNS])


PANDAS_TYPES = {str: "string", int: "Int64", float: "float64"}


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The same table, each column of the type that it always has, whatever is missing; metrics are floats."""
    types = {column.name: PANDAS_TYPES[column.type] for column in COLUMNS}
    return table.astype({name: types.get(str(name), "float64") for name in table})


def to_csv(table: pd.DataFrame) -> str:
    """CSV text in which no cell is a formula for a spreadsheet: texts that could be one get a leading apostrophe."""
    texts = {str(name): column.map(_no_formula) for name, column in table.items() if column.dtype.kind == "O"}
    return str(table.assign(**texts).to_csv(index=False, lineterminator="\n"))


def _no_formula(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
