"""What jobs are made of in tests: a call that works, calls that fail, one that is slow."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from kit.errors import ImageError


def square(x: int, wait: float = 0.0) -> int:
    time.sleep(wait)
    return x * x


def fail(x: int) -> int:
    raise ImageError("cannot be read", path=f"{x}.png", received=x)


def crash(*_: Any) -> int:
    raise ZeroDivisionError("a mistake in the program")


def slow(mark: Path, seconds: float = 60) -> None:
    """Leave the process's number, and prove by a second file if it was let run to its end."""
    (mark / "started").write_text(str(os.getpid()))
    time.sleep(seconds)
    (mark / "ended").touch()


def gone(pid: int, patience: float = 10) -> bool:
    """Return whether a process ends in time."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
