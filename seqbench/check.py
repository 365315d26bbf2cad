"""``seqbench check``: the proofs about installed plugins, each model and backend in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from seqbench.errors import UnknownName, UsageError
from seqbench.process import Limits, run_in_child
from seqbench.registry import HEAVY, LIMIT, Registry, Source


@dataclass(frozen=True)
class Subject:
    """What is proved in one process.

    Attributes:
        kind: ``"model"``, ``"task"`` or ``"card"`` (the import of all cards of an installed plugin).
        name: of the model or task; of a card, of its distribution.
        backend: of a model; else empty.
        source: the plugin.
    """

    kind: str
    name: str
    backend: str
    source: Source

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, self.backend)))


@dataclass(frozen=True)
class Failure:
    """A proof that fails.

    Attributes:
        proof: its name.
        message: what was expected, what came, and what usually causes it; in the first setting that fails.
        settings: how many settings it fails in.
    """

    proof: str
    message: str
    settings: int


@dataclass(frozen=True)
class Verdict:
    """What the proofs said of one subject.

    Attributes:
        subject: of whom.
        proofs: how many were run.
        failures: those that fail.
        seconds: how long the proofs took, compiling included; 0 where that is not known.
    """

    subject: Subject
    proofs: int
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Request:
    """What the user asks for.

    Attributes:
        names: of models and tasks; none: all.
        backends: of the models; none: all that they declare.
        proofs: names of proofs; none: all that apply.
        files: plugin files.
        jobs: processes at a time.
        limit: seconds for each process.
    """

    names: Sequence[str] = ()
    backends: Sequence[str] = ()
    proofs: Sequence[str] = ()
    files: Sequence[str] = ()
    jobs: int = 1
    limit: float = 600.0


def subjects_of(request: Request, cards: Registry) -> list[Subject]:
    """What there is to prove, the cards of each plugin first.

    Raises:
        UsageError: a name is neither a model nor a task, or no model has such a backend.
    """
    names = request.names or [*cards.models, *cards.tasks]
    found = []
    for name in names:
        kinds = [kind for kind, known in (("model", cards.models), ("task", cards.tasks)) if name in known]
        if not kinds:
            raise UnknownName("model or task", name, [*cards.models, *cards.tasks])
        found += [subject for kind in kinds for subject in _of_card(kind, name, request, cards)]
    if request.backends and not any(subject.backend for subject in found):
        known = {backend for name in names if name in cards.models for backend in cards.models[name].cores}
        raise UnknownName("backend", request.backends[0], known)
    installed = (s.source for s in found if s.source.distribution not in map(str, request.files))
    sources = {source.distribution: source for source in installed}
    return [*(Subject("card", name, "", source) for name, source in sources.items()), *found]


def brought_by(files: Sequence[str], cards: Registry) -> list[str]:
    """The models and tasks that plugin files bring."""
    return [name for (kind, name), source in cards.origin.items()
            if kind in ("model", "task") and source.distribution in map(str, files)]  # fmt: skip


def _of_card(kind: str, name: str, request: Request, cards: Registry) -> Iterator[Subject]:
    source = cards.origin[kind, name]
    if kind == "task":
        if not request.backends:
            yield Subject(kind, name, "", source)
        return
    for backend in cards.models[name].cores:
        if not request.backends or backend in request.backends:
            yield Subject(kind, name, backend, source)


def check(request: Request, cards: Registry, tell: Callable[[Verdict], None]) -> bool:
    """Run the proofs, ``request.jobs`` processes at a time; whether all hold.

    Args:
        request: what is asked for.
        cards: the plugins.
        tell: is given each verdict, in order.

    Raises:
        UsageError: the request names something that is not there.
    """
    subjects = subjects_of(request, cards)
    ran, fine = 0, True
    with tempfile.TemporaryDirectory(prefix="seqbench-") as scratch, ThreadPoolExecutor(max(1, request.jobs)) as pool:
        logs = [Path(scratch) / f"{number}.log" for number in range(len(subjects))]
        for verdict in pool.map(lambda subject, log: _supervised(subject, request, log), subjects, logs):
            ran += verdict.proofs
            fine = fine and not verdict.failures
            if verdict.proofs or verdict.failures:
                tell(verdict)
    if not ran and fine:
        raise UsageError(f"No proof called {' or '.join(request.proofs)} applies here; leave out --proof to see all.")
    return fine


def _supervised(subject: Subject, request: Request, log: Path) -> Verdict:
    """The verdict, whatever the plugin's code does to its process."""
    if subject.kind == "card":
        return _light(subject, request)
    arguments = (subject, tuple(request.proofs), tuple(request.files))
    outcome = run_in_child("seqbench.prove:prove", arguments, log, Limits(request.limit))
    if outcome.kind == "returned":
        return Verdict(subject, *outcome.answer)
    how = f"was killed after {request.limit:g} s" if outcome.kind == "timeout" else f"left with {outcome.exitcode}"
    said = " ".join(log.read_text(encoding="utf-8", errors="replace").split()[-40:]) if log.exists() else ""
    words = f" Its last words: {said}" if said else ""
    message = f"{subject.source}: expected all proofs to end, the process {how}.{words}"
    return Verdict(subject, 1, (Failure("process", message, 1),))


def _light(subject: Subject, request: Request) -> Verdict:
    """Whether the cards of a plugin load without anything heavy, in a fresh interpreter."""
    if request.proofs and "light" not in request.proofs:
        return Verdict(subject, 0)
    source = subject.source
    look = f"print(*[m for m in {HEAVY!r} if m in sys.modules])"
    code = f"import sys; from seqbench import registry; registry.load(); {look}"
    environment = {**os.environ, LIMIT: source.distribution}
    command = [sys.executable, "-c", code]
    done = subprocess.run(  # noqa: S603 - our own code
        command, capture_output=True, text=True, env=environment, timeout=request.limit, check=False
    )
    loaded = done.stdout.split() or done.stderr.split()[-20:] * bool(done.returncode)
    failures: tuple[Failure, ...] = ()
    if loaded:
        message = (
            f"{source}: modules that the import of its cards loads: expected none of {', '.join(HEAVY)}, got "
            f"{' '.join(loaded)}. Usual cause: a card imports its core; name it as text, 'package.module:Core'."
        )
        failures = (Failure("light", message, 1),)
    return Verdict(subject, 1, failures)
