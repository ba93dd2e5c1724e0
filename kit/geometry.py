"""Arithmetic between a slide's frames: level 0, the other levels, µm per pixel, and masks.

A name says its frame: `xy_level0` and `size_level0` count level-0 pixels, `size_level` pixels of a
stored level, `size_output` pixels of the patch that is returned. All stay floats until the last
rounding, because downsamples are not integers (2.0005, 4.016, 8.086).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt

from kit.errors import SlideError

Place = str | PathLike[str] | None
Pair = tuple[float, float]
Size = int | tuple[int, int]


@dataclass(frozen=True)
class Request:
    """What to read for one patch, and what to make of it.

    Attributes:
        level: The stored level to read, 0 = finest.
        size_output: (width, height) of the patch, pixels.
        size_level: (width, height) of its footprint in pixels of `level`.
        size_level0: (width, height) of its footprint in level-0 pixels.
    """

    level: int
    size_output: tuple[int, int]
    size_level: Pair
    size_level0: Pair

    @property
    def size_read(self) -> tuple[int, int]:
        """(width, height) in whole pixels to read at `level`: the last rounding."""
        return max(1, round(self.size_level[0])), max(1, round(self.size_level[1]))

    @property
    def enlarges(self) -> bool:
        """Whether fewer pixels are read than returned."""
        return any(r < o for r, o in zip(self.size_read, self.size_output, strict=True))


def level_to_level0(xy_level: npt.ArrayLike, downsample: float | Pair) -> np.ndarray:
    """Return level-0 coordinates (float64) of coordinates or sizes at a level."""
    return np.asarray(xy_level, dtype=np.float64) * np.asarray(downsample, dtype=np.float64)


def level0_to_level(xy_level0: npt.ArrayLike, downsample: float | Pair) -> np.ndarray:
    """Return coordinates at a level (float64) of level-0 coordinates or sizes."""
    return np.asarray(xy_level0, dtype=np.float64) / np.asarray(downsample, dtype=np.float64)


def as_size(size: Size, *, path: Place = None) -> tuple[int, int]:
    """Return (width, height) of a size given as one whole number or as a pair.

    Raises:
        SlideError: A part is not a whole number of at least 1.
    """
    parts: list[Any] = list(size) if isinstance(size, Sequence | np.ndarray) else [size, size]
    whole = all(isinstance(p, int | np.integer) and not isinstance(p, bool) for p in parts)
    if len(parts) != 2 or not whole or min(parts) < 1:
        raise SlideError(
            "size must be whole numbers of at least 1", expected="(width, height) or one number",
            received=f"size={size}", path=path,
        )  # fmt: skip
    return int(parts[0]), int(parts[1])


def as_xy(xy_level0: npt.ArrayLike, *, path: Place = None) -> np.ndarray:
    """Return coordinates as int64, shape (n, 2); negative ones are allowed.

    Raises:
        SlideError: They are not whole numbers, or not pairs.
    """
    xy = np.asarray(xy_level0)
    if xy.size == 0:
        return np.empty((0, 2), np.int64)
    if xy.dtype.kind not in "iu":
        raise SlideError(
            "coordinates must be whole level-0 pixels", expected="integers (x, y)",
            received=f"{xy.dtype} {xy.reshape(-1)[:2].tolist()}", path=path,
            remedy="round them once, by yourself",
        )  # fmt: skip
    if xy.ndim != 2 or xy.shape[1] != 2:
        raise SlideError(
            "coordinates must be pairs", expected="shape (n, 2)", received=f"shape {xy.shape}",
            path=path,
        )  # fmt: skip
    return xy.astype(np.int64)


def request(
    size: Size,
    *,
    downsamples: Sequence[float],
    mpp: float | None = None,
    level: int | None = None,
    slide_mpp: float | None = None,
    path: Place = None,
) -> Request:
    """Turn a request by resolution or by level into level, footprint and output size.

    By `mpp`, the coarsest level is read whose footprint still has as many pixels as the patch, so
    that pixels are averaged and not invented; finer than level 0, level 0 is enlarged
    (`Request.enlarges`). By `level`, the patch is read as stored. With neither, level 0.

    Args:
        size: (width, height) of the patch in pixels, or one number for a square.
        downsamples: Level-0 pixels per pixel of each level, floats.
        mpp: Wanted resolution, µm per pixel, > 0; needs `slide_mpp`.
        level: Wanted level.
        slide_mpp: Resolution of level 0, µm per pixel.
        path: The slide, for errors.

    Raises:
        SlideError: Both or an impossible `mpp` or `level`.
    """
    width, height = output = as_size(size, path=path)
    if mpp is None:
        chosen = _known_level(0 if level is None else level, downsamples, path)
        scale = float(downsamples[chosen])
    else:
        if level is not None:
            raise SlideError("mpp and level exclude each other",
                             received=f"mpp={mpp}, level={level}", path=path)  # fmt: skip
        if slide_mpp is None or not mpp > 0:
            raise SlideError("mpp must be above 0", expected="µm per pixel",
                             received=f"mpp={mpp}, slide's own {slide_mpp}", path=path)  # fmt: skip
        scale = mpp / slide_mpp
        enough = [
            number for number, downsample in enumerate(downsamples)
            if round(width * scale / downsample) >= width
            and round(height * scale / downsample) >= height
        ]  # fmt: skip
        chosen = max(enough, key=lambda number: downsamples[number]) if enough else 0
    size_level0 = (width * scale, height * scale)
    at_level = level0_to_level(size_level0, float(downsamples[chosen]))
    return Request(chosen, output, (float(at_level[0]), float(at_level[1])), size_level0)


def _known_level(level: int, downsamples: Sequence[float], path: Place) -> int:
    whole = isinstance(level, int | np.integer) and not isinstance(level, bool)
    if not whole or not 0 <= level < len(downsamples):
        raise SlideError(
            "no such level", expected=f"0 to {len(downsamples) - 1}", received=f"level={level}",
            path=path,
        )  # fmt: skip
    return int(level)


def grid(bounds: tuple[int, int, int, int], footprint: Pair, step: Pair) -> np.ndarray:
    """Return the top left corners of the whole patches of a grid within bounds, row by row.

    The grid starts at the slide's corner, so that the same place is the same patch whatever the
    bounds are. Places are floats until they are rounded here.

    Args:
        bounds: (x, y, width, height), level-0 pixels.
        footprint: (width, height) of a patch, level-0 pixels.
        step: From one patch to the next in x and y, level-0 pixels.

    Returns:
        int64, shape (n, 2).
    """
    x, y, width, height = bounds
    columns = _places(x, x + width - footprint[0], step[0])
    rows = _places(y, y + height - footprint[1], step[1])
    return np.stack([axis.ravel() for axis in np.meshgrid(columns, rows)], axis=1)


def _places(low: float, high: float, step: float) -> np.ndarray:
    first, last = int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9))
    return np.asarray(np.rint(np.arange(first, last + 1) * step), dtype=np.int64)


def common_downsample(size_mask: tuple[int, int], size_level0: tuple[int, int]) -> Pair | None:
    """Return the downsample (x, y) of an image of a whole slide, or None if its shape cannot be.

    A shape fits if one downsample of at least 1 explains both sides, each rounded up or down. A
    whole number among those is the answer (a pyramid halves and drops the odd row), else the
    ratio of each axis.
    """
    (mask_w, mask_h), (width, height) = size_mask, size_level0
    low = max(width / (mask_w + 1), height / (mask_h + 1))
    high = min(width / max(mask_w - 1, 0.5), height / max(mask_h - 1, 0.5))
    if low > high or high < 1:
        return None
    whole = round(min(width / mask_w, height / mask_h))
    if whole >= 1 and low <= whole <= high:
        return float(whole), float(whole)
    return width / mask_w, height / mask_h
