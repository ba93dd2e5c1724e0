"""What a run of many slides would take: patches, bytes, and hours by number of workers.

The rates are measured on this machine: of one worker with one thread in each library, as when it
has siblings.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd

from kit import apart, jobs, kinds, pace, store, synthetic
from kit.checks import positive_int
from kit.errors import SettingsError
from kit.files import write_table
from kit.manifest import Dataset
from kit.settings import Settings
from kit.stubs import write_stub

SLIDES = 3  # that are measured
PATCHES = 512  # that are read of them
SIZE = (60_000, 80_000)
"""(width, height) of a slide where nobody says: an excision at 0.25 µm per pixel."""
DRAWN = "synthetic_slides"
T = TypeVar("T")


@dataclass(frozen=True)
class Rates:
    """What one worker takes here.

    Attributes:
        plan: Seconds to plan a slide.
        planned: Patches that a slide's plan has.
        keep: Seconds to read a patch and write it into the store.
        read: Seconds to read a patch.
        bytes: Of a patch in the store.
        plan_row: Bytes of a patch in a plan.
        told_row: Bytes of what a network says of a patch.
        network: What the network takes.
        own: Whether the data set's own slides were measured; else a stub of its size was planned
            and drawn slides were read.
    """

    plan: float
    planned: float
    keep: float
    read: float
    bytes: float
    plan_row: float
    told_row: float
    network: pace.Pace
    own: bool


def measure(
    dataset: Dataset, settings: Settings, root: Path | None, drawn: Dataset,
    size: tuple[int, int] | None = None,
) -> Rates:  # fmt: skip
    """Measure the rates in a process of its own.

    Args:
        dataset: Slides.
        settings: Of the run.
        root: The data set's folder; None: it is not here.
        drawn: The entry of `DRAWN`, which is read then.
        size: (width, height) of its slides, level-0 pixels; None: `SIZE`.

    Raises:
        SettingsError: The data set is not of slides.
    """
    if dataset.kind != "slides":
        raise SettingsError("the estimate is of slides", received=f"{dataset.name}: {dataset.kind}",
                            expected="a challenge of slides")  # fmt: skip
    work = jobs.Job("the measurement", rates, (dataset, settings, root, drawn, size or SIZE))
    (found,) = jobs.values(apart.each([work]))
    measured: Rates = found
    return measured


def rates(
    dataset: Dataset, settings: Settings, root: Path | None, drawn: Dataset, size: tuple[int, int]
) -> Rates:
    """Return what `measure` does: the job's own part."""
    os.environ.update(jobs.WORKER)
    with tempfile.TemporaryDirectory(prefix="kit-growth-") as name:
        folder = Path(name)
        data, place = dataset, root
        if place is None:
            data, place = drawn, synthetic.make(DRAWN, folder / "drawn", scale=0.05)
        cases = data.cases(root=place).head(SLIDES).assign(key="")
        own, seconds = _timed(lambda: _plan(cases, data, place, settings, folder / "plans"))
        each, planned = seconds / len(cases), len(own) / len(cases)
        plan = own
        if root is None:
            stub = write_stub(folder / "stub.tif", size, mpp=dataset.mpp or 0.25)
            one = cases.head(1).assign(path=stub.name)
            if "mask" in one:
                one = one.drop(columns="mask")
            of_stub, each = _timed(lambda: _plan(one, dataset, folder, settings, folder / "stub"))
            plan, planned = of_stub, float(len(of_stub))
        row = _bytes(plan, folder / "plan.parquet")
        items = kinds.items(
            cases, own, settings, streamed=True, positive=dataset.positive
        ).head(PATCHES)  # fmt: skip
        reader = kinds.reader(data, place, settings, items)
        _, read = _timed(lambda: reader(items))
        (kept, _), keep = _timed(lambda: store.build(
            folder / "store", items, reader, "growth", quality=settings.jpeg_quality
        ))  # fmt: skip
        written = sum(path.stat().st_size for path in (folder / "store").rglob("*.shard"))
        n = len(kept.items)
        said_row = _bytes(_said(plan, len(dataset.classes)), folder / "said.parquet")
    network = pace.measure(settings, 3, len(dataset.classes))
    return Rates(
        each, planned, keep / n, read / n, written / n, row, said_row, network, root is not None
    )


