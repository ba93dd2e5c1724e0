"""Figures of confusion counts: the six, their mean, and their means over classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

SIX = ("accuracy", "specificity", "sensitivity", "ppv", "npv", "f1")
FIGURES = (*SIX, "mean_of_six", "auc")


def six_from_counts(
    tp: npt.ArrayLike, fp: npt.ArrayLike, fn: npt.ArrayLike, tn: npt.ArrayLike
) -> dict[str, np.ndarray]:
    """Return the six metrics of many confusion matrices at once.

    Args:
        tp: Positive, called positive; any shape, the same for all four.
        fp: Negative, called positive.
        fn: Positive, called negative.
        tn: Negative, called negative.

    Returns:
        For each name of `SIX`, float64 of that shape in [0, 1], higher is better:
        accuracy (TP + TN) / all, specificity TN / (TN + FP), sensitivity TP / (TP + FN),
        ppv TP / (TP + FP), npv TN / (TN + FN), f1 2 TP / (2 TP + FP + FN);
        NaN where the denominator is 0.
    """
    tp, fp, fn, tn = (np.asarray(values, dtype=np.float64) for values in (tp, fp, fn, tn))
    return {
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
        "specificity": ratio(tn, tn + fp),
        "sensitivity": ratio(tp, tp + fn),
        "ppv": ratio(tp, tp + fp),
        "npv": ratio(tn, tn + fn),
        "f1": ratio(2 * tp, 2 * tp + fp + fn),
    }


def mean_of_six(six: Mapping[str, Any]) -> Any:
    """Return the mean of the six metrics, in [0, 1]; NaN where one of them is undefined.

    Args:
        six: The names of `SIX`, numbers or arrays of one shape.
    """
    mean = np.mean([six[name] for name in SIX], axis=0)
    return float(mean) if np.ndim(mean) == 0 else mean


def macro(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the six metrics over classes, and their mean.

    The mean of each class's accuracy against the rest would count a row that two classes of five
    get wrong as three fifths right; accuracy stays what it is called, the share of rows given their
    class.

    Args:
        counts: TP, FP, FN, TN of each class against the rest, shape (4, classes, some); of one
            class alone, the positive of two, its own figures are returned.
    """
    found = {name: np.asarray(v.mean(axis=0)) for name, v in six_from_counts(*counts).items()}
    if counts.shape[1] > 1:
        found["accuracy"] = ratio(counts[0].sum(axis=0), counts[:, 0].sum(axis=0))
    return {**found, "mean_of_six": np.asarray(mean_of_six(found))}


def one_versus_rest(confusion: np.ndarray) -> np.ndarray:
    """Return TP, FP, FN, TN of the classes asked about; of two classes that is the last alone.

    Args:
        confusion: Rows of each true class given each class, shape (classes, classes, ...).

    Returns:
        shape (4, classes or 1, ...).
    """
    tp = np.einsum("kk...->k...", confusion)
    true, called, rows = confusion.sum(axis=1), confusion.sum(axis=0), confusion.sum(axis=(0, 1))
    found = np.stack([tp, called - tp, true - tp, rows - called - true + tp])
    return found[:, 1:] if len(confusion) == 2 else found


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, NaN where bottom is 0."""
    out = np.full(np.shape(bottom), np.nan)
    return np.asarray(np.divide(top, bottom, out=out, where=np.asarray(bottom) != 0))
