"""Open a whole slide, an image or an array, and read patches of it in the level-0 frame."""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from kit import geometry, jobs
from kit.checks import positive_int
from kit.errors import MissingMppError, SlideError
from kit.files import fingerprint
from kit.readers import Reader, as_pixels, open_reader

log = logging.getLogger(__name__)

MPP_RANGE = (0.05, 20.0)
MPP_AGREE = 0.01
BAND_PIXELS = 1 << 24
BATCH_PIXELS = 1 << 23  # read at a time where patches are resized: memory stays flat
MOST_THREADS = 8
WHITE = (255, 255, 255)
IDENTITY = 64  # side of the overview that tells slides apart where OpenSlide's hash does not


class Reading(NamedTuple):
    """What was read.

    Attributes:
        patches: uint8 RGB, shape (n, height, width, 3), in the order asked.
        valid: bool, shape (n, height, width): at least half of the pixel was scanned.
        skipped: int64, positions of the request that could not be read and are not in `patches`.
    """

    patches: np.ndarray
    valid: np.ndarray
    skipped: np.ndarray


def open_slide(
    path: str | PathLike[str] | np.ndarray, *, mpp: float | None = None, threads: int | None = None
) -> Slide:
    """Open a slide.

    Args:
        path: Any file that OpenSlide reads; flat or tiled TIFF of 8 bits a sample; PNG, JPEG, WebP
            and BMP as slides of one level; or an array, uint8 RGB (h, w, 3), RGBA or grey (h, w).
        mpp: Resolution of level 0 in µm per pixel, in place of what the file says.
        threads: Threads that read and decode; None: the cores, 8 at most, and one in a worker
            process. They do not change the pixels.

    Raises:
        SlideError: The file is missing, or is not a slide.
        MissingMppError: The `mpp` given is absurd.
    """
    return Slide(path, mpp=mpp, threads=threads)


