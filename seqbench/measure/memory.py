"""Peak memory of this process, or of the CUDA allocator."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

_MIB = 1024.0**2
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_KEPT = 32 * 2**20  # glibc takes no more


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, but for blocks of more than 32 MiB, instead of returning it now and then.

    Whether a call must ask the system for its memory again depends on what lies above it on the heap: it takes
    thousands of page faults in one call and none in the next, and differs between two processes that do the same.

    Returns:
        Whether the C library can be told (glibc).
    """
    import ctypes

    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT)) and bool(mallopt(_TRIM_THRESHOLD, 2**31 - 1))


class PeakMemory:
    """Memory from its creation on: start it before the network is built.

    CPU: the largest resident size of the process less the size at the start. Linux resets its high-water mark for
    this; elsewhere the mark of the whole process is used, which may have been set before. CUDA: the same of the
    allocator. A second gauge on Linux or CUDA resets the mark that the first one reads.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._baseline = torch.cuda.memory_allocated() if self._cuda else _resident()
        self.restart()

    def restart(self) -> None:
        """Forget the peak so far, but not the baseline."""
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            _reset_high_water()

    def mib(self) -> float:
        """The peak so far, in MiB."""
        if self._cuda:
            return (torch.cuda.max_memory_allocated() - self._baseline) / _MIB
        return max(0, _high_water() - self._baseline) / _MIB


def _reset_high_water() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def _status(field: str) -> int | None:
    """A size in /proc/self/status, in bytes, or None where there is no such file (not Linux)."""
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    found = [line.split()[1] for line in text.splitlines() if line.startswith(field + ":")]
    return int(found[0]) * 1024 if found else None


def _resident() -> int:
    size = _status("VmRSS")
    if size is None:
        import psutil

        size = int(psutil.Process().memory_info().rss)
    return size


def _high_water() -> int:
    size = _status("VmHWM")
    if size is not None:
        return size
    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
