"""Drawn eyes (fundus photographs) and heads (MRI slices). All lengths are in pixels."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from kit.drawing import blob, clouds

EYE = (244, 192)  # width, height
BLOOD, FAT, DRUSE = (95, 22, 16), (240, 215, 120), (225, 170, 90)
HAZE = (120, 105, 80)


@dataclass(frozen=True)
class Retina:
    """How the eyes of one person look: the colour of the ground, and of haze over it."""

    colour: np.ndarray
    mottle: float
    haze: float


def retina(rng: np.random.Generator) -> Retina:
    """Draw the look of one person's eyes."""
    colour = np.array([185, 92, 44]) + rng.normal(0, 1, 3) * (18, 13, 10)
    return Retina(colour.astype(np.float32), rng.uniform(3, 9), rng.uniform(0, 0.2))


def fundus(
    rng: np.random.Generator, look: Retina, disease: str, severity: float, right: bool
) -> np.ndarray:
    """Draw a fundus photograph.

    Args:
        rng: Where the chance comes from.
        look: The person's.
        disease: NOR none; AMD drusen round the macula; DMR scattered haemorrhages and exudates;
            RVO flame-shaped haemorrhages in the sector of one vein.
        severity: How much of it, about 1.
        right: A right eye: its optic disc lies on the right.

    Returns:
        uint8, shape (192, 244, 3), RGB.
    """
    width, height = EYE
    reach = height * rng.uniform(0.47, 0.495)
    centre = np.array([width / 2, height / 2]) + rng.normal(0, 2, 2)
    side = 1 if right else -1
    disc = centre + np.array([side * reach * rng.uniform(0.42, 0.5), rng.normal(0, 4)])
    macula = centre - np.array([side * reach * rng.uniform(0.08, 0.18), rng.normal(-3, 3)])
    image = _ground(rng, look, centre, reach, macula)
    _vessels(rng, image, disc, reach, side)
    _dots(rng, image, disc[None], np.array([reach * 0.13]), FAT, soft=1.5, share=0.8)
    if disease == "AMD":
        _drusen(rng, image, macula, reach, severity)
    elif disease == "DMR":
        _diabetic(rng, image, centre, reach, severity)
    elif disease == "RVO":
        _occlusion(rng, image, disc, reach, severity, side)
    _dots(rng, image, _around(rng, centre, reach * 0.8, rng.poisson(3)), 1.3, DRUSE, share=0.4)
    _blend(image, np.full(image.shape[:2], look.haze, np.float32), HAZE)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 1.1)) + rng.normal(0, 2, image.shape)
    aperture = np.zeros((height, width), np.float32)
    cv2.circle(aperture, _point(centre), round(reach), 1.0, -1, cv2.LINE_AA)
    return np.clip(image * aperture[:, :, None] + 3, 0, 255).astype(np.uint8)


