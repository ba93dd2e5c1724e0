"""Where a slide holds tissue, without glass and pen ink, and whether patches are in focus."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from kit import coverage
from kit.errors import MissingMppError, SettingsError, SlideError
from kit.polygons import outlines, to_geojson

if TYPE_CHECKING:
    from kit.slides import Slide

log = logging.getLogger(__name__)

Rule = Literal["stain", "otsu", "saturation"]
MIN_CHROMA = 10  # glass, dust and shadows are grey: largest minus smallest channel, 0..255
MIN_CONTRAST = 12  # grey levels between Otsu's two classes: less is the noise of bare glass
STAINED_CHROMA = 22  # pale tissue that Otsu calls bright is still coloured, so far above the glass
MIN_SATURATION = 15  # of 255: what Otsu may at least ask of saturated tissue
GAP_UM = 60.0  # fat cells are as wide: narrower gaps within tissue are tissue
DARK_GLASS = 60  # grey of the lightest tenth of what was scanned: fluorescence lies below
INK_HUES = {"red": (350, 12), "green": (75, 185), "blue": (195, 238)}  # degrees
INK_SATURATION = {"red": 0.62, "green": 0.25, "blue": 0.40}
BLACK_VALUE = 100
BLACK_CHROMA = 34
INK_MARGIN = 3  # mask pixels around ink, where it mixes with what lies under it

BLURRED = 0.32
"""The `sharpness` below which a patch counts as blurred.

Real H&E patches at 20x to 40x score .46 to 1.0; blurred by a Gaussian of 2 pixels, .25 to .31.
"""
PLAIN = 4.0  # grey levels (standard deviation): a patch of less has nothing to be sharp
ROUNDING = 0.12  # what rounding colours, and then grey, adds to the finest detail (variance)


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

    def geojson(self) -> dict[str, Any]:
        """Return the tissue as GeoJSON polygons in level-0 pixels of the whole slide.

        QuPath counts from the corner of the slide's bounds, where it has any.
        """
        return to_geojson(outlines(self.mask, "tissue", downsample=self.downsample))


def tissue_mask(
    slide: Slide,
    *,
    rule: Rule = "stain",
    mpp: float = 8.0,
    level: int | None = None,
    max_size: int = 2048,
    min_area_um2: float = 20_000.0,
    min_hole_um2: float = 20_000.0,
) -> TissueMask:
    """Find the tissue of a brightfield slide.

    Otsu's threshold on grey is taken over the scanned and non-black pixels only. Ink of green,
    blue, red and black pens is never tissue. Then gaps as narrow as a fat cell are closed, small
    objects go and small holes are filled.

    Args:
        slide: Open slide.
        rule: "stain": what Otsu calls dark, and pale but coloured tissue, never what is grey
            (dust, shadows); "otsu": grey > 0 and grey <= Otsu, and nothing else: no ink, no gaps;
            "saturation": Otsu's threshold on the saturation.
        mpp: Resolution of the mask, µm per pixel; a slide without mpp is reduced to `max_size`.
        level: Or the level whose size the mask has.
        max_size: Longest side of the mask in pixels, whatever `mpp` says.
        min_area_um2: Smaller objects go, µm²; 0 keeps all. Without mpp as if a pixel of the mask
            had the `mpp` asked for.
        min_hole_um2: Smaller holes are filled, µm²; 0 fills none.

    Raises:
        SlideError: No such level; or the slide is dark where it is empty (fluorescence), where
            the rules do not apply.

    Source: "otsu" is the rule of the HeLP 2019 team.
    """
    if not mpp > 0:
        raise SettingsError("mpp must be above 0", expected="µm per pixel", received=f"mpp={mpp}")
    if rule not in get_args(Rule):
        raise SettingsError("no such tissue rule", expected=f"one of {', '.join(get_args(Rule))}",
                            received=f"rule={rule!r}")  # fmt: skip
    if level is None:
        size = _mask_size(slide, mpp, max_size)
    else:
        size = max(slide.levels[slide.request(1, level=level).level])
    rgb, scanned = slide.overview(size)
    seen = scanned & (_largest(rgb) > 0)
    _check_brightfield(slide, rgb, seen)
    height, width = seen.shape
    downsample = (slide.size[0] / width, slide.size[1] / height)
    area = _pixel_area(slide, downsample, mpp)
    if rule == "otsu":
        ink, tissue = np.zeros_like(seen), _below_otsu(_grey(rgb), seen)
    else:
        ink = _pen_ink(rgb, seen)
        found = (_stained if rule == "stain" else _saturated)(rgb, seen & ~ink)
        tissue = _close(found, GAP_UM / area**0.5) & seen & ~ink
    tissue = _fill_holes(tissue, round(min_hole_um2 / area)) & ~ink
    mask = _large_objects(tissue, round(min_area_um2 / area))
    log.debug("%s: %.1f %% tissue, %.1f %% ink", slide, 100 * mask.mean(), 100 * ink.mean())
    return TissueMask(mask, downsample, slide.size, float(ink.mean()))


def sharpness(patches: np.ndarray) -> np.ndarray:
    """Return how sharp patches are: their finest detail beside their next coarser one.

    A ratio, so that stain and the share of tissue do not decide; it compares patches of one
    resolution. Rounding to whole grey levels is taken off.

    Args:
        patches: uint8 RGB, shape (n, height, width, 3), sides of 8 pixels and more.

    Returns:
        float64 (n,), 0 and up, higher is sharper (see `BLURRED`); nan where a patch is as plain
        as glass, and nothing in it could be sharp.
    """
    import cv2

    scores = np.full(len(patches), np.nan)
    for number, patch in enumerate(patches):
        grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
        if min(grey.shape) < 8 or grey.std() < PLAIN:
            continue
        smooth, smoother = cv2.blur(grey, (3, 3)), cv2.blur(grey, (7, 7))
        fine = np.square(grey - smooth)[3:-3, 3:-3].mean()  # less the rim, which no window fits
        coarse = np.square(smooth - smoother)[3:-3, 3:-3].mean()
        scores[number] = (max(fine - ROUNDING, 0.0) / max(coarse, ROUNDING)) ** 0.5
    return scores


def _check_brightfield(slide: Slide, rgb: np.ndarray, seen: np.ndarray) -> None:
    says = any("fluorescence" in value.lower() for value in slide.properties.values())
    if says or (seen.any() and np.percentile(_grey(rgb)[seen], 90) < DARK_GLASS):
        raise SlideError(
            "tissue is found on brightfield slides only, light where there is glass",
            received="a slide that says fluorescence" if says else "dark, as in fluorescence",
            path=slide.path, remedy="plan it with a mask of your own: "
            "sampler.plan(slide, TissueMask(mask, downsample, slide.size))",
        )  # fmt: skip


def _mask_size(slide: Slide, mpp: float, max_size: int) -> int:
    try:
        longest = max(slide.size) * slide.mpp / mpp
    except MissingMppError:
        return max_size
    return max(1, min(max_size, round(longest)))


def _pixel_area(slide: Slide, downsample: tuple[float, float], mpp: float) -> float:
    """Return the area of a pixel of the mask, µm²."""
    try:
        return slide.mpp**2 * downsample[0] * downsample[1]
    except MissingMppError:
        return mpp**2


def _grey(rgb: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def _largest(rgb: np.ndarray) -> np.ndarray:
    import cv2  # ten times as fast as numpy along a short axis

    red, green, blue = cv2.split(rgb)
    return np.asarray(cv2.max(cv2.max(red, green), blue))


def _chroma(rgb: np.ndarray) -> np.ndarray:
    import cv2

    red, green, blue = cv2.split(rgb)
    return np.asarray(_largest(rgb) - cv2.min(cv2.min(red, green), blue))


def _otsu(values: np.ndarray) -> float:
    import cv2

    how = cv2.THRESH_BINARY | cv2.THRESH_OTSU
    return float(cv2.threshold(values.reshape(-1, 1), 0, 255, how)[0])


def _below_otsu(grey: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the seen pixels that are not black and at most as light as Otsu's threshold."""
    counted = seen & (grey > 0)
    if not counted.any():
        return np.zeros_like(seen)
    return np.asarray(counted & (grey <= _otsu(grey[counted])))


