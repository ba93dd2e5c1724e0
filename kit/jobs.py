"""Run a list of independent, idempotent jobs: here, in joblib's processes, or on a cluster."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kit import _memory
from kit.checks import positive_int
from kit.errors import JobError, KitError

log = logging.getLogger(__name__)

IDLE, LOSSES, QUEUE = 300, 3, 4
"""Seconds after which workers without a job end; workers lost in a row, with no job done, that are
no accident; jobs handed out beyond those at work, so that no worker waits for its next."""
WORKER = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
     "OPENCV_FOR_THREADS_NUM", "KIT_WORKER"), "1",
)  # fmt: skip
"""Environment of a worker: one thread for each library, whose other cores are its siblings'."""


@dataclass(frozen=True)
class Job:
    """One picklable call; a job whose output stands already returns at once by itself."""

    name: str
    call: Callable[..., Any]
    args: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one job gave: a value or an error, and its seconds."""

    name: str
    value: Any
    error: KitError | None
    seconds: float
    memory: int = 0  # the most bytes that its process held; 0: not known


class Engine(Protocol):
    """What runs jobs in place of this machine's processes: a cluster of `kit.clusters`."""

    def each(self, work: Sequence[Job], *, networks: bool = False) -> Generator[Outcome]:
        """Run jobs and yield their outcomes in the order of the jobs.

        Of jobs with `networks` each has a GPU to itself, where workers have any.
        """

    def tell(self, said: Callable[..., object], *args: object) -> None:
        """Call an importable function once in each worker, at once, whatever it is doing."""

    @property
    def size(self) -> int:
        """Return how many jobs run at a time."""


_engines: list[Engine] = []


@contextlib.contextmanager
def through(engine: Engine) -> Iterator[None]:
    """Have all jobs run by an engine while the block lasts, whatever their `workers`."""
    _engines.append(engine)
    try:
        yield
    finally:
        _engines.pop()


def engine() -> Engine | None:
    """Return what runs jobs in place of this machine's processes, if anything does."""
    return _engines[-1] if _engines else None


