"""One run in a folder at a time; what a dead one held is free at once."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from kit.errors import SettingsError

log = logging.getLogger(__name__)

NAME = ".lock"
TAKEN = (errno.EACCES, errno.EAGAIN)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder while the block lasts.

    The system lets go of the lock when its process ends, however that ends, and knows of it on
    every machine of a shared file system that has locks. Where it has none (and on Windows)
    nothing is held, which is said.

    Raises:
        SettingsError: A run that lives holds it; says which.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / NAME, os.O_RDWR | os.O_CREAT)
    try:
        if _taken(handle, folder):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        yield
    finally:
        os.close(handle)


def _taken(handle: int, folder: Path) -> bool:
    """Take the lock, and return whether there are locks here."""
    try:
        import fcntl
    except ImportError:  # Windows
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in TAKEN:
            log.warning("%s: this file system has no locks (%s)", folder, error.strerror)
            return False
        who = os.pread(handle, 200, 0).decode(errors="replace")
        raise SettingsError(
            "another run is at work in the folder", received=who or "it does not say which",
            path=folder, remedy="wait for it or end it, or choose another --out",
        ) from error  # fmt: skip
    return True
