"""Tumour masks drawn by people: mask images and polygons, in the frame of their slide."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from kit import _mask_files, coverage, geometry, polygons
from kit.checks import first, nearest
from kit.errors import MaskError

if TYPE_CHECKING:
    from kit.slides import Slide

log = logging.getLogger(__name__)

Frame = Literal["slide", "bounds"]
Values = Mapping[str, int | str | Sequence[str]]
MOST_DRAWN = 1 << 26  # pixels that polygons are drawn into
TUMOUR = 255
EXCLUDE = "exclude"  # the class of groups that are cut out of all others
EXCLUSIONS = ("_2", "exclude", "exclusion")  # groups that are of this class unless named otherwise


@dataclass(frozen=True, eq=False)
class MaskImage:
    """A mask and where it lies on its slide.

    Attributes:
        labels: Integers, shape (mask_height, mask_width).
        values: What each integer means, e.g. {"tumour": 255}; 0 is nothing unless named.
        downsample: (x, y) level-0 pixels per mask pixel.
        origin_level0: (x, y) of its top left in level 0: not (0, 0) if cropped to the bounds.
        path: The mask image or the annotation file.
    """

    labels: np.ndarray
    values: Mapping[str, int]
    downsample: tuple[float, float]
    origin_level0: tuple[int, int]
    path: Path
    _integrals: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def share(self, name: str) -> float:
        """Return the share of the mask's pixels that are `name`, in [0, 1]."""
        return float((self.labels == self._value(name)).mean())

    def fraction(
        self,
        xy_level0: npt.ArrayLike,
        size_level0: float | tuple[float, float],
        name: str = "tumour",
    ) -> np.ndarray:
        """Return the share of `name` in each patch, float64 (n,) in [0, 1].

        Exact to parts of a mask pixel; what lies outside the mask is none.

        Args:
            xy_level0: shape (n, 2), top left of each patch in level 0.
            size_level0: (width, height) of the patches in level 0, or one number; floats.
            name: One of `values`.

        Raises:
            MaskError: `name` is not one of `values`.
        """
        value = self._value(name)
        if name not in self._integrals:
            self._integrals[name] = coverage.integral(self.labels == value)
        return coverage.area_fraction(
            self._integrals[name], xy_level0, size_level0,
            downsample=self.downsample, origin_level0=self.origin_level0,
        )  # fmt: skip

    def read_patches(
        self,
        xy_level0: npt.ArrayLike,
        size_level0: float | tuple[float, float],
        size_output: geometry.Size,
    ) -> np.ndarray:
        """Return the mask patch of each image patch, of the type of `labels`, (n, height, width).

        Each pixel is the mask's pixel under its centre; 0 where that lies outside the mask.

        Args:
            xy_level0: shape (n, 2), top left of each patch in level 0.
            size_level0: (width, height) of the patches in level 0, or one number; floats: the
                `size_level0` of the image's `Request`.
            size_output: (width, height) of the patches in pixels, or one number.

        Raises:
            MaskError: `size_level0` is not above 0.
            SlideError: `size_output` is not whole numbers of at least 1.
        """
        width, height = geometry.as_size(size_output)
        low = np.asarray(xy_level0, dtype=np.float64).reshape(-1, 2) - self.origin_level0
        size = np.broadcast_to(np.asarray(size_level0, dtype=np.float64), (2,))
        if not (size > 0).all():
            raise MaskError("a patch must have an area", received=f"size_level0={size_level0}")
        centres = ((np.arange(n) + 0.5) / n for n in (width, height))
        columns, rows = (
            np.floor((low[:, axis, None] + centre * size[axis]) / self.downsample[axis])
            for axis, centre in enumerate(centres)
        )
        patches = np.zeros((len(low), height, width), self.labels.dtype)
        for patch, column, row in zip(patches, columns, rows, strict=True):
            (top, bottom), y = _part(row, self.labels.shape[0])
            (left, right), x = _part(column, self.labels.shape[1])
            patch[top:bottom, left:right] = self.labels[np.ix_(y, x)]
        return patches

    def _value(self, name: str) -> int:
        if name not in self.values:
            raise MaskError(
                "the mask has no such value", expected=f"one of {', '.join(self.values)}",
                received=name, path=self.path, remedy=nearest(name, self.values),
            )  # fmt: skip
        return self.values[name]


