"""Preparing photographs: `python benchmarks/prepare_images.py [--save] [--large 4000]`.

First one process against OpenCV, CPU seconds; then many files into the patch store, in processes,
with the memory that all of them hold at most. Photographs are the drawn stand-in of khd2019; many
files are links to a few hundred drawn ones, which nothing here can make use of.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from bench import Row, arguments, measure, tell

from kit import fundus, images, jobs, kinds, store
from kit._stand_in_eyes import draw_photograph, photographs
from kit.manifest import Dataset, load_manifest
from kit.settings import resolve

SIDE, DISTINCT, TIMED = 224, 100, 12
FRAME = 3072 * 3900 * 3


def peers(paths: list[Path], how: int) -> None:
    """Read and resize as a user would with OpenCV."""
    for path in paths:
        cv2.resize(cv2.imread(str(path)), (SIDE, SIDE), interpolation=how)


def resized(paths: list[Path]) -> None:
    """Read and resize as the kit does."""
    for path in paths:
        images.fit(images.read_reduced(path, SIDE).image, SIDE)


def eyes(paths: list[Path], how: fundus.Fundus) -> None:
    """Read, find the eye and normalise it."""
    for path in paths:
        fundus.read_eye(path, SIDE, how)


def one_process(paths: list[Path]) -> list[Row]:
    """Return rows of milliseconds an image, all checks of damage included."""
    cv2.setNumThreads(1)
    found = measure({
        "linear": partial(peers, paths, cv2.INTER_LINEAR),
        "area": partial(peers, paths, cv2.INTER_AREA),
        "resized": partial(resized, paths),
        "crop": partial(eyes, paths, "crop"), "graham": partial(eyes, paths, "graham"),
    })  # fmt: skip
    peer, area = found["linear"].cpu, found["area"].cpu
    said = {"resized": "resize", "crop": "find the eye, crop", "graham": "the same, Graham's"}
    each = 1000 / len(paths)
    text = f"{peer * each:.1f} ms, cv2.imread + resize (area: {area * each:.1f})"
    return [
        Row(f"3072 x 3900 JPEG to {SIDE}: {name}", f"{found[key].cpu * each:.1f} ms / image", text,
            peer / found[key].cpu, "3x" if key == "resized" else "")
        for key, name in said.items()
    ]  # fmt: skip


def linked(root: Path, sources: list[Path], n: int) -> pd.DataFrame:
    """Return items: n links under `root` to some files, in turn."""
    root.mkdir()
    names = [f"Wide_NOR_{number:05d}_R.jpg" for number in range(n)]
    for number, name in enumerate(names):
        os.link(sources[number % len(sources)], root / name)
    return pd.DataFrame({"case_id": names, "path": names})


class Memory(threading.Thread):
    """Looks at the resident memory of this process and its children, in MB, until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.over = 0.0, threading.Event()

    def run(self) -> None:
        """Sample ten times a second; memory that processes share counts in each."""
        import psutil

        me = psutil.Process()
        while not self.over.wait(0.1):
            total = 0
            for one in (me, *me.children(recursive=True)):
                try:
                    total += one.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.most = max(self.most, total / 1e6)


def bulk(what: str, dataset: Dataset, root: Path, items: pd.DataFrame, workers: int,
         **settings: object) -> Row:  # fmt: skip
    """Return a row: all items into a store, cut off after half of it, and gone on with."""
    values = resolve("images", {"image_size": SIDE, **settings}, overrides={})
    read = kinds.reader(dataset, root, values, items)
    folder = root.with_name(f"{root.name}-store")
    memory = Memory()
    memory.start()
    begun = time.perf_counter()
    _, failed = store.build(folder, items, read, "k", workers=workers)
    seconds = time.perf_counter() - begun
    memory.over.set()
    memory.join()
    assert not failed  # noqa: S101 - a benchmark of what failed is none
    again = seconds_again(lambda: store.build(folder, items, read, "k", workers=workers), folder)
    return Row(
        f"{len(items):,} {what} into the store, {workers} processes",
        f"{seconds:.0f} s, {len(items) / seconds:,.0f} / s",
        f"half of the shards lost: again in {again:.0f} s", None, f"{memory.most:,.0f} MB at most",
    )  # fmt: skip


def seconds_again(build: Callable[[], object], folder: Path) -> float:
    """Return the seconds of a build after half of the shards and the tables were taken away."""
    shards = sorted((folder / "shards").glob("*.shard"))
    for path in (*shards[::2], *folder.glob("*.parquet")):
        path.unlink()
    begun = time.perf_counter()
    build()
    return time.perf_counter() - begun


def main() -> None:
    """Print the table and, if asked, keep it."""
    asked = arguments("Preparing photographs", large=4000, small=10000, workers=jobs.cores())
    dataset = load_manifest().dataset("khd2019")
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        some = photographs(0, 0.05)[:DISTINCT]
        for one in some:
            draw_photograph(base / "drawn", 0, one)
        drawn = [base / "drawn" / one.path for one in some]
        small = []
        for path in drawn:
            small.append(base / f"small-{path.name}")
            image = images.fit(images.read_reduced(path, SIDE).image, SIDE)
            images.write_image(small[-1], image)
        rows = one_process(drawn[:TIMED])
        most = (base / "large", base / "small")
        large_items = linked(most[0], drawn, asked.large)
        small_items = linked(most[1], small, asked.small)
        rows += [
            bulk("large JPEG, graham,", dataset, most[0], large_items, asked.workers,
                 fundus="graham"),
            bulk(f"JPEG of {SIDE} px", dataset, most[1], small_items, asked.workers),
        ]  # fmt: skip
        size = np.mean([path.stat().st_size for path in drawn]) / 1e6
    notes = (
        f"Drawn JPEG of quality 90, {size:.1f} MB each; images of {SIDE} px are kept raw. One "
        "process, one thread, CPU seconds; the kit's figures include the search for damage, which "
        "OpenCV does not make. The memory is that of the main process and all workers together, "
        f"at its highest; 3,844 such frames decoded whole would be {3844 * FRAME / 1e9:.0f} GB."
    )
    tell("prepare_images", "Preparing photographs", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
