"""Is the test set like the training set? A classifier tries to tell them apart.

The AUC with which it does, on cases that it has not seen, says how unlike they are: .5 is alike.
HeLP 2019's models fell from .93 to .76 on new slides that such a look would have shown to differ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit._labels import Values, group_codes
from kit._ranks import area, spread
from kit.checks import positive_int, same_length
from kit.errors import TableError
from kit.intervals import Interval, auc_interval

PARTS, LEAST = 5, 3  # of the cross-validation, at most and at least
WHITE, BLACK = 230, 20  # grey levels


@dataclass(frozen=True)
class Shift:
    """How well training and test cases are told apart.

    Args:
        auc: Cross-validated AUC of test against training; 0.5 is alike.
        interval: Its 95 % interval, over groups.
        p: How often sides dealt at random are told apart as well.
        columns: A row for each statistic: `column`, `auc` (0.5 to 1, alone), `train`, `test`
            (medians); those that tell the sides apart best come first.
    """

    auc: float
    interval: Interval
    p: float
    columns: pd.DataFrame


def image_statistics(images: Iterable[np.ndarray]) -> pd.DataFrame:
    """Return cheap statistics of each image that say how it was made rather than what it shows.

    Args:
        images: uint8, shape (height, width, 1 or 3) each, of any sizes.

    Returns:
        A row for each image: mean and spread of each channel, saturation, sharpness (mean step
        between neighbouring pixels), contrast (5th to 95th percentile), shares of white and black.
    """
    rows = []
    for image in images:
        pixels = np.asarray(image, dtype=np.float32)
        grey = pixels.mean(axis=2)
        row: dict[str, float] = {}
        for name, channel in zip(("red", "green", "blue"), np.moveaxis(pixels, 2, 0), strict=False):
            row |= {f"{name}_mean": float(channel.mean()), f"{name}_spread": float(channel.std())}
        low, high = np.percentile(grey, [5, 95])
        rows.append({
            **row, "saturation": float(np.ptp(pixels, axis=2).mean()), "contrast": high - low,
            "sharpness": float(np.abs(np.diff(grey, axis=0)).mean()
                               + np.abs(np.diff(grey, axis=1)).mean()),
            "white": float((grey > WHITE).mean()), "black": float((grey < BLACK).mean()),
        })  # fmt: skip
    return pd.DataFrame(rows)


def train_test_shift(
    statistics: pd.DataFrame, is_test: Values, *, groups: Values | None = None,
    permutations: int = 200, seed: int = 0,
) -> Shift:  # fmt: skip
    """Return how well a classifier tells test cases from training cases by their statistics.

    It is a linear discriminant on the ranks of each column, cross-validated by group; for the
    p-value the sides are dealt anew among the groups.

    Args:
        statistics: One row a case, numbers without empty cells; such as `image_statistics` gives.
        is_test: bool, shape (n,).
        groups: Group (patient) of each case, shape (n,); None: each case is its own.
        permutations: Deals of the sides; the p-value is at least 1 / (permutations + 1).
        seed: Of the deals and parts.

    Raises:
        TableError: Lengths differ, a cell is empty or no number, a group stands on both sides, or a
            side has fewer than three groups.

    Source: Lopez-Paz and Oquab (2017), arXiv:1610.06545, classifier two-sample tests.
    """
    positive_int("permutations", permutations)
    side = np.asarray(is_test).astype(bool)
    same_length(statistics=statistics.index.to_numpy(), is_test=side)
    group, n_groups = group_codes(groups, len(side))
    try:
        values = statistics.to_numpy(dtype=np.float64)
    except ValueError as error:
        raise TableError("statistics must be numbers", received=str(error)) from error
    if not np.isfinite(values).all():
        bad = statistics.columns[~np.isfinite(values).all(axis=0)]
        raise TableError("statistics have empty cells", received=", ".join(map(str, bad)))
    of_group = _side_of(side, group, n_groups)
    design = _ranks(values)
    rng = np.random.default_rng(seed)
    score = _cross_validated(design, of_group, group, rng)
    found = area(side, score)
    beaten = 0
    for _ in range(permutations):
        dealt = rng.permutation(of_group)
        drawn = area(dealt[group], _cross_validated(design, dealt, group, rng)).area
        beaten += drawn >= found.area
    return Shift(
        found.area, _interval(found.area, found.influence, side, group, n_groups),
        (1 + beaten) / (1 + permutations), _alone(statistics, values, side),
    )  # fmt: skip


def _side_of(side: np.ndarray, group: np.ndarray, n_groups: int) -> np.ndarray:
    tests = np.bincount(group, side, n_groups)
    rows = np.bincount(group, minlength=n_groups)
    if ((tests > 0) & (tests < rows)).any():
        raise TableError("groups stand on both sides",
                         received=f"{int(((tests > 0) & (tests < rows)).sum())}")  # fmt: skip
    held = tests > 0
    if min(held.sum(), (~held).sum()) < LEAST:
        raise TableError(
            "too few groups to tell the sides apart", expected=f"at least {LEAST} a side",
            received=f"{int((~held).sum())} and {int(held.sum())}",
        )  # fmt: skip
    return np.asarray(held)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return each column's ranks, of zero mean and unit spread; a constant one is 0."""
    ranks = pd.DataFrame(values).rank().to_numpy()
    centred = ranks - ranks.mean(axis=0)
    return np.asarray(centred / np.maximum(centred.std(axis=0), 1e-12))


def _cross_validated(
    design: np.ndarray, of_group: np.ndarray, group: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Return each case's score for test, by a fit to the other parts; groups stay whole."""
    part = np.empty(len(of_group), np.intp)
    parts = min(PARTS, int(of_group.sum()), int((~of_group).sum()))
    for mine in (of_group, ~of_group):
        part[mine] = rng.permutation(np.arange(mine.sum()) % parts)
    truth, score = of_group[group], np.empty(len(group))
    for number in range(parts):
        held = part[group] == number
        score[held] = design[held] @ _fitted(design[~held], truth[~held])
    return score


def _fitted(design: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the direction of a ridge regression on the balanced sides (a linear discriminant)."""
    weight = np.where(truth, 0.5 / truth.sum(), 0.5 / (~truth).sum())
    centre = weight @ design
    moved = (design - centre) * np.sqrt(weight)[:, None]
    target = np.where(truth, 0.5, -0.5) * np.sqrt(weight)
    ridge = np.eye(design.shape[1]) * (design.shape[1] / len(design) + 1e-6)
    return np.asarray(np.linalg.solve(moved.T @ moved + ridge, moved.T @ target))


def _interval(
    value: float, influence: np.ndarray, side: np.ndarray, group: np.ndarray, n_groups: int
) -> Interval:
    variance, freedom, fewer = spread(influence, side.astype(np.intp), group, n_groups)
    return auc_interval(value, variance, freedom, fewer)


def _alone(statistics: pd.DataFrame, values: np.ndarray, side: np.ndarray) -> pd.DataFrame:
    rows = []
    for name, column in zip(statistics.columns, values.T, strict=True):
        alone = area(side, column).area
        middle = np.median(column[~side]), np.median(column[side])
        rows.append((str(name), max(alone, 1 - alone), *map(float, middle)))
    table = pd.DataFrame(rows, columns=["column", "auc", "train", "test"])
    return table.sort_values("auc", ascending=False, kind="stable", ignore_index=True)
