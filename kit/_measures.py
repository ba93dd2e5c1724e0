"""Definitions of the metrics of labels and ranks: range, direction, and where they are undefined.

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
    given_weights,
    label_array,
    matches,
    ranked,
)
from kit.checks import same_length


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
    own = given_weights(weights, true)
    cells = confusion(matches(true, positive), matches(pred, positive), 2, own)
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
    return _ranks.area(*ranked(y_true, y_prob, positive, weights)).area


def average_precision(
    y_true: Values, y_prob: Values, *, positive: Hashable = 1, weights: Values | None = None
) -> float:
    """Return the average precision, in [0, 1]; the prevalence is chance, higher is better.

    It is the sum over distinct scores, from the highest down, of the sensitivity gained there times
    the PPV reached. NaN without a positive row. Arguments and errors as of `auc`.
    """
    return _ranks.average_precision(*ranked(y_true, y_prob, positive, weights))


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
    own = given_weights(weights, true)
    return float(
        np.mean([_ranks.area(true == c, prob[:, c], own).area for c in range(prob.shape[1])])
    )


def _cells(
    y_true: Values, y_pred: Values, classes: Sequence[Hashable], weights: Values | None
) -> np.ndarray:
    same_length(y_true=np.asarray(y_true), y_pred=np.asarray(y_pred))
    true, pred = class_codes(y_true, classes), class_codes(y_pred, classes)
    return confusion(true, pred, len(classes), given_weights(weights, true))


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
