"""More than one worker: what two bring, what a tiny job costs, and what becomes of killed ones.

`python benchmarks/scale.py [--save] [--quick] [--plans 4000]` needs Dask distributed (the extra
`cluster`). One worker has one thread in each library, as each of two has. Other work on the same
cores makes every ratio worse.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from kit.jobs import WORKER

os.environ.update(WORKER)  # before NumPy and OpenCV are loaded

import numpy as np
import pandas as pd
from bench import Row, tell

from kit import clusters, jobs, kinds, store, training
from kit._stand_in_eyes import draw_photograph, photographs
from kit.files import digest, read_table, write_table
from kit.jobs import Job
from kit.recipes import Recipe
from kit.sampler import PatchSampler, plan_case
from kit.stubs import write_stub

TINY, ROWS, SHARE = 10_000, 100_000, 100
STUBS, CLASSES = 8, ("normal", "tumour")
LARGE = (40_000, 60_000)
SAMPLER = PatchSampler(64)


def tiny(number: int) -> int:
    """Return a number: a job that costs nothing but its way."""
    return number


def rows(number: int) -> pd.DataFrame:
    """Return some rows of a table of predictions."""
    values = np.random.default_rng(number).random((SHARE, 4))
    return pd.DataFrame(values, columns=["x", "y", "prob_a", "prob_b"])


def values(work: list[Job], workers: int = 1) -> list[object]:
    """Return the values of some jobs."""
    return jobs.values(jobs.run(work, title="scale", workers=workers, progress=False))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def overhead(size: int) -> Row:
    """Return the time a job of many that do nothing takes, on the cluster that is open."""
    work = [Job(str(n), tiny, (n,)) for n in range(size)]
    start = time.perf_counter()
    if values(work) != list(range(size)):
        raise SystemExit("the results differ")
    each = 1000 * (time.perf_counter() - start) / size
    return Row(f"{size:,} jobs that do nothing, `local:2`", f"{each:.2f} ms / job", goal="<= 5 ms")


def flat(total: int) -> Row:
    """Return how much memory this process gains while rows are gathered and dropped."""
    work = [Job(str(n), rows, (n,)) for n in range(total // SHARE)]
    before, seen = _peak(), 0
    with contextlib.closing(jobs.each(work, title="rows", progress=False)) as found:
        for outcome in found:
            seen += len(outcome.value)
    if seen != total:
        raise SystemExit("rows were lost")
    return Row(f"{total:,} rows gathered: memory gained", f"{_peak() - before:.0f} MB", goal="flat")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def planning(folder: Path, n: int) -> Callable[[int], object]:
    """Return planning of large stub slides."""
    path = write_stub(folder / "large.tif", LARGE)
    names = [f"s{number:03d}.tif" for number in range(n)]
    for name in names:
        (folder / name).symlink_to(path)
    cases = pd.DataFrame({"case_id": names, "path": names})
    return lambda workers: PatchSampler(256).plan_cases(cases, folder, workers=workers)


def noise(side: int, items: pd.DataFrame) -> np.ndarray:
    """Return patches that are slow to compress, as tissue is."""
    grown = np.random.default_rng(int(items.case_id.iloc[0])).normal(
        160, 30, (len(items), side, side, 3)
    )
    return np.clip(grown, 0, 255).astype(np.uint8)


def storing(folder: Path, n: int) -> Callable[[int], object]:
    """Return writing of a patch store, as JPEG."""
    items = pd.DataFrame({"case_id": [str(k) for k in range(n)]})
    fresh = iter(range(100))
    return lambda workers: store.build(
        folder / f"store{next(fresh)}", items, partial(noise, 256), "noise", workers=workers,
        quality=90,
    )  # fmt: skip


def preparing(folder: Path, n: int) -> Callable[[int], object]:
    """Return preparation of drawn photographs of 3072 x 3900."""
    some = photographs(0, 0.01)[:8]
    values([Job(one.path, draw_photograph, (folder, 0, one)) for one in some], 2)
    paths = [some[k % len(some)].path for k in range(n)]
    items = pd.DataFrame({"case_id": [str(k) for k in range(n)], "path": paths})
    fresh = iter(range(100))
    read = partial(kinds._read_eyes, folder, 224, "crop")
    return lambda workers: store.build(
        folder / f"eyes{next(fresh)}", items, read, "eyes", workers=workers
    )


def folding(folder: Path, steps: int) -> Callable[[int], object]:
    """Return the training of four small networks, each in a process of its own."""
    numbers = np.arange(64)
    items = pd.DataFrame({
        "case_id": numbers.astype(str), "label": np.where(numbers % 2, "b", "a"),
        "group": numbers.astype(str), "split": "train", "key": numbers.astype(str), "train": True,
        "predict": True,
    })  # fmt: skip
    pixels, _ = store.build(folder / "small", items, partial(noise, 48), "noise")
    folds = items[["case_id", "group", "label"]].assign(fold=numbers // 2 % 4)
    recipe = Recipe(2, 16, steps=steps, monitor="none")
    fresh = iter(range(100))
    return lambda workers: training.cross_validate(
        folds, pixels, "conv_small", recipe, folder / f"out{next(fresh)}", classes=["a", "b"],
        tta=False, workers=workers,
    )  # fmt: skip


def ratio(what: str, work: Callable[[int], object]) -> Row:
    """Return what two workers bring: the workers begin before the clock does."""
    values([Job(str(n), rows, (n,)) for n in range(8)], 2)
    one, two = (_seconds(lambda workers=workers: work(workers)) for workers in (1, 2))
    return Row(what, f"{two:.1f} s, two workers", f"{one:.1f} s, one", one / two, ">= 1.7x")


def planned(folder: Path, number: int) -> str:
    """Plan a stub slide unless its plan stands, and return the plan's fingerprint."""
    path, case = folder / "plans" / f"{number}.parquet", f"s{number:04d}"
    (folder / "pid").write_text(str(os.getpid()))
    if not path.is_file():
        table = plan_case(SAMPLER, case, folder / f"{number % STUBS}.tif", None, CLASSES)
        write_table(table, path)
        with (folder / "written").open("a") as lines:
            lines.write(f"{number}\n")
    return digest(read_table(path))


