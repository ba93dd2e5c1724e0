"""Open a whole slide, an image or an array, and read patches of it in the level-0 frame."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kit import geometry
from kit.errors import MissingMppError, SlideError

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MPP_RANGE = (0.05, 20.0)
MPP_AGREE = 0.01
BAND_PIXELS = 1 << 24
WHITE = (255, 255, 255)


class _Reader(Protocol):
    """An open handle of one process: the pixels of a place, with their alpha."""

    name: str
    levels: list[tuple[int, int]]
    downsamples: list[float]
    properties: dict[str, str]

    def rgba(
        self, xy_level0: tuple[int, int], level: int, size_level: tuple[int, int]
    ) -> np.ndarray: ...

    def close(self) -> None: ...


class _OpenSlideReader:
    """Whatever OpenSlide reads."""

    name = "openslide"

    def __init__(self, path: Path) -> None:
        import openslide

        try:
            self._handle = openslide.OpenSlide(path)
        except openslide.OpenSlideUnsupportedFormatError as error:
            raise SlideError(
                "not a slide that OpenSlide reads", received="an unknown format", path=path
            ) from error
        except openslide.OpenSlideError as error:
            raise SlideError(
                "the slide cannot be opened", received=str(error), path=path
            ) from error
        self._error: type[Exception] = openslide.OpenSlideError
        self.levels = [(int(w), int(h)) for w, h in self._handle.level_dimensions]
        self.downsamples = [float(d) for d in self._handle.level_downsamples]
        self.properties = dict(self._handle.properties)

    def rgba(
        self, xy_level0: tuple[int, int], level: int, size_level: tuple[int, int]
    ) -> np.ndarray:
        try:
            return np.asarray(self._handle.read_region(xy_level0, level, size_level))
        except self._error as error:
            raise SlideError(
                f"level {level} cannot be read at x={xy_level0[0]}, y={xy_level0[1]}",
                received=str(error),
            ) from error

    def close(self) -> None:
        self._handle.close()


class _ImageReader:
    """An ordinary image, or an array, as a slide of one level."""

    name = "image"

    def __init__(self, source: Path | np.ndarray) -> None:
        self._pixels = source if isinstance(source, np.ndarray) else _decode(source)
        self.levels = [(self._pixels.shape[1], self._pixels.shape[0])]
        self.downsamples = [1.0]
        self.properties: dict[str, str] = {}

    def rgba(
        self, xy_level0: tuple[int, int], level: int, size_level: tuple[int, int]
    ) -> np.ndarray:
        (x, y), (width, height) = xy_level0, size_level
        region = np.zeros((height, width, 4), np.uint8)
        found = self._pixels[max(y, 0) : max(y + height, 0), max(x, 0) : max(x + width, 0)]
        top, left = max(-y, 0), max(-x, 0)
        place = region[top : top + found.shape[0], left : left + found.shape[1]]
        place[..., : found.shape[2]] = found
        if found.shape[2] == 3:
            place[..., 3] = 255
        return region

    def close(self) -> None:
        pass


def _decode(path: Path) -> np.ndarray:
    import cv2

    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
        if image is not None and image.ndim == 3 and image.shape[2] == 4 and image.dtype == "u1":
            return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA))
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if image is not None else None
    except cv2.error as error:
        raise SlideError("the image cannot be decoded", received=str(error), path=path) from error
    if image is None:
        raise SlideError(
            "not a slide or image that can be read", received=f"{data.size} bytes", path=path
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


def _as_pixels(array: np.ndarray) -> np.ndarray:
    pixels = np.repeat(array[..., None], 3, axis=2) if array.ndim == 2 else array
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise SlideError(
            "the array is no image", expected="uint8 (h, w), (h, w, 3) or (h, w, 4)",
            received=f"{array.dtype} {array.shape}",
        )  # fmt: skip
    return pixels


def open_slide(path: str | PathLike[str] | np.ndarray, *, mpp: float | None = None) -> Slide:
    """Open a slide.

    Args:
        path: Any file that OpenSlide reads; PNG, JPEG, WebP, BMP and flat TIFF are slides of one
            level; or an array, uint8 RGB (h, w, 3), RGBA or grey (h, w).
        mpp: Resolution of level 0 in µm per pixel, in place of what the file says.

    Raises:
        SlideError: The file is missing, or is not a slide.
        MissingMppError: The `mpp` given is absurd.
    """
    return Slide(path, mpp=mpp)


class Slide:
    """An open slide; coordinates are level-0 pixels, sizes are (width, height).

    It may be pickled, sent to another process or used after a fork: each process opens a handle
    of its own when it first reads. Use it in a `with` block, or call `close`.

    Attributes:
        path: The file, or None for an array.
        levels: (width, height) of each level, finest first.
        downsamples: Level-0 pixels per pixel of each level, floats.
        properties: What the file says about itself.
        reader: "openslide" or "image".
    """

    def __init__(
        self, source: str | PathLike[str] | np.ndarray, *, mpp: float | None = None
    ) -> None:
        self._source = _as_pixels(source) if isinstance(source, np.ndarray) else Path(source)
        self.path = self._source if isinstance(self._source, Path) else None
        if self.path is not None and not self.path.is_file():
            raise SlideError("no such slide", path=self.path)
        self._own_mpp = mpp
        self._closed = False
        self._said: set[object] = set()
        self._handle: _Reader | None = None
        self._pid = -1
        reader = self._reader()
        self.reader = reader.name
        self.levels = reader.levels
        self.downsamples = reader.downsamples
        self.properties: Mapping[str, str] = reader.properties
        if mpp is not None:
            self._check_mpp(mpp, mpp)

    def __repr__(self) -> str:
        return f"Slide({str(self.path or 'array')!r}, size={self.size}, levels={len(self.levels)})"

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_pid": -1}

    def close(self) -> None:
        """Close the file; reading afterwards is an error."""
        self._drop()
        self._closed = True

    def _drop(self) -> None:
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None

    def _reader(self) -> _Reader:
        """Return this process's handle, opened now if it has none."""
        if self._closed:
            raise SlideError("the slide is closed", path=self.path)
        handle = self._handle
        if handle is None or self._pid != os.getpid():
            handle = _open(self._source)
            self._handle, self._pid = handle, os.getpid()
        return handle

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
            remedy="open_slide(path, mpp=...), or mpp: in data_manifest.yaml, or ask for level= "
            "instead of mpp=",
        )  # fmt: skip

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
        """Return one patch, uint8 RGB (h, w, 3); see `read_patches`."""
        patches = self.read_patches(np.asarray(xy_level0)[None], size, mpp=mpp, level=level)
        return np.asarray(patches[0])

    def read_patches(
        self,
        xy_level0: npt.ArrayLike,
        size: geometry.Size,
        *,
        mpp: float | None = None,
        level: int | None = None,
    ) -> np.ndarray:
        """Return patches in the order asked.

        Places outside the slide, and holes of the scan, have the background's colour. Pixels are
        averaged where a finer level is read; enlarging is logged.

        Args:
            xy_level0: int, shape (n, 2): top left of each patch in level 0; may be negative.
            size: (width, height) of the patches returned, or one number for a square.
            mpp: Their resolution, µm per pixel.
            level: Or the level that they are read from, as stored; 0 if neither is given.

        Returns:
            uint8 RGB, shape (n, height, width, 3).

        Raises:
            SlideError: Wrong coordinates, size or level; a place that cannot be read.
            MissingMppError: `mpp` is asked of a slide that has none.
        """
        wanted = self.request(size, mpp=mpp, level=level)
        xy = geometry.as_xy(xy_level0, path=self.path)
        if wanted.enlarges and wanted not in self._said:
            self._said.add(wanted)
            log.warning(
                "%s is enlarged: %s pixels are read for %s (mpp=%s, slide %s)",
                self.path or "array", wanted.size_read, wanted.size_output, mpp, self.mpp,
            )  # fmt: skip
        width, height = wanted.size_output
        patches = np.empty((len(xy), height, width, 3), np.uint8)
        for number, (x, y) in enumerate(xy.tolist()):
            rgb, _ = self._region((x, y), wanted.level, wanted.size_read)
            patches[number] = _resize(rgb, wanted.size_output)
        return patches

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
        """Return a region on the background's colour, and its alpha."""
        try:
            rgba = self._reader().rgba(xy_level0, level, size_level)
        except SlideError as error:
            if error.path is not None:
                raise
            self._drop()  # OpenSlide refuses all reads of a handle after one that failed
            raise SlideError(error.what, received=error.received, path=self.path) from error
        rgb, alpha = rgba[..., :3], rgba[..., 3]
        if alpha.min() < 255:
            share = alpha[..., None].astype(np.float32) / 255
            on = np.asarray(self.background, np.float32)
            rgb = np.rint(rgb * share + on * (1 - share)).astype(np.uint8)
        return rgb, alpha


def _open(source: Path | np.ndarray) -> _Reader:
    if isinstance(source, np.ndarray) or source.suffix.lower() in IMAGE_SUFFIXES:
        return _ImageReader(source)
    if source.suffix.lower() in (".tif", ".tiff"):
        import openslide

        if openslide.OpenSlide.detect_format(source) is None:
            return _ImageReader(source)
    return _OpenSlideReader(source)


def _resize(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels
    import cv2

    shrinks = pixels.shape[1] >= size[0] and pixels.shape[0] >= size[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(pixels), size, interpolation=how))
