"""How much memory is free, and how much a process has held."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from pathlib import Path

UNKNOWN = 4 << 30  # bytes taken as free where the system does not say
TRIM = "MALLOC_TRIM_THRESHOLD_"
"""Dask sets it for its workers; glibc then asks the system anew for every array."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MOST_TRIM, MOST_MMAP = 1 << 26, 1 << 25  # bytes: what glibc comes to by itself
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may hold."""


def free() -> int:
    """Return how many bytes are free, in this container too; a cautious guess where none says."""
    found = UNKNOWN
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = int(line.split()[1]) << 10
    except OSError:
        return found
    try:
        limit = int((CGROUP / "memory.max").read_text())
        held = int((CGROUP / "memory.current").read_text())
        counts = (CGROUP / "memory.stat").read_text().split()
        given_back = int(counts[counts.index("inactive_file") + 1])  # read files, kept while free
        return max(0, min(found, limit - held + given_back))
    except (OSError, ValueError):  # "max", or no such limits here
        return found


def peak() -> int:
    """Return the most bytes that this process has held; 0 where the system does not say."""
    try:  # Linux's rusage would tell of the parent too
        status = Path("/proc/self/status").read_text("ascii")
        return int(status.split("VmHWM:")[1].split()[0]) << 10
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def room(peak_of_one: int, workers: int, free_before: int) -> int:
    """Return how many of so many workers have room: one at least, all where nothing is known."""
    return workers if peak_of_one <= 0 else max(1, min(workers, free_before // peak_of_one))


def keep_freed() -> None:
    """Have this process use freed memory again, whatever `TRIM` said when it began.

    With Dask's setting the planning of a slide takes twice as long.
    """
    if os.environ.pop(TRIM, None) is None or sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):  # no glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_TRIM_THRESHOLD, MOST_TRIM)
        mallopt(M_MMAP_THRESHOLD, MOST_MMAP)