@contextlib.contextmanager
def struck(folder: Path, progress: Callable[[], float], step: float) -> Iterator[list[int]]:
    """Kill the worker that began a job last at each step of some progress; yield whom."""
    stop, dead = threading.Event(), list[int]()

    def strike() -> None:
        due = progress() + step
        while not stop.wait(0.01):
            if progress() < due:
                continue
            due = progress() + step
            with contextlib.suppress(OSError, ValueError):  # nobody has begun yet
                number = int((folder / "pid").read_text())
                if number not in (*dead, os.getpid()):
                    os.kill(number, signal.SIGKILL)
                    dead.append(number)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        yield dead
    finally:
        stop.set()
        thread.join()


def torture(
    folder: Path, n: int, *, cluster: bool, seconds: float = 5.0, plans: int = 0
) -> tuple[int, list[str]]:
    """Plan stub slides while workers are killed; return how many were, and what went wrong.

    A worker is killed every few seconds, or after so many plans.
    """
    written = folder / "written"
    written.touch()
    for number in range(STUBS):
        write_stub(folder / f"{number}.tif", (3072, 4096), seed=number, tile=256)
    work = [Job(f"s{k:04d}", planned, (folder, k)) for k in range(n)]
    address = "local:2" if cluster else None
    strikes = (
        struck(folder, lambda: written.read_bytes().count(b"\n"), plans) if plans
        else struck(folder, time.monotonic, seconds)
    )  # fmt: skip
    with clusters.on(address, sees=[folder]), strikes as dead:
        done = jobs.run(work, title="plans", workers=2, progress=False)
    wrong = [f"{one.name}: {one.error}" for one in done if one.error is not None]
    lines = written.read_text().split()
    wrong += [f"{name} was done twice" for name in sorted({x for x in lines if lines.count(x) > 1})]
    step = max(1, n // 50)
    alone = [
        plan_case(SAMPLER, f"s{k:04d}", folder / f"{k % STUBS}.tif", None, CLASSES)
        for k in range(0, n, step)
    ]
    wrong += [f"plan {k * step} is empty" for k, plan in enumerate(alone) if plan.empty]
    if [one.value for one in done][::step] != [digest(plan) for plan in alone]:
        wrong.append("the table differs from that of one process")
    return len(dead), wrong


def killed(n: int, *, cluster: bool) -> Row:
    """Return how stub plans end whose workers are killed every five seconds."""
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        dead, wrong = torture(Path(name), n, cluster=cluster)
        seconds = time.perf_counter() - start
    for line in wrong:
        print(line)
    where = "`local:2`" if cluster else "2 processes"
    return Row(f"{n:,} stub plans, {where}, {dead} workers killed",
               f"{len(wrong)} wrong, {seconds:.0f} s", goal="0 wrong")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="keep the result for README's table")
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    parser.add_argument("--plans", type=int, default=4000)
    asked = parser.parse_args()
    part, load = 10 if asked.quick else 1, os.getloadavg()[0]
    with clusters.on("local:2"):
        values([Job(str(n), rows, (n,)) for n in range(4)])  # the workers import what they need
        found = [overhead(TINY // part), flat(ROWS // part)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found += [
            ratio("planning slides of 40,000 x 60,000", planning(folder, 80 // part)),
            ratio("patch store, JPEG", storing(folder, 20_480 // part)),
            ratio("photographs of 3072 x 3900", preparing(folder, 5_120 // part)),
            ratio("four networks of the folds", folding(folder, 4000 // part)),
        ]
    found += [killed(asked.plans // part, cluster=cluster) for cluster in (True, False)]
    tell("scale", "More than one worker", found, save=asked.save,
         notes=f"{jobs.cores()} cores; load before the start {load:.1f}.")  # fmt: skip


if __name__ == "__main__":
    main()
