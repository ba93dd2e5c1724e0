"""Definitions of every metric: what it is, its range, its direction, and where it is undefined.

Labels are compared with a named positive class. A figure whose denominator is zero is NaN: no
epsilon turns it into a number.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kit import _ranks
from kit._counts import SIX, macro, one_versus_rest, ratio, six_from_counts
from kit._labels import (
    Values,
    check_positive,
    class_codes,
    class_probabilities,
    label_array,
    matches,
    row_weights,
)
from kit.checks import probabilities, same_length
from kit.errors import TableError

BINS = 10
ROUNDS = 50  # of Newton's method; a dozen are used


class Counts(NamedTuple):
    """A binary confusion matrix; whole numbers unless rows are weighted."""

    tp: float
    fp: float
    fn: float
    tn: float


def six_metrics(
    y_true: Values, y_pred: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> dict[str, float]:
    """Return accuracy, specificity, sensitivity, PPV, NPV and F1 of the positive class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        positive: Label of the positive class; all others are negative.
        weights: Weight of each row, not negative, shape (n,); None: one each.

    Returns:
        The names of `SIX`, each in [0, 1], higher is better; defined as in `six_from_counts`, and
        NaN where undefined.

    Raises:
        TableError: Lengths differ, a label is empty, or `positive` cannot be one of the labels.
    """
    counts = confusion_counts(y_true, y_pred, positive=positive, weights=weights)
    return {name: float(value) for name, value in six_from_counts(*counts).items()}


def confusion_counts(
    y_true: Values, y_pred: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> Counts:
    """Return TP, FP, FN and TN of the positive class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        positive: Label of the positive class; all others are negative.
        weights: Weight of each row, not negative, shape (n,); None: one each.

    Raises:
        TableError: Lengths differ, a label is empty, or `positive` cannot be one of the labels.
    """
    true, pred = label_array(y_true, "y_true"), label_array(y_pred, "y_pred")
    same_length(y_true=true, y_pred=pred)
    check_positive(positive, y_true=true, y_pred=pred)
    cells = confusion(matches(true, positive), matches(pred, positive), 2, _weights(weights, true))
    (tn, fp), (fn, tp) = cells.tolist()
    return Counts(tp, fp, fn, tn)


def confusion(
    true: np.ndarray, pred: np.ndarray, classes: int, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return the rows of each true class (outer) given each class (inner), from codes."""
    cell = true.astype(np.intp)
    cell *= classes
    cell += pred
    return np.bincount(cell, weight, minlength=classes**2).reshape(classes, classes)


def balanced_accuracy(
    y_true: Values, y_pred: Values, *, classes: Sequence[Hashable], weights: Values | None = None
) -> float:
    """Return the mean over classes of the share of its rows that are given it.

    Of two classes that is (sensitivity + specificity) / 2. In [0, 1], higher is better; 1 / classes
    is chance. NaN where a class has no row.
    """
    return balanced_accuracy_of(_cells(y_true, y_pred, classes, weights))


def balanced_accuracy_of(cells: np.ndarray) -> float:
    """Return the balanced accuracy of a confusion matrix."""
    return float(ratio(np.diag(cells), cells.sum(axis=1)).mean())


def mcc(
    y_true: Values, y_pred: Values, *, classes: Sequence[Hashable], weights: Values | None = None
) -> float:
    """Return Matthews' correlation of truth and prediction; of several classes Gorodkin's.

    Of two classes (TP TN - FP FN) / sqrt((TP + FP) (TP + FN) (TN + FP) (TN + FN)). In [-1, 1],
    higher is better; 0 is chance. NaN where all rows are, or are called, one class.

    Source: Gorodkin (2004), 10.1016/j.compbiolchem.2004.09.006.
    """
    return mcc_of(_cells(y_true, y_pred, classes, weights))


def mcc_of(cells: np.ndarray) -> float:
    """Return Matthews' correlation of a confusion matrix."""
    cells = cells.astype(np.float64)
    n, true, called = cells.sum(), cells.sum(axis=1), cells.sum(axis=0)
    together = n * np.trace(cells) - true @ called
    alone = (n**2 - true @ true) * (n**2 - called @ called)
    return float(ratio(np.asarray(together), np.sqrt(np.asarray(alone))))


def quadratic_kappa(
    y_true: Values, y_pred: Values, *, classes: Sequence[Hashable], weights: Values | None = None
) -> float:
    """Return Cohen's kappa with quadratic weights, for graded labels.

    1 - sum w O / sum w E: w is the squared distance in grades, O the confusion matrix and E what
    its margins give by chance. In [-1, 1], higher is better; 0 is chance. NaN where all rows are,
    and are called, one class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        classes: All classes in the order of their grades.
        weights: Weight of each row, not negative, shape (n,); None: one each.

    Source: Cohen (1968), 10.1037/h0026256.
    """
    return quadratic_kappa_of(_cells(y_true, y_pred, classes, weights))


def quadratic_kappa_of(cells: np.ndarray) -> float:
    """Return the quadratic kappa of a confusion matrix, its classes in the order of grades."""
    grade = np.arange(len(cells))
    apart = (grade[:, None] - grade[None]) ** 2
    chance = np.outer(cells.sum(axis=1), cells.sum(axis=0)) / max(cells.sum(), 1e-300)
    return float(1 - ratio(np.asarray((apart * cells).sum()), np.asarray((apart * chance).sum())))


