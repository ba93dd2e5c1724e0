"""How much of each patch a mask covers: summed areas, exact to parts of a mask pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kit.errors import MaskError
from kit.geometry import Pair, level0_to_level

DECIMALS = 6
BLOCK = 1 << 14  # rows whose arrays stay in a core's cache


def integral(mask: np.ndarray) -> np.ndarray:
    """Return the sums of a bool mask over all rectangles from its corner, int, (h+1, w+1)."""
    kind = np.uint32 if mask.size < 1 << 32 else np.uint64
    table = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), kind)
    for row, pixels in enumerate(mask):  # by rows: six times as fast as two calls over all
        np.cumsum(pixels, dtype=kind, out=table[row + 1, 1:])
        table[row + 1] += table[row]
    return table


def area_fraction(
    table: np.ndarray,
    xy_level0: npt.ArrayLike,
    size_level0: float | Pair,
    *,
    downsample: Pair,
    origin_level0: Pair = (0.0, 0.0),
) -> np.ndarray:
    """Return the fraction of each patch that a mask covers, exact to parts of a mask pixel.

    What lies outside the mask counts as not covered.

    Args:
        table: `integral` of the mask.
        xy_level0: shape (n, 2), top left of each patch, level-0 pixels.
        size_level0: (width, height) of all patches, level-0 pixels, or one number; floats.
        downsample: (x, y) level-0 pixels per mask pixel.
        origin_level0: Where the mask's top left lies in level 0.

    Returns:
        float64, shape (n,), in [0, 1], rounded to six decimals so that none and all are exact.
    """
    low = np.asarray(xy_level0, dtype=np.float64).reshape(-1, 2) - np.asarray(origin_level0)
    size = np.broadcast_to(np.asarray(size_level0, dtype=np.float64), (2,))
    if not (size > 0).all():
        raise MaskError("a patch must have an area", received=f"size_level0={size_level0}")
    area = float(np.prod(level0_to_level(size, downsample)))
    found = np.empty(len(low))
    for start in range(0, len(low), BLOCK):
        corner = low[start : start + BLOCK]
        left, top = level0_to_level(corner, downsample).T
        right, bottom = level0_to_level(corner + size, downsample).T
        found[start : start + BLOCK] = _covered(
            table, _edge(left, table.shape[1]), _edge(top, table.shape[0]),
            _edge(right, table.shape[1]), _edge(bottom, table.shape[0]),
        )  # fmt: skip
    return np.asarray(np.clip(np.round(found / area, DECIMALS), 0.0, 1.0))


Edge = tuple[np.ndarray, np.ndarray]
"""The table's entry before a fractional place, and the part of the way to the next."""


def _edge(place: np.ndarray, entries: int) -> Edge:
    place = np.clip(place, 0, entries - 1)
    before = np.minimum(place.astype(np.intp), entries - 2)
    return before, place - before


def _covered(table: np.ndarray, left: Edge, top: Edge, right: Edge, bottom: Edge) -> np.ndarray:
    """Return the sum over each rectangle: linear between the table's entries."""
    flat, across = table.reshape(-1), table.shape[1]

    def along(row: np.ndarray) -> np.ndarray:
        """Return the sum up to a row's place, between left and right."""
        row = row * across
        (x0, part0), (x1, part1) = left, right
        a, b = flat.take(row + x0), flat.take(row + (x0 + 1))
        c, d = flat.take(row + x1), flat.take(row + (x1 + 1))
        return np.asarray(c + (d - c) * part1 - (a + (b - a) * part0))

    def up_to(edge: Edge) -> np.ndarray:
        row, part = edge
        return np.asarray(along(row) * (1 - part) + along(row + 1) * part)

    return np.asarray(up_to(bottom) - up_to(top))
