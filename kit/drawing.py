"""Drawn H&E tissue, and the ink and blur on its slides. All lengths are in pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

COARSE = 16  # the maps of a tissue (where it is tumour, …) are this much smaller than its image
CORNERS = 9  # of the polygon that is a nucleus
HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.10, 0.96, 0.22)  # optical density in R, G, B
LABORATORIES = (
    ((1.04, 1.12, 0.46), (0.05, 0.43, 0.10)), ((0.86, 0.66, 0.26), (0.07, 0.72, 0.46)),
)  # fmt: skip
"""Optical density of full haematoxylin and of eosin in two laboratories."""
OWN = 0.4  # share of a patient's own deviation, on the logarithm, that a laboratory leaves
GLASS = 246  # level of bare glass
INK = ((20, 120, 60), (30, 50, 150), (25, 25, 30))  # of a pathologist's pen


@dataclass(frozen=True)
class Stain:
    """How the tissue of one patient looks on one laboratory's glass.

    Attributes:
        haematoxylin: Optical density of full nuclear stain in R, G, B.
        eosin: Likewise of the pink ground.
        radius: Of a normal nucleus.
        density: Of normal nuclei, 0..1 of the closest packing.
        fibres: Direction of the fibres, radians.
    """

    haematoxylin: np.ndarray
    eosin: np.ndarray
    radius: float
    density: float
    fibres: float


def stain(rng: np.random.Generator) -> Stain:
    """Draw the look of one patient."""
    return Stain(
        haematoxylin=np.abs(HAEMATOXYLIN + rng.normal(0, 0.07, 3)) * rng.uniform(1.1, 1.9),
        eosin=np.abs(EOSIN + rng.normal(0, 0.07, 3)) * rng.uniform(0.3, 0.75),
        radius=rng.uniform(3.3, 4.5),
        density=rng.uniform(0.38, 0.62),
        fibres=rng.uniform(0, np.pi),
    )


def restained(look: Stain, laboratory: int) -> Stain:
    """Return a patient's look in one laboratory, which leaves him less of his own than `stain`.

    Args:
        look: Of `stain`.
        laboratory: 0: violet on pale pink; 1: a thinner, bluer haematoxylin, a strong orange eosin.
    """
    ours, theirs = LABORATORIES[laboratory]
    own = look.haematoxylin / (1.5 * np.array(HAEMATOXYLIN)), look.eosin / (0.5 * np.array(EOSIN))
    haematoxylin, eosin = (
        np.array(one) * mine**OWN for one, mine in zip((ours, theirs), own, strict=True)
    )
    return replace(look, haematoxylin=haematoxylin, eosin=eosin)


def tissue(
    rng: np.random.Generator, look: Stain, atypia: np.ndarray, inflamed: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Draw H&E tissue.

    Args:
        rng: Where the chance comes from.
        look: The patient's stain and texture.
        atypia: float32, (height / 16, width / 16): 0 normal to about 1.5 clearly malignant.
            Nuclei grow, crowd, darken and lose their shape with it.
        inflamed: The same shape, 0 to 1: small, dark, round, crowded nuclei, which are benign.
        present: The same shape, 0 bare glass to 1 tissue.

    Returns:
        uint8, shape (height, width, 3), RGB.
    """
    rows, columns = atypia.shape
    size = (columns * COARSE, rows * COARSE)
    cover = cv2.resize(present.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)
    cover = np.clip((cover + 0.12 * clouds(rng, size, 9) - 0.35) * 4, 0, 1)
    pink = 130 + 36 * fibres(rng, size, look.fibres) + 22 * clouds(rng, size, 40)
    violet = 22 + 9 * clouds(rng, size, 25)
    violet += 14 * cv2.resize(atypia, size, interpolation=cv2.INTER_LINEAR)
    blue = _nuclei(rng, look, atypia, inflamed, present)
    blue = cv2.GaussianBlur(blue, (0, 0), 0.7).astype(np.float32)
    blue *= 1 + 0.16 * clouds(rng, size, 3)
    pink = np.clip(pink * cover * (1 - blue / 400), 0, 255).astype(np.uint8)
    violet = np.clip(np.maximum(violet, blue) * cover, 0, 255).astype(np.uint8)
    return absorb(violet, look.haematoxylin, pink, look.eosin)