def macro_six(
    y_true: Values, y_pred: Values, classes: Sequence[Hashable], *, weights: Values | None = None
) -> dict[str, float]:
    """Return accuracy, and the mean over classes of the other five of each class against the rest.

    Accuracy is the share of rows given their own class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        classes: All classes.
        weights: Weight of each row, not negative, shape (n,); None: one each.

    Returns:
        The names of `SIX`, each in [0, 1]; NaN where undefined for one of the classes.

    Raises:
        TableError: Lengths differ, or a label is empty or not one of the classes.
    """
    found = macro(one_versus_rest(_cells(y_true, y_pred, classes, weights)))
    return {name: float(found[name]) for name in SIX}


def auc(
    y_true: Values, y_prob: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> float:
    """Return the area under the ROC curve, in [0, 1]; 0.5 is chance, higher is better.

    It is the share of pairs of a positive and a negative row in which the positive one has the
    higher score; a tie is half a pair. NaN if either class is absent.

    Args:
        y_true: True labels, shape (n,).
        y_prob: Probability or any other score, higher for positive, shape (n,).
        positive: Label of the positive class.
        weights: Weight of each row, not negative, shape (n,); None: one each.

    Raises:
        TableError: Lengths differ, a label or score is empty, or `positive` cannot be a label.
    """
    return _ranks.area(*_ranked(y_true, y_prob, positive, weights)).area


def average_precision(
    y_true: Values, y_prob: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> float:
    """Return the average precision, in [0, 1]; the prevalence is chance, higher is better.

    It is the sum over distinct scores, from the highest down, of the sensitivity gained there times
    the PPV reached. NaN without a positive row. Arguments and errors as of `auc`.
    """
    return _ranks.average_precision(*_ranked(y_true, y_prob, positive, weights))


def macro_auc(
    y_true: Values, y_prob: Values, classes: Sequence[Hashable], *, weights: Values | None = None
) -> float:
    """Return the mean over classes of the AUC of each class against the rest, in [0, 1].

    Args:
        y_true: True labels, shape (n,).
        y_prob: Probabilities, shape (n, classes), in the order of `classes`.
        classes: All classes.
        weights: Weight of each row, not negative, shape (n,); None: one each.

    Returns:
        NaN if a class is absent.

    Raises:
        TableError: Lengths differ, or a label or probability is not what it must be.
    """
    true, prob = class_codes(y_true, classes), class_probabilities(y_prob, classes)
    same_length(y_true=true, y_prob=prob)
    own = _weights(weights, true)
    return float(
        np.mean([_ranks.area(true == c, prob[:, c], own).area for c in range(prob.shape[1])])
    )


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
    true, prob, own = _scored(y_true, y_prob, classes, weights)
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
    true, prob, own = _scored(y_true, y_prob, classes, weights)
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
    true, prob, own = _scored(y_true, y_prob, classes, weights)
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


def _weights(weights: Values | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weights is None else row_weights(weights, len(rows))


def _mean(values: np.ndarray, weight: np.ndarray) -> float:
    return float(ratio(np.asarray(weight @ values), np.asarray(weight.sum())))


def _cells(
    y_true: Values, y_pred: Values, classes: Sequence[Hashable], weights: Values | None
) -> np.ndarray:
    same_length(y_true=np.asarray(y_true), y_pred=np.asarray(y_pred))
    true, pred = class_codes(y_true, classes), class_codes(y_pred, classes)
    return confusion(true, pred, len(classes), _weights(weights, true))


def _ranked(
    y_true: Values, y_prob: Values, positive: Hashable, weights: Values | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    true, score = label_array(y_true, "y_true"), np.asarray(y_prob, dtype=np.float64)
    same_length(y_true=true, y_prob=score)
    check_positive(positive, y_true=true)
    if np.isnan(score).any():
        raise TableError("scores hold NaN", received=f"{int(np.isnan(score).sum())} rows")
    return matches(true, positive), score, _weights(weights, true)


def _scored(
    y_true: Values, y_prob: Values, classes: Sequence[Hashable], weights: Values | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return codes of the truth, probabilities of shape (n, classes), and weights."""
    prob = np.asarray(y_prob, dtype=np.float64)
    if prob.ndim == 1 and len(classes) == 2:
        prob = probabilities(prob, name="y_prob")
        prob = np.stack([1 - prob, prob], axis=1)
    prob, true = class_probabilities(prob, classes), class_codes(y_true, classes)
    same_length(y_true=true, y_prob=prob)
    own = _weights(weights, true)
    return true, prob, np.ones(len(true)) if own is None else own


def _logits(
    y_true: Values, y_prob: Values, positive: Hashable, weights: Values | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, prob, own = _ranked(y_true, y_prob, positive, weights)
    probabilities(prob, name="y_prob")
    with np.errstate(divide="ignore"):
        logit = np.log(prob) - np.log1p(-prob)
    return truth, logit, np.ones(len(truth)) if own is None else own


def table_of_classes(
    cells: np.ndarray, names: Sequence[str], areas: Sequence[float]
) -> pd.DataFrame:
    """Return a row for each class against the rest: `class`, `n`, the six, and `auc`.

    Args:
        cells: Confusion matrix, shape (classes, classes).
        names: The classes.
        areas: AUC of each class against the rest.
    """
    tp = np.diag(cells)
    true, called = cells.sum(axis=1), cells.sum(axis=0)
    six = six_from_counts(tp, called - tp, true - tp, cells.sum() - called - true + tp)
    return pd.DataFrame({"class": list(names), "n": true, **six, "auc": list(areas)})
