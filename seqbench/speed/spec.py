"""What ``seqbench speed`` is asked to do, and the subjects that this becomes. Plain data; nothing heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seqbench.api import Defaults, Form, Vectors
from seqbench.errors import SpecError, UnknownName
from seqbench.plan import Answer, Conditions
from seqbench.report.speeds.columns import OPERATIONS
from seqbench.spec import RunSpec, Trial, spec_from_mapping

LONGEST, LARGEST = 1 << 20, 1 << 16
"""Above these a length or a batch is a slip."""

DEFAULTS: Mapping[str, Any] = {
    "lengths": "64,128,256", "batch": "1,32", "operation": (), "rounds": 30, "starts": 3, "params": "50k",
    "timeout": 600.0,
}  # fmt: skip
OF_RUN = ("model", "task", "dataset", "backend", "device", "threads", "data_dir", "plugin", "out")
"""What else can be said, as to ``seqbench run``."""

_ALIASES = {"batches": "batch", "length": "lengths"}

PLAIN = Conditions("", {}, "", "core", Defaults())
"""Where no task is named: the core with a small linear layer before and behind it."""

PLAIN_FORM = Form(Vectors(8), output=8, head="step", target="value", length=128)


@dataclass(frozen=True)
class SpeedSpec:
    """What is measured.

    Attributes:
        run: models, backends, sizes, device, threads, plugins, as ``seqbench run`` takes them; one task at most.
        lengths: ``T`` of the sequences, ascending.
        batches: ``B``.
        operations: some of ``columns.OPERATIONS``; none: all that apply.
        rounds: samples of each subject.
        starts: processes of each subject, one after the other, which share the rounds.
        rows: label and backend of what is measured; none: every model on every backend.
        chosen: label, backend, and the options of the model that its run's tuning chose for them.
    """

    run: RunSpec
    lengths: tuple[int, ...]
    batches: tuple[int, ...]
    operations: tuple[str, ...]
    rounds: int
    starts: int
    rows: tuple[tuple[str, str], ...] = ()
    chosen: tuple[tuple[str, str, Mapping[str, Any]], ...] = ()

    def chosen_for(self, label: str, backend: str) -> Mapping[str, Any]:
        """What tuning chose for a row; on a backend that was not in the run, what it chose on its first."""
        own = {on: options for of, on, options in self.chosen if of == label}
        return own.get(backend) or next(iter(own.values()), {})

    @property
    def longest(self) -> int:
        """All networks are built for this length, so that one network serves for all."""
        return max(self.lengths)


@dataclass(frozen=True)
class SpeedAnswer(Answer):
    """What sizing found, and the form of the networks for the longest sequences; None where it was asked for no row."""

    form: Form | None = None


@dataclass(frozen=True)
class Subject:
    """One network doing one thing on sequences of one length: a row of the table, a process of its own.

    Attributes:
        trial: describes the network; nothing is trained to an end.
        form: of the network, for the longest sequences of all.
        operation: one of ``columns.OPERATIONS``.
        length: ``T``.
        batch: ``B``.
        refused: why it cannot be measured, or "".
    """

    trial: Trial
    form: Form
    operation: str
    length: int
    batch: int
    refused: str = ""

    @property
    def name(self) -> str:
        """A file name."""
        words = f"{self.trial.label}-{self.trial.backend}-{self.operation}-T{self.length}-B{self.batch}"
        return re.sub(r"[^A-Za-z0-9=.]+", "-", words).strip("-")[:120]


def make_spec(values: Mapping[str, Any], where: str = "seqbench speed") -> SpeedSpec:
    """What is asked for by name, in text as on the command line or as Python's values; the rest as in ``DEFAULTS``.

    Args:
        values: some of ``DEFAULTS`` and ``OF_RUN``; plurals are as good.
        where: begins the message of an error.

    Raises:
        SpecError: a name is unknown, a value cannot be read or is out of range.
        UnknownName: there is no such operation.
    """
    given, known = dict(DEFAULTS), {*DEFAULTS, *OF_RUN}
    for name, value in values.items():
        key = _ALIASES.get(name, name if name in known else name.removesuffix("s"))
        if key not in known:
            raise SpecError(f"{where}: unknown key {name!r}. Known: {', '.join(sorted(known))}.")
        if value is not None:
            given[key] = value
    lengths = parse_sizes(_joined(given.pop("lengths")), "--lengths", LONGEST)
    batches = parse_sizes(_joined(given.pop("batch")), "--batch", LARGEST)
    counts = {name: given.pop(name) for name in ("rounds", "starts")}
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise SpecError(f"--{name} is {count!r}; expected a whole number of at least 1.")
    asked = given.pop("operation")
    operations = (asked,) if isinstance(asked, str) else tuple(asked)
    for name in operations:
        if name not in OPERATIONS:
            raise UnknownName("operation", name, OPERATIONS)
    run = spec_from_mapping({"task": PLAIN.label, **given, "seeds": 1}, where)
    return SpeedSpec(run, lengths, batches, tuple(o for o in OPERATIONS if o in operations), **counts)


def _joined(sizes: Any) -> str:
    """``"64,128"`` of a list of numbers, of one number or of text."""
    return ",".join(map(str, sizes)) if isinstance(sizes, list | tuple | range) else str(sizes)


def parse_sizes(text: str, what: str, most: int) -> tuple[int, ...]:
    """``"64,128,256"``, or ``"64..4096"``: 64 and what doubling it gives up to 4096; ascending.

    Raises:
        SpecError: it is neither, or a number stands twice.
    """
    span = re.fullmatch(r"\s*([0-9]{1,7})\s*\.\.\s*([0-9]{1,7})\s*", text)
    if span:
        sizes = list(_doubled(int(span[1]), int(span[2])))
    else:
        parts = text.split(",")
        sizes = [int(part) for part in parts if re.fullmatch(r"\s*[0-9]{1,7}\s*", part)]
        sizes = sizes if len(sizes) == len(parts) else []
    if not sizes or not all(1 <= size <= most for size in sizes) or len(set(sizes)) < len(sizes):
        raise SpecError(f"{what} is {text!r}; expected different numbers from 1 to {most}: 64,128,256 or 64..4096.")
    return tuple(sorted(sizes))


def _doubled(first: int, last: int) -> Iterator[int]:
    while 1 <= first <= last:
        yield first
        first *= 2


def at_length(form: Form, length: int) -> Form:
    """A form for sequences of this length, on both sides where there are two."""
    return replace(form, length=length, decoder=form.decoder and replace(form.decoder, length=length))


def subjects_of(spec: SpeedSpec, trials: Sequence[Trial], form: Form, can_step: Mapping[str, bool]) -> list[Subject]:
    """Every operation of every network at every length and batch; groups that are measured together stand together.

    Args:
        spec: what was asked for.
        trials: the networks.
        form: theirs.
        can_step: by name, which models declare ``"step"``.
    """
    found = []
    for length in spec.lengths:
        for batch in sorted({*spec.batches, 1}):
            for operation in _operations(spec, form, batch):
                for trial in trials:
                    refused = ""
                    if operation == "step" and not can_step[trial.model]:
                        refused = f"{trial.model} does not declare 'step': it cannot go step by step"
                    found.append(Subject(trial, form, operation, length, batch, refused))
    return found


def _operations(spec: SpeedSpec, form: Form, batch: int) -> list[str]:
    """What applies to a form; a stream has batch 1, whatever batches are asked for."""
    fits = {
        "train": batch in spec.batches,
        "infer": batch in spec.batches,
        "step": batch == 1 and form.head == "step" and form.causal,
        "decode": batch in spec.batches and form.head == "decoder",
    }
    return [name for name, fine in fits.items() if fine and name in (spec.operations or OPERATIONS)]


@dataclass(frozen=True)
class SpeedPlan:
    """What will be measured, in order.

    Attributes:
        spec: what was asked for, paths made absolute.
        subjects: in groups of one length and batch, which are measured together.
        torch: version and device, as the sizing process found them.
        warnings: what a reader should know first.
    """

    spec: SpeedSpec
    subjects: tuple[Subject, ...]
    torch: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def groups(self) -> list[list[Subject]]:
        """Subjects of one length and batch."""
        groups: dict[tuple[int, int], list[Subject]] = {}
        for subject in self.subjects:
            groups.setdefault((subject.length, subject.batch), []).append(subject)
        return list(groups.values())
