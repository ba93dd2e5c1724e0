"""Run jobs each in a process of its own: its memory returns, and its crash is its own.

The child is a fresh Python (no fork of loaded libraries, no second import of the caller's script).
It reads its job from standard input and ends when that closes, so it never outlives its parent,
even one that was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Generator, Sequence
from pathlib import Path

from kit import _memory
from kit.errors import JobError
from kit.jobs import WORKER, Engine, Job, Outcome, call, dealt, engine

log = logging.getLogger(__name__)

CHILD = "import kit.apart; kit.apart.serve()"
CUT_OFF = 1  # exit code of a child whose parent is gone
PR_SET_PDEATHSIG = 1  # of Linux's prctl
TRIES = 2  # a job that was killed goes on; one that is killed again is set aside


def each(jobs: Sequence[Job], *, workers: int = 1) -> Generator[Outcome]:
    """Run each job in a process of its own, `workers` at a time, and yield outcomes in order.

    A job that raises `KitError` is an outcome with that error, and so is one whose process ended
    by itself or was killed twice; the others go on. GPUs are dealt out: no two jobs have one
    together, and where there are more than workers each has several. If the memory that the first
    job took leaves no room for so many, fewer run at once. Close the generator if it is left
    before its end: that ends the processes.

    Args:
        jobs: Independent calls of importable functions with picklable arguments.
        workers: How many run at once.
    """
    from joblib import Parallel, delayed

    elsewhere = engine()
    if elsewhere is not None:
        yield from _elsewhere(elsewhere, jobs)
        return
    room = _Room(min(workers, max(1, len(jobs))))
    found = Parallel(n_jobs=len(room.dealt), backend="threading", return_as="generator")(
        delayed(room.run)(job) for job in jobs
    )
    try:
        for outcome in found:  # noqa: UP028 - the processes must end before the threads
            yield outcome
    finally:
        room.end()
        with warnings.catch_warnings(action="ignore"):
            found.close()


def _elsewhere(cluster: Engine, jobs: Sequence[Job]) -> Generator[Outcome]:
    """Yield the outcomes of jobs in processes of a cluster's workers, which end if it is left."""
    run = uuid.uuid4().hex
    found = cluster.each([Job(job.name, alone, (job, run)) for job in jobs], networks=True)
    try:
        yield from map(_of_child, found)
    except BaseException:  # an interrupt, or it is closed
        found.close()
        cluster.tell(end, run)
        raise


_rooms: dict[str, set[_Room]] = {}
"""The rooms of this process, by the run that asked for them."""
_ended: set[str] = set()


def alone(job: Job, run: str) -> Outcome:
    """Run one job in a process of its own, from wherever this is called; `end(run)` ends it."""
    room = _Room(1)
    _rooms.setdefault(run, set()).add(room)
    if run in _ended:
        room.end()
    try:
        return room.run(job)
    finally:
        _rooms[run].discard(room)


def end(run: str) -> None:
    """End the processes of a run that this process began, and begin no other."""
    _ended.add(run)
    for room in tuple(_rooms.get(run, ())):
        room.end()


def _of_child(found: Outcome) -> Outcome:
    """Return what the child said, or that not even its worker could."""
    return found if found.error is not None else found.value


class _Room:
    """The processes that run at this moment, and the GPUs that are free for the next."""

    def __init__(self, workers: int) -> None:
        self.running: set[subprocess.Popen[bytes]] = set()
        self.ended = False
        self.dealt = dealt(workers)
        self.places: queue.Queue[str | None] = queue.Queue()
        for place in self.dealt:
            self.places.put(place)
        self.lock, self.free = threading.Lock(), _memory.free()
        self.there = self.allowed = len(self.dealt)

    def end(self) -> None:
        """End all processes, and start no other."""
        self.ended = True
        for child in tuple(self.running):
            child.kill()

    def run(self, job: Job) -> Outcome:
        """Run one job in a process of its own, once more if that was killed; return its outcome."""
        start = time.monotonic()
        for _ in range(TRIES):
            found, code = self._once(job)
            if found is not None:
                return found
            if code >= 0 or self.ended:
                break
            log.warning("the process of %s was lost (%s); it goes on", job.name, _ending(code))
        error = JobError(
            f"the process of {job.name} died", received=_ending(code),
            remedy="the same command goes on where it was; if it was killed it may have lacked "
            "memory: fewer --workers or a smaller batch_size",
        )  # fmt: skip
        return Outcome(job.name, None, error, time.monotonic() - start)

    def _once(self, job: Job) -> tuple[Outcome | None, int]:
        """Return the outcome of a job's process, None if it died, and its exit code."""
        place, found, code = self.places.get(), None, 0
        try:
            with tempfile.TemporaryDirectory(prefix="kit-job-") as folder:
                answer = Path(folder, "outcome")
                code = self._wait(job, answer, place)
                if answer.is_file():
                    found = pickle.loads(answer.read_bytes())
        finally:
            self._leave(place, found, code)
        return found, code

    def _leave(self, place: str | None, found: Outcome | None, code: int) -> None:
        """Give a place to the next, unless memory has room for fewer than there are."""
        with self.lock:
            if code == -signal.SIGKILL and not self.ended:  # by the system, for want of memory
                self.allowed = max(1, self.allowed - 1)
            elif found is not None and self.free:
                self.allowed = min(self.allowed, _memory.room(found.memory, self.there, self.free))
                self.free = 0  # the first job tells
            if self.there > self.allowed:
                self.there -= 1
                log.warning("memory: %d at a time from here on", self.there)
            else:
                self.places.put(place)

    def _wait(self, job: Job, answer: Path, place: str | None) -> int:
        """Return the exit code of the job's process; its input stays open while this one lives."""
        paths = [path or os.getcwd() for path in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        if place is not None:
            environment["CUDA_VISIBLE_DEVICES"] = place
        if len(self.dealt) > 1:
            environment |= WORKER
        with subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            env=environment, bufsize=0,
        ) as child:  # fmt: skip
            self.running.add(child)
            try:
                if self.ended:
                    child.kill()
                elif child.stdin is not None:
                    sent = memoryview(pickle.dumps((job, answer)))
                    with contextlib.suppress(BrokenPipeError):  # dead at its start: the code tells
                        while sent:
                            sent = sent[child.stdin.write(sent) :]
                return child.wait()
            except BaseException:  # an interrupt
                child.kill()
                raise
            finally:
                self.running.discard(child)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def serve() -> None:
    """Run the job that standard input holds, and write its outcome: the child's whole life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is asked, and closes the pipe
    _die_with_parent()
    job, answer = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    outcome = call(job)
    part = Path(answer).with_suffix(".part")
    part.write_bytes(pickle.dumps(outcome))
    part.replace(answer)
    # Backends may crash while they unload; the answer stands, so nothing is left to lose.
    sys.stderr.flush()
    os._exit(0)


def _die_with_parent() -> None:
    """Ask Linux to kill this process with its parent: at once, also while a library loads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent() -> None:
    """End when the parent's end of the pipe closes: on every system, as soon as Python runs."""
    while os.read(0, 1):
        pass
    os._exit(CUT_OFF)
