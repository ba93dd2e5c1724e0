"""Who writes a temporary file, told by its name, and whether that process still runs."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
from pathlib import Path

PREFIX = ".part-"
NAMED = re.compile(r"\.part-([0-9a-f]{8})-(\d+)-")


def prefix() -> str:
    """Return how the names of this process's temporary files begin: host and process are in it."""
    return f"{PREFIX}{host()}-{os.getpid()}-"


@functools.cache
def host() -> str:
    """Return eight digits for this host, or this container: where a process number means one."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        space = 0
    return hashlib.sha256(f"{platform.node()} {space}".encode()).hexdigest()[:8]


def is_dead(name: str) -> bool:
    """Return whether a temporary file's writer is known to be gone; elsewhere none can be."""
    found = NAMED.match(name)
    if found is None or found[1] != host() or os.name == "nt":  # there, signal 0 interrupts
        return False
    try:
        os.kill(int(found[2]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:  # another user's
        return False
    return _is_zombie(int(found[2]))


def _is_zombie(process: int) -> bool:
    """Return whether a process ended and waits for a parent that never asks (in containers)."""
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False
    return told.rpartition(")")[2].split()[0] in "ZX"
