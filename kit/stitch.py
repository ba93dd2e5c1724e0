"""Probabilities of pixels, from overlapping patches to one map of the slide."""

from __future__ import annotations

import math
import shutil
import tempfile
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from kit.checks import above_zero, choice, first, probabilities, same_length
from kit.errors import KitError, SlideError, TableError
from kit.geometry import as_size, as_xy

How = Literal["centre", "window"]

PART = 1e-8  # what a patch counts in a cell that it covers in part, beside one that covers it all
RIM = 1e-16  # what a rim counts beside a centre: nothing in float64, and all where it is alone
WHOLE = 1 - 1e-6  # share of a cell from which on it is covered
DECIMALS = 6  # of a place in pixels of a patch
BLOCK = 256  # rows of the map that are divided at once


class Stitcher:
    """One class's map of a slide, made of patches that come in any order.

    The map covers the slide from its corner in square cells; the last ones of a row or column are
    cut off at the slide's edge. A patch's pixels are averaged over each cell by the area that they
    share with it, exactly, wherever the patch lies: nothing is rounded to whole cells. Patches that
    share a cell are averaged by weight; one that covers a cell in part counts only where none
    covers it all. What a patch shows beyond the slide's edge is ignored.

    How patches are weighed:

    * "centre": only the centre of each counts, half as wide and as high, all alike. Outside every
      centre, at the edge of what was planned, the mean of the rims stands in.
    * "window": a Hann window, sin² from 0 at the patch's edge to 1 at its centre.

    The sums lie in two temporary files, 16 bytes a cell, of which the system takes as much into
    memory as it has to spare: patches that follow each other along the slide's rows are added
    fastest. `close`, or the end of a `with` block, removes them.

    Args:
        size_level0: (width, height) of the slide.
        downsample: Level-0 pixels on the side of a cell, > 0; not necessarily whole.
        how: How patches that overlap are weighed.
        folder: Where the temporary files lie; None: where the system has them.

    Attributes:
        size_level0: As given.
        downsample: As given.
        shape: (height, width) of the map.

    Raises:
        SettingsError: `how` or `downsample` cannot be.
        SlideError: The slide has no such size.
        KitError: The disk has no room for the files.

    Source: "centre" is HeLP 2019's; "window" Pielawski and Wählby (2020),
    10.1371/journal.pone.0229839.
    """

    def __init__(
        self, size_level0: tuple[int, int], downsample: float, *, how: How = "window",
        folder: str | PathLike[str] | None = None,
    ) -> None:  # fmt: skip
        self.downsample = above_zero("downsample", downsample, "level-0 pixels on a cell's side")
        self.size_level0 = as_size(size_level0)
        self._how = choice("how", how, get_args(How))
        columns, rows = (_edges(side, self.downsample) for side in self.size_level0)
        self._columns, self._rows = columns, rows
        self.shape = (len(rows) - 1, len(columns) - 1)
        place = Path(folder or tempfile.gettempdir())
        place.mkdir(parents=True, exist_ok=True)
        _check_room(place, 16 * self.shape[0] * self.shape[1])
        self._folder = tempfile.TemporaryDirectory(dir=place, ignore_cleanup_errors=True)
        self._sum, self._weight = (
            np.memmap(Path(self._folder.name) / name, np.float64, "w+", shape=self.shape)
            for name in ("sum", "weight")
        )

    def __enter__(self) -> Stitcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, xy_level0: npt.ArrayLike, footprint: npt.ArrayLike, prob: np.ndarray) -> None:
        """Add patches to the map; all of them or, if one cannot be, none.

        Args:
            xy_level0: int, shape (n, 2), top left of each patch; it may lie beyond the slide's
                edge, not all of the patch.
            footprint: Side of the patches in level-0 pixels, > 0: a float, or one for each.
            prob: shape (n, height, width), in [0, 1], each patch's pixels, stretched over its
                footprint.

        Raises:
            SlideError: Places are no whole numbers, or a patch lies outside the slide.
            TableError: Lengths differ, or a value is nan or not in [0, 1].
        """
        xy, prob = as_xy(xy_level0), np.asarray(prob)
        if prob.ndim != 3 or 0 in prob.shape[1:]:
            raise TableError(
                "prob must hold the pixels of patches", expected="shape (n, height, width)",
                received=f"shape {prob.shape}", remedy="one class at a time: prob[..., number]",
            )  # fmt: skip
        same_length(xy_level0=xy, prob=prob)
        sides = np.asarray(footprint, dtype=np.float64)
        sides = np.full(len(xy), sides) if sides.ndim == 0 else sides
        same_length(footprint=sides, prob=prob)
        self._check_places(xy, sides)
        for patch in prob:
            probabilities(patch.ravel())
        for (x, y), side, patch in zip(xy.tolist(), sides.tolist(), prob, strict=True):
            self._add_patch(x, y, side, patch.astype(np.float64))

    def result(self) -> np.ndarray:
        """Return the map, float32 (height, width), in [0, 1]; nan where no patch lies.

        More patches may be added after it.
        """
        values = np.full(self.shape, np.nan, np.float32)
        for start in range(0, self.shape[0], BLOCK):
            rows = slice(start, start + BLOCK)
            weight = np.asarray(self._weight[rows])
            np.divide(
                self._sum[rows], weight, out=values[rows], where=weight > 0, casting="same_kind"
            )
        return values

    def close(self) -> None:
        """Remove the temporary files; the map is gone."""
        if hasattr(self, "_sum"):
            del self._sum, self._weight  # Windows removes no file that is mapped
        self._folder.cleanup()

    def _check_places(self, xy: np.ndarray, sides: np.ndarray) -> None:
        if not (np.isfinite(sides) & (sides > 0)).all():
            raise TableError("footprint must be above 0", received=first(sides))
        outside = ((xy >= self.size_level0) | (xy + sides[:, None] <= 0)).any(axis=1)
        if outside.any():
            raise SlideError(
                "a patch lies outside the slide", expected=f"within {self.size_level0}",
                received=first(xy[outside].tolist()), remedy="x and y count level-0 pixels",
            )  # fmt: skip

    def _add_patch(self, x: int, y: int, side: float, patch: np.ndarray) -> None:
        height, width = patch.shape
        rows, down = _cells(self._rows, self.downsample, y, side, height)
        columns, across = _cells(self._columns, self.downsample, x, side, width)
        whole = WHOLE * np.outer(np.diff(down), np.diff(across))
        pixel = side / height * side / width  # level-0 area: patches may differ in it

        def put(down: np.ndarray, across: np.ndarray, weight: np.ndarray | float) -> None:
            area = np.outer(np.diff(down), np.diff(across))
            counts = np.where(area >= whole, 1.0, PART) * weight * pixel
            self._sum[rows, columns] += counts * _sums(_sums(patch, down).T, across).T
            self._weight[rows, columns] += counts * area

        if self._how == "window":
            down, across = np.clip(down, 0, height), np.clip(across, 0, width)
            put(down, across, np.outer(_hann(down, height), _hann(across, width)))
            return
        for (top, bottom), (left, right), weight in (
            (_centre(height), _centre(width), 1.0), ((0, height), (0, width), RIM),
        ):  # fmt: skip
            put(np.clip(down, top, bottom), np.clip(across, left, right), weight)


