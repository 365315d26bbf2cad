"""What a result depends on besides the spec: machine, system, versions, commit. Collected once per run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

PACKAGES = ("seqbench", "torch", "numba", "llvmlite", "numpy", "scipy", "pandas", "seaborn", "matplotlib", "pluggy")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "SEQBENCH_PLUGINS")
NOT_TOLD = "not told by the system"


def environment() -> dict[str, Any]:
    """Plain data; nothing in it names the user, the host or a path."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "cpu": cpu_model(),
        "cores": f"{psutil.cpu_count(logical=False) or '?'} physical, {usable_cores()} usable",
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "governor": _first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or NOT_TOLD,
        "load_at_start": _load(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": commit() or "not a git checkout",
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
    }


def condition() -> dict[str, Any]:
    """How the machine is just now: what disturbs a measurement. Taken before one and after."""
    clock = psutil.cpu_freq() if hasattr(psutil, "cpu_freq") else None
    throttled = [
        int(line)
        for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count")
        if (line := _first_line(str(path))) is not None
    ]
    return {
        "load": _load(),
        "clock_mhz": round(clock.current) if clock else NOT_TOLD,
        "throttled": sum(throttled) if throttled else NOT_TOLD,
    }


def _load() -> float | str:
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else NOT_TOLD


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the checkout that seqbench runs from, ``+changes`` if it was edited; None if it is installed."""
    root = Path(__file__).resolve().parent.parent
    git = shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    try:
        head = _git(git, root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(git, root, "status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(git: str, root: Path, *arguments: str) -> str:
    command = [git, "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed words
    return done.stdout.strip()


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _first_line(path: str) -> str | None:
    with suppress(OSError, IndexError):
        return Path(path).read_text(encoding="ascii").splitlines()[0]
    return None
