"""What a cluster costs and brings: overhead of tiny jobs, memory of many rows, two workers to one.

`python benchmarks/scale.py` needs Dask distributed (the extra `cluster`) and prints a table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from kit import clusters, jobs
from kit.jobs import Job

TINY, ROWS, SHARE = 10_000, 100_000, 100
HEAVY, SIDE = 24, 700


def tiny(number: int) -> int:
    """Return a number: a job that costs nothing but its way."""
    return number


def rows(number: int) -> pd.DataFrame:
    """Return some rows of a table of predictions."""
    values = np.random.default_rng(number).random((SHARE, 4))
    return pd.DataFrame(values, columns=["x", "y", "prob_a", "prob_b"])


def heavy(number: int) -> float:
    """Return a sum after some single-threaded arithmetic, about as long as a small slide's plan."""
    grid = np.random.default_rng(number).random((SIDE, SIDE))
    for _ in range(40):
        grid = np.sin(grid) + np.cos(grid.T)
    return float(grid.sum())


def _timed(work: list[Job], workers: int) -> tuple[float, list[object]]:
    start = time.perf_counter()
    values = jobs.values(jobs.run(work, title="scale", workers=workers, progress=False))
    return time.perf_counter() - start, values


def _same(one: object, other: object) -> None:
    if one != other:
        raise SystemExit("the results differ")


def overhead(size: int) -> None:
    """Print the seconds a job of 10,000 that do nothing."""
    work = [Job(str(n), tiny, (n,)) for n in range(size)]
    seconds, values = _timed(work, 1)
    _same(values, list(range(size)))
    print(f"overhead       {1000 * seconds / size:8.2f} ms a job, {size:,} jobs that do nothing")


def flat(total: int) -> None:
    """Print how much memory this process gains while rows are gathered and dropped."""
    work = [Job(str(n), rows, (n,)) for n in range(total // SHARE)]
    before, seen = _peak(), 0
    with contextlib.closing(jobs.each(work, title="rows", progress=False)) as found:
        for outcome in found:
            seen += len(outcome.value)
    _same(seen, total)
    print(f"gathered       {_peak() - before:8.1f} MB more at the peak, {total:,} rows")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ratio(label: str, one: float, two: float) -> None:
    """Print what two workers bring."""
    print(f"{label:14} {one / two:8.2f} x one worker: {one:.1f} s and {two:.1f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    part = 10 if parser.parse_args().quick else 1
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    work = [Job(str(n), heavy, (n,)) for n in range(HEAVY // min(part, 3))]
    times = {}
    with clusters.on("local:2", sees=[Path.cwd()]):
        _timed(work[:2], 1)  # the workers import what they need
        overhead(TINY // part)
        flat(ROWS // part)
        times["cluster"], first = _timed(work, 1)
    times["one"], second = _timed(work, 1)
    _timed(work[:2], 2)
    times["processes"], third = _timed(work, 2)
    _same(first, second)
    _same(second, third)
    ratio("cluster of 2", times["one"], times["cluster"])
    ratio("2 processes", times["one"], times["processes"])
    print(
        f"cores {jobs.cores()}, load {os.getloadavg()[0]:.1f} (other work beside makes all worse)"
    )


if __name__ == "__main__":
    main()
