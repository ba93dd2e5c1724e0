"""Tumour masks drawn by people: mask images in the frame of their slide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from kit import coverage, geometry
from kit.checks import first, nearest
from kit.errors import MaskError

if TYPE_CHECKING:
    from kit.slides import Slide

Frame = Literal["slide", "bounds"]
MOST_PIXELS = 1 << 28  # a larger mask is read at a coarser level of its pyramid
TUMOUR = 255


@dataclass(frozen=True, eq=False)
class MaskImage:
    """A mask image and where it lies on its slide.

    Attributes:
        labels: Integers, shape (mask_height, mask_width).
        values: What each integer means, e.g. {"tumour": 255}; 0 is nothing unless named.
        downsample: (x, y) level-0 pixels per mask pixel.
        origin_level0: (x, y) of its top left in level 0: not (0, 0) if cropped to the bounds.
        path: The file.
    """

    labels: np.ndarray
    values: Mapping[str, int]
    downsample: tuple[float, float]
    origin_level0: tuple[int, int]
    path: Path
    _integrals: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def share(self, name: str) -> float:
        """Return the share of the mask that is `name`, in [0, 1]."""
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
    values: Mapping[str, int] | None = None,
    frame: Frame = "slide",
) -> MaskImage:
    """Read a mask image of a slide at any downsample.

    Args:
        path: PNG or TIFF of one channel (or equal channels) of integers.
        slide: The slide that it belongs to.
        values: The integers of the mask by name; {"tumour": 255} if not given.
        frame: The mask shows the whole "slide", or is cropped to the slide's "bounds".

    Raises:
        MaskError: The mask cannot be read, its shape does not fit the slide, or most of what is
            drawn in it has values that are not named.
    """
    path = Path(path)
    named = dict(values or {"tumour": TUMOUR})
    labels = _one_channel(_read(path), path)
    x, y, width, height = slide.bounds if frame == "bounds" else (0, 0, *slide.size)
    mask_size = (labels.shape[1], labels.shape[0])
    downsample = geometry.common_downsample(mask_size, (width, height))
    if downsample is None:
        raise MaskError(
            f"the mask has another shape than its slide (frame={frame})",
            expected=_expected(mask_size[0], slide), received=f"{mask_size[0]} x {mask_size[1]}",
            path=path, remedy='give the mask of this slide, or frame="slide" or "bounds"',
        )  # fmt: skip
    _check_values(labels, named, path)
    return MaskImage(labels, named, downsample, (x, y), path)


def _expected(mask_width: int, slide: Slide) -> str:
    """Say which heights would fit the mask's width, in both frames."""
    sizes = {"of the whole slide": slide.size, "cropped to its bounds": slide.bounds[2:]}
    return " or ".join(
        f"{mask_width} x {round(height * mask_width / width)} {name} ({width} x {height})"
        for name, (width, height) in sizes.items()
    )


def _check_values(labels: np.ndarray, values: Mapping[str, int], path: Path) -> None:
    """Refuse a mask that is drawn in other values; a few blended pixels at edges may stand."""
    found, counts = np.unique(labels, return_counts=True)
    drawn = found != 0
    unnamed = drawn & ~np.isin(found, list(values.values()))
    if counts[unnamed].sum() > counts[drawn & ~unnamed].sum():
        raise MaskError(
            "the mask holds values that have no name",
            expected=", ".join(f"{name}={value}" for name, value in values.items()),
            received=first(found[unnamed]), path=path,
            remedy="name them in mask_values of data_manifest.yaml",
        )  # fmt: skip


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise MaskError("no such mask", path=path)
    if path.suffix.lower() in (".tif", ".tiff"):
        return _read_tiff(path)
    import cv2

    data = np.fromfile(path, np.uint8)
    try:
        image = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if data.size else None
    except cv2.error as error:
        raise MaskError("the mask cannot be read", received=str(error), path=path) from error
    if image is None:
        raise MaskError("the mask cannot be read", received=f"{data.size} bytes", path=path)
    return np.asarray(image)


def _read_tiff(path: Path) -> np.ndarray:
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            levels = file.series[0].levels
            fits = [level for level in levels if level.size <= MOST_PIXELS]
            return np.asarray((fits or levels[-1:])[0].asarray())
    except Exception as error:  # tifffile raises whatever its codecs raise
        raise MaskError("the mask cannot be read", received=str(error), path=path) from error


def _one_channel(image: np.ndarray, path: Path) -> np.ndarray:
    """Return the only channel of an image, or the first of equal ones."""
    if image.ndim == 3 and image.shape[2] in (1, 3, 4):
        colours = image[..., :3]
        if (colours == colours[..., :1]).all():
            image = colours[..., 0]
    if image.ndim != 2 or image.dtype.kind not in "bui":
        raise MaskError(
            "not a mask", expected="one channel of integers",
            received=f"{image.dtype} {image.shape}", path=path,
        )  # fmt: skip
    return image.astype(np.uint8) if image.dtype.kind == "b" else image