def _stained(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the seen pixels that hold stain: HeLP's rule, guarded by colour."""
    if not seen.any():
        return np.zeros_like(seen)
    grey, chroma = _grey(rgb), _chroma(rgb)
    dark = _below_otsu(grey, seen)
    bright = seen & ~dark
    glass = float(np.median(chroma[bright])) if bright.any() else 0.0
    stained = chroma >= STAINED_CHROMA + min(glass, MIN_CHROMA)
    if dark.any() and bright.any() and grey[bright].mean() - grey[dark].mean() >= MIN_CONTRAST:
        stained |= dark & (chroma >= MIN_CHROMA)
    return np.asarray(stained & seen)


def _saturated(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the seen pixels more saturated than Otsu's threshold."""
    import cv2

    if not seen.any():
        return np.zeros_like(seen)
    saturation = np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV))[..., 1]
    return np.asarray(seen & (saturation > max(_otsu(saturation[seen]), MIN_SATURATION)))


def _close(mask: np.ndarray, gap: float) -> np.ndarray:
    """Close gaps of so many pixels."""
    import cv2

    side = 2 * round(gap / 2) + 1
    if side < 3:
        return mask
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    closed = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, disc)
    return np.asarray(closed > 0)


def _pen_ink(rgb: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return the seen pixels of green, blue, red and black pens, and a margin around them."""
    import cv2

    hsv = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2HSV)
    hue, saturation = hsv[..., 0], hsv[..., 1]
    ink = (_largest(rgb) < BLACK_VALUE) & (_chroma(rgb) < BLACK_CHROMA)
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
