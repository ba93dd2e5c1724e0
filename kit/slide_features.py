"""What the patches of a slide say together: the score of each rule, and the shape of regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from kit.checks import above_zero, columns, probabilities, same_length
from kit.rules import COLUMNS, Rule

KEY = ["case_id", "fold", "seed", "model"]
POSITIVE = 0.5  # probability from which a patch belongs to the regions whose shape is taken
ROUNDED = 1.25  # level-0 pixels by which two corners may differ from the grid's, and a little
SHAPES = (
    "log_regions", "log_second", "region_mean", "region_eccentricity", "region_extent",
    "log_tissue", "log_patches", "log_positive",
)  # fmt: skip
LEARNT_FROM = (
    "mean", "max", "top=10", "top=0.05", "top=0.2", "percentile=98", "share=0.5", "share=0.9",
    "region=0.5", "region=0.9", *SHAPES,
)  # fmt: skip
"""The features that classifiers learn from: few, because slides are few."""


def features(
    prob: npt.ArrayLike, xy: npt.ArrayLike, footprint: npt.ArrayLike, *, mpp: float | None,
    extra: Sequence[str] = (),
) -> dict[str, float]:  # fmt: skip
    """Return what one network says of one slide.

    A cell of the grid is as wide as a patch; where patches overlap it holds the highest of those
    that begin in it. Regions are cells that touch, at a side or a corner (8 neighbours). A grid
    with gaps, or patches drawn from it at random, has smaller regions than the slide.

    Args:
        prob: Probability of the positive class, shape (n,), in [0, 1]; in any order.
        xy: Top left of each patch in level-0 pixels, shape (n, 2).
        footprint: Side of a patch in level-0 pixels, > 0, one number or (n,).
        mpp: µm per level-0 pixel; None where it is not known.
        extra: Further rules whose scores are wanted, such as `top=7`.

    Returns:
        `no_patch`, 1 where there is none, and then all others 0; the score of each rule
        (`kit.rules.COLUMNS` and `extra`), the `region=` ones in mm²; and `SHAPES`, of the regions
        of at least .5: the number of regions, the second largest one's mm², the tissue's mm²,
        patches and positive patches, each as log(1 + value); the largest one's mean probability,
        its eccentricity (0: as wide as high, to 1: a line) and its extent (the part of its
        bounding box that it fills). NaN are areas without mpp, and regions where footprints differ.

    Raises:
        SettingsError: footprint or mpp is not above 0.
        TableError: Lengths differ, or a probability is none.
    """
    given, places = probabilities(np.asarray(prob)), np.asarray(xy, np.float64).reshape(-1, 2)
    same_length(prob=given, xy=places)
    names = dict.fromkeys([*COLUMNS, *(one for text in extra for one in Rule.parse(text).columns)])
    if not len(given):
        return {"no_patch": 1.0, **dict.fromkeys([*names, *SHAPES], 0.0)}
    sides = np.unique(np.asarray(footprint, np.float64))
    for name, least in (("footprint", sides.min()), ("mpp", 1.0 if mpp is None else mpp)):
        above_zero(name, float(least))
    falling = np.sort(given)[::-1]
    grid = _grid(given, places, float(sides[0])) if len(sides) == 1 else None
    area = float("nan") if mpp is None else float(sides[0] * mpp / 1000) ** 2
    found = {"no_patch": 0.0}
    for name in names:
        rule = Rule.parse(name)
        if rule.name != "region":
            found[name] = _score(rule, falling)
        else:
            found[name] = float("nan") if grid is None else _largest(grid, rule.value or 0) * area
    return found | _shapes(falling, grid, area)


def table(
    predictions: pd.DataFrame, positive: str, *, mpp: Mapping[str, float | None],
    extra: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return the features of each slide by each network, a row each, sorted.

    Args:
        predictions: A row for each patch and network: `case_id, fold, seed, model, x, y,
            footprint, prob_<positive>`.
        positive: The positive class.
        mpp: µm per level-0 pixel of each slide; None, or no entry, where it is not known.
        extra: As in `features`.

    Returns:
        `case_id, fold, seed, model` and the features; no row for a slide without patches.
    """
    mine = f"prob_{positive}"
    columns(predictions, [*KEY, "x", "y", "footprint", mine])
    rows = []
    for key, part in predictions.groupby(KEY, sort=True):
        found = features(
            part[mine].to_numpy(), part[["x", "y"]].to_numpy(), part["footprint"].to_numpy(),
            mpp=mpp.get(str(key[0])), extra=extra,
        )  # fmt: skip
        rows.append({**dict(zip(KEY, key, strict=True)), **found})
    named = [*KEY, *features([], np.empty((0, 2)), 1, mpp=None, extra=extra)]
    return pd.DataFrame(rows, columns=named)


