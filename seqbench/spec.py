"""What a run is: the user's spec, and the trials that it becomes. Plain data, frozen, closed."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from seqbench.errors import SpecError
from seqbench.quantities import TOLERANCE, Budget, parse_budget, parse_target

STEP = "seqbench: step"
"""How a trial's log tells how far it is: ``seqbench: step 120/1000 loss 0.31``."""

FIRST_STEP = "seqbench: first step"
"""How it tells that kernels are being compiled or read from disk: the first step of training, which is not timed."""

AUTO = "auto"
"""The backend that stands for the fastest one that a model has on the device: see ``assemble.chosen_backend``."""

MOST_SEEDS = 10_000
"""More are a slip: a seed where a number of seeds belongs."""

# --- option strings: "lstm[forget_bias=1,layers=2]", "0,1,5" ------------------------------------

_CHOICE = re.compile(r"\s*([^\[\]\s]+)\s*(?:\[(.*)\])?\s*", re.DOTALL)


@dataclass(frozen=True)
class Choice:
    """A name with options still in text: what ``--model`` and ``--task`` take."""

    name: str
    options: tuple[tuple[str, str], ...] = ()


def parse_choice(text: str) -> Choice:
    """``"lstm[forget_bias=1]"`` to its parts.

    Raises:
        SpecError: the text is not of the form ``name[key=value,...]``.
    """
    match = _CHOICE.fullmatch(text)
    if match is None:
        raise SpecError(f"Cannot read {text!r}: write name[option=value,option=value], say lstm[forget_bias=1].")
    pairs: dict[str, str] = {}
    for part in filter(None, (p.strip() for p in (match[2] or "").split(","))):
        key, equals, value = (s.strip() for s in part.partition("="))
        if not equals or not key or not value:
            raise SpecError(f"Cannot read option {part!r} in {text!r}: write option=value.")
        if key in pairs:
            raise SpecError(f"Option {key!r} stands twice in {text!r}.")
        pairs[key] = value
    return Choice(match[1], tuple(pairs.items()))


def parse_seeds(text: str | int) -> tuple[int, ...]:
    """``3`` to seeds 0, 1, 2; ``"4,7"`` to those two.

    Raises:
        SpecError: it is neither, or a seed stands twice.
    """
    raw = str(text).strip()
    which = "," in raw  # "7," is seed 7 alone
    parts = [p.strip() for p in raw.removesuffix(",").split(",")]
    if not all(re.fullmatch(r"[0-9]{1,9}", p) for p in parts) or (not which and int(raw) < 1):
        raise SpecError(f"--seeds is {text!r}; expected how many (5) or which (0,1,5).")
    if not which and int(raw) > MOST_SEEDS:
        raise SpecError(f"--seeds is {text!r}: at most {MOST_SEEDS}; name one seed with a comma, as in '{raw},'.")
    seeds = tuple(map(int, parts)) if which else tuple(range(int(raw)))
    if len(set(seeds)) != len(seeds):
        raise SpecError(f"--seeds is {text!r}: a seed stands twice.")
    return seeds


