"""Patches of a TIFF straight from its tiles: each tile is decoded once for all that touch it."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kit.codecs import DamagedTileError, Decode, decoder, unsupported
from kit.errors import SlideError

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

CACHE_BYTES = 256 * 256 * 256 * 3  # 256 tiles of 256 px
RUN = 16  # tiles that a thread takes at a time
READ_AT = threading.Lock()  # where the system cannot read at an offset (Windows)


class Level:
    """One level of a TIFF: tiles, or strips, which are tiles as wide as the level.

    Attributes:
        size: (width, height).
        tile: (width, height) of a tile.
        columns: Tiles in a row of them.
    """

    def __init__(self, page: TiffPage) -> None:
        self._page = page
        self.size = (int(page.imagewidth), int(page.imagelength))
        strip = (self.size[0], min(int(page.rowsperstrip or self.size[1]), self.size[1]))
        self.tile = (int(page.tilewidth), int(page.tilelength)) if page.is_tiled else strip
        self.columns = -(-self.size[0] // self.tile[0])

    @cached_property  # a level that is never read never loads them: there may be a million
    def places(self) -> tuple[Sequence[int], Sequence[int]]:
        """Offset and length of each tile in the file."""
        return self._page.dataoffsets, self._page.databytecounts

    @cached_property
    def decode(self) -> Decode:
        """The function that decodes a tile."""
        return decoder(self._page)


@dataclass(frozen=True)
class Touches:
    """Which patches touch which tiles, sorted by tile: parallel lists, and where each tile starts.

    Attributes:
        tiles: Number of each tile, in the order of the file.
        starts: Where its pairs begin in the lists below; one more than tiles.
        patch: Position of the patch.
        source: (left, top) in the tile.
        target: (left, top) in the patch.
        extent: (width, height) of what they share.
    """

    tiles: list[int]
    starts: list[int]
    patch: list[int]
    source: list[list[int]]
    target: list[list[int]]
    extent: list[list[int]]


def touches(level: Level, xy_level: np.ndarray, size: tuple[int, int]) -> Touches:
    """Return what to copy from which tile for patches of `size` at `xy_level`, int64 (n, 2)."""
    tile, whole = np.array(level.tile), np.array(level.size)
    low, high = np.maximum(xy_level, 0), np.minimum(xy_level + size, whole)
    seen = np.flatnonzero((high > low).all(axis=1))
    first, last = low[seen] // tile, (high[seen] - 1) // tile
    across, down = (last - first + 1).T
    count = across * down
    patch = np.repeat(seen, count)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    wide = np.repeat(across, count)
    place = np.repeat(first, count, axis=0) + np.stack([number % wide, number // wide], axis=1)
    code = place[:, 1] * level.columns + place[:, 0]
    order = np.argsort(code, kind="stable")
    patch, place, code = patch[order], place[order] * tile, code[order]
    left_top = np.maximum(low[patch], place)
    extent = np.minimum(high[patch], place + tile) - left_top
    new = np.flatnonzero(np.diff(code, prepend=-1))
    return Touches(
        code[new].tolist(), [*new.tolist(), len(code)], patch.tolist(),
        (left_top - place).tolist(), (left_top - xy_level[patch]).tolist(), extent.tolist(),
    )  # fmt: skip


class TileReader:
    """The handle of one process on one TIFF; threads may share it.

    Args:
        path: The file.
        tiff: Its structure, still open; it is closed with the reader.
        pages: One page for each level, finest first; see `levels_of`.
        downsamples: Level-0 pixels per pixel of each level.
        properties: What the file says about itself.
        threads: Threads that decode.
    """

    name = "tiles"

    def __init__(
        self, path: Path, tiff: TiffFile, pages: Sequence[TiffPage], downsamples: list[float],
        properties: dict[str, str], threads: int,
    ) -> None:  # fmt: skip
        self._path, self._tiff = path, tiff
        self._levels = [Level(page) for page in pages]
        self.levels = [level.size for level in self._levels]
        self.downsamples, self.properties = downsamples, properties
        self._file = tiff.filehandle.fileno()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None
        self._cache: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._cached_bytes = 0
        self._lock = threading.Lock()

    def __del__(self) -> None:
        self._tiff.close()  # a slide that nobody closed, as OpenSlide's own handles do

    def close(self) -> None:
        """Close the file and end the threads."""
        if self._pool is not None:
            self._pool.shutdown()
        self._tiff.close()

    def read(
        self, xy_level0: np.ndarray, level: int, patches: np.ndarray, valid: np.ndarray | None
    ) -> dict[int, SlideError]:
        """Fill patches, uint8 (n, h, w, 3), and where they are in the slide; return what failed.

        At levels above 0 a patch is the crop at round(x / downsample). Places outside the slide
        are left as they are in both arrays.
        """
        height, width = patches.shape[1:3]
        xy = np.rint(xy_level0 / self.downsamples[level]).astype(np.int64)
        what = touches(self._levels[level], xy, (width, height))
        runs = [range(start, min(start + RUN, len(what.tiles)))
                for start in range(0, len(what.tiles), RUN)]  # fmt: skip
        failed: dict[int, SlideError] = {}

        def work(run: Iterable[int]) -> None:
            for position in run:
                self._spread(level, what, position, patches, valid, failed)

        if self._pool is not None and len(runs) > 1:
            list(self._pool.map(work, runs))
        else:
            for run in runs:
                work(run)
        return failed

    def _spread(
        self, level: int, what: Touches, position: int, patches: np.ndarray,
        valid: np.ndarray | None, failed: dict[int, SlideError],
    ) -> None:  # fmt: skip
        """Decode one tile and copy it into every patch that touches it."""
        number, (first, last) = what.tiles[position], what.starts[position : position + 2]
        tile, size = self._levels[level].tile, (patches.shape[2], patches.shape[1])
        alone = last - first == 1 and tuple(what.extent[first]) == tile == size
        buffer = patches[what.patch[first]] if alone else None
        try:
            pixels = self._tile(level, number, buffer)
        except SlideError as error:
            failed.update(dict.fromkeys(what.patch[first:last], error))
            return
        for pair in range(first, last):
            patch, (left, top) = what.patch[pair], what.source[pair]
            (to_x, to_y), (width, height) = what.target[pair], what.extent[pair]
            place = (patch, slice(to_y, to_y + height), slice(to_x, to_x + width))
            if pixels is not buffer:
                patches[place] = pixels[top : top + height, left : left + width]
            if valid is not None:
                valid[place] = True

    def _tile(self, level: int, number: int, buffer: np.ndarray | None) -> np.ndarray:
        """Return one tile, uint8 (h, w, 3); into `buffer` if one is given that it fills."""
        key = (level, number)
        with self._lock:
            found = self._cache.get(key)
            if found is not None:
                self._cache.move_to_end(key)
                return found
        plane = self._levels[level]
        try:
            pixels = plane.decode(self._bytes(plane, number), number, buffer)
            rows = min(plane.tile[1], plane.size[1] - number // plane.columns * plane.tile[1])
            if len(pixels) < rows or pixels.shape[1] < plane.tile[0]:
                raise DamagedTileError(f"it is {pixels.shape[1]} x {len(pixels)} pixels")
        except DamagedTileError as error:
            x, y = (number % plane.columns * plane.tile[0], number // plane.columns * plane.tile[1])
            down = self.downsamples[level]
            raise SlideError(
                f"a tile of level {level} at x={round(x * down)}, y={round(y * down)} is damaged",
                received=str(error), path=self._path,
                remedy="get the file again; on_error='skip' goes on without it",
            ) from error  # fmt: skip
        if buffer is not None and np.shares_memory(pixels, buffer):
            return buffer
        self._keep(key, pixels)
        return pixels

    def _keep(self, key: tuple[int, int], pixels: np.ndarray) -> None:
        with self._lock:
            if key not in self._cache:
                self._cache[key] = pixels
                self._cached_bytes += pixels.nbytes
            while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
                self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes

    def _bytes(self, plane: Level, number: int) -> bytes:
        offsets, lengths = plane.places
        if number >= min(len(offsets), len(lengths)) or not lengths[number] or not offsets[number]:
            raise DamagedTileError("the file does not hold it")
        data = read_at(self._file, lengths[number], offsets[number])
        if len(data) < lengths[number]:
            raise DamagedTileError(
                f"the file ends {lengths[number] - len(data)} bytes before it does"
            )
        return data


def read_at(file: int, length: int, offset: int) -> bytes:
    """Return bytes of an open file, without a place that threads would share."""
    if hasattr(os, "pread"):
        return os.pread(file, length, offset)
    with READ_AT:
        os.lseek(file, offset, os.SEEK_SET)
        return os.read(file, length)


def levels_of(tiff: TiffFile, sizes: Sequence[tuple[int, int]] | None) -> list[TiffPage] | str:
    """Return the page of each level, or why the levels cannot be read here.

    Args:
        tiff: The open file.
        sizes: (width, height) of the levels that OpenSlide knows; None where it does not open the
            file: then the first page, and those marked as its reductions.
    """
    pages: list[Any] = [page for page in tiff.pages if page is not None]
    if sizes is None:
        small = [page for page in pages[1:] if int(page.subfiletype) & 1]
        found = pages[:1] + sorted(small, key=lambda page: -page.imagewidth)
    else:
        tiled = [page for page in pages if page.is_tiled]
        found = []
        for size in sizes:
            match = [page for page in tiled if (page.imagewidth, page.imagelength) == size]
            if len(match) != 1:
                return f"{len(match)} tiled pages of {size[0]} x {size[1]} pixels"
            found += match
    for page in found:
        why = unsupported(page)
        if why is not None:
            return why
    return found
