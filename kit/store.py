"""Pixels kept for training: shards of equal images on disk, a table that says whose they are.

Shards of rows, raw or JPEG. Parquet of the same JPEGs reads row groups for rows (1.5 to 2.4 times
slower at random); 200,000 patches of 256 px are 5 to 7 GB as JPEG q90, 16 to 33 as PNG or gzip.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import jobs, shards
from kit.checks import first
from kit.errors import ImageError, KitError, SettingsError
from kit.files import digest, fingerprint, read_table, remove_leftovers, table_key, write_table
from kit.stain import Normaliser

log = logging.getLogger(__name__)

FORMAT = 2
COLUMNS = ["shard", "rows", "bytes", "sha256", "shape", "encoding", "ends", "reasons"]
BESIDE = ["kept", "left_alone"]  # of each shard's rows: what goes into the items
NOTHING = {"bytes": 0, "sha256": "", "shape": [], "encoding": "", "ends": []}
LEFT_ALONE = "{:,} of {:,} images say too little of their stains, and are left as they came"
CHUNK = 256  # items of a shard: 50 MB of raw patches of 256 px


@dataclass(frozen=True)
class Store:
    """Equal images on disk.

    `items` has a row for each image: `case_id, label, group, split, key` (fingerprint of the
    content), `train` and `predict` (what it is for), `x, y` for patches, and where stains were
    normalised `stain` (how, as JSON, the same in each row) and `left_alone` (true where they were
    not, because the image says too little of them).
    """

    folder: Path

    @cached_property
    def items(self) -> pd.DataFrame:
        """Return the table; its row numbers are the images'."""
        return read_table(self.folder / "pixels.parquet")

    @cached_property
    def pixels(self) -> Pixels:
        """Return the images, to be indexed like an array of shape (n, height, width, channels).

        Raises:
            ImageError: A shard is missing, or has another size than when it was written.
        """
        return Pixels(self.folder / "shards", read_table(self.folder / "shards.parquet"))

    @property
    def stain(self) -> dict[str, Any] | None:
        """Return how stains were normalised (`Normaliser.to_dict`); None: not at all."""
        return json.loads(self.items["stain"].iloc[0]) if "stain" in self.items else None

    def verify(self) -> None:
        """Read every shard and compare it with its checksum.

        Raises:
            ImageError: A shard is damaged: which, and how many more are.
        """
        names = list(self.pixels.shards.shard)
        known = dict(zip(names, self.pixels.shards.sha256, strict=True))
        folder = self.folder / "shards"
        damaged = [name for name in names if shards.checksum(folder / name) != known[name]]
        if damaged:
            raise ImageError(
                "damaged shards", expected="what was written, by sha256",
                received=f"{len(damaged)} of {len(names)}: {first(damaged)}",
                path=folder / damaged[0], remedy=shards.AGAIN,
            )  # fmt: skip

    def __reduce__(self) -> tuple[object, ...]:
        """Cross a process as a folder's name, without the table and the pixels."""
        return Store, (self.folder,)