def patch_scores(prob: np.ndarray, how: Literal["max", "mean"] = "max") -> np.ndarray:
    """Return what a patch's pixels say of the patch: their maximum or mean over its centre.

    The centre is half as wide and as high, from pixel `height // 4` to `height - height // 4`.

    Args:
        prob: shape (n, height, width) or (n, height, width, classes).
        how: "max" or "mean", of each class by itself: maxima do not sum to 1.

    Returns:
        float64, shape (n,) or (n, classes); nan where a pixel of the centre is.

    Raises:
        TableError: `prob` has another shape.

    Source: the maximum is HeLP 2019's score of a patch of 256 pixels: over its central 128.
    """
    choice("how", how, ("max", "mean"))
    if prob.ndim not in (3, 4) or 0 in prob.shape[1:3]:
        raise TableError(
            "prob must hold the pixels of patches",
            expected="shape (n, height, width) or (n, height, width, classes)",
            received=f"shape {prob.shape}",
        )
    rows, columns = (slice(*_centre(side)) for side in prob.shape[1:3])
    centre = prob[:, rows, columns].astype(np.float64)
    return np.asarray(centre.max(axis=(1, 2)) if how == "max" else centre.mean(axis=(1, 2)))


def _centre(pixels: int) -> tuple[int, int]:
    """Return where the central half of a side begins and ends."""
    return pixels // 4, pixels - pixels // 4


def _edges(side: int, downsample: float) -> np.ndarray:
    """Return the edges of the cells along a side of the slide, level-0 pixels."""
    cells = max(1, math.ceil(side / downsample - 1e-9))
    return np.asarray(np.minimum(np.arange(cells + 1) * downsample, side))


def _cells(
    edges: np.ndarray, downsample: float, start: int, side: float, pixels: int
) -> tuple[slice, np.ndarray]:
    """Return the cells that a patch touches along one axis, and where in it their edges lie.

    Returns:
        A slice of n cells, and float64 (n + 1,): their edges in pixels of the patch, rounded so
        that floats alone make no sliver of a cell; the first and last may lie outside the patch.
    """
    low = max(0, math.floor(start / downsample))
    high = min(len(edges) - 1, math.ceil((start + side) / downsample))
    return slice(low, high), np.round((edges[low : high + 1] - start) * (pixels / side), DECIMALS)


def _sums(pixels: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return the sums of rows between places, which are parts of rows; float64 (places - 1, k).

    By running sums, not by a product of matrices, whose threads on a busy machine wait for each
    other far longer than they work.
    """
    before = np.minimum(places.astype(np.intp), len(pixels) - 1)
    above = np.zeros((len(pixels) + 1, *pixels.shape[1:]))
    np.cumsum(pixels, axis=0, out=above[1:])
    up_to = above[before] + (places - before)[:, None] * pixels[before]
    return np.asarray(np.diff(up_to, axis=0))


def _hann(places: np.ndarray, pixels: int) -> np.ndarray:
    """Return the mean of a Hann window between places along a patch; 0 where nothing lies."""
    window = np.sin(np.pi * (np.arange(pixels) + 0.5) / pixels) ** 2
    lengths = np.diff(places)
    total = _sums(window[:, None], places)[:, 0]
    return np.asarray(np.divide(total, lengths, out=np.zeros_like(total), where=lengths > 0))


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise KitError(
            "the disk has no room for the map", expected=f"{needed / 1e9:.1f} GB",
            received=f"{free / 1e9:.1f} GB free", path=folder,
            remedy="give another folder, or a larger downsample",
        )  # fmt: skip