def read_mask(
    path: str | PathLike[str],
    slide: Slide,
    *,
    values: Values | None = None,
    frame: Frame | None = None,
    others: bool = False,
) -> MaskImage:
    """Read the mask of a slide: an image at any downsample, or an annotation file.

    Polygons are drawn once, into the box around them, one pixel for each level-0 pixel, or for a
    square of as many as it takes to stay within 2^26 pixels (at least as fine as 1/16 up to a box
    of 131,000 x 131,000). Where classes overlap, the later one of `values` stands. Holes are cut
    out, and so are the groups of the class "exclude", among them "_2" (CAMELYON16), "exclude" and
    "exclusion" unless they are named otherwise.

    Args:
        path: PNG or TIFF of one channel (or equal channels) of integers (a palette of colours
            gives its indices), or .xml, .annotations, .geojson or .json (`kit.polygons.read`).
        slide: The slide that it belongs to.
        values: By name, the integers of a mask image ({"tumour": 255} if not given), or the group
            or groups of an annotation file (if not given, its one group is "tumour", CAMELYON16's
            "_0" and "_1" count as one).
        frame: What the mask shows, or an annotation's coordinates count from: the whole "slide",
            or the slide's "bounds". None: the one that fits, told in the log if it is the bounds.
        others: Most of a mask image may hold values that are not named, which then mean nothing.

    Raises:
        MaskError: The mask cannot be read, its shape does not fit the slide, or most of what is
            drawn in it has values that are not named; a polygon lies outside the slide, or none
            belongs to a class; both frames fit and they differ.
    """
    path = Path(path)
    drawn = path.suffix.lower() in polygons.SUFFIXES
    numbers = {name: value for name, value in (values or {}).items() if isinstance(value, int)}
    groups = {
        name: [value] if isinstance(value, str) else list(value)
        for name, value in (values or {}).items() if not isinstance(value, int)
    }  # fmt: skip
    if groups if not drawn else numbers:
        raise MaskError(
            f"the mask is an {'annotation file' if drawn else 'image'}",
            expected=f"{'names of groups' if drawn else 'pixel values'} in values",
            received=values, path=path, remedy="set mask_values in data_manifest.yaml",
        )  # fmt: skip
    if drawn:
        return _draw(path, slide, groups, frame)
    labels = _mask_files.read(path)
    named = numbers or {"tumour": TUMOUR}
    frame, downsample = _fit((labels.shape[1], labels.shape[0]), slide, frame, path)
    _check_values(labels, named, path, others)
    return MaskImage(labels, named, downsample, _area(slide, frame)[:2], path)


def _part(places: np.ndarray, size: int) -> tuple[tuple[int, int], np.ndarray]:
    """Return which of rising places lie in [0, size), as a slice, and these as integers."""
    start, stop = (int(end) for end in np.searchsorted(places, (0, size)))
    return (start, stop), places[start:stop].astype(np.int64)


def _area(slide: Slide, frame: Frame) -> tuple[int, int, int, int]:
    """Return (x, y, width, height) of a frame in level 0."""
    return slide.bounds if frame == "bounds" else (0, 0, *slide.size)


def _fit(
    mask_size: tuple[int, int], slide: Slide, frame: Frame | None, path: Path
) -> tuple[Frame, geometry.Pair]:
    """Return the frame that a mask's shape fits, and its downsample."""
    frames: tuple[Frame, ...] = ("slide", "bounds") if frame is None else (frame,)
    fits = {
        name: downsample for name in frames
        if (downsample := geometry.common_downsample(mask_size, _area(slide, name)[2:]))
    }  # fmt: skip
    if not fits:
        raise MaskError(
            f"the mask has another shape than its slide{'' if frame is None else f' ({frame=!s})'}",
            expected=_expected(mask_size[0], slide), received=f"{mask_size[0]} x {mask_size[1]}",
            path=path, remedy="give the mask of this slide, in one of these shapes",
        )  # fmt: skip
    if len(fits) == 2 and (any(slide.bounds[:2]) or fits["slide"] != fits["bounds"]):
        raise _either(path, f"its shape, {mask_size[0]} x {mask_size[1]}, fits both")
    chosen = next(iter(fits))
    if frame is None and chosen == "bounds":
        log.info("%s: by its shape, the mask is cropped to the slide's bounds", path.name)
    return chosen, fits[chosen]


def _either(path: Path, received: str) -> MaskError:
    return MaskError(
        "the mask could show the whole slide or be cropped to its bounds", received=received,
        path=path, remedy='state frame="slide" or frame="bounds"',
    )  # fmt: skip


def _draw(
    path: Path, slide: Slide, groups: Mapping[str, Sequence[str]], frame: Frame | None
) -> MaskImage:
    """Return the polygons of an annotation file as a mask of the box around them."""
    found = polygons.read(path)
    classes = _classes(found, groups, path)
    frame = frame or _frame_of(found, slide, path)
    origin = np.array(_area(slide, frame)[:2])
    of_class = {
        name: [_moved(one, origin) for one in found if one.name in wanted]
        for name, wanted in classes.items()
    }  # fmt: skip
    low, high = _box([one for some in of_class.values() for one in some], slide, path)
    downsample = float(max(1, math.ceil(math.sqrt(np.prod(high - low, dtype=float) / MOST_DRAWN))))
    width, height = np.ceil((high - low) / downsample).astype(int)
    labels = np.zeros((height, width), np.uint8)
    values = {name: number for number, name in enumerate((n for n in classes if n != EXCLUDE), 1)}
    for name in (*values, EXCLUDE):
        labels[polygons.rasterise(
            of_class[name], labels.shape, downsample=(downsample, downsample),
            origin_level0=(low[0], low[1]),
        )] = values.get(name, 0)  # fmt: skip
    corner = (int(low[0]), int(low[1]))
    return MaskImage(labels, values, (downsample, downsample), corner, path)


