"""Pixels kept for training: one array of equal images on disk, one table that says whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import jobs
from kit.errors import ImageError, KitError
from kit.files import atomic, digest, fingerprint, read_table, table_key, write_table

FORMAT = 1
CHUNK = 256


@dataclass(frozen=True)
class Store:
    """Equal images on disk, read through a memory map.

    `items` has a row for each image: `case_id, label, group, split, key` (fingerprint of the
    content), `train` and `predict` (what it is for), and `x, y` for patches.
    """

    folder: Path

    @property
    def path(self) -> Path:
        """Return the array's file."""
        return self.folder / "pixels.npy"

    @cached_property
    def items(self) -> pd.DataFrame:
        """Return the table; its row numbers are the array's."""
        return read_table(self.folder / "pixels.parquet")

    @cached_property
    def pixels(self) -> np.ndarray:
        """Return the images, uint8, shape (n, height, width, channels), values 0 to 255."""
        return np.load(self.path, mmap_mode="r")


Reader = Callable[[pd.DataFrame], np.ndarray]
"""From a few rows of the items to their images, uint8, shape (n, height, width, channels)."""


def build(
    folder: Path, items: pd.DataFrame, read: Reader, key: Any, *, workers: int = 1
) -> tuple[Store, list[str]]:
    """Read every item once and keep its pixels; return the store and what could not be read.

    A store that stands with the same `key` and items is returned as it is.

    Args:
        folder: Where `pixels.npy` and `pixels.parquet` stand.
        items: What to read; the rows that fail are left out of the store.
        read: Reads a few rows; picklable when there are several workers.
        key: Whatever else decides the pixels (size, fitting).
        workers: Processes that read.
    """
    wanted = fingerprint({"format": FORMAT, "key": key, "items": digest(items)})
    index = folder / "pixels.parquet"
    store = Store(folder)
    if table_key(index) == wanted and store.path.is_file():
        failures = folder / "unreadable.parquet"
        return store, list(read_table(failures).reason) if failures.is_file() else []
    chunks = [items.iloc[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    work = [
        jobs.Job(f"rows {chunk.index[0]} to {chunk.index[-1]}", _read_chunk, (read, chunk))
        for chunk in chunks
    ]
    done = jobs.values(jobs.run(work, title="reading images", workers=workers))
    kept = np.concatenate([good for _, good, _ in done])
    if not kept.any():
        raise ImageError("no image could be read", received=done[0][2][0])
    _write_array(store.path, [array for array, _, _ in done if len(array)], int(kept.sum()))
    reasons = [reason for _, _, failed in done for reason in failed]
    write_table(pd.DataFrame({"reason": pd.Series(reasons, dtype=object)}),
                folder / "unreadable.parquet")  # fmt: skip
    write_table(items[kept].reset_index(drop=True), index, wanted)
    return Store(folder), reasons


def _read_chunk(read: Reader, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the images of the rows that can be read, which those are, and why not the others."""
    try:
        return read(rows), np.ones(len(rows), bool), []
    except KitError:
        pass
    images, good, reasons = [], np.zeros(len(rows), bool), []
    for position in range(len(rows)):
        try:
            images.append(read(rows.iloc[position : position + 1]))
            good[position] = True
        except KitError as error:
            reasons.append(f"{rows.case_id.iloc[position]}: {error}")
    return np.concatenate(images) if images else np.zeros((0, 1, 1, 1), np.uint8), good, reasons


def _write_array(path: Path, arrays: Iterable[np.ndarray], n: int) -> None:
    """Write arrays one after another as one `.npy`; a full disk is an error and never a crash."""
    arrays = list(arrays)
    shape = (n, *arrays[0].shape[1:])
    different = [array.shape[1:] for array in arrays if array.shape[1:] != shape[1:]]
    if different:
        raise ImageError(
            "images of different shapes", expected=shape[1:], received=different[0],
            remedy="--set mixed_sizes=resize or pad, or the same in the manifest",
        )  # fmt: skip
    with atomic(path) as part, part.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(stream, header)
        for array in arrays:
            stream.write(np.ascontiguousarray(array, np.uint8).tobytes())
