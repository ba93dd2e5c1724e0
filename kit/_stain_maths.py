"""The arithmetic of stain normalisation: what a look is, how it is estimated, how pixels move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kit.errors import SettingsError

Row = tuple[float, float, float]

WHITE = 256.0  # what level 255 counts as, so that 255 has no density and 0 a finite one
BETA = 0.15  # optical density (natural logarithm), mean of the channels: less is no tissue
VOID = 2.5  # the same: more is no tissue, but the black of what was not scanned
INK = 1.25  # red's density over green's: haematoxylin absorbs green more, pens and dyes red
HIGH = 0.99  # of a stain's amounts, and of the angles at either end: what lies beyond is noise
LEAST_PIXELS = 100  # of tissue: below, a percentile is a single pixel
LEAST_TISSUE = 0.05  # share of the pixels
LEAST_ANGLE = 8.0  # degrees between the stains: below, the image holds one of them alone
LEAST_STAIN = 0.1  # optical density of the most of a stain
LEAST_SPREAD = 0.5  # of CIE Lab, a standard deviation: below, the image has one colour
SAMPLE = 1 << 20  # pixels that an estimate is made of, at most

LIGHT = np.log((np.arange(256, dtype=np.float64) + 1) / WHITE).astype(np.float32)
"""Minus the optical density of each level."""
_level = np.arange(256, dtype=np.float64) / 255
LINEAR = np.where(_level <= 0.04045, _level / 12.92, ((_level + 0.055) / 1.055) ** 2.4).astype("f4")
"""The linear light of each level of sRGB, 0 to 1."""


@dataclass(frozen=True)
class Stains:
    """Macenko's look: which colours the two stains have and how much of each there is.

    Attributes:
        vectors: Optical densities of haematoxylin and of eosin in R, G, B, each of length 1.
        most: 99th percentile of the amount of each in tissue.
    """

    vectors: tuple[Row, Row]
    most: tuple[float, float]

    @classmethod
    def of(cls, images: Sequence[np.ndarray]) -> Stains | None:
        """Estimate the look of the tissue of images taken together; None if it says too little.

        The plane of the two stains is that of the two first singular vectors of the optical
        densities. In it, the extreme angles are the stains; the one that absorbs more red is
        haematoxylin.
        """
        levels = _enough_tissue(images)
        if levels is None:
            return None
        density = -_light(levels)
        first, second = _plane(density)
        along = np.stack([first, second]).astype(np.float32) @ density
        if along[0].min() <= 0:  # colours at right angles to their mean: no mixture of two stains
            return None
        slopes = along[1] / along[0]
        angles = np.arctan([-_high(-slopes), _high(slopes)])
        ends = [np.cos(angle) * first + np.sin(angle) * second for angle in angles]
        if np.ptp(angles) < np.radians(LEAST_ANGLE) or np.min(ends) < 0:
            return None
        vectors = np.stack(ends if ends[0][0] > ends[1][0] else ends[::-1])
        amounts = np.linalg.pinv(vectors.T).astype(np.float32) @ density
        most = _high(amounts[0]), _high(amounts[1])
        if min(most) < LEAST_STAIN:
            return None
        return cls(_rows(vectors), most)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Stains:
        """Return the look of its numbers by name, or raise `SettingsError`."""
        vectors, most = _numbers(values, vectors=(2, 3), most=(2,))
        long = np.abs(np.linalg.norm(vectors, axis=1) - 1) < 0.001
        if not long.all() or abs(vectors[0] @ vectors[1]) > 0.999 or most.min() <= 0:
            raise _no_look("two vectors of length 1 that differ, amounts above 0", values)
        return cls(_rows(vectors), (float(most[0]), float(most[1])))

    @cached_property
    def basis(self) -> np.ndarray:
        """The most of each stain, and what is neither (of length 1), as columns, (3, 3)."""
        vectors = np.array(self.vectors)
        neither = np.cross(*vectors)
        scaled = vectors * np.array(self.most)[:, None]
        return np.stack([*scaled, neither / np.linalg.norm(neither)], axis=1)

    def move(self, image: np.ndarray, target: Stains) -> np.ndarray:
        """Return an image of this look in the target's."""
        import cv2

        matrix = target.basis @ np.linalg.inv(self.basis)
        matrix = np.column_stack([matrix, np.full(3, np.log(WHITE))])
        light = _light(image)
        moved = np.asarray(cv2.exp(cv2.transform(light, matrix)), np.float32)
        moved -= 1
        return _onto(image, light, moved)


@dataclass(frozen=True)
class Colours:
    """Reinhard's look: mean and standard deviation of the tissue's L, a and b (CIE, D65)."""

    mean: Row
    spread: Row

    @classmethod
    def of(cls, images: Sequence[np.ndarray]) -> Colours | None:
        """Estimate the look of the tissue of images taken together; None if it says too little."""
        import cv2

        levels = _enough_tissue(images)
        if levels is None:
            return None
        mean, spread = (
            part[:, 0] for part in cv2.meanStdDev(_lab(np.ascontiguousarray(levels.T)[None]))
        )
        if spread.min() < LEAST_SPREAD:
            return None
        return cls(*_rows(np.stack([mean, spread])))

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Colours:
        """Return the look of its numbers by name, or raise `SettingsError`."""
        mean, spread = _numbers(values, mean=(3,), spread=(3,))
        if spread.min() <= 0:
            raise _no_look("spreads above 0", values)
        return cls(*_rows(np.stack([mean, spread])))

    def move(self, image: np.ndarray, target: Colours) -> np.ndarray:
        """Return an image of this look in the target's."""
        import cv2

        scale = np.array(target.spread) / np.array(self.spread)
        shift = np.array(target.mean) - scale * np.array(self.mean)
        lab = cv2.transform(_lab(image), np.column_stack([np.diag(scale), shift]))
        moved = np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB), np.float32)
        moved *= 255
        return _onto(image, _light(image), moved)


