"""Pixels kept for training: an array of equal images on disk, a table that says whose they are."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd

from kit import jobs
from kit.checks import first
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
        return np.asanyarray(np.load(self.path, mmap_mode="r"))

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process as a folder's name, without the table and the pixels."""
        return Store, (self.folder,)


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

    Raises:
        ImageError: There is no image, none can be read, or their shapes differ.
    """
    wanted = fingerprint({"format": FORMAT, "key": key, "items": digest(items)})
    index = folder / "pixels.parquet"
    store = Store(folder)
    if table_key(index) == wanted and store.path.is_file():
        failures = folder / "unreadable.parquet"
        return store, list(read_table(failures).reason) if failures.is_file() else []
    chunks = [items.iloc[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    work = [
        jobs.Job(f"{chunk.case_id.iloc[0]} to {chunk.case_id.iloc[-1]}", _read_chunk, (read, chunk))
        for chunk in chunks
    ]
    index.unlink(missing_ok=True)  # an old table must never stand beside new pixels
    with contextlib.closing(jobs.each(work, title="reading images", workers=workers)) as outcomes:
        kept, reasons = _write_array(store.path, outcomes, len(items))
    write_table(pd.DataFrame({"reason": pd.Series(reasons, dtype=object)}),
                folder / "unreadable.parquet")  # fmt: skip
    write_table(items[kept].reset_index(drop=True), index, wanted)
    return store, reasons


def _read_chunk(read: Reader, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the images of the rows that can be read, which those are, and why not the others."""
    try:
        return read(rows), np.ones(len(rows), bool), []
    except (KitError, ValueError):  # or images of different shapes in one array
        pass
    images, good, reasons = [], np.zeros(len(rows), bool), []
    for position in range(len(rows)):
        try:
            images.append(read(rows.iloc[position : position + 1]))
            good[position] = True
        except KitError as error:
            reasons.append(f"{rows.case_id.iloc[position]}: {error}")
    for image in images:
        _same_shape(image, images[0].shape[1:])
    return np.concatenate(images) if images else np.zeros((0, 1, 1, 1), np.uint8), good, reasons


def _write_array(
    path: Path, outcomes: Iterable[jobs.Outcome], most: int
) -> tuple[np.ndarray, list[str]]:
    """Write chunks one after another as one `.npy`, and return which rows it holds and why not all.

    Only a few chunks are in memory at a time. How many images there are is known at the end
    only, so that the header is written twice; NumPy pads it to the same length.
    """
    kept, reasons, shape = [], [], None
    with atomic(path) as part, part.open("wb") as stream:
        for array, good, failed in map(_value, outcomes):
            kept.append(good)
            reasons += failed
            if len(array):
                shape = shape or _header(stream, most, array.shape[1:])
                _same_shape(array, shape)
                stream.write(np.ascontiguousarray(array, np.uint8).data)
        if shape is None:
            raise ImageError("no image could be read", received=first(reasons, 1) or "no items")
        stream.seek(0)
        _header(stream, int(np.concatenate(kept).sum()), shape)
    return np.concatenate(kept), reasons


def _value(outcome: jobs.Outcome) -> tuple[np.ndarray, np.ndarray, list[str]]:
    (value,) = jobs.values([outcome])
    return value  # type: ignore[no-any-return]


def _header(stream: BinaryIO, n: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    header = {"descr": "|u1", "fortran_order": False, "shape": (n, *shape)}
    np.lib.format.write_array_header_1_0(stream, header)
    return shape


def _same_shape(array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape[1:] != shape:
        raise ImageError(
            "images of different shapes", expected=shape, received=array.shape[1:],
            remedy="make all grey or all colour; --set mixed_sizes=resize or pad gives one size",
        )  # fmt: skip