class Slide:
    """An open slide; coordinates are level-0 pixels, sizes are (width, height).

    It may be pickled, sent to another process or used after a fork: each process opens a handle
    of its own when it first reads. Use it in a `with` block, or call `close`.

    Attributes:
        path: The file, or None for an array.
        levels: (width, height) of each level, finest first.
        downsamples: Level-0 pixels per pixel of each level, floats.
        properties: What the file says about itself.
        reader: "tiles" (TIFF tiles decoded directly), "openslide" or "image".
    """

    def __init__(
        self,
        source: str | PathLike[str] | np.ndarray,
        *,
        mpp: float | None = None,
        threads: int | None = None,
    ) -> None:
        self._source = as_pixels(source) if isinstance(source, np.ndarray) else Path(source)
        self.path = self._source if isinstance(self._source, Path) else None
        if self.path is not None and not self.path.is_file():
            what = "a slide is a file" if self.path.is_dir() else "no such slide"
            raise SlideError(what, path=self.path)
        self._own_mpp = None if mpp is None else self._check_mpp(mpp, mpp)
        self._threads = None if threads is None else positive_int("threads", threads)
        self._closed = False
        self._said: set[object] = set()
        self._mine = _Mine()
        reader = self._reader()
        self.reader = reader.name
        self.levels = reader.levels
        self.downsamples = reader.downsamples
        self.properties: Mapping[str, str] = reader.properties

    def __repr__(self) -> str:
        return f"Slide({str(self.path or 'array')!r}, size={self.size}, levels={len(self.levels)})"

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mine": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ = {**state, "_mine": _Mine()}

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._closed = True
        if self._mine.pid == os.getpid() and self._mine.handle is not None:
            self._mine.handle.close()
        self._mine = _Mine()

    def _reader(self) -> Reader:
        """Return this process's handle, opened now if it has none."""
        if self._closed:
            raise SlideError("the slide is closed", path=self.path)
        if self._mine.pid != os.getpid():
            self._mine = _Mine()  # a handle that came through a fork may read wrong places
        mine = self._mine
        with mine.lock:
            if mine.handle is None:
                mine.handle = open_reader(self._source, self._threads or _threads())
            return mine.handle

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of level 0."""
        return self.levels[0]

    @property
    def mpp(self) -> float:
        """Resolution of level 0, µm per pixel.

        Raises:
            MissingMppError: It is missing, zero, absurd, or differs between x and y.
        """
        if self._own_mpp is not None:
            return self._own_mpp
        x, y = (self.properties.get(f"openslide.mpp-{axis}") for axis in "xy")
        return self._check_mpp(x, y)

    @property
    def known_mpp(self) -> float | None:
        """The same, or None where the slide does not say it."""
        try:
            return self.mpp
        except MissingMppError:
            return None

    def _check_mpp(self, x: object, y: object) -> float:
        try:
            mpp_x, mpp_y = float(str(x)), float(str(y))
        except ValueError:
            mpp_x = mpp_y = 0.0
        low, high = MPP_RANGE
        if low <= mpp_x <= high and low <= mpp_y <= high and abs(mpp_x / mpp_y - 1) <= MPP_AGREE:
            return (mpp_x + mpp_y) / 2
        found = "none" if x is None and y is None else f"mpp-x={x}, mpp-y={y}"
        raise MissingMppError(
            "the slide has no usable resolution",
            expected=f"the same µm per pixel in x and y, {low} to {high} at level 0",
            received=found, path=self.path,
            remedy="open_slide(path, mpp=...) or --slide-mpp, or mpp: in data_manifest.yaml, or "
            "ask for level= instead of mpp=",
        )  # fmt: skip

    @cached_property
    def identity(self) -> int:
        """A number, int64, by which plans know their slide: of its levels, bounds and overview.

        Where the file lies does not matter. It is no proof of every pixel: `kit run` has each
        file's sha256 for that.
        """
        quick = self.properties.get("openslide.quickhash-1")
        if quick is None:
            pixels, _ = self.overview((IDENTITY, IDENTITY))
            quick = str(zlib.crc32(np.ascontiguousarray(pixels).tobytes()))
        said = fingerprint([self.levels, self.bounds, quick])
        return int.from_bytes(bytes.fromhex(said)[:8], "big", signed=True)

    @property
    def bounds(self) -> tuple[int, int, int, int]:
        """(x, y, width, height) of the scanned part in level 0; the whole slide if not named."""
        names = ("x", "y", "width", "height")
        found = [self.properties.get(f"openslide.bounds-{name}") for name in names]
        if None in found:
            return (0, 0, *self.size)
        x, y, width, height = (int(value) for value in found if value is not None)
        return x, y, width, height

    @property
    def background(self) -> tuple[int, int, int]:
        """(r, g, b) of places without pixels; white if the slide names none."""
        text = self.properties.get("openslide.background-color")
        if text is None:
            return WHITE
        red, green, blue = bytes.fromhex(text)
        return red, green, blue

    def request(
        self, size: geometry.Size, *, mpp: float | None = None, level: int | None = None
    ) -> geometry.Request:
        """Return what a patch of `size` at `mpp` or `level` reads (see `geometry.request`)."""
        return geometry.request(
            size, downsamples=self.downsamples, mpp=mpp, level=level, path=self.path,
            slide_mpp=None if mpp is None else self.mpp,
        )  # fmt: skip

    def read_patch(
        self,
        xy_level0: npt.ArrayLike,
        size: geometry.Size,
        *,
        mpp: float | None = None,
        level: int | None = None,
    ) -> np.ndarray:
        """Return one patch, uint8 RGB (h, w, 3); see `read`."""
        patches = self.read_patches(np.asarray(xy_level0)[None], size, mpp=mpp, level=level)
        return np.asarray(patches[0])

    @overload
    def read_patches(
        self, xy_level0: npt.ArrayLike, size: geometry.Size, *, mpp: float | None = None,
        level: int | None = None, on_error: Literal["raise"] = "raise",
    ) -> np.ndarray: ...  # fmt: skip

    @overload
    def read_patches(
        self, xy_level0: npt.ArrayLike, size: geometry.Size, *, mpp: float | None = None,
        level: int | None = None, on_error: Literal["skip"],
    ) -> tuple[np.ndarray, np.ndarray]: ...  # fmt: skip

    def read_patches(
        self, xy_level0: npt.ArrayLike, size: geometry.Size, *, mpp: float | None = None,
        level: int | None = None, on_error: Literal["raise", "skip"] = "raise",
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Return patches, uint8 RGB (n, height, width, 3); with "skip" also which are missing.

        As `read`, without `valid`: `patches`, or `(patches, skipped)` if `on_error` is "skip".
        """
        found = self._read(xy_level0, size, mpp, level, on_error, wants_valid=False)
        return found.patches if on_error == "raise" else (found.patches, found.skipped)

    def read(
        self, xy_level0: npt.ArrayLike, size: geometry.Size, *, mpp: float | None = None,
        level: int | None = None, on_error: Literal["raise", "skip"] = "raise",
    ) -> Reading:  # fmt: skip
        """Read patches, and which of their pixels were scanned.

        Places outside the slide, and holes of the scan, have the background's colour. Pixels are
        averaged where a finer level is read; enlarging is logged. At levels above 0, tiles are
        read at round(x / downsample); OpenSlide itself shifts by parts of a pixel there.

        Args:
            xy_level0: int, shape (n, 2): top left of each patch in level 0; may be negative.
            size: (width, height) of the patches returned, or one number for a square.
            mpp: Their resolution, µm per pixel.
            level: Or the level that they are read from, as stored; 0 if neither is given.
            on_error: "raise", or "skip" what cannot be read and say which.

        Raises:
            SlideError: Wrong coordinates, size or level; a place that cannot be read.
            MissingMppError: `mpp` is asked of a slide that has none.
        """
        return self._read(xy_level0, size, mpp, level, on_error, wants_valid=True)

    def _read(
        self, xy_level0: npt.ArrayLike, size: geometry.Size, mpp: float | None, level: int | None,
        on_error: Literal["raise", "skip"], *, wants_valid: bool,
    ) -> Reading:  # fmt: skip
        if on_error not in ("raise", "skip"):
            raise SlideError("on_error must be raise or skip", received=f"on_error={on_error!r}")
        wanted = self.request(size, mpp=mpp, level=level)
        xy = geometry.as_xy(xy_level0, path=self.path)
        self._say_if_enlarged(wanted, mpp)
        width, height = wanted.size_output
        patches = np.empty((len(xy), height, width, 3), np.uint8)
        valid = np.zeros((len(xy), height, width), np.bool_) if wants_valid else None
        failed = self._fill(xy, wanted, patches, valid)
        if failed and on_error == "raise":
            raise failed[min(failed)]
        if failed:
            log.warning("%s: %d of %d patches are skipped, first: %s", self.path, len(failed),
                        len(xy), failed[min(failed)])  # fmt: skip
            patches = np.delete(patches, list(failed), axis=0)
            valid = None if valid is None else np.delete(valid, list(failed), axis=0)
        skipped = np.array(sorted(failed), np.int64)
        return Reading(patches, np.empty(0, np.bool_) if valid is None else valid, skipped)

    def _fill(
        self, xy: np.ndarray, wanted: geometry.Request, patches: np.ndarray,
        valid: np.ndarray | None,
    ) -> dict[int, SlideError]:  # fmt: skip
        """Read into the arrays, through a smaller one where what is read is resized."""
        if wanted.size_read == wanted.size_output:
            return self._stored(xy, wanted.level, patches, valid)
        width, height = wanted.size_read
        step = max(1, BATCH_PIXELS // (width * height))
        order, failed = np.lexsort((xy[:, 0], xy[:, 1])), {}
        for start in range(0, len(xy), step):
            chosen = order[start : start + step]
            raw = np.empty((len(chosen), height, width, 3), np.uint8)
            seen = None if valid is None else np.zeros(raw.shape[:3], np.bool_)
            wrong = self._stored(xy[chosen], wanted.level, raw, seen)
            failed.update({int(chosen[position]): error for position, error in wrong.items()})
            for position, target in enumerate(chosen):
                patches[target] = _resize(raw[position], wanted.size_output)
                if valid is not None and seen is not None:
                    share = _resize(seen[position].astype(np.uint8) * 255, wanted.size_output)
                    valid[target] = share >= 128
        return failed

    def _stored(
        self, xy: np.ndarray, level: int, patches: np.ndarray, valid: np.ndarray | None
    ) -> dict[int, SlideError]:
        """Read pixels as a level stores them, on the background's colour."""
        down = self.downsamples[level]
        edge = np.array(self.size) - np.array(patches.shape[2:0:-1]) * down
        edge -= down if level else 0  # what rounding may push outside
        whole = ((xy >= 0) & (xy <= edge)).all(axis=1) & (self.reader == "tiles")  # else: holes
        if not whole.all():
            blank = np.full(patches.shape[1:], self.background, np.uint8)
            for position in np.flatnonzero(~whole):
                patches[position] = blank
        return self._reader().read(xy, level, patches, valid)

    def _say_if_enlarged(self, wanted: geometry.Request, mpp: float | None) -> None:
        if wanted.enlarges and wanted not in self._said:
            self._said.add(wanted)
            log.warning(
                "%s is enlarged: %s pixels are read for %s (mpp=%s, slide %s)",
                self.path or "array", wanted.size_read, wanted.size_output, mpp, self.mpp,
            )  # fmt: skip

    def thumbnail(self, max_size: geometry.Size) -> np.ndarray:
        """Return the whole slide within `max_size`, uint8 RGB (h, w, 3); see `overview`."""
        return self.overview(max_size)[0]

    def overview(self, max_size: geometry.Size) -> tuple[np.ndarray, np.ndarray]:
        """Return the whole slide, small, and where it was scanned.

        Args:
            max_size: (width, height) that it must fit in, or one number; it is never enlarged.

        Returns:
            uint8 RGB (h, w, 3), and bool (h, w): at least half of the pixel was scanned.
        """
        limit = geometry.as_size(max_size, path=self.path)
        ratio = max(1.0, *(s / m for s, m in zip(self.size, limit, strict=True)))
        width, height = (max(1, round(side / ratio)) for side in self.size)
        fine = [n for n, d in enumerate(self.downsamples) if d <= ratio * (1 + 1e-6)]
        level = max(fine, key=lambda n: self.downsamples[n])
        level_width, level_height = self.levels[level]
        rows = max(1, int(BAND_PIXELS / level_width * height / level_height))
        rgb, valid = np.empty((height, width, 3), np.uint8), np.empty((height, width), np.bool_)
        for first in range(0, height, rows):
            last = min(height, first + rows)
            top, bottom = (round(row * level_height / height) for row in (first, last))
            place = (0, round(top * self.downsamples[level]))
            region, scanned = self._region(place, level, (level_width, max(1, bottom - top)))
            rgb[first:last] = _resize(region, (width, last - first))
            valid[first:last] = _resize(scanned, (width, last - first)) >= 128
        return rgb, valid

    def _region(
        self, xy_level0: tuple[int, int], level: int, size_level: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return a region on the background's colour, and where it was scanned, 0 or 255."""
        width, height = size_level
        pixels = np.empty((1, height, width, 3), np.uint8)
        valid = np.zeros((1, height, width), np.bool_)
        for error in self._stored(np.array([xy_level0]), level, pixels, valid).values():
            raise error
        return pixels[0], valid[0].astype(np.uint8) * 255


class _Mine:
    """What belongs to one process: its handle, opened by whichever thread reads first."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.handle: Reader | None = None


def _threads() -> int:
    """Return how many threads read: the cores, but one in a worker, whose siblings have them."""
    return 1 if jobs.in_worker() else min(jobs.cores(), MOST_THREADS)


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    import cv2

    shrinks = pixels.shape[1] >= size[0] and pixels.shape[0] >= size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=how))