# --- the user's spec --------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunSpec:
    """What ``seqbench run`` is asked to do; a spec file and ``seqbench.run(...)`` use the same names.

    Attributes:
        task: tasks, each ``name`` or ``name[option=value]``.
        model: models, in the same form; none means all that are installed.
        aa: instead of models: one that is compared with itself, under two names and on two sets of seeds.
        dataset: datasets; a task takes those of them that it has; none means each task's default.
        seeds: how many (5), or which ("0,1,5").
        until_decided: add seeds in rounds until all models are told apart, up to so many; 0: one round.
        params: trainable parameters of the whole network ("50k", "50k±1%"); None: the task's own default.
        budget: training of a trial ("2000steps", "60s", "2Mtokens", "1e12flops"); None: the task's default steps.
        lr: peak learning rate; None: the task's default.
        tune: what models try values of before they are trained ("lr=1e-4..1e-2:5", "tcn.kernel=3,5"); none: no tuning.
        tune_samples: how many Sobol points each model tries; 0: the whole grid.
        batch: sequences in a training batch; None: the task's default.
        backend: backends, one row a model and backend.
        device: "auto", "cpu" or "cuda".
        threads: threads of each trial.
        jobs: trials that run at a time; 0: as many as there are cores for their threads (one on a GPU).
        timeout: seconds after which a trial is killed.
        memory: MiB of main memory that a trial's process may take; 0: what the machine can spare.
        data_dir: where downloaded datasets lie; None: SEQBENCH_DATA, then the cache.
        plugin: single Python files with plugins.
        events: listeners that are told of training events, by name.
        executor: what runs the trials, by name.
        out: the folder in which the run gets its own folder.
        steps: row id to number of steps, where an earlier run turned seconds into steps (a replay).
    """

    task: tuple[str, ...]
    model: tuple[str, ...] = ()
    aa: str | None = None
    dataset: tuple[str, ...] = ()
    seeds: str = "5"
    until_decided: int = 0
    params: str | None = None
    budget: str | None = None
    lr: float | None = None
    tune: tuple[str, ...] = ()
    tune_samples: int = 0
    batch: int | None = None
    backend: tuple[str, ...] = ("torch",)
    device: str = "auto"
    threads: int = 1
    jobs: int = 0
    timeout: float = 3600.0
    memory: int = 0
    data_dir: str | None = None
    plugin: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    executor: str = "local"
    out: str = "results"
    steps: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check what can be checked without the plugins.

        Raises:
            SpecError: a value is out of range or cannot be read.
        """
        if not self.task:
            raise SpecError("No task: say which, for example --task copy (seqbench list shows all).")
        if self.aa is not None and self.model:
            raise SpecError(f"--aa {self.aa} compares one model with itself; leave out --model {self.model[0]}.")
        if not self.backend:
            raise SpecError("No backend: say which, for example --backend torch (seqbench info MODEL shows all).")
        if AUTO in self.backend and len(self.backend) > 1:
            others = ", ".join(name for name in self.backend if name != AUTO)
            raise SpecError(f"--backend auto chooses one backend for each model; leave out {others or 'the second'}.")
        if len(set(self.events)) < len(self.events):
            raise SpecError(f"--events {' '.join(self.events)}: a listener is named twice.")
        first = len(parse_seeds(self.seeds))
        if self.until_decided and self.until_decided <= first:
            raise SpecError(
                f"--until-decided is {self.until_decided}; expected more than the {first} --seeds to begin with."
            )
        if self.until_decided and self.aa is not None:
            raise SpecError("--until-decided does not go with --aa: a model and itself are never told apart.")
        if self.params is not None:
            parse_target(self.params)
        self._check_ranges()
        self._check_times()

    def _check_ranges(self) -> None:
        if self.device not in {"auto", "cpu", "cuda"}:
            raise SpecError(f"--device is {self.device!r}; expected auto, cpu or cuda.")
        for name, value, low in (
            ("--threads", self.threads, 1),
            ("--jobs", self.jobs, 0),
            ("--batch", self.batch, 1),
            ("--memory", self.memory, 0),
        ):
            if value is not None and value < low:
                raise SpecError(f"{name} is {value}; expected at least {low}.")
        if self.lr is not None and not 0 < self.lr < 100:
            raise SpecError(f"--lr is {self.lr}; expected a number above 0, such as 3e-3.")
        if self.tune_samples < 0 or (self.tune_samples and not self.tune):
            raise SpecError(f"--tune-samples is {self.tune_samples}; expected a number above 0, beside --tune.")

    def _check_times(self) -> None:
        if not (math.isfinite(self.timeout) and self.timeout > 0):
            raise SpecError(f"--timeout is {self.timeout}; expected seconds above 0.")
        budget = None if self.budget is None else parse_budget(self.budget)
        if budget is not None and budget.kind == "seconds" and budget.amount >= self.timeout:
            raise SpecError(f"--budget {budget} does not fit into --timeout {self.timeout:g} seconds; raise --timeout.")


_LISTS = {"task", "model", "dataset", "backend", "plugin", "tune", "events"}
_ALIASES = {"tasks": "task", "models": "model", "datasets": "dataset", "backends": "backend", "plugins": "plugin"}


def spec_from_mapping(values: Mapping[str, Any], where: str) -> RunSpec:
    """A spec from a file's or a call's named values; a lone name stands for a list of one.

    Raises:
        SpecError: an unknown name, or a value of the wrong type.
    """
    named = canonical(values, where)
    clean = {key: _convert(key, value, where) for key, value in named.items() if value is not None}
    clean.setdefault("task", ())
    return RunSpec(**clean)


def canonical(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values under the names of ``RunSpec``: plurals become singulars.

    Raises:
        SpecError: an unknown name, or a name beside its own plural.
    """
    known = [f.name for f in dataclasses.fields(RunSpec)]
    clean: dict[str, Any] = {}
    for given, value in values.items():
        key = _ALIASES.get(given, given)
        if key not in known:
            near = difflib.get_close_matches(given, [*known, *_ALIASES], n=1)
            guess = f" Did you mean {near[0]!r}?" if near else ""
            raise SpecError(f"{where}: unknown key {given!r}.{guess} Known: {', '.join(sorted(known))}.")
        if key in clean:
            raise SpecError(f"{where}: {key!r} and its plural are both given.")
        clean[key] = value
    return clean


