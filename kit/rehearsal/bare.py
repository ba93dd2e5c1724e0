"""A command in a bare root folder: a fresh process, no network, read-only inputs, a time limit."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import threading
import time
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kit.errors import KitError

CHILD = Path(__file__).with_name("_bare_child.py")
PASSED = (
    "CUDA_VISIBLE_DEVICES", "KERAS_BACKEND", "LD_LIBRARY_PATH", "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS", "XLA_FLAGS",
)  # fmt: skip
"""What of this process's environment a command also has: nothing that could stand in for a file."""
GUARD = '''"""No network: every connection that leaves the machine is refused."""
import socket

def _refused(name):
    real = getattr(socket.socket, name)
    def guarded(self, address, *rest):
        host = str(address[0]) if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and not (
            host in ("localhost", "::1", "") or host.startswith("127.")
        ):
            raise OSError(101, "Network is unreachable (a rehearsal has none)")
        return real(self, address, *rest)
    return guarded

for name in ("connect", "connect_ex"):
    setattr(socket.socket, name, _refused(name))
'''
LAST = 3  # lines of what a failed command said


UNREACHED = re.compile(
    r"Network is unreachable|[Nn]ame resolution|Name or service not known|[Cc]ould not resolve|"
    r"unable to resolve host|nodename nor servname"
)
"""What programs say that looked for a network."""


@dataclass(frozen=True)
class Done:
    """What became of a command: exit code (None: stopped at its time limit), texts, seconds, MB."""

    code: int | None
    out: str
    err: str
    seconds: float
    megabytes: float

    def last(self) -> str:
        """Return the last lines that the command wrote on standard error, else on output."""
        lines = [line.strip() for line in (self.err.strip() or self.out.strip()).splitlines()]
        told = [line for line in lines if line.strip("^~ ")]  # Python marks places below a line
        return " | ".join(told[-LAST:]) or "it said nothing"


def wanted_network(done: Done) -> bool:
    """Return whether a command that failed had looked for a network."""
    return UNREACHED.search(done.err + done.out) is not None


@cache
def isolation() -> str:
    """Return how this machine cuts a command off.

    "namespaces": Linux gives the command an empty network and read-only mounts. "sockets": Python's
    sockets refuse to connect, and inputs are compared before and after.
    """
    if shutil.which("unshare") is None:
        return "sockets"
    done = subprocess.run([*_unshared(()), "true"], capture_output=True, check=False)
    return "namespaces" if done.returncode == 0 else "sockets"


def _unshared(read_only: Sequence[Path]) -> list[str]:
    own = [] if os.geteuid() == 0 else ["--map-root-user"]
    places = json.dumps([str(place) for place in read_only])
    return ["unshare", "--net", "--mount", *own, sys.executable, "-I", "-S", str(CHILD), places]


def environment(folder: Path) -> None:
    """Make a virtual environment with every package of this one but the kit."""
    venv.create(folder, symlinks=True, with_pip=importlib.util.find_spec("pip") is None)
    own = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        ours = path.name.startswith(("kit_medical", "_editable_impl_kit", "__editable__"))
        if path.name != "kit" and not ours and not (own / path.name).exists():
            (own / path.name).symlink_to(path)


def run(
    command: Sequence[str], *, root: Path, cwd: Path, seconds: float,
    env: Mapping[str, str] | None = None, programs: Path | None = None, code: Path | None = None,
    read_only: Sequence[Path] = (), how: str | None = None,
) -> Done:  # fmt: skip
    """Run a command that knows nothing but a root folder.

    Args:
        command: Program and arguments.
        root: The bare root; home and temporary files are in it, and KIT_ROOT names it.
        cwd: Where it starts.
        seconds: Time limit; the command and its children are then killed.
        env: More of its environment, which is otherwise empty.
        programs: Folder of its `python` and `kit`; None: this Python's.
        code: A folder that Python imports from before all others.
        read_only: Folders that it must leave as they are.
        how: See `isolation`; None: as this machine can.

    Raises:
        KitError: An input was changed.
    """
    how = how or isolation()
    before = {place: _state(place) for place in read_only}
    guard = root / "guard"
    for place in (root / "home", root / "tmp", guard):
        place.mkdir(exist_ok=True)
    if how == "sockets":
        (guard / "sitecustomize.py").write_text(GUARD, encoding="utf-8")
    own = [str(programs or Path(sys.executable).parent), "/usr/local/bin", "/usr/bin", "/bin"]
    environment = {
        "PATH": os.pathsep.join(own), "HOME": str(root / "home"), "TMPDIR": str(root / "tmp"),
        "PYTHONPATH": os.pathsep.join([str(guard), *([str(code)] if code else [])]),
        "PYTHONUTF8": "1", "PYTHONNOUSERSITE": "1", "LC_ALL": "C.UTF-8", "TQDM_DISABLE": "1",
        "MPLBACKEND": "Agg", "TF_CPP_MIN_LOG_LEVEL": "3", "KIT_ROOT": str(root),
        **{name: os.environ[name] for name in PASSED if name in os.environ}, **(env or {}),
    }  # fmt: skip
    prefix = _unshared(read_only) if how == "namespaces" else []
    done = _timed([*prefix, *command], root, cwd, environment, seconds)
    for place, state in before.items():
        if _state(place) != state:
            raise KitError(
                "an input was changed", path=place, expected="inputs are mounted read-only",
                remedy="write to the output folder alone",
            )  # fmt: skip
    return done


def _timed(
    command: Sequence[str], root: Path, cwd: Path, env: Mapping[str, str], seconds: float
) -> Done:
    """Run a command in a session of its own and measure it."""
    logs = [root / "tmp" / name for name in ("stdout.log", "stderr.log")]
    start = time.monotonic()
    with logs[0].open("wb") as out, logs[1].open("wb") as err:
        child = subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            start_new_session=True,
        )  # fmt: skip
        late = threading.Event()

        def stop() -> None:
            late.set()
            _kill(child.pid)

        timer = threading.Timer(max(seconds, 0.1), stop)
        timer.start()
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            _kill(child.pid)
            raise
        finally:
            timer.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        _kill(child.pid)  # what it may have left behind
    took = time.monotonic() - start
    said = [log.read_text(encoding="utf-8", errors="replace") for log in logs]
    unit = 1e6 if sys.platform == "darwin" else 1e3  # of ru_maxrss, to MB
    code = None if late.is_set() else child.returncode
    return Done(code, said[0], said[1], took, usage.ru_maxrss / unit)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _state(folder: Path) -> list[tuple[str, int, int]]:
    """Return name, size and time of each file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(p.relative_to(folder)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
