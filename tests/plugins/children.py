"""Functions that end a child process in every way there is; nothing heavy is imported."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


def add(a, b):
    return a + b


def speak():
    print("from python")  # noqa: T201 - to see where it goes
    print("to stderr", file=sys.stderr)  # noqa: T201
    sys.stdout.flush()
    ctypes.CDLL(None).puts(b"from C")
    ctypes.CDLL(None).fflush(None)
    subprocess.run(["echo", "from a grandchild"], check=True)
    return "said"


def speak_without_end():
    while True:
        os.write(1, b"again\n" * 1000)


def fail():
    raise RuntimeError("on purpose")


def leave(code):
    os._exit(code)


def exit_politely():
    sys.exit(5)


def kill_itself(number):
    os.kill(os.getpid(), number)


def segfault():
    ctypes.string_at(0)


def sleep_with_grandchild(file, seconds=300):
    """Write the ids of this process and of a grandchild, then sleep."""
    grandchild = subprocess.Popen(["sleep", "300"])
    Path(file).write_text(f"{os.getpid()} {grandchild.pid}")
    time.sleep(seconds)
    return "slept"


def deaf(file):
    """Ignore all that can be ignored."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sleep_with_grandchild(file)


def environment():
    return dict(os.environ)


def process():
    return {"id": os.getpid(), "group": os.getpgid(0), "session": os.getsid(0), "folder": str(Path.cwd())}


def read_stdin():
    return sys.stdin.read() + os.read(0, 10).decode()


def cannot_be_sent():
    return lambda: None


def large(size):
    return bytes(size)


def keeper_of_a_lock():
    """To be asked: it holds what the system would go on holding if it were killed."""
    lock = multiprocessing.get_context("spawn").RLock()
    return lambda _question: lock.acquire()


def stubborn():
    """To be asked: a thread of it does not end."""
    threading.Thread(target=time.sleep, args=(300,)).start()
    return lambda _question: os.getpid()
