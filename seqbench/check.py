"""``seqbench check``: the proofs about installed plugins, each model and backend in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from seqbench.errors import UnknownName
from seqbench.executors.supervise import death, tail
from seqbench.process import Limits, run_in_child
from seqbench.registry import HEAVY, LIMIT, Registry, Source
from seqbench.workers import run_in_threads


@dataclass(frozen=True)
class Job:
    """What is proved in one process: a model on a backend, a task, or the cards of a plugin.

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
    """What the proofs said in one job.

    Attributes:
        job: the job.
        proofs: how many were run.
        failures: those that fail.
        seconds: how long the proofs took, compiling included; 0 where that is not known.
        known: the names of all proofs that apply, also of those that were not asked for.
    """

    job: Job
    proofs: int
    failures: tuple[Failure, ...] = ()
    seconds: float = 0.0
    known: frozenset[str] = frozenset()


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


def jobs_of(request: Request, cards: Registry) -> list[Job]:
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
        found += [job for kind in kinds for job in _of_card(kind, name, request, cards)]
    if request.backends and not any(job.backend for job in found):
        known = {backend for name in names if name in cards.models for backend in cards.models[name].cores}
        raise UnknownName("backend", request.backends[0], known)
    installed = {job.source.distribution: job.source for job in found if not job.source.file}
    return [*(Job("card", name, "", source) for name, source in installed.items()), *found]


def brought_by_files(cards: Registry) -> list[str]:
    """The models and tasks that single files bring."""
    return [name for (kind, name), source in cards.origin.items() if kind in {"model", "task"} and source.file]


def _of_card(kind: str, name: str, request: Request, cards: Registry) -> Iterator[Job]:
    source = cards.origin[kind, name]
    if kind == "task":
        if not request.backends:
            yield Job(kind, name, "", source)
        return
    for backend in cards.models[name].cores:
        if not request.backends or backend in request.backends:
            yield Job(kind, name, backend, source)


def check(request: Request, cards: Registry, tell: Callable[[Verdict], None]) -> bool:
    """Run the proofs, ``request.jobs`` processes at a time, which an interrupt ends; whether all hold.

    Args:
        request: what is asked for.
        cards: the plugins.
        tell: is given each verdict, in order.

    Raises:
        UsageError: the request names something that is not there.
    """
    jobs = jobs_of(request, cards)
    known: set[str] = set()
    fine = True

    def one(numbered: tuple[int, Job], stop: threading.Event) -> Verdict:
        number, job = numbered
        return _supervised(job, request, Path(scratch) / f"{number}.log", stop)

    def hear(verdict: Verdict) -> None:
        nonlocal fine
        known.update(verdict.known)
        fine = fine and not verdict.failures
        if verdict.proofs or verdict.failures:
            tell(verdict)

    with tempfile.TemporaryDirectory(prefix="seqbench-") as scratch:
        run_in_threads(one, list(enumerate(jobs)), request.jobs, hear)
    for name in request.proofs:
        if name not in known and fine:  # one that fails may have kept a job from saying what it knows
            raise UnknownName("proof that applies here:", name, known)
    return fine


def _supervised(job: Job, request: Request, log: Path, stop: threading.Event) -> Verdict:
    """The verdict, whatever the plugin's code does to its process; of no use once ``stop`` is set."""
    if job.kind == "card":
        return _light(job, request)
    arguments = (job, tuple(request.proofs), tuple(request.files))
    outcome = run_in_child("seqbench.prove:prove", arguments, log, Limits(request.limit), stop)
    if outcome.kind == "returned":
        verdict: Verdict = outcome.answer
        return verdict
    cause = death(outcome, request.limit, "ask for fewer with --proof")["cause"]
    words = " ".join(tail(log).split()[-40:])
    said = f" Its last words: {words}" if words else ""
    return Verdict(job, 1, (Failure("process", f"{job.source}: expected all proofs to end: {cause}.{said}", 1),))


def _light(job: Job, request: Request) -> Verdict:
    """Whether the cards of a plugin load without anything heavy, in a fresh interpreter."""
    known = frozenset({"light"})
    if request.proofs and "light" not in request.proofs:
        return Verdict(job, 0, known=known)
    source = job.source
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
    return Verdict(job, 1, failures, known=known)