Look = Stains | Colours
METHODS: dict[str, type[Stains] | type[Colours]] = {"macenko": Stains, "reinhard": Colours}


def move(image: np.ndarray, source: Look, target: Look) -> np.ndarray:
    """Return an image of the source's look in the target's; both are of one method."""
    if isinstance(source, Stains) and isinstance(target, Stains):
        return source.move(image, target)
    if isinstance(source, Colours) and isinstance(target, Colours):
        return source.move(image, target)
    raise SettingsError(
        "the source is of another method", expected=f"{type(target).__name__}, as the target is",
        received=type(source).__name__, remedy="estimate it with the same normaliser",
    )  # fmt: skip


def _onto(image: np.ndarray, light: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Return an image with its tissue moved: levels, float32, rounded and cut to 0..255.

    Tissue moves wholly, glass (less than half as dense as tissue must be) not at all, and what
    lies between in part: there is no seam.
    """
    import cv2

    rule = np.array([[-2 / (3 * BETA)] * 3 + [-1.0]])  # 0 at half of BETA, 1 at BETA
    share = np.clip(cv2.transform(light, rule), 0, 1, dtype=np.float32)
    levels = np.asarray(cv2.blendLinear(moved, image.astype(np.float32), share, 1 - share))
    return np.asarray(np.clip(levels + np.float32(0.5), 0, 255).astype(np.uint8))


def tissue(images: Sequence[np.ndarray]) -> tuple[np.ndarray, float]:
    """Return the levels of the tissue's pixels, uint8 (3, n), and its share of all pixels.

    Of many images each gives as many pixels at most, evenly spaced, so that nothing is drawn.

    Args:
        images: uint8 RGB, (height, width, 3) each.
    """
    import cv2

    most = max(1, SAMPLE // len(images))
    found, pixels, stained = [], 0, 0
    for image in images:
        planes = np.stack(cv2.split(image)).reshape(3, -1)
        rows = np.flatnonzero(_stained(_light(planes)))
        pixels, stained = pixels + planes.shape[1], stained + len(rows)
        if len(rows) > most:
            rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
        found.append(np.stack([plane[rows] for plane in planes]))
    return np.concatenate(found, axis=1), stained / pixels


def _enough_tissue(images: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return the levels of the tissue's pixels, or None if there is too little to go by."""
    levels, share = tissue(images)
    enough = levels.shape[1] >= LEAST_PIXELS and share >= LEAST_TISSUE
    return levels if enough else None


def _stained(light: np.ndarray) -> np.ndarray:
    """Return which pixels (3, n) are tissue: dense but not black, and not of ink."""
    red, green, blue = light
    total = red + green + blue
    dense = (total <= -3 * BETA) & (total >= -3 * VOID)
    return np.asarray(dense & (red >= np.float32(INK) * green))


def _light(levels: np.ndarray) -> np.ndarray:
    """Return minus the optical density of levels, float32, of their shape."""
    import cv2

    return np.asarray(cv2.LUT(levels, LIGHT))


def _plane(density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two first singular vectors of densities (3, n), the first of them positive.

    All densities are so, hence the first can be (Perron) and no pixel is at a right angle to it.
    """
    moments = np.array([[one @ other for other in density] for one in density], np.float64)
    _, vectors = np.linalg.eigh(moments)
    first, second = vectors[:, 2], vectors[:, 1]
    return first * np.sign(first.sum()), second


def _high(values: np.ndarray) -> float:
    """Return the 99th percentile, as NumPy's own; only the highest values are sorted for it."""
    place = HIGH * (len(values) - 1)
    below = int(place)
    few = np.sort(values[:: max(1, len(values) // 1000)])
    highest = values[values >= few[int(0.97 * len(few))]]
    if len(highest) < len(values) - below:
        highest = values
    ordered = np.sort(highest)[below - len(values) :].astype(np.float64)
    return float(ordered[0] + (place - below) * (ordered[min(1, len(ordered) - 1)] - ordered[0]))


def _numbers(values: Mapping[str, Any], **shapes: tuple[int, ...]) -> list[np.ndarray]:
    """Return the arrays of these names and shapes, if they are all, and finite."""
    expected = ", ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
    try:
        found = [np.array(values[name], dtype=np.float64) for name in shapes]
    except (KeyError, TypeError, ValueError) as error:
        raise _no_look(expected, values) from error
    shaped = [one.shape for one in found] == list(shapes.values()) and len(values) == len(shapes)
    if not shaped or not all(np.isfinite(one).all() for one in found):
        raise _no_look(f"{expected}, finite", values)
    return found


def _no_look(expected: str, values: Mapping[str, Any]) -> SettingsError:
    return SettingsError("not the numbers of a look", expected=expected, received=dict(values))


def _rows(vectors: np.ndarray) -> tuple[Row, Row]:
    first, second = vectors.tolist()
    return (*first,), (*second,)


def _lab(levels: np.ndarray) -> np.ndarray:
    """Return CIE Lab of levels (h, w, 3), float32: L in 0..100, a and b about -127..127.

    From linear light: OpenCV's way from sRGB is a coarse table, whose errors the spreads enlarge.
    """
    import cv2

    return np.asarray(cv2.cvtColor(cv2.LUT(levels, LINEAR), cv2.COLOR_LRGB2LAB))
