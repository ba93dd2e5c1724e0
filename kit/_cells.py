"""From square patches to the cells of a grid: its step, and the mean over each cell's centre."""

from __future__ import annotations

import numpy as np

# Pixels of a patch's side, of which a step is a whole number: powers of two are tried first.
WHOLES = sorted(range(2, 1025), key=lambda side: (side & (side - 1) > 0, side))
FINEST = 32  # steps finer than this part of a footprint are jitter
UNIT = 2.0**48  # sums are whole numbers of its inverse: what is added is taken away exactly


def grid_step(xy: np.ndarray, footprint: float) -> float:
    """Return the step of the grid that patches lie on; their footprint if they lie on none.

    A sampler's step is a whole number of its patch's pixels, so a simple part of the footprint.

    Args:
        xy: shape (n, 2), top left of each patch, level-0 pixels: multiples of the step, rounded.
        footprint: Side of the patches, level-0 pixels.
    """
    axes = [np.unique(axis) for axis in xy.T]
    gap = min((float(np.diff(axis).min()) for axis in axes if len(axis) > 1), default=footprint)
    if gap < footprint / FINEST or _fits(axes, footprint):
        return footprint
    for whole in WHOLES:
        low, high = (whole * (gap + rounding) / footprint for rounding in (-1, 1))
        for part in range(max(1, int(np.ceil(low))), min(whole - 1, int(high)) + 1):
            if _fits(axes, footprint * part / whole):
                return footprint * part / whole
    return footprint


def _fits(axes: list[np.ndarray], step: float) -> bool:
    """Return whether all places are multiples of a step, rounded."""
    return all(bool((np.abs(at - np.rint(at / step) * step) < 0.5 + 1e-6).all()) for at in axes)


def means(
    places: np.ndarray, values: np.ndarray, step: float, shape: tuple[int, int]
) -> np.ndarray:
    """Return the mean of the patches over each cell's centre, float64; nan where there is none.

    Args:
        places: shape (n, 3): x, y (top left) and footprint (side) of each patch, level-0 pixels.
        values: In [0, 1], shape (n,); exact to 2^-49, of up to 2^15 patches over a cell.
        step: Level-0 pixels per cell; cell (0, 0) starts at (0, 0).
        shape: (height, width) in cells; what lies outside is left out.
    """
    x, y, footprint = places.T
    edges = [
        np.clip(np.ceil(edge / step - 0.5), 0, cells).astype(np.intp)
        for edge, cells in (
            (x, shape[1]), (x + footprint, shape[1]), (y, shape[0]), (y + footprint, shape[0])
        )
    ]  # fmt: skip
    whole = np.rint(values * UNIT).astype(np.int64)
    count = _sum_of_covering(edges, np.ones_like(whole), shape)
    mean = np.full(shape, np.nan)
    np.divide(_sum_of_covering(edges, whole, shape), count * UNIT, out=mean, where=count > 0)
    return mean


def _sum_of_covering(
    edges: list[np.ndarray], values: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Return the sum of the boxes over each cell: each is added at one corner, taken at others."""
    left, right, top, bottom = edges
    table = np.zeros((shape[0] + 1, shape[1] + 1), np.int64)
    for row, column, sign in ((top, left, 1), (top, right, -1), (bottom, left, -1),
                              (bottom, right, 1)):  # fmt: skip
        np.add.at(table, (row, column), sign * values)
    for axis in (0, 1):
        np.cumsum(table, axis=axis, out=table)
    return table[:-1, :-1]
