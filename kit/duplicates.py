"""Images that are copies of each other: the same, turned, mirrored, recompressed or brightened.

An image is looked at as a small picture of its details: grey, without its slow changes and its
finest noise, of zero mean and unit length. Two such pictures of a copy have a correlation near 1 in
one of the eight ways to turn and mirror them. What all images of a set share, such as an eye's
edge, says nothing and is taken out first. Copies stand in one group, or the folds leak.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from kit.checks import same_length
from kit.errors import ImageError

SIDE, COARSE = 32, 16  # pixels of the picture of details, and of the one that finds candidates
LEAST = 16  # pixels of an image's shorter side
CONTRAST = 2.0  # grey levels of detail below which an image shows too little to be told apart
SPREAD = 0.1  # least share of the picture that its details fill: a bar on white shows too little
CANDIDATE, COPY = 0.8, 0.96  # correlations
SHARED, FOR_EACH = 8, 25  # directions that a set shares, at most, and images for each of them
EQUAL = 0.999  # of their strengths, where two directions are one another's turn
SAMPLED = 3000  # pictures that the shared directions are taken from
BLOCK = 2048
TURNS = ("same", "turned 90", "turned 180", "turned 270", "mirrored", "mirrored, turned 90",
         "mirrored, turned 180", "mirrored, turned 270")  # fmt: skip
COLUMNS = ["a", "b", "how", "distance"]


def near_duplicates(images: Iterable[np.ndarray], ids: Sequence[str]) -> pd.DataFrame:
    """Return the pairs of images that are copies of each other.

    Images that show next to nothing are left out, and a copy that was also cropped is rarely found.

    Args:
        images: uint8, shape (height, width, channels) each, 1 or 3 channels, of any sizes; they
            are looked at one by one and not kept.
        ids: Name of each image.

    Returns:
        A row for each pair, in the order of the images: `a`, `b`, `how` ("exact" for equal pixels,
        or how b is turned), `distance`: 1 - the correlation of their details, 0 to 0.04.

    Raises:
        ImageError: An image is no uint8 array, or smaller than 16 pixels.
        TableError: There is not one id for each image.
    """
    names = [str(name) for name in ids]
    details: list[np.ndarray] = []
    exact: list[bytes | None] = []
    for image in images:
        pixels = np.asarray(image)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or min(pixels.shape[:2]) < LEAST:
            raise ImageError("not an image to compare", expected=f"uint8, at least {LEAST} pixels",
                             received=f"{pixels.dtype} {pixels.shape}")  # fmt: skip
        details.append(_details(pixels))
        same = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        exact.append(same if details[-1].any() else None)  # blank ones would chain all patients
    same_length(images=details, ids=names)
    rows = _equal(exact)
    known = {(a, b) for a, b, _, _ in rows}
    if len(details):
        rows += [row for row in _copies(np.stack(details)) if row[:2] not in known]
    rows.sort()
    found = [(names[a], names[b], how, distance) for a, b, how, distance in rows]
    return pd.DataFrame(found, columns=COLUMNS)


Pair = tuple[int, int, str, float]


def _equal(digests: Sequence[bytes | None]) -> list[Pair]:
    """Return each image with the first one of the same pixels."""
    first: dict[bytes, int] = {}
    return [
        (first[digest], i, "exact", 0.0)
        for i, digest in enumerate(digests)
        if digest is not None and first.setdefault(digest, i) != i
    ]


def _details(pixels: np.ndarray) -> np.ndarray:
    """Return the picture of details, float32 (SIDE, SIDE); zeros where there are too few."""
    import cv2

    grey = pixels[..., 0] if pixels.shape[2] == 1 else cv2.cvtColor(pixels[..., :3],
                                                                    cv2.COLOR_RGB2GRAY)  # fmt: skip
    way = cv2.INTER_AREA if min(grey.shape) >= SIDE else cv2.INTER_LINEAR
    small = cv2.resize(np.ascontiguousarray(grey), (SIDE, SIDE), interpolation=way)
    fine = cv2.GaussianBlur(small.astype(np.float32), (0, 0), 0.8)
    bare: np.ndarray = fine - cv2.GaussianBlur(fine, (0, 0), 4.0)
    bare -= bare.mean()
    energy: np.ndarray = bare**2
    filled = float(energy.sum() ** 2 / max(1e-12, (energy**2).sum())) / bare.size
    if float(bare.std()) < CONTRAST or filled < SPREAD:
        return np.zeros((SIDE, SIDE), np.float32)
    return np.asarray(bare / float(np.linalg.norm(bare)), dtype=np.float32)


def _turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Return pictures, shape (n, side, side), mirrored from 4 on, then turned by 90 degrees."""
    mirrored = pictures[:, :, ::-1] if turn >= 4 else pictures
    return np.rot90(mirrored, turn % 4, axes=(1, 2))


def _own(pictures: np.ndarray) -> np.ndarray:
    """Return the pictures without their mean and the main directions that the set shares.

    Both are those of all eight orientations, so that turning changes nothing.
    """
    flat = pictures.reshape(len(pictures), -1)
    directions = min(SHARED, len(flat) // FOR_EACH)
    if directions:
        step = -(-len(pictures) * 8 // SAMPLED)
        every = np.concatenate([_turned(pictures[::step], turn) for turn in range(8)])
        every = every.reshape(len(every), -1)
        _, strength, shared = np.linalg.svd(every, full_matrices=False)
        alike = strength[1:] > EQUAL * strength[:-1]  # a direction and the same turned go together
        while directions < len(alike) and alike[directions - 1]:
            directions += 1
        flat = flat - (flat @ shared[:directions].T) @ shared[:directions]
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(length, 1e-12)).reshape(pictures.shape)


def _copies(details: np.ndarray) -> list[Pair]:
    """Return the pairs whose details agree in one of eight orientations of the second."""
    shown = np.flatnonzero(details.any(axis=(1, 2)))
    if not len(shown):
        return []
    pictures = _own(details[shown])
    coarse = pictures.reshape(-1, COARSE, SIDE // COARSE, COARSE, SIDE // COARSE).mean(axis=(2, 4))
    coarse /= np.maximum(np.linalg.norm(coarse, axis=(1, 2), keepdims=True), 1e-12)
    flat = coarse.reshape(len(coarse), -1)
    best: dict[tuple[int, int], tuple[float, int]] = {}
    for turn in range(8):
        turned = _turned(coarse, turn).reshape(len(coarse), -1)
        whole = _turned(pictures, turn)
        for start in range(0, len(flat), BLOCK):
            near = flat[start : start + BLOCK] @ turned[start:].T >= CANDIDATE
            for i, j in np.argwhere(near):
                if i >= j:  # itself, or a pair that its other order gives
                    continue
                a, b = start + int(i), start + int(j)
                alike = float((pictures[a] * whole[b]).sum())
                if alike >= COPY and alike > best.get((a, b), (0.0, 0))[0]:
                    best[a, b] = (alike, turn)
    return [
        (int(shown[a]), int(shown[b]), TURNS[turn], round(max(0.0, 1 - alike), 6))
        for (a, b), (alike, turn) in best.items()
    ]