def _score(rule: Rule, falling: np.ndarray) -> float:
    """Return the score of a rule that asks for no places; probabilities fall."""
    value = rule.value or 0.0
    if rule.name == "mean":
        return float(falling.mean())
    if rule.name == "max":
        return float(falling[0])
    if rule.name == "percentile":
        return float(np.percentile(falling, value))
    if rule.name == "share":
        return float((falling >= value).mean())
    count = int(value) if value >= 1 else max(1, round(value * len(falling)))
    if rule.name == "top":
        return float(falling[:count].mean())
    with np.errstate(divide="ignore"):  # of a patch that is surely positive
        return float(-np.expm1(np.log1p(-falling[:count]).sum()))


class Grid(NamedTuple):
    """Cells that hold patches, row by row, and which of them touch."""

    xy: np.ndarray  # column and row of each cell, shape (m, 2)
    prob: np.ndarray  # shape (m,)
    pairs: np.ndarray  # neighbouring cells' numbers, shape (2, k)


def _grid(prob: np.ndarray, xy: np.ndarray, side: float) -> Grid:
    """Return the cells in which patches of one side begin."""
    at = np.floor((xy - xy.min(axis=0) + ROUNDED) / side).astype(np.int64)
    width = int(at[:, 0].max()) + 2  # the last column is empty, so that no row touches its end
    key = at[:, 1] * width + at[:, 0]
    order = np.argsort(key, kind="stable")
    cells, starts = np.unique(key[order], return_index=True)
    pairs = []
    for step in (1, width - 1, width, width + 1):
        place = np.searchsorted(cells, cells + step)
        place[place == len(cells)] = 0
        first = np.flatnonzero(cells[place] == cells + step)
        pairs.append(np.stack([first, place[first]]))
    found = np.stack([cells % width, cells // width], axis=1)
    return Grid(found, np.maximum.reduceat(prob[order], starts), np.concatenate(pairs, axis=1))


def _regions(grid: Grid, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells of at least this probability, and the number of the region of each."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    inside = grid.prob >= least
    number = np.cumsum(inside) - 1
    one, other = number[grid.pairs[:, inside[grid.pairs].all(axis=0)]]
    shape = (int(inside.sum()),) * 2
    graph = coo_array((np.ones(len(one), np.int8), (one, other)), shape=shape)
    return np.flatnonzero(inside), connected_components(graph, directed=False)[1]


def _largest(grid: Grid, least: float) -> int:
    """Return the cells of the largest region."""
    if not (grid.prob >= least).any():
        return 0
    return int(np.bincount(_regions(grid, least)[1]).max())


def _shapes(falling: np.ndarray, grid: Grid | None, area: float) -> dict[str, float]:
    found = dict.fromkeys(SHAPES, float("nan") if grid is None else 0.0)
    found["log_patches"] = float(np.log1p(len(falling)))
    found["log_positive"] = float(np.log1p((falling >= POSITIVE).sum()))
    if grid is None:
        return found
    found["log_tissue"] = float(np.log1p(len(grid.prob) * area))
    if falling[0] < POSITIVE:
        return found
    cells, region = _regions(grid, POSITIVE)
    size = np.bincount(region)
    mean = np.bincount(region, weights=grid.prob[cells]) / size
    order = np.lexsort((-mean, -size))  # of equally large ones the surer one
    second = int(size[order[1]]) if len(order) > 1 else 0
    mine = grid.xy[cells[region == order[0]]]
    found["log_regions"] = float(np.log1p(len(size)))
    found["log_second"] = float(np.log1p(second * area))
    found["region_mean"] = float(mean[order[0]])
    found["region_eccentricity"] = _eccentricity(mine)
    found["region_extent"] = len(mine) / int(np.prod(np.ptp(mine, axis=0) + 1))
    return found


def _eccentricity(xy: np.ndarray) -> float:
    """Return that of the ellipse with the moments of square cells: a cell's own are 1/12."""
    apart = xy - xy.mean(axis=0)
    low, high = np.linalg.eigvalsh(apart.T @ apart / len(xy) + np.eye(2) / 12)
    return float(np.sqrt(1 - low / high))
