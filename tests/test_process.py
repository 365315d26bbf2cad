"""A function in a child process: however it ends, the parent learns of it and nothing is left running."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from seqbench import process
from seqbench.executors import local, supervise
from seqbench.executors.local import Silent, run_local
from seqbench.executors.supervise import progress, run_trial_supervised
from seqbench.memory import Gauge
from seqbench.process import Limits, Outcome, Servant, run_in_child
from seqbench.spec import Trial
from seqbench.store import RunFolder

posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups of POSIX")


@pytest.fixture
def run(plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """``run("add", 1, 2)``: a function of plugins/children.py in a child, its output in ``tmp_path/log``."""
    monkeypatch.syspath_prepend(plugins)

    def call(function: str, *arguments: Any, **more: Any) -> Outcome:
        limits = Limits(more.pop("limit", None), more.pop("mib", 0))
        return run_in_child(f"children:{function}", arguments, more.pop("log", tmp_path / "log"), limits, **more)

    return call


def gone(pid: int) -> bool:
    """It has ended: there is no such process, or nobody has fetched its exit code yet."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (ProcessLookupError, FileNotFoundError):
        return True


def eventually(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


# --- ends -----------------------------------------------------------------------------------------------


def test_an_answer_comes_back(run: Callable[..., Outcome]) -> None:
    assert run("add", [1], [2]) == Outcome("returned", [1, 2], 0)


def test_a_large_answer_comes_back(run: Callable[..., Outcome]) -> None:
    """More than a pipe holds: the child must not be waited for before it is read."""
    assert run("large", 5_000_000).answer == bytes(5_000_000)


def test_none_is_an_answer(run: Callable[..., Outcome]) -> None:
    assert run("large", 0).kind == "returned"


@posix
@pytest.mark.parametrize(
    ("function", "arguments", "exitcode"),
    [
        ("fail", (), 1),
        ("cannot_be_sent", (), 1),
        ("leave", (3,), 3),
        ("leave", (0,), 0),
        ("exit_politely", (), 5),
        ("kill_itself", (signal.SIGKILL,), -signal.SIGKILL),
        ("kill_itself", (signal.SIGTERM,), -signal.SIGTERM),
        ("segfault", (), -signal.SIGSEGV),
        ("no_such_function", (), 1),
    ],
)
def test_a_death_is_told_with_its_code(
    run: Callable[..., Outcome], function: str, arguments: tuple[int, ...], exitcode: int
) -> None:
    assert run(function, *arguments) == Outcome("died", None, exitcode)


def test_the_log_tells_why(run: Callable[..., Outcome], tmp_path: Path) -> None:
    run("fail")
    assert "RuntimeError: on purpose" in (tmp_path / "log").read_text()
    run("cannot_be_sent")
    log = (tmp_path / "log").read_text()
    assert "pickle" in log
    assert "on purpose" not in log, "each child has its own log"


def test_a_kill_for_memory_is_told(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    kills = itertools.count()
    monkeypatch.setattr(process, "_kernel_kills", lambda: next(kills))
    assert run("kill_itself", int(signal.SIGKILL)).out_of_memory is True
    monkeypatch.setattr(process, "_kernel_kills", lambda: 7)
    assert run("kill_itself", int(signal.SIGKILL)).out_of_memory is False


@posix
def test_an_answer_that_was_cut_off_is_a_death() -> None:
    """The child is killed while it sends: multiprocessing then raises OSError, not EOFError."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    os.write(sender.fileno(), struct.pack("!i", 1000) + b"half")
    sender.close()
    ended, write = os.pipe()
    os.close(write)

    class Killed:
        sentinel, exitcode = ended, -9

    gauge = Gauge(os.getpid())
    assert process._wait_for(Killed, receiver, 5.0, None, process._kernel_kills(), gauge) == Outcome("died", None, -9)
    gauge.close()
    receiver.close()
    os.close(ended)


# --- limits ---------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("function", ["sleep_with_grandchild", "deaf"])
def test_a_limit_kills_the_child_and_all_that_it_started(
    run: Callable[..., Outcome], tmp_path: Path, function: str
) -> None:
    start = time.monotonic()
    assert run(function, str(tmp_path / "ids"), limit=1.0) == Outcome("timeout")
    assert 1.0 <= time.monotonic() - start < 8.0
    child, grandchild = map(int, (tmp_path / "ids").read_text().split())
    assert eventually(lambda: gone(child) and gone(grandchild))


def test_a_child_that_takes_too_much_memory_is_killed(run: Callable[..., Outcome], tmp_path: Path) -> None:
    outcome = run("sleep_with_grandchild", str(tmp_path / "ids"), mib=1)
    cause = "its process took more than the 1 MiB of --memory; raise it, or lower --batch"
    assert outcome == Outcome("memory", cause=cause)


def test_a_child_that_prints_without_end_is_killed(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_MIB", 1)
    cause = "it printed more than 1 MiB; see the end of its log"
    assert run("speak_without_end", limit=60.0) == Outcome("output", cause=cause)


def test_what_an_earlier_child_printed_does_not_count(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_MIB", 1)
    monkeypatch.setattr(process, "POLL", 1e-6)
    (tmp_path / "log").write_bytes(bytes(2**21))
    assert run("add", 1, 2).answer == 3


@posix
def test_what_a_child_leaves_running_is_killed_when_it_returns(run: Callable[..., Outcome], tmp_path: Path) -> None:
    assert run("sleep_with_grandchild", str(tmp_path / "ids"), 0).answer == "slept"
    assert eventually(lambda: gone(int((tmp_path / "ids").read_text().split()[1])))


def test_a_limit_that_is_not_reached_does_nothing(run: Callable[..., Outcome]) -> None:
    assert run("add", 1, 2, limit=60.0).answer == 3


@posix
def test_a_stop_kills_at_once(run: Callable[..., Outcome], tmp_path: Path) -> None:
    stop, ids = threading.Event(), tmp_path / "ids"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, "sleep_with_grandchild", str(ids), stop=stop, limit=60.0)
        assert eventually(lambda: ids.exists() and len(ids.read_text().split()) == 2)
        stop.set()
        assert running.result(timeout=10) == Outcome("stopped")
    assert eventually(lambda: all(gone(int(pid)) for pid in ids.read_text().split()))


# --- surroundings ---------------------------------------------------------------------------------------


def test_all_output_goes_into_the_log(
    run: Callable[..., Outcome], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("speak", log=tmp_path / "new" / "log").answer == "said"
    lines = (tmp_path / "new" / "log").read_text().splitlines()
    assert sorted(lines) == ["from C", "from a grandchild", "from python", "to stderr"]
    assert capfd.readouterr() == ("", "")


def test_variables_of_ours_are_those_of_now(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server that children come from was started earlier, with the variables of then."""
    for value in ("first", "second"):
        monkeypatch.setenv("SEQBENCH_TEST", value)
        assert run("environment").answer["SEQBENCH_TEST"] == value
    monkeypatch.delenv("SEQBENCH_TEST")
    assert "SEQBENCH_TEST" not in run("environment").answer


@posix
def test_variables_that_were_removed_since_the_server_started_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys\nfrom seqbench import process\nprocess.PRELOAD.clear()\n"
        f"sys.path.insert(0, {str(Path(__file__).parent / 'plugins')!r})\n"
        "see = lambda: process.run_in_child('children:environment', (), pathlib.Path(sys.argv[1])).answer\n"
        "print('SEQBENCH_TEST' in see()); del os.environ['SEQBENCH_TEST']; print('SEQBENCH_TEST' in see())\n"
    )
    environment = {**os.environ, "SEQBENCH_TEST": "1"}
    words = [sys.executable, "-c", code, str(tmp_path / "log")]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["True", "False"]


@posix
def test_a_child_has_a_group_of_its_own_and_our_folder(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = run("process").answer
    assert found["group"] == found["session"] == found["id"] != os.getpid()
    assert Path(found["folder"]).samefile(tmp_path)


def test_there_is_nothing_to_read(run: Callable[..., Outcome]) -> None:
    assert run("read_stdin", limit=20.0).answer == ""


@posix
def test_a_log_that_is_a_link_stays_one(run: Callable[..., Outcome], tmp_path: Path) -> None:
    """What is there is written to, never removed: it may be /dev/null, and we may be root."""
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "file").write_text("of an earlier child")
    assert run("speak", log=tmp_path / "link").answer == "said"
    assert (tmp_path / "link").is_symlink()
    text = (tmp_path / "file").read_text()
    assert text
    assert "earlier" not in text


def test_children_at_the_same_time_do_not_mix(run: Callable[..., Outcome], tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda n: run("add", n, 100, log=tmp_path / f"log{n}").answer, range(12))
        assert list(answers) == [n + 100 for n in range(12)]


def test_main_is_as_it_was_after_each_start(run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    before = dict(main.__dict__)
    run("add", 1, 2)
    assert main.__dict__ == before
    monkeypatch.setattr(process, "_context", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("add", 1, 2)
    assert main.__dict__ == before


SCRIPT = """
import os, pathlib, sys
from seqbench import process
process.PRELOAD.clear()
sys.path.insert(0, {plugins!r})
print("script runs", __name__, flush=True)
outcome = process.run_in_child("children:{function}", {arguments!r}, pathlib.Path({log!r}))
print(outcome, flush=True)
"""


def script(tmp_path: Path, plugins: Path, function: str, *arguments: Any) -> list[str]:
    """The command that runs a user's script: it has no ``if __name__ == "__main__"`` guard."""
    path = tmp_path / "users_script.py"
    fields = {"plugins": str(plugins), "function": function, "arguments": arguments, "log": str(tmp_path / "log")}
    path.write_text(SCRIPT.format(**fields), encoding="utf-8")
    return [sys.executable, str(path)]


def test_a_script_without_a_guard_runs_once(tmp_path: Path, plugins: Path) -> None:
    command = script(tmp_path, plugins, "add", 1, 2)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["script runs __main__", repr(Outcome("returned", 3, 0))]


@posix
def test_a_child_does_not_outlive_a_parent_that_is_killed(tmp_path: Path, plugins: Path) -> None:
    ids = tmp_path / "ids"
    parent = subprocess.Popen(script(tmp_path, plugins, "deaf", str(ids)), stdout=subprocess.DEVNULL)
    try:
        assert eventually(lambda: ids.exists() and len(ids.read_text().split()) == 2, 30)
    finally:
        parent.kill()
        parent.wait()
    assert eventually(lambda: all(gone(int(pid)) for pid in ids.read_text().split()))


# --- servants -------------------------------------------------------------------------------------------


ASKING = """
import pathlib, sys
from seqbench import process
process.PRELOAD.clear()
sys.path.insert(0, {plugins!r})
with process.Servant("children:keeper_of_a_lock", (), pathlib.Path({log!r})) as servant:
    print(servant.ask("now").answer)
"""


@posix
def test_a_servant_takes_its_semaphores_with_it(tmp_path: Path, plugins: Path) -> None:
    """Otherwise Python says at our end that some were leaked."""
    code = ASKING.format(plugins=str(plugins), log=str(tmp_path / "log"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


@posix
@pytest.mark.parametrize("interrupted", [False, True])
def test_a_servant_that_does_not_end_is_killed(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interrupted: bool
) -> None:
    monkeypatch.syspath_prepend(plugins)
    waited: list[float] = []
    with suppress(KeyboardInterrupt), Servant("children:stubborn", (), tmp_path / "log") as servant:
        child = servant.ask("who").answer
        waited.append(time.monotonic())
        if interrupted:
            raise KeyboardInterrupt
    waited.append(time.monotonic())
    assert gone(child)
    assert (waited[1] - waited[0] < process.FAREWELL) is interrupted


@posix
def test_an_interrupt_while_a_servant_ends_kills_it(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(plugins)

    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(process._Child, "dismiss", interrupted)
    with pytest.raises(KeyboardInterrupt), Servant("children:stubborn", (), tmp_path / "log") as servant:
        child = servant.ask("who").answer
    assert gone(child)


# --- supervision ----------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "run")


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``ends(outcome, log, record)``: the next children print ``log``, write ``record`` and end so."""

    def plan(outcome: Outcome, log: bytes = b"", record: dict[str, Any] | None = None) -> None:
        def fake(function: str, arguments: Any, path: Path, limits: Limits, stop: Any) -> Outcome:
            assert function == "seqbench.trial:run_trial"
            trial, folder = arguments
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(log)
            if record is not None:
                folder.write_record(trial.id, record)
            return outcome

        monkeypatch.setattr(supervise, "run_in_child", fake)

    return plan


DEATHS = [
    (Outcome("timeout"), "timeout", "killed after 9 s; raise --timeout or lower --budget"),
    (Outcome("memory", cause="it took too much"), "out_of_memory", "killed: it took too much"),
    (Outcome("output", cause="it printed"), "killed", "killed: it printed"),
    (Outcome("died", None, -9), "killed", "the process was killed by signal SIGKILL"),
    (Outcome("died", None, -11), "killed", "the process was killed by signal SIGSEGV"),
    (Outcome("died", None, -99), "killed", "the process was killed by signal 99"),
    (Outcome("died", None, -9, True), "out_of_memory", "the kernel killed the process for memory; lower --batch"),
    (Outcome("died", None, 3), "error", "the process left with exit code 3 before its end; see the log"),
    (Outcome("returned", None, 0), "error", "the process left with exit code 0 before its end"),
]


@pytest.mark.parametrize(("outcome", "status", "cause"), DEATHS)
def test_every_death_becomes_a_record(
    folder: RunFolder, example_trial: Trial, ends: Callable[..., None], outcome: Outcome, status: str, cause: str
) -> None:
    ends(
        outcome,
        b"x" * 9000
        + b"\nseqbench: step 5/1000 loss 1\nseqbench: step 10/1000 loss 0.9\n"
        + b"step 99/99 is what a plugin printed\n\xff no UTF-8",
    )
    trial = replace(example_trial, advice="field 63")
    record = run_trial_supervised(trial, folder, Limits(9))
    assert record == folder.record(trial.id)
    assert record["status"] == status
    assert record["cause"].startswith(cause)
    assert record["failed_step"] == 10
    assert record["log_tail"].endswith("loss 0.9\nstep 99/99 is what a plugin printed\n\ufffd no UTF-8")
    assert len(record["log_tail"]) == 4000
    assert (record["task_label"], record["trial"]["seed"], record["notes"]) == ("copy/embedded", 0, ["field 63"])


def test_a_record_that_the_child_wrote_stays(
    folder: RunFolder, example_trial: Trial, ends: Callable[..., None]
) -> None:
    ends(Outcome("returned", None, 0), b"fine", {"status": "ok", "score": 1.0})
    record = run_trial_supervised(example_trial, folder, Limits(9))
    assert (record["status"], record["score"]) == ("ok", 1.0)
    ends(Outcome("died", None, -9))
    assert run_trial_supervised(example_trial, folder, Limits(9)) == record, "a finished trial does not run again"


def test_a_failure_that_the_child_wrote_gets_the_end_of_its_log(
    folder: RunFolder, example_trial: Trial, ends: Callable[..., None]
) -> None:
    """And it may die afterwards, while it cleans up."""
    ends(Outcome("died", None, -11), b"Traceback", {"status": "diverged", "cause": "nan"})
    record = run_trial_supervised(example_trial, folder, Limits(9))
    assert (record["status"], record["cause"], record["log_tail"]) == ("diverged", "nan", "Traceback")


def test_a_stopped_trial_has_no_record(folder: RunFolder, example_trial: Trial, ends: Callable[..., None]) -> None:
    ends(Outcome("stopped"))
    assert run_trial_supervised(example_trial, folder, Limits(9), threading.Event()) is None
    assert folder.record(example_trial.id) is None


def test_a_blocked_trial_is_a_row_without_a_process(
    folder: RunFolder, example_trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(supervise, "run_in_child")
    trial = replace(example_trial, blocked={"status": "refused", "cause": "too long"})
    record = run_trial_supervised(trial, folder, Limits(9))
    assert (record["status"], record["cause"]) == ("refused", "too long")
    assert folder.record(trial.id) == record


def test_progress_is_read_off_the_log(folder: RunFolder, example_trial: Trial) -> None:
    assert progress(folder, example_trial) is None
    log = folder.log_path(example_trial.id)
    log.parent.mkdir()
    log.write_text("loading\nseqbench: first step\n")
    assert progress(folder, example_trial) == (0, 0)
    steps = "seqbench: step 10/200 loss 1.0\nstep 11/200\nseqbench: step 20/200 loss 0.5\nnext"
    log.write_text(f"seqbench: first step\n{steps}")
    assert progress(folder, example_trial) == (20, 200)


class Notes(Silent):
    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    def started(self, trial: Trial) -> None:
        self.seen.append(("started", trial.seed))

    def finished(self, trial: Trial, record: dict[str, Any]) -> None:
        self.seen.append((record["status"], trial.seed))


def test_trials_run_in_their_order_and_finished_ones_not_again(
    folder: RunFolder, example_trial: Trial, ends: Callable[..., None]
) -> None:
    ends(Outcome("returned"), b"", {"status": "ok"})
    trials, notes = [replace(example_trial, seed=seed) for seed in (4, 1, 3)], Notes()
    folder.write_record(trials[1].id, {"status": "ok"})
    run_local(trials, folder, 1, Limits(9), notes)
    assert notes.seen == [("started", 4), ("ok", 4), ("started", 3), ("ok", 3)]


def test_jobs_run_at_the_same_time_and_no_more_of_them(
    folder: RunFolder, example_trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, most = threading.Barrier(3, timeout=10), []

    def fake(trial: Trial, *_: Any) -> dict[str, Any]:
        most.append(together.n_waiting)
        together.wait()  # goes on only when three are here at once
        return {"status": "ok"}

    monkeypatch.setattr(local, "run_trial_supervised", fake)
    run_local([replace(example_trial, seed=seed) for seed in range(6)], folder, 3, Limits(9), Silent())
    assert len(most) == 6


def test_an_interrupt_stops_those_that_run_and_starts_no_other(
    folder: RunFolder, example_trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []

    def fake(trial: Trial, folder: RunFolder, limits: Limits, stop: threading.Event) -> None:
        ran.append(trial.seed)
        if trial.seed == 0:
            raise KeyboardInterrupt
        assert stop.wait(10), "the others are told"

    monkeypatch.setattr(local, "run_trial_supervised", fake)
    trials, notes = [replace(example_trial, seed=seed) for seed in range(8)], Notes()
    with pytest.raises(KeyboardInterrupt):
        run_local(trials, folder, 2, Limits(9), notes)
    assert len(ran) <= 3, "the one that was interrupted, one beside it, one that its thread may have begun"
    assert all(status == "started" for status, _ in notes.seen)