_NUMBERS: dict[str, type[int | float]] = {
    "threads": int, "jobs": int, "batch": int, "memory": int, "tune_samples": int, "until_decided": int,
    "timeout": float, "lr": float
}  # fmt: skip


def _number(kind: type[int | float], value: Any) -> int | float | None:
    """The value in its type, or None."""
    if not isinstance(value, int if kind is int else int | float) or isinstance(value, bool):
        return None
    with suppress(OverflowError):  # 10**400 as a float
        return kind(value)
    return None


def _convert(key: str, value: Any, where: str) -> Any:
    def wrong(expected: str) -> SpecError:
        return SpecError(f"{where}: {key} is {value!r}; expected {expected}.")

    if key in _LISTS:
        items = (value,) if isinstance(value, str | Path) else value
        if not isinstance(items, list | tuple) or not all(isinstance(v, str | Path) for v in items):
            raise wrong("a name or a list of names")
        return tuple(map(str, items))
    if key == "seeds" and isinstance(value, list | tuple | range):
        return "".join(f"{seed}," for seed in value)
    if key in _NUMBERS:
        number = _number(_NUMBERS[key], value)
        if number is None:
            raise wrong("a number")
        return number
    if key == "steps":
        if not isinstance(value, Mapping) or not all(isinstance(v, int) and v > 0 for v in value.values()):
            raise wrong("a table of row id = number of steps")
        return dict(value)
    if isinstance(value, bool) or not isinstance(value, str | int | Path):
        raise wrong("text")
    return str(value)


def read_spec_file(path: Path) -> dict[str, Any]:
    """The named values of a TOML spec file.

    Raises:
        SpecError: there is no such file, or it is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"Cannot read the spec file {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not TOML: {error}.") from error


def spec_to_toml(spec: RunSpec) -> str:
    """A spec file that says the same as ``spec`` (every value, defaults included)."""
    lines = []
    for f in dataclasses.fields(spec):
        value = getattr(spec, f.name)
        if value is None or f.name == "steps":
            continue
        lines.append(f"{f.name} = {_toml(list(value) if isinstance(value, tuple) else value)}")
    if spec.steps:
        lines += ["", "[steps]", *(f"{_toml(k)} = {v}" for k, v in spec.steps.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """JSON is TOML here, but for surrogate pairs (so no escapes beyond ASCII) and DEL."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


# --- trials -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Training:
    """How a trial trains; the same for every model of a task.

    Attributes:
        lr: peak learning rate of AdamW.
        batch: sequences in a batch.
        budget: steps, or seconds; tokens or FLOPs only where the trial's size is not known.
        warmup: share of the steps in which the rate rises linearly; then it falls as a cosine to ``final_lr``.
        final_lr: the last rate as a share of the peak.
        weight_decay: AdamW's, on matrices only.
        clip: largest norm of the whole gradient.
        validations: how many times the network is validated, evenly over the steps.
    """

    lr: float
    batch: int
    budget: Budget
    warmup: float = 0.05
    final_lr: float = 0.01
    weight_decay: float = 0.01
    clip: float = 1.0
    validations: int = 20


