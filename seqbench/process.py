"""A function in a child process of its own: output into a log, limits of time and memory that kill the whole group.

Where the system can, children come from a forkserver that has torch imported already: a child then starts in
milliseconds instead of seconds. It only imports; no tensor is made and no CUDA call runs before the fork.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Literal

from seqbench.memory import Gauge
from seqbench.registry import resolve

PRELOAD = ["torch", "torch._dynamo", "seqbench.trial"]
"""``torch._dynamo`` because the first optimiser would import it, 1.5 s that no trial should be charged with."""

POLL = 0.1
"""Seconds between two looks at a child."""

FAREWELL = 1.0
"""Seconds in which a servant that is no longer needed may end by itself and put its things away."""

LOG_MIB = 64
"""What a child may print: a thousand times what a trial does, and little enough for any disk."""

_starting = threading.Lock()


@dataclass(frozen=True)
class Limits:
    """What a child may take; who takes more is killed, with all that it started.

    Attributes:
        seconds: of wall time; None: any.
        mib: of memory that its process has resident; 0: any that the machine can spare.
    """

    seconds: float | None = None
    mib: int = 0


UNLIMITED = Limits()


@dataclass(frozen=True)
class Outcome:
    """How a child ended.

    Attributes:
        kind: ``"returned"``, ``"died"`` (without an answer), ``"timeout"``, ``"memory"`` (it took too much),
            ``"output"`` (it printed too much) or ``"stopped"`` (we were asked to stop).
        answer: what the function returned.
        exitcode: of the process; below 0 the signal that killed it.
        out_of_memory: the kernel killed a process for memory while the child ran (Linux).
        cause: why we killed it, where the kind does not say it.
    """

    kind: Literal["returned", "died", "timeout", "memory", "output", "stopped"]
    answer: Any = None
    exitcode: int | None = None
    out_of_memory: bool = False
    cause: str = ""


def run_in_child(
    function: str,
    arguments: tuple[Any, ...],
    log: Path,
    limits: Limits = UNLIMITED,
    stop: threading.Event | None = None,
) -> Outcome:
    """Call ``function(*arguments)`` in a child and wait for it.

    Args:
        function: ``"package.module:name"``, imported in the child alone.
        arguments: picklable.
        log: gets what the child prints, file descriptors 1 and 2.
        limits: of the child.
        stop: set by another thread to have them killed at once.
    """
    with _Child(_answer_once, function, arguments, log, limits.mib) as child:
        outcome = child.wait(limits.seconds, stop)
        return child.ended(outcome) if outcome.kind == "returned" else outcome


class Servant:
    """A child that answers one question after another: between them it only waits. A context manager.

    ``function(*arguments)`` gives in the child what answers: it is called with each question. At the end of the block
    it may end by itself, for a moment; at an exception it is killed at once.
    """

    def __init__(self, function: str, arguments: tuple[Any, ...], log: Path) -> None:
        self._child = _Child(_answer_questions, function, arguments, log)

    def __enter__(self) -> Servant:
        self._child.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._child.dismiss()
        finally:  # Ctrl-C may come while we wait
            self._child.__exit__(*error)

    def ask(self, question: Any, limit: float | None = None) -> Outcome:
        """The answer to a question; ``exitcode`` is None while the child lives.

        Args:
            question: picklable.
            limit: seconds after which the child is given up; what is asked later finds it dead.
        """
        self._child.send(question)
        outcome = self._child.wait(limit)
        if outcome.kind in {"timeout", "memory", "output"}:
            self._child.kill()
        return outcome


class _Child:
    """A process that runs ``target(connection, function, arguments)``, killed with all its children at the end."""

    def __init__(
        self, target: Callable[..., None], function: str, arguments: tuple[Any, ...], log: Path, mib: int = 0
    ) -> None:
        self._target, self._function, self._arguments, self._log = target, function, arguments, log
        self._mib = mib

    def __enter__(self) -> _Child:
        self._ours, theirs = multiprocessing.Pipe()
        self._log.parent.mkdir(parents=True, exist_ok=True)
        if self._log.exists():  # what an earlier child printed is not this one's; what is no file, /dev/null, stays
            self._log.write_bytes(b"")
        environment = {k: v for k, v in os.environ.items() if k.startswith("SEQBENCH_")}
        self._kills = _kernel_kills()
        with _starting, _main_hidden(), _interrupts_held():
            what = (self._target, self._function, self._arguments)
            self._process = _context().Process(target=_child, args=(*what, str(self._log), environment, theirs))
            self._process.start()
        theirs.close()
        self._gauge = Gauge(self._process.pid, self._mib)
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()
        self._gauge.close()
        self._ours.close()

    def kill(self) -> None:
        """End it, whatever it does."""
        _kill(self._process)

    def dismiss(self) -> None:
        """Let it see that nobody asks any more, and wait for its end, but not for long.

        A killed process leaves its semaphores behind (numba has some), and Python complains of them when we end.
        """
        self._ours.close()
        self._process.join(FAREWELL)

    def send(self, message: Any) -> None:
        """Send it something, unless it is dead."""
        with suppress(OSError):
            self._ours.send(message)

    def wait(self, limit: float | None = None, stop: threading.Event | None = None) -> Outcome:
        """Its next answer, its end, or the end of our patience."""
        return _wait_for(self._process, self._ours, limit, stop, self._kills, self._too_much)

    def _too_much(self) -> Outcome | None:
        """What it must be killed for, if anything."""
        if cause := self._gauge.too_much():
            return Outcome("memory", cause=cause)
        with suppress(OSError):
            if self._log.stat().st_size > LOG_MIB * 2**20:
                return Outcome("output", cause=f"it printed more than {LOG_MIB} MiB; see the end of its log")
        return None

    def ended(self, outcome: Outcome) -> Outcome:
        """With the exit code of a child that has nothing more to do."""
        self._process.join(5)
        return replace(outcome, exitcode=self._process.exitcode)


def _wait_for(
    process: Any,
    connection: Connection,
    limit: float | None,
    stop: threading.Event | None,
    kills: int,
    too_much: Callable[[], Outcome | None],
) -> Outcome:
    deadline = None if limit is None else time.monotonic() + limit
    while True:
        if connection in wait([connection, process.sentinel], POLL):
            with suppress(EOFError, OSError):  # OSError: it was killed in the middle of its answer
                return Outcome("returned", connection.recv())
        if process.exitcode is not None:
            return Outcome(
                "died", None, process.exitcode, process.exitcode == -signal.SIGKILL and _kernel_kills() > kills
            )
        if stop is not None and stop.is_set():
            return Outcome("stopped")
        if deadline is not None and time.monotonic() > deadline:
            return Outcome("timeout")
        if outcome := too_much():
            return outcome


def _child(
    target: Callable[..., None],
    function: str,
    arguments: tuple[Any, ...],
    log: str,
    environment: dict[str, str],
    connection: Connection,
) -> None:
    if os.name == "posix":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        os.setsid()  # a group of its own: a limit can kill it with all that it started, and Ctrl-C does not reach it
    for name in [name for name in os.environ if name.startswith("SEQBENCH_")]:
        del os.environ[name]  # the forkserver keeps those of its own start
    os.environ.update(environment)
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    except FileNotFoundError:  # the program was interrupted before we began, and has put its folder away
        os._exit(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(file, 1)
    os.dup2(file, 2)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    target(connection, function, arguments)
    connection.close()


def _answer_once(connection: Connection, function: str, arguments: tuple[Any, ...]) -> None:
    connection.send(resolve(function)(*arguments))


def _answer_questions(connection: Connection, function: str, arguments: tuple[Any, ...]) -> None:
    answer = resolve(function)(*arguments)
    with suppress(EOFError):  # nobody asks any more
        while True:
            connection.send(answer(connection.recv()))


def _die_with_parent() -> None:
    """Not to go on training for a program that was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        if os.name == "posix":
            os.killpg(0, signal.SIGKILL)
        os._exit(1)


def _kill(process: Any) -> None:
    """The child and its whole group, whatever state it is in."""
    if process.pid is not None and os.name == "posix":
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    if process.exitcode is None:
        process.kill()
    process.join(10)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep the child from importing the user's own script again.

    multiprocessing re-runs ``__main__`` in a child, so that a script that calls ``seqbench.run`` without the
    ``if __name__ == "__main__"`` guard would start itself over and over. Nothing of ours is defined there.
    """
    main = sys.modules["__main__"]
    names = ("__file__", "__spec__")
    kept: dict[str, Any] = {name: main.__dict__.pop(name) for name in names if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(kept)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C waits for the end of this block, and the forkserver that may start in it never sees one.

    It would die in the middle of its imports, with a traceback of its own.
    """
    if os.name != "posix":
        yield
        return
    resource_tracker.ensure_running()  # first, for its start would let interrupts through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _kernel_kills() -> int:
    """How many processes the Linux kernel has killed for memory since it started; 0 where it does not tell."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
