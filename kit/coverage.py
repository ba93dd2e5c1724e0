"""How much of each patch a mask covers: summed areas, exact to parts of a mask pixel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from kit.errors import MaskError
from kit.geometry import Pair, level0_to_level

DECIMALS = 6


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
    left, top = level0_to_level(low, downsample).T
    right, bottom = level0_to_level(low + size, downsample).T
    covered = (
        _up_to(table, right, bottom) - _up_to(table, left, bottom)
        - _up_to(table, right, top) + _up_to(table, left, top)
    )  # fmt: skip
    area = float(np.prod(level0_to_level(size, downsample)))
    return np.asarray(np.clip(np.round(covered / area, DECIMALS), 0.0, 1.0))


def _up_to(table: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the sum from the corner to fractional (x, y): linear between the table's entries."""
    x = np.clip(x, 0, table.shape[1] - 1)
    y = np.clip(y, 0, table.shape[0] - 1)
    column = np.minimum(x.astype(np.int64), table.shape[1] - 2)
    row = np.minimum(y.astype(np.int64), table.shape[0] - 2)
    x, y = x - column, y - row
    upper = table[row, column] * (1 - x) + table[row, column + 1] * x
    lower = table[row + 1, column] * (1 - x) + table[row + 1, column + 1] * x
    return np.asarray(upper * (1 - y) + lower * y)
