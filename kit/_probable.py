"""Definitions of the metrics of probabilities: what they lose, and whether they mean what they say.

Range, direction, and where they are undefined stand with each.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from kit import _ranks
from kit._counts import ratio
from kit._labels import Values, ranked, scored
from kit.checks import probabilities

BINS = 10
ROUNDS = 50  # of Newton's method; a dozen are used


def log_loss(
    y_true: Values, y_prob: Values, *, classes: Sequence[Hashable], weights: Values | None = None
) -> float:
    """Return the mean of -log of the probability given to the true class, in nats.

    In [0, inf), lower is better; infinite where a true class was given 0.

    Args:
        y_true: True labels, shape (n,).
        y_prob: Probability of the last class of two, shape (n,), or shape (n, classes).
        classes: All classes.
        weights: Weight of each row, not negative, shape (n,); None: one each.
    """
    true, prob, own = scored(y_true, y_prob, classes, weights)
    with np.errstate(divide="ignore"):
        lost = -np.log(prob[np.arange(len(true)), true])
    return _mean(np.where(own > 0, lost, 0.0), own)


def brier(
    y_true: Values, y_prob: Values, *, classes: Sequence[Hashable], weights: Values | None = None
) -> float:
    """Return the mean squared distance of the probabilities from the truth; lower is better.

    Of two classes it is that of the positive one, in [0, 1]; of more the sum over classes, in
    [0, 2]. Arguments as of `log_loss`.

    Source: Brier (1950), 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.
    """
    true, prob, own = scored(y_true, y_prob, classes, weights)
    apart = ((prob - (true[:, None] == np.arange(prob.shape[1]))) ** 2).sum(axis=1)
    return _mean(apart / 2 if prob.shape[1] == 2 else apart, own)


def expected_calibration_error(
    y_true: Values, y_prob: Values, *, classes: Sequence[Hashable], weights: Values | None = None
) -> float:
    """Return how far probabilities lie from the shares that come true, in [0, 1]; lower is better.

    Rows are put in ten bins of equal width by the positive class's probability, or of more than two
    classes by the largest one; the distance of a bin's mean from its share of positive, or of
    rightly called, rows is averaged over the rows. Arguments as of `log_loss`.

    Source: Naeini, Cooper and Hauskrecht (2015), 10.1609/aaai.v29i1.9602.
    """
    true, prob, own = scored(y_true, y_prob, classes, weights)
    two = prob.shape[1] == 2
    said = prob[:, 1] if two else prob.max(axis=1)
    came = true == (1 if two else prob.argmax(axis=1))
    place = np.minimum((said * BINS).astype(np.intp), BINS - 1)
    gaps = np.abs(np.bincount(place, own * (said - came), minlength=BINS))
    return float(ratio(gaps.sum(), own.sum()))


def calibration_slope(
    y_true: Values, y_prob: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> float:
    """Return b of logit P(positive) = a + b logit(y_prob); 1 is right.

    Below 1 probabilities are too sure (too near 0 and 1), above 1 too shy. NaN where a probability
    is 0 or 1, a class is absent, all probabilities are equal, or they separate the classes.

    Source: Cox (1958), 10.1093/biomet/45.3-4.562; Van Calster (2019), 10.1186/s12916-019-1466-7.
    """
    truth, logit, own = _logits(y_true, y_prob, positive, weights)
    if not truth.any() or truth.all() or not np.isfinite(logit).all() or not np.ptp(logit):
        return float("nan")
    if _ranks.area(truth, logit, own).area in (0.0, 1.0):
        return float("nan")
    design = np.stack([np.ones(len(logit)), logit])
    return float(_newton(design, np.zeros(len(logit)), truth, own)[1])


def calibration_intercept(
    y_true: Values, y_prob: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> float:
    """Return a of logit P(positive) = a + logit(y_prob), in logits; 0 is right.

    Above 0 probabilities are too low in the large, below 0 too high. NaN where a probability is 0
    or 1, or a class is absent.

    Source: Van Calster (2019), 10.1186/s12916-019-1466-7.
    """
    truth, logit, own = _logits(y_true, y_prob, positive, weights)
    if not truth.any() or truth.all() or not np.isfinite(logit).all():
        return float("nan")
    return float(_newton(np.ones((1, len(logit))), logit, truth, own)[0])


def _newton(
    design: np.ndarray, offset: np.ndarray, truth: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    """Return the coefficients of a logistic regression, shape (columns,); NaN if it runs away."""
    coefficient = np.zeros(len(design))
    for _ in range(ROUNDS):
        expected = 1 / (1 + np.exp(-np.clip(coefficient @ design + offset, -500, 500)))
        slope = (design * (weight * expected * (1 - expected))) @ design.T
        if np.linalg.cond(slope) > 1e12:
            return np.full(len(design), np.nan)
        step = np.linalg.solve(slope, design @ (weight * (truth - expected)))
        coefficient += step
        if np.abs(step).max() < 1e-10:
            return coefficient
    return np.full(len(design), np.nan)


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    return float(ratio(np.asarray(weight @ values), np.asarray(weight.sum())))


def _logits(
    y_true: Values, y_prob: Values, positive: Hashable, weights: Values | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, prob, own = ranked(y_true, y_prob, positive, weights)
    probabilities(prob, name="y_prob")
    with np.errstate(divide="ignore"):
        logit = np.log(prob) - np.log1p(-prob)
    return truth, logit, np.ones(len(truth)) if own is None else own