def absorb(
    violet: np.ndarray, haematoxylin: np.ndarray, pink: np.ndarray, eosin: np.ndarray
) -> np.ndarray:
    """Return the colour of white light behind two stains (Beer-Lambert).

    Args:
        violet: uint8, (height, width): amount of haematoxylin, 255 is full.
        haematoxylin: Its optical density in R, G, B.
        pink: uint8, (height, width): amount of eosin.
        eosin: Its optical density in R, G, B.
    """
    amount = np.arange(256)[:, None] / 255
    first = (GLASS * np.exp(-amount * haematoxylin)).astype(np.uint8)[None]
    second = (255 * np.exp(-amount * eosin)).astype(np.uint8)[None]
    light = cv2.LUT(cv2.merge([violet] * 3), first)
    return cv2.multiply(light, cv2.LUT(cv2.merge([pink] * 3), second), scale=1 / 255)


def clouds(rng: np.random.Generator, size: tuple[int, int], grain: int) -> np.ndarray:
    """Return smooth noise, float32 (height, width), standard deviation about 1.

    Args:
        rng: Where the chance comes from.
        size: (width, height).
        grain: How large a cloud is.
    """
    small = rng.standard_normal((size[1] // grain + 3, size[0] // grain + 3), dtype=np.float32)
    return cv2.resize(small, size, interpolation=cv2.INTER_CUBIC)


def fibres(rng: np.random.Generator, size: tuple[int, int], angle: float) -> np.ndarray:
    """Return noise drawn out along `angle`, float32 (height, width)."""
    side = int(np.hypot(*size)) + 8
    small = rng.standard_normal((side // 3, side // 22 + 3), dtype=np.float32)
    turn = cv2.getRotationMatrix2D((side / 2, side / 2), np.degrees(angle), 1)
    turn[:, 2] = turn[:, 2] - np.subtract(side, size) / 2
    long = cv2.resize(small, (side, side), interpolation=cv2.INTER_LINEAR)
    return cv2.warpAffine(long, turn, size, borderMode=cv2.BORDER_REFLECT)


def blob(rng: np.random.Generator, size: tuple[int, int], at: tuple[float, float], radius: float,
         *, rough: float = 0.25) -> np.ndarray:  # fmt: skip
    """Return a filled irregular round shape, uint8 0 or 1, (height, width).

    Args:
        rng: Where the chance comes from.
        size: (width, height).
        at: Its centre, (x, y).
        radius: Its mean radius.
        rough: How far the outline leaves a circle, as a fraction of the radius.
    """
    turn = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    waves = np.arange(1, 6)
    height = rng.normal(0, 1, 5) / waves
    edge = (height[:, None] * np.cos(np.outer(waves, turn) + rng.uniform(0, 6.3, (5, 1)))).sum(0)
    reach = radius * np.clip(1 + rough * edge, 0.3, 2)
    points = np.stack([at[0] + reach * np.cos(turn), at[1] + reach * np.sin(turn)], axis=1)
    canvas = np.zeros((size[1], size[0]), np.uint8)
    return cv2.fillPoly(canvas, [np.rint(points).astype(np.int32)], 1)


def _nuclei(
    rng: np.random.Generator, look: Stain, atypia: np.ndarray, inflamed: np.ndarray,
    present: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return the stain of the nuclei, uint8, 16 times the size of the maps."""
    canvas = np.zeros((atypia.shape[0] * COARSE, atypia.shape[1] * COARSE), np.uint8)
    step = look.radius * 2.3
    grid = np.mgrid[0 : canvas.shape[0] : step, 0 : canvas.shape[1] : step].reshape(2, -1).T
    centre = grid + rng.uniform(-0.45, 0.45, grid.shape) * step + step / 2
    place = np.minimum(centre.astype(int) // COARSE, np.array(atypia.shape) - 1)
    row, column = place.clip(0).T
    chance = look.density + 0.17 * atypia[row, column] + 0.45 * inflamed[row, column]
    kept = rng.random(len(centre)) < chance * (present[row, column] > 0.4)
    centre, row, column = centre[kept], row[kept], column[kept]
    odd = atypia[row, column] * rng.uniform(0.4, 1.6, len(row))
    small = inflamed[row, column]
    outline = _outlines(rng, look.radius, odd, small) + centre[:, None, ::-1]
    depth = 165 + 32 * odd + 35 * small + rng.normal(0, 26, len(row))
    points = np.rint(outline * 16).astype(np.int32)
    for polygon, colour in zip(points, np.clip(depth, 60, 255).tolist(), strict=True):
        cv2.fillConvexPoly(canvas, polygon, colour, lineType=cv2.LINE_8, shift=4)
    return canvas


def _outlines(
    rng: np.random.Generator, radius: float, odd: np.ndarray, small: np.ndarray
) -> np.ndarray:
    """Return polygons round the origin, float, (nuclei, corners, 2) as x, y."""
    n = len(odd)
    size = radius * (1 + 0.34 * odd) * (1 - 0.3 * small)
    size *= np.exp(rng.normal(0, 1, n) * (0.1 + 0.16 * odd))
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    rough = 1 + rng.normal(0, 1, (n, CORNERS)) * (0.05 + 0.1 * odd)[:, None]
    narrow = rng.uniform(0.55, 1, n) * (1 - small) + small
    x = size[:, None] * rough * np.cos(turn)
    y = (size * narrow)[:, None] * rough * np.sin(turn)
    angle = rng.uniform(0, np.pi, n)[:, None]
    return np.stack(
        [x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], axis=2
    )


def pen_mark(rng: np.random.Generator, image: np.ndarray) -> None:
    """Draw a stroke of ink on a slide, in place."""
    height, width = image.shape[:2]
    n = 8
    angle = np.linspace(0, rng.uniform(1.5, 5), n) + rng.uniform(0, 6.3)
    centre = rng.uniform(0.15, 0.85, 2) * (width, height)
    reach = rng.uniform(0.12, 0.3, 2) * min(width, height)
    points = centre + np.stack([np.cos(angle), np.sin(angle)], axis=1) * reach
    stroke = np.zeros((height, width), np.uint8)
    line = [np.rint(points + rng.normal(0, 8, points.shape)).astype(np.int32)]
    cv2.polylines(stroke, line, False, 255, int(rng.integers(18, 40)), cv2.LINE_AA)
    ink = np.array(INK[rng.integers(len(INK))], np.float32)
    x, y, w, h = cv2.boundingRect(stroke)
    part = image[y : y + h, x : x + w]
    share = stroke[y : y + h, x : x + w, None] * (rng.uniform(0.75, 0.95) / 255)
    part[:] = (part * (1 - share) + ink * share).astype(np.uint8)


def blur_area(rng: np.random.Generator, image: np.ndarray) -> None:
    """Put a part of a slide out of focus, in place."""
    height, width = image.shape[:2]
    x, y = int(rng.uniform(0.1, 0.6) * width), int(rng.uniform(0.1, 0.6) * height)
    part = image[y : y + height // 3, x : x + width // 3]
    soft = cv2.GaussianBlur(part, (0, 0), rng.uniform(3, 6))
    share = np.zeros(part.shape[:2], np.float32)
    cv2.ellipse(
        share, (part.shape[1] // 2, part.shape[0] // 2),
        (part.shape[1] * 2 // 5, part.shape[0] * 2 // 5), 0, 0, 360, 1.0, -1,
    )  # fmt: skip
    edge = cv2.blur(share, (41, 41))[:, :, None]
    part[:] = (part * (1 - edge) + soft * edge).astype(np.uint8)


def unscanned(image: np.ndarray, field: int = 192) -> None:
    """Blacken the camera's fields of a slide that hold no tissue and touch none, in place.

    So a scanner leaves what it has not looked at: MIRAX slides are mostly such void.

    Args:
        image: uint8 RGB, (height, width, 3).
        field: Side of a field.
    """
    rows, columns = -(-image.shape[0] // field), -(-image.shape[1] // field)
    mean = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    holding = (mean.min(axis=2) < GLASS - 6).astype(np.uint8)
    scanned = cv2.dilate(holding, np.ones((3, 3), np.uint8))
    seen = cv2.resize(scanned, (columns * field, rows * field), interpolation=cv2.INTER_NEAREST)
    image[seen[: image.shape[0], : image.shape[1]] == 0] = 0
