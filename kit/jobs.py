"""Run a list of independent, idempotent jobs: here, in joblib's processes, or on a cluster."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from kit.checks import positive_int
from kit.errors import JobError, KitError


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


class Engine(Protocol):
    """What runs jobs in place of this machine's processes: a cluster of `kit.clusters`."""

    def each(self, work: Sequence[Job]) -> Generator[Outcome]:
        """Run jobs and yield their outcomes in the order of the jobs."""

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
    finally:
        if mark is not None:
            mark.unlink(missing_ok=True)
    return Outcome(job.name, value, error, time.monotonic() - start)


def run(
    jobs: Sequence[Job], *, title: str, workers: int = 1, progress: bool = True
) -> list[Outcome]:
    """Run the jobs and return their outcomes in the order of the jobs.

    A job that raises `KitError` is an outcome with that error and the others go on; any other
    exception stops the run. An interrupt ends the workers at once.

    Args:
        jobs: Independent calls; with several workers each must be picklable.
        title: What the progress bar says.
        workers: 1 runs in this process; more are joblib processes; a cluster has its own number.
        progress: Show a bar on standard error.

    Raises:
        JobError: A worker process died.
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
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    with tempfile.TemporaryDirectory(prefix="kit-jobs-", ignore_cleanup_errors=True) as folder:
        marks = [Path(folder, str(position)) for position in range(len(jobs))]
        parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator")
        found = parallel(map(delayed(call), jobs, marks))
        try:
            for outcome in found:  # noqa: UP028 - it would be closed with a warning
                yield outcome
        except TerminatedWorkerError as error:
            running = [job.name for job, mark in zip(jobs, marks, strict=True) if mark.exists()]
            raise JobError(
                "a worker process died", received=_exits(error, running),
                remedy="it may have lacked memory: use fewer --workers or a smaller batch_size",
            ) from error  # fmt: skip
        finally:
            with warnings.catch_warnings(action="ignore"):
                found.close()


def _exits(error: BaseException, running: list[str]) -> str:
    """Return how the workers ended, and during which jobs: the dead one's is among them."""
    codes = re.search(r"\{(.+)\}", str(error))
    jobs = f"during {' or '.join(running)}" if running else "between two jobs"
    return f"{codes.group(1)} {jobs}" if codes else jobs


def visible_devices() -> list[str]:
    """Return the NVIDIA devices that this process may use, without loading a backend."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    found = [path.name.removeprefix("nvidia") for path in Path("/dev").glob("nvidia[0-9]*")]
    return sorted(found, key=int)


def default_workers(threads: int) -> int:
    """Return how many jobs of so many threads run together: one a GPU, or what cores allow."""
    return len(visible_devices()) or max(1, cores() // threads)
