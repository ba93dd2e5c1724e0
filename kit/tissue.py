"""Where a slide holds tissue: Otsu on the scanned pixels, without glass and pen ink."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from kit import coverage
from kit.errors import MissingMppError

if TYPE_CHECKING:
    from kit.slides import Slide

log = logging.getLogger(__name__)

MIN_CHROMA = 10  # glass, dust and shadows are grey: largest minus smallest channel, 0..255
MIN_CONTRAST = 12  # grey levels between Otsu's two classes: less is the noise of bare glass
STAINED_CHROMA = 28  # pale tissue that Otsu calls bright is still coloured
INK_HUES = {"red": (350, 12), "green": (75, 185), "blue": (195, 238)}  # degrees
INK_SATURATION = {"red": 0.62, "green": 0.25, "blue": 0.40}
BLACK_VALUE = 100
BLACK_CHROMA = 34
INK_MARGIN = 3  # mask pixels around ink, where it mixes with what lies under it


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue of a whole slide, at a lower resolution.

    Attributes:
        mask: bool, shape (mask_height, mask_width); True = tissue.
        downsample: (x, y) level-0 pixels per mask pixel.
        size_level0: (width, height) of the slide.
        pen: Share of the mask's pixels that are pen ink, in [0, 1].
    """

    mask: np.ndarray
    downsample: tuple[float, float]
    size_level0: tuple[int, int]
    pen: float = 0.0

    @property
    def share(self) -> float:
        """The share of the slide that is tissue, in [0, 1]."""
        return float(self.mask.mean())

    @cached_property
    def _integral(self) -> np.ndarray:
        return coverage.integral(self.mask)

    def fraction(
        self, xy_level0: npt.ArrayLike, size_level0: float | tuple[float, float]
    ) -> np.ndarray:
        """Return the share of tissue in each patch, float64 (n,) in [0, 1].

        Exact to parts of a mask pixel; what lies outside the slide is no tissue.

        Args:
            xy_level0: shape (n, 2), top left of each patch in level 0.
            size_level0: (width, height) of the patches in level 0, or one number; floats.
        """
        return coverage.area_fraction(
            self._integral, xy_level0, size_level0, downsample=self.downsample
        )

    def overlay(
        self, thumbnail: np.ndarray, colour: tuple[int, int, int] = (0, 160, 0)
    ) -> np.ndarray:
        """Return a copy of the slide's thumbnail (uint8 RGB) with the tissue outlined."""
        import cv2

        height, width = thumbnail.shape[:2]
        mask = cv2.resize(
            self.mask.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST
        )
        outlines, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        drawn = np.ascontiguousarray(thumbnail).copy()
        cv2.drawContours(drawn, outlines, -1, colour, max(1, max(width, height) // 400))
        return drawn


def tissue_mask(
    slide: Slide, *, mpp: float = 8.0, max_size: int = 2048, min_area_um2: float = 20_000.0
) -> TissueMask:
    """Find the tissue of a brightfield slide.

    Otsu's threshold on grey, taken over the scanned and non-black pixels only, calls the darker
    ones tissue; pale but clearly coloured ones are tissue as well, and grey ones (glass, dust,
    shadows) never are. Ink of green, blue, red and black pens is taken out, then small objects,
    and small holes are filled.

    Args:
        slide: Open slide.
        mpp: Resolution of the mask, µm per pixel; a slide without mpp is reduced to `max_size`.
        max_size: Longest side of the mask in pixels, whatever `mpp` says.
        min_area_um2: Smaller objects go and smaller holes are filled, µm²; without mpp as if the
            mask had the `mpp` asked for.

    Source: the rule of the HeLP 2019 team (grey > 0, grey <= Otsu).
    """
    rgb, scanned = slide.overview(_mask_size(slide, mpp, max_size))
    seen = scanned & (rgb.max(axis=2) > 0)
    height, width = seen.shape
    downsample = (slide.size[0] / width, slide.size[1] / height)
    ink = _pen_ink(rgb, seen)
    smallest = round(min_area_um2 / _pixel_area(slide, downsample, mpp))
    tissue = _fill_holes(_stained(rgb, seen & ~ink), smallest) & ~ink
    mask = _large_objects(tissue, smallest)
    log.debug("%s: %.1f %% tissue, %.1f %% ink", slide, 100 * mask.mean(), 100 * ink.mean())
    return TissueMask(mask, downsample, slide.size, float(ink.mean()))


def _mask_size(slide: Slide, mpp: float, max_size: int) -> int:
    try:
        longest = max(slide.size) * slide.mpp / mpp
    except MissingMppError:
        return max_size
    return max(1, min(max_size, round(longest)))


def _pixel_area(slide: Slide, downsample: tuple[float, float], mpp: float) -> float:
    try:
        return slide.mpp**2 * downsample[0] * downsample[1]
    except MissingMppError:
        return mpp**2


def _chroma(rgb: np.ndarray) -> np.ndarray:
    chroma: np.ndarray = rgb.max(axis=2) - rgb.min(axis=2)
    return chroma


def _stained(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the seen pixels that hold stain: HeLP's rule, guarded by colour."""
    import cv2

    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if not seen.any():
        return np.zeros_like(seen)
    otsu, _ = cv2.threshold(grey[seen].reshape(-1, 1), 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    dark, bright = grey[seen & (grey <= otsu)], grey[seen & (grey > otsu)]
    split = dark.size and bright.size and bright.mean() - dark.mean() >= MIN_CONTRAST
    chroma = _chroma(rgb)
    stained = chroma >= STAINED_CHROMA
    if split:
        stained |= (grey <= otsu) & (chroma >= MIN_CHROMA)
    return np.asarray(stained & seen)


def _pen_ink(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the seen pixels of green, blue, red and black pens, and a margin around them."""
    import cv2

    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hue, saturation = hsv[..., 0], hsv[..., 1]
    ink = (rgb.max(axis=2) < BLACK_VALUE) & (_chroma(rgb) < BLACK_CHROMA)
    for name, (low, high) in INK_HUES.items():
        between = (hue >= low) & (hue <= high) if low < high else (hue >= low) | (hue <= high)
        ink |= between & (saturation >= INK_SATURATION[name])
    opened = cv2.morphologyEx(
        (ink & seen).astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)
    )
    side = 2 * INK_MARGIN + 1
    grown = cv2.dilate(opened, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))
    return np.asarray((grown > 0) & seen)


def _large_objects(mask: np.ndarray, smallest: int) -> np.ndarray:
    """Return the connected objects of at least `smallest` pixels."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= smallest
    keep[0] = False
    return np.asarray(keep[labels])


def _fill_holes(mask: np.ndarray, smallest: int) -> np.ndarray:
    return ~_large_objects(~mask, smallest)