class Pixels:
    """Images in shards, uint8, values 0 to 255; an index reads those that it names from the disk.

    It holds no open file, so that threads and forked processes may share it.

    Args:
        folder: Of the shards.
        table: A row for each shard: `shard, rows, bytes, sha256, shape, encoding, ends`.

    Raises:
        ImageError: A shard is missing, or has another size than when it was written.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, folder: Path, table: pd.DataFrame) -> None:
        self.shards = table[table["rows"] > 0].reset_index(drop=True)
        self._paths = [folder / str(name) for name in self.shards.shard]
        for path, size in zip(self._paths, self.shards.bytes, strict=True):
            _check_size(path, int(size))
        ends = [np.asarray(one, np.int64) for one in self.shards.ends]
        self._stop = np.concatenate(ends)
        self._start = np.concatenate([np.r_[0, one[:-1]] for one in ends])
        self._shard = np.repeat(np.arange(len(ends)), [len(one) for one in ends])
        self._rows = np.arange(len(self._stop))
        self.shape = (len(self._rows), *map(int, self.shards["shape"].iloc[0]))
        self.encoding = str(self.shards.encoding.iloc[0])

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Return the images that an index of the first axis names, in its order.

        Args:
            index: A number, a slice, integers in any order and number, or a bool for each image.
        """
        rows = self._rows[index]
        flat = rows.reshape(-1)
        found = np.empty((len(flat), *self.shape[1:]), np.uint8)
        order = np.argsort(flat, kind="stable")
        cuts = np.flatnonzero(np.diff(self._shard[flat[order]])) + 1
        for places in np.split(order, cuts) if len(flat) else ():
            chosen = flat[places]
            start = self._start[chosen]
            spans = zip(start.tolist(), (self._stop[chosen] - start).tolist(), strict=True)
            shards.read_into(
                self._paths[self._shard[chosen[0]]], spans, [found[place] for place in places],
                raw=self.encoding == shards.RAW,
            )  # fmt: skip
        return found.reshape(*rows.shape, *self.shape[1:])


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise ImageError(
            "a shard is missing", received=error.strerror, path=path,
            remedy="run the same command again: it writes what is missing",
        ) from error  # fmt: skip
    if found != size:
        raise ImageError("a shard has another size than when it was written", received=found,
                         expected=f"{size} bytes", path=path, remedy=shards.AGAIN)  # fmt: skip


Reader = Callable[[pd.DataFrame], np.ndarray]
"""From a few rows of the items to their images, uint8, shape (n, height, width, channels)."""


