"""Fundus photographs: the eye found, the square round it cut out, Ben Graham's normalisation.

Lengths are pixels of the image given; (x, y) counts from its top left corner.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np

from kit import images
from kit.checks import choice, positive_int
from kit.errors import ImageError

Fundus = Literal["none", "crop", "graham"]
KEPT = 0.9  # of the radius: Graham's circle, inside the edge where the blur meets the black
SPREAD = 30  # radii of the blur's sigma
GREY = 128
SIDE = 256  # the eye is looked for on an image whose longer side is this
EDGE = 0.1  # of the way from the darkest to the brightest: where the eye begins
CONTRAST = 20  # grey levels between darkest and brightest, below which there is no eye
SPECK = 0.02  # of the longer side: a smaller radius is no eye
ROUND = 0.05  # of the radius: how far the outline of a circle may be from it
POINTS = 12  # fewest points of an outline that a circle is fitted to


class Eye(NamedTuple):
    """The circle of the retina: its centre and radius, pixels; it may reach beyond the image."""

    x: float
    y: float
    radius: float


def find_eye(image: np.ndarray, *, path: str | Path | None = None) -> Eye:
    """Return the circle of the eye, wherever it lies and however small it is.

    The largest bright area is taken and a circle fitted to its outline, without the parts that lie
    on the image's border, so that an eye cut off by the frame keeps its centre. An area that is no
    circle (wide-field photographs) is enclosed by that of its bounding box. Graham took half the
    bright pixels of the middle row, which an eye above or below it has none of.

    Args:
        image: uint8, shape (height, width, 3).
        path: The file that an error names.

    Raises:
        ImageError: The image is black, of one colour, or shows specks only.
    """
    height, width = image.shape[:2]
    scale = SIDE / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    red, green, blue = cv2.split(cv2.resize(image, size, interpolation=how))
    light = cv2.medianBlur(cv2.max(cv2.max(red, green), blue), 5)
    dark, bright = float(np.percentile(light, 1)), float(light.max())
    if bright - dark < CONTRAST:
        raise ImageError(
            "no eye in the image", expected="a bright eye on a dark ground",
            received=f"values from {dark:.0f} to {bright:.0f}",
            path=path,
            remedy="replace the photograph, or leave it out",
        )  # fmt: skip
    eye = _circle((light > dark + EDGE * (bright - dark)).astype(np.uint8))
    if eye.radius < SPECK * SIDE:
        raise ImageError(
            "no eye in the image", expected=f"a radius of {SPECK:.0%} of the longer side or more",
            received=f"bright specks of radius {eye.radius / scale:.0f} pixels",
            path=path,
            remedy="replace the photograph, or leave it out",
        )  # fmt: skip
    return Eye((eye.x + 0.5) / scale, (eye.y + 0.5) / scale, (eye.radius + 0.5) / scale)


def _circle(mask: np.ndarray) -> Eye:
    """Return the circle round the largest area of a mask (uint8, 0 or 1), in pixel centres."""
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea)
    x, y, width, height = cv2.boundingRect(outline)
    box = Eye(x + (width - 1) / 2, y + (height - 1) / 2, (max(width, height) - 1) / 2)
    points = outline[:, 0].astype(float)
    inner = ((points > 0) & (points < np.array(mask.shape[::-1]) - 1)).all(axis=1)
    points = points[inner]
    if len(points) < POINTS:
        return box
    for _ in range(3):  # once more without what lies off the circle: a label, a lash
        eye = _fitted(points)
        off = np.abs(np.hypot(points[:, 0] - eye.x, points[:, 1] - eye.y) - eye.radius)
        points = points[off <= max(2 * float(np.median(off)), 1)]
    is_round = float(np.median(off)) <= max(ROUND * eye.radius, 1)
    return eye if is_round and box.radius / 2 < eye.radius < 1.5 * box.radius else box


def _fitted(points: np.ndarray) -> Eye:
    """Return the circle of least squares (Kåsa 1976, 10.1109/TIM.1976.6312298)."""
    middle = points.mean(axis=0)
    near = points - middle
    system = np.column_stack([2 * near, np.ones(len(near))])
    (x, y, rest), *_ = np.linalg.lstsq(system, (near**2).sum(axis=1), rcond=None)
    radius = math.sqrt(max(rest + x**2 + y**2, 0.0))
    return Eye(float(x + middle[0]), float(y + middle[1]), radius)


def crop(image: np.ndarray, eye: Eye, size: int) -> np.ndarray:
    """Return the square round the eye, `size` pixels a side; what is outside the image is black.

    Args:
        image: uint8, shape (height, width, 3).
        eye: Its eye.
        size: Side of the result, >= 1.

    Returns:
        uint8, shape (size, size, 3).
    """
    positive_int("size", size)
    side = max(1, round(2 * eye.radius))
    left, top = round(eye.x - side / 2), round(eye.y - side / 2)
    square = np.zeros((side, side, 3), np.uint8)
    x, y = slice(max(left, 0), left + side), slice(max(top, 0), top + side)
    part = image[y, x]
    square[y.start - top :, x.start - left :][: part.shape[0], : part.shape[1]] = part
    return images.fit(square, size)


def graham(image: np.ndarray, eye: Eye, size: int) -> np.ndarray:
    """Return the eye as Ben Graham normalised it: the ground grey, vessels and lesions kept.

    Four times the difference from a blurred copy (sigma: the radius / 30) on grey 128, in a circle
    of .9 of the radius; outside it 128. The square encloses that circle.

    Args:
        image: uint8, shape (height, width, 3).
        eye: Its eye.
        size: Side of the result, >= 1.

    Returns:
        uint8, shape (size, size, 3).

    Source: Graham 2015, report of the first place, Kaggle Diabetic Retinopathy Detection.
    """
    side = size + 2 * round(size * (1 / KEPT - 1) / 2)
    whole = crop(image, eye, side)
    blurred = cv2.GaussianBlur(whole, (0, 0), side / 2 / SPREAD)
    found = cv2.addWeighted(whole, 4, blurred, -4, GREY)
    edge = (side - size) // 2
    found = found[edge : edge + size, edge : edge + size]
    y, x = np.ogrid[:size, :size]
    middle = (size - 1) / 2
    outside = (x - middle) ** 2 + (y - middle) ** 2 > (KEPT * side / 2) ** 2
    return np.asarray(np.where(outside[:, :, None], np.uint8(GREY), found))


def normalise(image: np.ndarray, size: int, how: Fundus) -> np.ndarray:
    """Return a fundus photograph as a square of `size` pixels, round its eye.

    Args:
        image: uint8, shape (height, width, 3).
        size: Side of the result, >= 1.
        how: "crop", or "graham".

    Raises:
        ImageError: There is no eye.
    """
    choice("how", how, ("crop", "graham"))
    return (crop if how == "crop" else graham)(image, find_eye(image), size)


def read_eye(path: str | Path, size: int, how: Fundus) -> np.ndarray:
    """Read a photograph as `normalise` gives it, decoded no larger than the eye needs.

    Raises:
        ImageError: The file cannot be read (`kit.images.read_reduced`), or shows no eye.
    """
    choice("how", how, ("crop", "graham"))
    least = size if how == "crop" else math.ceil(size / KEPT)
    image, stored = images.read_reduced(path, least)
    eye = find_eye(image, path=path)
    lack = least / (2 * eye.radius)
    if lack > 1 and image.shape != stored:  # a small eye in a large frame
        before = image.shape[0]
        image, _ = images.read_reduced(path, math.ceil(min(image.shape[:2]) * lack))
        eye = Eye(*(value * image.shape[0] / before for value in eye))
    return (crop if how == "crop" else graham)(image, eye, size)