def _said(plan: pd.DataFrame, classes: int) -> pd.DataFrame:
    """Return what a network could say of planned patches."""
    prob = np.random.default_rng(0).random((len(plan), classes), np.float32)
    return plan[["x", "y", "footprint"]].join(pd.DataFrame(prob).add_prefix("prob_"))


def _bytes(table: pd.DataFrame, path: Path) -> float:
    """Return the bytes of a row of a table in Parquet."""
    write_table(table, path)
    return path.stat().st_size / len(table)


def _plan(
    cases: pd.DataFrame, data: Dataset, root: Path, settings: Settings, folder: Path
) -> pd.DataFrame:
    return kinds.patches(cases, data, root, settings, folder=folder)[0]


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    start = time.monotonic()
    found = call()
    return found, time.monotonic() - start


def table(settings: Settings, found: Rates, slides: int, workers: int) -> pd.DataFrame:
    """Return what each stage takes of so many slides, all of them learnt from.

    Every slide is predicted by the networks of its own fold. Workers share the work evenly, but a
    network is trained by one. Copying, reading the sha256 of files, heatmaps and the report are
    left out.

    Args:
        settings: Of the run.
        found: What one worker takes.
        slides: How many there are.
        workers: The most that work at a time.

    Returns:
        A row for each stage and one for all: `stage, what` (amount, in words), `gigabytes` (1e9;
        what stays on disk), and `hours_N` for 1, 2, 4, … and `workers` workers.

    Raises:
        SettingsError: There are no slides or no workers.
    """
    slides, workers = positive_int("slides", slides), positive_int("workers", workers)
    learnt = slides * min(found.planned, settings.patches_per_slide)
    asked = slides * min(found.planned, settings.predict_per_slide or np.inf)
    fits = pace.networks(settings)
    epochs = settings.epochs + settings.head_epochs + settings.second_epochs
    steps = learnt * (settings.n_splits - 1) / settings.n_splits
    if settings.steps is not None:
        steps = settings.steps * settings.batch_size
    predict = found.read + settings.seeds * found.network.predict
    stages = [
        ("plan", f"{slides:,} slides, {slides * found.planned:,.0f} patches",
         slides * found.planned * found.plan_row, slides, found.plan),
        ("store", f"{learnt:,.0f} patches", learnt * found.bytes, learnt, found.keep),
        ("train", f"{fits} networks, {epochs} epochs", fits * found.network.megabytes * 1e6,
         fits, steps * epochs * found.network.learn),
        ("predict", f"{asked:,.0f} patches, each by {settings.seeds}",
         asked * settings.seeds * found.told_row, asked, predict),
    ]  # fmt: skip
    counts = sorted({2**n for n in range(workers.bit_length()) if 2**n < workers} | {workers})
    rows = [
        {"stage": stage, "what": what, "gigabytes": size / 1e9,
         **{f"hours_{n}": np.ceil(amount / n) * each / 3600 for n in counts}}
        for stage, what, size, amount, each in stages
    ]  # fmt: skip
    whole = pd.DataFrame(rows)
    sums = whole.drop(columns=["stage", "what"]).sum()
    total = {"stage": "all", "what": "", **{str(name): value for name, value in sums.items()}}
    return pd.concat([whole, pd.DataFrame([total])], ignore_index=True)


def said(found: Rates) -> str:
    """Return what was measured, in words."""
    of = "the first slides of the data set" if found.own else "a stub slide and drawn patches"
    gpu = "a GPU" if found.network.gpu else "a core"
    return (
        f"measured here on {of}: {found.plan:.2f} s a slide to plan, "
        f"{1e3 * found.keep:.2f} ms a patch to store ({found.bytes / 1e3:.1f} kB), "
        f"{1e3 * found.read:.2f} ms to read; {gpu}: {1e3 * found.network.learn:.2f} ms to learn "
        f"and {1e3 * found.network.predict:.2f} ms to predict"
    )