def _ground(
    rng: np.random.Generator, look: Retina, centre: np.ndarray, reach: float, macula: np.ndarray
) -> np.ndarray:
    y, x = np.mgrid[: EYE[1], : EYE[0]].astype(np.float32)
    far = ((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / reach**2
    near = ((x - macula[0]) ** 2 + (y - macula[1]) ** 2) / (0.16 * reach) ** 2
    light = (1.08 - 0.4 * far) * (1 - 0.3 * np.exp(-near))
    image = look.colour * light[:, :, None]
    image += look.mottle * (clouds(rng, EYE, 6) + clouds(rng, EYE, 30))[:, :, None]
    return np.asarray(image, np.float32)


def _vessels(
    rng: np.random.Generator, image: np.ndarray, disc: np.ndarray, reach: float, side: int
) -> None:
    """Draw four arcades with branches, from the disc round the macula and to the near edge."""
    canvas = np.zeros(image.shape[:2], np.float32)
    for up in (-1, 1):
        for away, width in ((1.0, 4), (0.85, 3), (-0.35, 3), (-0.5, 2)):
            bend = np.array([-side * away * reach * 0.5, up * reach * 0.62])
            end = np.array([-side * away * reach * rng.uniform(1.3, 1.7), up * reach * 0.55])
            path = _curve(disc, disc + bend * rng.uniform(0.8, 1.2), disc + end)
            _line(rng, canvas, path, width)
            for at in rng.integers(5, 22, 3):
                turn = rng.uniform(-0.6, 0.6, 2) * reach
                _line(rng, canvas, _curve(path[at], path[at] + turn / 2, path[at] + turn), 1)
    _blend(image, cv2.GaussianBlur(canvas, (0, 0), 0.7) * 0.62, BLOOD)


def _blend(image: np.ndarray, share: np.ndarray, colour: tuple[int, int, int]) -> None:
    """Move the image towards a colour by `share` (0..1, one channel), in place."""
    image += (np.array(colour, np.float32) - image) * share[:, :, None]


def _curve(start: np.ndarray, bend: np.ndarray, end: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, 24)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end)


def _line(rng: np.random.Generator, canvas: np.ndarray, path: np.ndarray, width: int) -> None:
    points = np.rint((path + rng.normal(0, 0.5, path.shape)) * 8).astype(np.int32)
    half = len(points) // 2
    cv2.polylines(canvas, [points[: half + 1]], False, 1.0, width, cv2.LINE_AA, shift=3)
    cv2.polylines(canvas, [points[half:]], False, 1.0, max(1, width - 1), cv2.LINE_AA, shift=3)


def _dots(
    rng: np.random.Generator, image: np.ndarray, at: np.ndarray, radius: float | np.ndarray,
    colour: tuple[int, int, int], *, soft: float = 0.8, share: float = 0.75,
) -> None:  # fmt: skip
    """Blend spots of one colour into the image, in place."""
    canvas = np.zeros(image.shape[:2], np.float32)
    sizes = np.broadcast_to(radius, len(at)) * rng.uniform(0.8, 1.2, len(at))
    for place, size in zip(at, sizes, strict=True):
        axes = (max(1, round(size)), max(1, round(size * rng.uniform(0.7, 1.1))))
        cv2.ellipse(canvas, _point(place), axes, float(rng.uniform(0, 180)), 0, 360, 1.0, -1)
    _blend(image, cv2.GaussianBlur(canvas, (0, 0), soft) * share, colour)


def _around(
    rng: np.random.Generator, centre: np.ndarray, reach: float, n: int | np.integer
) -> np.ndarray:
    """Return n points within `reach` of the centre, float (n, 2), denser near it."""
    angle, far = rng.uniform(0, 2 * np.pi, n), reach * rng.uniform(0, 1, n)
    return np.asarray(centre + np.stack([far * np.cos(angle), far * np.sin(angle)], axis=1))


def _drusen(
    rng: np.random.Generator, image: np.ndarray, macula: np.ndarray, reach: float, severity: float
) -> None:
    spots = _around(rng, macula, reach * 0.42, rng.poisson(8 + 26 * severity))
    _dots(rng, image, spots, rng.uniform(1, 3.8, len(spots)), DRUSE, soft=1.1, share=0.7)


def _diabetic(
    rng: np.random.Generator, image: np.ndarray, centre: np.ndarray, reach: float, severity: float
) -> None:
    red = _around(rng, centre, reach * 0.9, rng.poisson(8 + 22 * severity))
    _dots(rng, image, red, rng.uniform(1, 3.4, len(red)), BLOOD, share=0.7)
    for heart in _around(rng, centre, reach * 0.6, rng.poisson(1 + 2 * severity)):
        fat = _around(rng, heart, reach * 0.16, rng.poisson(5 + 5 * severity))
        _dots(rng, image, fat, rng.uniform(0.8, 1.8, len(fat)), FAT, soft=0.5, share=0.75)


def _occlusion(
    rng: np.random.Generator, image: np.ndarray, disc: np.ndarray, reach: float, severity: float,
    side: int,
) -> None:  # fmt: skip
    middle = rng.choice([-1, 1]) * rng.uniform(0.5, 1.0)
    n = rng.poisson(25 + 60 * severity)
    angle = middle + rng.normal(0, 0.28, n)
    far = reach * rng.uniform(0.2, 1.25, n)
    flow = np.stack([-side * np.cos(angle), np.sin(angle)], axis=1)
    canvas = np.zeros(image.shape[:2], np.float32)
    for place, way in zip(disc + far[:, None] * flow, flow, strict=True):
        half = way * rng.uniform(2, 7)
        ends = _point(place - half), _point(place + half)
        cv2.line(canvas, *ends, 1.0, int(rng.integers(1, 5)), cv2.LINE_AA)
    _blend(image, cv2.GaussianBlur(canvas, (0, 0), 0.8) * 0.75, BLOOD)


def _point(at: np.ndarray) -> tuple[int, int]:
    return round(float(at[0])), round(float(at[1]))


def head(rng: np.random.Generator, side: int, slices: int, growth: float) -> np.ndarray:
    """Draw a contrast-enhanced T1 series of a head with one ring-shaped lesion.

    Args:
        rng: Where the chance comes from: the head's form, contrast and lesion.
        side: Width and height of a slice.
        slices: How many, from the base to the vertex.
        growth: 0 a thin smooth ring round a large dark core, 1 a thick ragged one round a
            small core.

    Returns:
        uint16, shape (slices, side, side), about 0 to 1000.
    """
    half = side / 2
    wide, long = half * rng.uniform(0.68, 0.76), half * rng.uniform(0.82, 0.9)
    centre = np.array([half, half]) + rng.normal(0, 1, 2)
    level = rng.uniform(0.75, 1.25)  # the scanner's gain
    radius = half * rng.uniform(0.22, 0.32)
    angle = rng.uniform(0, 2 * np.pi)
    lesion = centre + 0.48 * np.array([wide * np.cos(angle), long * np.sin(angle)])
    middle = rng.uniform(-0.1, 0.15)
    volume = np.empty((slices, side, side), np.uint16)
    for i, z in enumerate(np.linspace(-0.85, 0.9, slices)):
        shrink = float(np.sqrt(1 - z**2 * 0.9))
        image = _brain(rng, side, centre, (wide * shrink, long * shrink), z)
        within = 1 - ((z - middle) / (radius / half * 1.9)) ** 2
        if within > 0:
            _ring(rng, image, lesion, radius * float(np.sqrt(within)), growth)
        image = cv2.GaussianBlur(image, (0, 0), 0.6) * level
        image *= 1 + 0.05 * clouds(rng, (side, side), side // 2)
        grain = rng.normal(0, 14, (2, side, side))  # magnitude of complex noise: never below 0
        volume[i] = np.hypot(image + grain[0], grain[1]).astype(np.uint16)
    return volume


def _brain(
    rng: np.random.Generator, side: int, centre: np.ndarray, axes: tuple[float, float], z: float
) -> np.ndarray:
    image = np.zeros((side, side), np.float32)
    middle = _point(centre)
    for grow, value in ((1.0, 520.0), (0.93, 60.0), (0.87, 330.0)):
        reach = _point(np.array(axes) * grow)
        cv2.ellipse(image, middle, reach, 0, 0, 360, value, -1, cv2.LINE_AA)
    brain = image > 300
    brain &= cv2.ellipse(
        np.zeros((side, side), np.uint8), middle, _point(np.array(axes) * 0.87), 0, 0, 360, 1, -1
    ).astype(bool)
    deep = cv2.distanceTransform(brain.astype(np.uint8), cv2.DIST_L2, 3)
    white = deep + 2.2 * clouds(rng, (side, side), 4) > side * 0.075
    image[brain & white] = 430
    image[brain & ~white & (clouds(rng, (side, side), 3) > 1.1)] = 190
    if -0.35 < z < 0.45:
        for way in (-1, 1):
            place = _point(centre + np.array(axes) * (way * 0.16, -0.05))
            horn = _point(np.array(axes) * (0.09, 0.27 * (1 - abs(z))))
            cv2.ellipse(image, place, horn, -way * 14.0, 0, 360, 110.0, -1, cv2.LINE_AA)
    fold = np.array([0, axes[1] * 0.8])
    cv2.line(image, _point(centre - fold), _point(centre + fold), 240.0, 1)
    return image


def _ring(
    rng: np.random.Generator, image: np.ndarray, at: np.ndarray, radius: float, growth: float
) -> None:
    """Draw oedema, an enhancing ring and its dark core, in place."""
    size = (image.shape[1], image.shape[0])
    place = (float(at[0]), float(at[1]))
    rough = 0.1 + 0.22 * growth
    oedema = blob(rng, size, place, radius * 1.5) > 0
    image[oedema & (image > 250)] -= 90
    image[blob(rng, size, place, radius, rough=rough) > 0] = 640
    core = radius * (0.82 - 0.42 * growth)
    image[blob(rng, size, place, core, rough=rough) > 0] = 130
