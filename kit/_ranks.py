"""Where positive rows stand among negative ones: the area under the ROC curve and who moves it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kit._counts import ratio
from kit.intervals import clustered


class Area(NamedTuple):
    """An area under the ROC curve, how much each row moves it, and the share of tied pairs."""

    area: float
    influence: np.ndarray  # shape (rows,), summing to 0
    ties: float


class Spread(NamedTuple):
    """The variance of an area over groups, its degrees of freedom, and the rarer class's groups."""

    variance: float
    freedom: float
    fewer: int


UNDEFINED = float("nan")


def area(is_positive: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None) -> Area:
    """Return the share of positive-negative pairs in the right order; a tie is half a pair.

    The influences are DeLong's placements: how far the share of the other class that a row beats
    lies from the area, in parts of its own class.

    Args:
        is_positive: bool, shape (rows,).
        score: Higher for positive, shape (rows,).
        weight: Weight of each row, not negative, shape (rows,); None: one each.

    Returns:
        NaN, and influences of 0, where a class is absent or weighs nothing.
    """
    influence = np.zeros(len(score))
    own = np.ones(len(score)) if weight is None else weight
    total = [own[~is_positive].sum(), own[is_positive].sum()]
    if not all(total):
        return Area(UNDEFINED, influence, 0.0)
    wins, tied = np.empty(len(score)), 0.0  # twice the weight beaten: whole where rows weigh 1
    for side in (is_positive, ~is_positive):
        order = np.argsort(score[~side], kind="stable")
        ordered = score[~side][order]
        reached = np.concatenate([[0.0], np.cumsum(own[~side][order])])
        below = reached[np.searchsorted(ordered, score[side], side="left")]
        not_above = reached[np.searchsorted(ordered, score[side], side="right")]
        wins[side] = below + not_above
        tied = float(own[side] @ (not_above - below))
    found = float(own[is_positive] @ wins[is_positive] / (2 * total[0] * total[1]))
    beaten = np.where(is_positive, wins / (2 * total[0]), 1 - wins / (2 * total[1]))
    influence[:] = own * (beaten - found) / np.where(is_positive, total[1], total[0])
    return Area(found, influence, tied / float(total[0] * total[1]))


def spread(influence: np.ndarray, codes: np.ndarray, group: np.ndarray, n_groups: int) -> Spread:
    """Return the variance of an area, or of a difference or mean of areas, over groups.

    Args:
        influence: Of each row, shape (rows,).
        codes: Class of each row, shape (rows,), 0 and above.
        group: Group of each row, shape (rows,), 0 and above.
        n_groups: Groups in all.
    """
    classes = int(codes.max()) + 1
    held = np.zeros((n_groups, classes), dtype=bool)
    held[group, codes] = True
    _, stratum = np.unique(held, axis=0, return_inverse=True)
    of_group = np.bincount(group, weights=influence, minlength=n_groups)
    variance, freedom = clustered(of_group, stratum.reshape(-1))
    return Spread(variance, freedom, int(held.sum(axis=0).min()))


def average_precision(
    is_positive: np.ndarray, score: np.ndarray, weight: np.ndarray | None = None
) -> float:
    """Return the mean precision over the positive rows, from the highest score down; NaN of none.

    Args:
        is_positive: bool, shape (rows,).
        score: Higher for positive, shape (rows,).
        weight: Weight of each row, not negative, shape (rows,); None: one each.
    """
    own = np.ones(len(score)) if weight is None else weight
    order = np.argsort(-score, kind="stable")
    hits = np.cumsum((own * is_positive)[order])
    called = np.cumsum(own[order])
    if not len(hits) or not hits[-1]:
        return UNDEFINED
    last = np.flatnonzero(np.diff(score[order], append=np.nan) != 0)  # tied scores are one step
    gained = np.diff(hits[last], prepend=0.0)
    return float(gained @ ratio(hits[last], called[last]).clip(0) / hits[-1])