def _moved(polygon: polygons.Polygon, by: np.ndarray) -> polygons.Polygon:
    holes = tuple(hole + by for hole in polygon.holes)
    return replace(polygon, shell=polygon.shell + by, holes=holes)


def _classes(
    found: Sequence[polygons.Polygon], groups: Mapping[str, Sequence[str]], path: Path
) -> dict[str, Sequence[str]]:
    """Return the groups of each class, those to cut out last."""
    present = list(dict.fromkeys(polygon.name for polygon in found))
    named = {name for wanted in groups.values() for name in wanted}
    cut = [name for name in present if name.lower() in EXCLUSIONS and name not in named]
    classes = {**groups, EXCLUDE: [*groups.get(EXCLUDE, ()), *cut]}
    rest = [name for name in present if name not in {*named, *cut}]
    if set(groups) <= {EXCLUDE}:
        if len(rest) > 1 and not set(rest) <= {"_0", "_1"}:
            raise MaskError(
                "the annotation has several groups, and none is said to be tumour",
                received=first(rest), path=path,
                remedy="name them, as in mask_values: {tumour: [A, B], exclude: C}",
            )  # fmt: skip
        classes["tumour"], rest = rest, []
        log.info("%s: tumour is what is drawn as %s", path.name, first(classes["tumour"]))
    if rest:
        log.info("%s: groups that no class names are ignored: %s", path.name, first(rest))
    wanted = [name for key, names in classes.items() if key != EXCLUDE for name in names]
    if not set(wanted) & set(present):
        raise MaskError(
            "no polygon belongs to a class", expected=f"one of the groups {first(wanted)}",
            received=first(present), path=path, remedy="name them in mask_values",
        )  # fmt: skip
    return classes


def _frame_of(found: Sequence[polygons.Polygon], slide: Slide, path: Path) -> Frame:
    """Return what coordinates count from: of the slide's corner if nothing speaks against it."""
    x, y, width, height = slide.bounds
    if (x, y) == (0, 0):
        return "slide"
    low = np.min([polygon.shell.min(axis=0) for polygon in found], axis=0)
    high = np.max([polygon.shell.max(axis=0) for polygon in found], axis=0)
    inside = bool((low >= 0).all() and (high <= (width, height)).all())
    elsewhere = bool((low < (x, y)).any() or (high > (x + width, y + height)).any())
    if inside and elsewhere:
        log.info("%s: by their places, the polygons count from the slide's bounds", path.name)
        return "bounds"
    if inside and path.suffix.lower() in polygons.JSON:  # QuPath's own frame is the bounds
        raise _either(path, "the polygons fit both")
    return "slide"


def _box(
    drawn: Sequence[polygons.Polygon], slide: Slide, path: Path
) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the box around polygons, whole pixels of the slide."""
    low = np.array([polygon.shell.min(axis=0) for polygon in drawn])
    high = np.array([polygon.shell.max(axis=0) for polygon in drawn])
    outside = ((high <= 0) | (low >= slide.size)).any(axis=1)
    if outside.any():
        at = (low[outside][0] + high[outside][0]) / 2
        raise MaskError(
            f"{outside.sum()} of {len(drawn)} annotations lie outside the slide",
            expected=f"within {slide.size[0]} x {slide.size[1]}",
            received=f"one around {at[0]:.0f}, {at[1]:.0f}", path=path,
            remedy="give the annotation of this slide, in level-0 pixels",
        )  # fmt: skip
    partly = int(((low < 0) | (high > slide.size)).any(axis=1).sum())
    if partly:
        log.warning("%s: %d annotations reach beyond the slide and are cut", path.name, partly)
    corner = np.maximum(np.floor(low.min(axis=0)), 0)
    return corner, np.maximum(np.minimum(np.ceil(high.max(axis=0)), slide.size), corner + 1)


def _expected(mask_width: int, slide: Slide) -> str:
    """Say which heights would fit the mask's width, in both frames."""
    sizes = {"of the whole slide": slide.size, "cropped to its bounds": slide.bounds[2:]}
    return " or ".join(
        f"{mask_width} x {round(height * mask_width / width)} {name} ({width} x {height})"
        for name, (width, height) in sizes.items()
    )


def _check_values(labels: np.ndarray, values: Mapping[str, int], path: Path, others: bool) -> None:
    """Refuse a mask that is drawn in other values; a few blended pixels at edges may stand."""
    found, counts = _mask_files.count(labels)
    drawn = found != 0
    unnamed = drawn & ~np.isin(found, list(values.values()))
    strange, known = counts[unnamed].sum(), counts[drawn & ~unnamed].sum()
    if strange > known and not (others and known):
        raise MaskError(
            "the mask holds values that have no name",
            expected=", ".join(f"{name}={value}" for name, value in values.items()),
            received=first(found[unnamed]), path=path,
            remedy="name them in mask_values of data_manifest.yaml, or by --tumour-value",
        )  # fmt: skip