def build(
    folder: Path, items: pd.DataFrame, read: Reader, key: Any, *, workers: int = 1,
    quality: int | None = None, normaliser: Normaliser | None = None,
) -> tuple[Store, list[str]]:  # fmt: skip
    """Read every item once and keep its pixels; return the store and what could not be read.

    A store that stands with the same `key` and items is returned as it is. Otherwise each 256
    items that stand as a shard already, with the same `key` and the same rows, are not read again:
    after an interruption, after items were added at the end or changed in place. (An item put in
    or taken out shifts all that follow, which are read again.) Other shards are removed first.

    Args:
        folder: Where `pixels.parquet` (the items), `shards.parquet` and `shards/` stand.
        items: What to read; the rows that fail are left out of the store.
        read: Reads a few rows; picklable when there are several workers.
        key: Whatever else decides the pixels (size, fitting).
        workers: Processes that read and write.
        quality: Keep JPEGs of this quality, 1 to 100; None keeps every pixel as it is.
        normaliser: What is done to the stains of each image after it is read; None: nothing.

    Raises:
        ImageError: There is no image, none can be read, or their shapes differ.
    """
    if quality is not None and not 1 <= quality <= 100:
        raise SettingsError("quality of JPEG must be in [1, 100]", received=f"quality={quality}")
    made_by = {"format": FORMAT, "key": key, "encoding": shards.encoding(quality)}
    if normaliser is not None:
        made_by["stain"] = normaliser.to_dict()
    chunks = [items.iloc[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    names = [fingerprint({**made_by, "items": digest(chunk)}) + ".shard" for chunk in chunks]
    wanted, store = fingerprint(names), Store(folder)
    kept, index = folder / "pixels.parquet", folder / "shards.parquet"
    if table_key(kept) == table_key(index) == wanted and _stands(store):
        return store, _reasons(read_table(index))
    _make_room(folder, names, wanted)
    work = [
        jobs.Job(f"{chunk.case_id.iloc[0]} to {chunk.case_id.iloc[-1]}", _write_shard,
                 (folder / "shards" / name, read, chunk, quality, normaliser))
        for name, chunk in zip(names, chunks, strict=True)
    ]  # fmt: skip
    with contextlib.closing(jobs.each(work, title="reading images", workers=workers)) as outcomes:
        table = _table(outcomes)
    rows = [CHUNK * at + np.array(kept, int) for at, kept in enumerate(table.kept)]
    found = items.iloc[np.concatenate(rows)].reset_index(drop=True)
    if normaliser is not None:
        alone = [np.isin(np.arange(len(kept)), one)
                 for kept, one in zip(table.kept, table.left_alone, strict=True)]  # fmt: skip
        found = found.assign(stain=json.dumps(made_by["stain"]), left_alone=np.concatenate(alone))
        log.info(
            "stain=%s: %s", normaliser.method, LEFT_ALONE.format(found.left_alone.sum(), len(found))
        )
    write_table(table[COLUMNS], index, wanted)
    write_table(found, kept, wanted)
    return store, _reasons(table)


def _stands(store: Store) -> bool:
    """Tell whether every shard is there and has its size."""
    try:
        return len(store.pixels) > 0
    except KitError:
        return False


def _reasons(table: pd.DataFrame) -> list[str]:
    return [str(reason) for reasons in table.reasons for reason in reasons]


def _make_room(folder: Path, names: Sequence[str], wanted: str) -> None:
    """Remove the tables and the shards of another key, and what killed writers left."""
    for table in (folder / "pixels.parquet", folder / "shards.parquet"):
        if table_key(table) not in (None, wanted):  # a second writer may just have finished
            table.unlink(missing_ok=True)
    remove_leftovers(folder / "shards")
    for path in (folder / "shards").glob("[0-9a-f]*.shard"):  # and no writer's temporary file
        if path.name not in names:
            path.unlink(missing_ok=True)


def _write_shard(
    path: Path, read: Reader, rows: pd.DataFrame, quality: int | None,
    normaliser: Normaliser | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return the note of the shard at `path`; read the rows and write it if it does not stand."""
    with contextlib.suppress(ImageError):
        return {**shards.note(path), "shard": path.name}
    images, good, reasons = _read_chunk(read, rows)
    about = {"kept": np.flatnonzero(good).tolist(), "reasons": reasons}
    if not len(images):  # no shard, so that a later build tries again
        return {**about, "shard": path.name, **NOTHING}
    if normaliser is not None:
        images, alone = normaliser(images)
        about["left_alone"] = np.flatnonzero(alone).tolist()
    return {**shards.write(path, images, about, quality=quality), "shard": path.name}


def _read_chunk(read: Reader, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return the images of the rows that can be read, which those are, and why not the others."""
    try:
        return read(rows), np.ones(len(rows), bool), []
    except SettingsError:  # nothing is wrong with the one image
        raise
    except (KitError, ValueError):  # or images of different shapes in one array
        pass
    images, good, reasons = [], np.zeros(len(rows), bool), []
    for position in range(len(rows)):
        try:
            images.append(read(rows.iloc[position : position + 1]))
            good[position] = True
        except SettingsError:
            raise
        except KitError as error:
            reasons.append(f"{rows.case_id.iloc[position]}: {error}")
    for image in images:
        _same_shape(image.shape[1:], images[0].shape[1:])
    return np.concatenate(images) if images else np.zeros((0, 1, 1, 1), np.uint8), good, reasons


def _table(outcomes: Iterable[jobs.Outcome]) -> pd.DataFrame:
    """Return a row for each shard, in the order of the items; all images have one shape."""
    notes: list[dict[str, Any]] = []
    shape = None
    for outcome in outcomes:
        (note,) = jobs.values([outcome])
        if note["ends"]:
            shape = shape or note["shape"]
            _same_shape(note["shape"], shape)
        notes.append({"left_alone": [], **note, "rows": len(note["ends"])})
    if shape is None:
        reasons = [reason for note in notes for reason in note["reasons"]]
        raise ImageError("no image could be read", received=first(reasons, 1) or "no items")
    return pd.DataFrame(notes)[[*COLUMNS, *BESIDE]]


def _same_shape(found: Sequence[int], shape: Sequence[int]) -> None:
    if tuple(found) != tuple(shape):
        raise ImageError(
            "images of different shapes", expected=tuple(shape), received=tuple(found),
            remedy="make all grey or all colour; --set mixed_sizes=resize or pad gives one size",
        )  # fmt: skip
