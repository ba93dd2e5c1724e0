"""Run a list of independent, idempotent jobs: in this process or in joblib's processes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.checks import positive_int
from kit.errors import KitError


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


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _call(position: int, job: Job) -> tuple[int, Outcome]:
    start = time.monotonic()
    value, error = None, None
    try:
        value = job.call(*job.args)
    except KitError as found:
        error = found
    return position, Outcome(job.name, value, error, time.monotonic() - start)


def run(
    jobs: Sequence[Job], *, title: str, workers: int = 1, progress: bool = True
) -> list[Outcome]:
    """Run the jobs and return their outcomes in the order of the jobs.

    A job that raises `KitError` is an outcome with that error and the others go on; any other
    exception stops the run. An interrupt ends the workers at once.

    Args:
        jobs: Independent calls; with several workers each must be picklable.
        title: What the progress bar says.
        workers: 1 runs in this process; more are joblib processes.
        progress: Show a bar on standard error.
    """
    from tqdm import tqdm

    positive_int("workers", workers)
    outcomes: list[Outcome | None] = [None] * len(jobs)
    results = _here(jobs) if workers == 1 else _processes(jobs, min(workers, max(1, len(jobs))))
    bar = tqdm(
        results, total=len(jobs), desc=title, disable=None if progress else True, leave=False
    )
    for position, outcome in bar:
        outcomes[position] = outcome
    return [outcome for outcome in outcomes if outcome is not None]


def values(outcomes: Iterable[Outcome]) -> list[Any]:
    """Return the values of the outcomes, or raise the first error among them."""
    result = []
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
        result.append(outcome.value)
    return result


def _here(jobs: Sequence[Job]) -> Iterable[tuple[int, Outcome]]:
    return (_call(position, job) for position, job in enumerate(jobs))


def _processes(jobs: Sequence[Job], workers: int) -> Iterable[tuple[int, Outcome]]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    parallel = Parallel(n_jobs=workers, backend="loky", return_as="generator_unordered")
    try:
        yield from parallel(delayed(_call)(position, job) for position, job in enumerate(jobs))
    except BaseException:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise


def accelerators() -> int:
    """Return how many NVIDIA devices this process may use, without loading a backend."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() not in ("", "-1")])
    return len([name for name in Path("/dev").glob("nvidia[0-9]*")])


def default_workers(threads: int) -> int:
    """Return how many jobs of so many threads run together; one where an accelerator is shared."""
    return 1 if accelerators() else max(1, cores() // threads)