@dataclass(frozen=True)
class Trial:
    """One training: all that decides its numbers.

    Attributes:
        task: task name.
        task_options: every option of the task.
        dataset: dataset name.
        task_label: ``"copy[T=100]/embedded"``, the task with what differs from its defaults: trials with the same one
            are compared.
        model: model name.
        model_options: every option of the model.
        label: the model with what differs from its defaults.
        backend: backend name.
        device: ``"cpu"`` or ``"cuda"``.
        width: hidden width ``H``, solved from the budget of parameters.
        layers: ``L``.
        dropout: probability.
        parameters: expected count of the whole network.
        core_parameters: of which the core's.
        target_parameters: what was asked for.
        seed: gives the streams of data order, initialisation and dropout.
        threads: of the CPU.
        training: the schedule.
        plugins: single files to load first, each with its sha256: all trials of a run must see the same code.
        data_dir: where downloaded datasets lie, None: the default places.
        advice: the card's remark about this setting, or "".
        blocked: status, cause and log, where it is known beforehand that the trial cannot run.
        purpose: a score, or the choice of hyper-parameters: then only validation is looked at.
        setting: what is tuned, options of the model among it, and its value in this trial.
        parameter_tolerance: the share of ``target_parameters`` by which ``parameters`` may miss it unremarked.
        events: the listeners that are told of it.
        sources: of the strangers' cards among ``model``, ``task`` and ``dataset``: which plugin has it
            (``registry.Source.key``).
    """

    task: str
    task_options: Mapping[str, Any]
    dataset: str
    task_label: str
    model: str
    model_options: Mapping[str, Any]
    label: str
    backend: str
    device: str
    width: int
    layers: int
    dropout: float
    parameters: int
    core_parameters: int
    target_parameters: int
    seed: int
    threads: int
    training: Training
    plugins: Mapping[str, str] = field(default_factory=dict)
    data_dir: str | None = None
    advice: str = ""
    blocked: Mapping[str, str] | None = None
    purpose: Literal["score", "tuning"] = "score"
    setting: Mapping[str, Any] = field(default_factory=dict)
    parameter_tolerance: float = TOLERANCE
    events: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def row_key(self) -> tuple[str, str, str]:
        """Task, model and backend as tables name them: the row that the trial belongs to."""
        return self.task_label, self.label, self.backend

    @cached_property
    def id(self) -> str:
        """A file name that tells the trial and is unique in a run: the same trial always has the same id."""
        plain = self._numbers()
        return f"{self._words()}-s{self.seed}-{_digest(plain)}"

    @cached_property
    def row_id(self) -> str:
        """The same for all seeds of a row of the table."""
        plain = self._numbers()
        plain.pop("seed")
        return f"{self._words()}-{_digest(plain)}"

    def _words(self) -> str:
        words = re.sub(r"[^A-Za-z0-9=.]+", "-", f"{self.task_label}-{self.label}-{self.backend}")
        return words.strip("-")[:80]

    def _numbers(self) -> dict[str, Any]:
        """What decides the numbers: where files lie does not, what is in them does; who listens does not."""
        left_out = {"data_dir", "advice", "blocked", "parameter_tolerance", "events", "sources"}
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in left_out}
        plain["training"] = dataclasses.asdict(self.training)  # asdict(self) would copy every option, 10,000 times
        plain["plugins"] = sorted(self.plugins.values())
        plain.pop("setting")  # its values stand where they are used
        if self.purpose == "score":
            plain.pop("purpose")  # as it was before there was another
        return plain


def _digest(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:8]


def trial_to_dict(trial: Trial) -> dict[str, Any]:
    """Plain data, for JSON; ``events`` and ``sources`` where there are any, as it was before there could be."""
    plain = dataclasses.asdict(trial)
    for name in ("events", "sources"):
        if not plain[name]:
            del plain[name]
    return plain


def trial_from_dict(data: Mapping[str, Any]) -> Trial:
    """The inverse of ``trial_to_dict``."""
    training = dict(data["training"])
    training["budget"] = Budget(**training["budget"])
    events = tuple(data.get("events", ()))
    return Trial(**{**data, "training": Training(**training), "events": events})


def record_of(trial: Trial, **fields: Any) -> dict[str, Any]:
    """A trial's record: what every record has, then its own fields."""
    notes = [trial.advice] if trial.advice else []
    return {"trial": trial_to_dict(trial), "task_label": trial.task_label, "notes": notes, **fields}