def scratch(prefix: str, beside: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder that all workers see.

    Machines of a cluster share the place of the output alone: there it stands in the folder
    `beside`, hidden.
    """
    if engine() is None:
        return tempfile.TemporaryDirectory(prefix=prefix)
    beside.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=f".{prefix}", dir=beside)


def cores() -> int:
    """Return how many cores this process may use, by its affinity and its container's limit."""
    from joblib import cpu_count

    return int(cpu_count())


def call(job: Job, mark: Path | None = None) -> Outcome:
    """Run one job; `mark` is a file that stands while it runs, and stays if its process dies."""
    start = time.monotonic()
    value, error = None, None
    if mark is not None:
        mark.touch()
    try:
        value = job.call(*job.args)
    except KitError as found:
        error = found
    except MemoryError as lack:
        error = JobError(f"memory does not suffice for {job.name}", received=repr(lack),
                         remedy="fewer workers, or smaller settings")  # fmt: skip
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
    return Outcome(job.name, value, error, time.monotonic() - start, _memory.peak())


def run(
    jobs: Sequence[Job], *, title: str, workers: int = 1, progress: bool = True
) -> list[Outcome]:
    """Run the jobs and return their outcomes in the order of the jobs.

    A job that raises `KitError` is an outcome with that error and the others go on, and so is one
    that killed its worker twice; a lost worker's jobs are done by another. Any other exception
    stops the run. An interrupt ends the workers at once. If the memory that the first job took
    leaves no room for so many workers, fewer work.

    Args:
        jobs: Independent calls; with several workers each must be picklable.
        title: What the progress bar says.
        workers: 1 runs in this process; more are joblib processes; a cluster has its own number.
        progress: Show a bar on standard error.

    Raises:
        JobError: Workers died again and again between the jobs.
    """
    with contextlib.closing(each(jobs, title=title, workers=workers, progress=progress)) as found:
        return list(found)


def each(
    jobs: Sequence[Job], *, title: str, workers: int = 1, progress: bool = True
) -> Generator[Outcome]:
    """Run the jobs like `run`, and yield each outcome in its turn, so that none need be kept.

    Close it (`contextlib.closing`) if it is left before its end: that ends the workers.
    """
    from tqdm import tqdm

    workers, elsewhere = min(positive_int("workers", workers), len(jobs)), engine()
    if elsewhere is not None:
        results = elsewhere.each(jobs)
    else:
        results = _processes(jobs, workers) if workers > 1 else (call(job) for job in jobs)
    with (
        contextlib.closing(results),
        tqdm(total=len(jobs), desc=title, disable=None if progress else True, leave=False) as bar,
    ):
        for outcome in results:
            bar.update()
            yield outcome


def values(outcomes: Iterable[Outcome]) -> list[Any]:
    """Return the values of the outcomes, or raise the first error among them."""
    result = []
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        result.append(outcome.value)
    return result


def _processes(jobs: Sequence[Job], workers: int) -> Generator[Outcome]:
    """Yield outcomes in order from joblib's processes, whatever becomes of one of them."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    done: dict[int, Outcome] = {}
    turn, losses, pool = 0, 0, _Pool(jobs, workers)
    space = tempfile.TemporaryDirectory(prefix="kit-jobs-", ignore_cleanup_errors=True)
    with contextlib.closing(pool), space as folder:
        marks = [Path(folder, str(position)) for position in range(len(jobs))]
        while turn < len(jobs):
            before = len(done) + turn
            try:
                left = [at for at in range(turn, len(jobs)) if at not in done]
                for at, outcome in pool.results(left, marks):
                    done[at] = outcome
                    while turn in done:
                        yield done.pop(turn)
                        turn += 1
            except BrokenProcessPool as error:
                pool.close()  # those beside the lost one end too, before their marks are read
                hit = [at for at in left if at not in done and at >= turn and marks[at].exists()]
                log.warning("a worker was lost%s; its job is done again", _during(jobs, hit))
                for at in hit:
                    marks[at].unlink(missing_ok=True)
                    done[at] = pool.again(at, 1 if len(hit) == 1 else 2)  # not all are to blame
                losses = 0 if len(done) + turn > before else losses + 1
                if losses == LOSSES:
                    raise JobError("workers die before they begin a job", received=_ending(error),
                                   remedy="--workers 1 shows why") from error  # fmt: skip
            while turn in done:
                yield done.pop(turn)
                turn += 1


class _Pool:
    """Joblib's worker processes, as many as the memory of the first job leaves room for."""

    def __init__(self, jobs: Sequence[Job], workers: int) -> None:
        self.jobs, self.workers = jobs, workers
        self.free, self.known, self.queue = _memory.free(), False, 0
        self.executor: Any = None

    def results(self, left: Sequence[int], marks: Sequence[Path]) -> Iterator[tuple[int, Outcome]]:
        """Yield the outcomes of some jobs as they come, with their places."""
        from concurrent.futures import FIRST_COMPLETED, wait

        waiting, running = list(reversed(left)), dict[Any, int]()
        self.executor = executor = _executor(self.workers)
        while waiting or running:
            while waiting and len(running) < self.workers + self.queue:
                at = waiting.pop()
                running[executor.submit(call, self.jobs[at], marks[at])] = at
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                at, outcome = running.pop(future), future.result()
                self._learn(outcome)
                yield at, outcome
        self.executor = None

    def _learn(self, outcome: Outcome) -> None:
        if not self.known and outcome.error is None:
            fit = _memory.room(outcome.memory, self.workers, self.free)
            if fit < self.workers:
                log.warning("memory has room for %d workers, not %d", fit, self.workers)
            self.queue = QUEUE if fit == self.workers else 0
            self.workers, self.known = fit, True

    def again(self, at: int, tries: int) -> Outcome:
        """Do a job that lost its worker, in a process with no other beside it."""
        from joblib.externals.loky.process_executor import BrokenProcessPool

        for _ in range(tries):
            self.executor = _executor(1)  # an interrupt closes it
            try:
                outcome: Outcome = self.executor.submit(call, self.jobs[at]).result()
            except BrokenProcessPool as error:
                ending = _ending(error)
            else:
                self.executor = None
                return outcome
        name = self.jobs[at].name
        died = JobError(f"{name} killed its worker twice, and was set aside", received=ending,
                        remedy="smaller settings; the same command tries again")  # fmt: skip
        return Outcome(name, None, died, 0.0)

    def close(self) -> None:
        """End the workers, unless they have done all and wait for the next list."""
        if self.executor is not None:
            self.executor.shutdown(wait=True, kill_workers=True)
            self.executor = None


def _executor(workers: int) -> Any:
    """Return joblib's processes, those of the last list if they are as many."""
    from joblib.externals.loky import get_reusable_executor

    return get_reusable_executor(max_workers=workers, timeout=IDLE, env=WORKER)


def _during(jobs: Sequence[Job], hit: Sequence[int]) -> str:
    return f" during {' or '.join(jobs[at].name for at in hit)}" if hit else " between two jobs"


def _ending(error: BaseException) -> str:
    """Return how a worker ended, in loky's words."""
    return str((re.findall(r"\{(.+)\}", str(error)) or [type(error).__name__])[0])


def visible_devices() -> list[str]:
    """Return the NVIDIA devices that this process may use, without loading a backend."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(found, key=int)


def dealt(workers: int) -> list[str | None]:
    """Return what each worker may see of the GPUs (None: nothing changes where there are none).

    No two see the same one, and all are dealt; where there are fewer GPUs than workers, fewer work.
    """
    found = visible_devices()
    if not found:
        return [None] * workers
    some = min(workers, len(found))
    each = len(found) // some
    return [",".join(found[at * each : (at + 1) * each]) for at in range(some)]


def in_worker() -> bool:
    """Return whether this process is one of several, whose siblings have the other cores."""
    return "KIT_WORKER" in os.environ


def default_workers(threads: int) -> int:
    """Return how many jobs of so many threads run together: one a GPU, or what cores allow."""
    return len(visible_devices()) or max(1, cores() // threads)
