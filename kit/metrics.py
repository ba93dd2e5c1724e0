"""The six metrics of the positive class, their mean, and the area under the ROC curve.

All come from one confusion matrix: TP, FP, FN and TN of the named positive class. A figure whose
denominator is zero is NaN: no epsilon turns it into a number.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from kit import intervals
from kit._labels import (
    Values,
    check_positive,
    class_codes,
    class_probabilities,
    group_codes,
    label_array,
    matches,
    two_classes,
)
from kit._sample import (
    FIGURES,
    SIX,
    Ranking,
    Sample,
    cell_of,
    macro,
    mean_of_six,
    one_versus_rest,
    six_from_counts,
)
from kit.checks import fraction, probabilities, same_length
from kit.errors import SettingsError, TableError

__all__ = [
    "FIGURES",
    "SIX",
    "Counts",
    "Metric",
    "Report",
    "auc",
    "confusion_counts",
    "evaluate",
    "macro_auc",
    "macro_six",
    "mean_of_six",
    "six_from_counts",
    "six_metrics",
]

MANY_UNDEFINED = 0.05  # share of resamples


class Counts(NamedTuple):
    """A binary confusion matrix."""

    tp: int
    fp: int
    fn: int
    tn: int


@dataclass(frozen=True)
class Metric:
    """A figure and its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Args:
        metrics: The figures named in `FIGURES`, in that order.
        n: Rows.
        n_groups: Groups (patients) that the intervals were drawn over; rows where none were given.
        threshold: Probability from which a row was called positive; None where decisions were
            given without one, or for more than two classes.
        classes: Names of the confusion matrix's rows and columns; the positive one is the last.
        confusion: Rows of each true class (outer) given each class (inner).
        reasons: For a figure, why it or its interval is undefined, or drawn from fewer resamples.
        warnings: What makes the figures less sure than they look.
    """

    metrics: dict[str, Metric]
    n: int
    n_groups: int
    threshold: float | None
    classes: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    reasons: dict[str, str]
    warnings: tuple[str, ...]

    def __getitem__(self, name: str) -> Metric:
        """Return one figure by its name."""
        return self.metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, each `{"value", "low", "high"}`, and all else, under their names."""
        return {
            **{
                name: {"value": metric.value, "low": metric.low, "high": metric.high}
                for name, metric in self.metrics.items()
            },
            "n": self.n,
            "n_groups": self.n_groups,
            "threshold": self.threshold,
            "classes": list(self.classes),
            "confusion": [list(row) for row in self.confusion],
            "reasons": dict(self.reasons),
            "warnings": list(self.warnings),
        }

    def table(self) -> pd.DataFrame:
        """Return one row a figure: `metric`, `value`, `low`, `high`."""
        rows = [(name, m.value, m.low, m.high) for name, m in self.metrics.items()]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def six_metrics(y_true: Values, y_pred: Values, *, positive: Hashable = 1) -> dict[str, float]:
    """Return accuracy, specificity, sensitivity, PPV, NPV and F1 of the positive class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        positive: Label of the positive class; all others are negative.

    Returns:
        The names of `SIX`, each in [0, 1], higher is better; defined as in `six_from_counts`, and
        NaN where undefined.

    Raises:
        TableError: Lengths differ, a label is empty, or `positive` cannot be one of the labels.
    """
    six = six_from_counts(*confusion_counts(y_true, y_pred, positive=positive))
    return {name: float(value) for name, value in six.items()}


def confusion_counts(y_true: Values, y_pred: Values, *, positive: Hashable = 1) -> Counts:
    """Return TP, FP, FN and TN of the positive class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        positive: Label of the positive class; all others are negative.

    Raises:
        TableError: Lengths differ, a label is empty, or `positive` cannot be one of the labels.
    """
    true, pred = label_array(y_true, "y_true"), label_array(y_pred, "y_pred")
    same_length(y_true=true, y_pred=pred)
    check_positive(positive, y_true=true, y_pred=pred)
    cells = np.bincount(cell_of(matches(true, positive), matches(pred, positive)), minlength=4)
    return Counts(*map(int, cells))


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
        weights: Weight of each row, not negative, shape (n,).

    Raises:
        TableError: Lengths differ, a label or score is empty, or `positive` cannot be a label.
    """
    true, score = label_array(y_true, "y_true"), np.asarray(y_prob, dtype=np.float64)
    weight = np.ones(len(true)) if weights is None else np.asarray(weights, dtype=np.float64)
    same_length(y_true=true, y_prob=score, weights=weight)
    check_positive(positive, y_true=true)
    if np.isnan(score).any():
        raise TableError("scores hold NaN", received=f"{int(np.isnan(score).sum())} rows")
    return float(Ranking(matches(true, positive), score).auc(weight[None])[0])


def macro_six(y_true: Values, y_pred: Values, classes: Sequence[Hashable]) -> dict[str, float]:
    """Return accuracy, and the mean over classes of the other five of each class against the rest.

    Accuracy is the share of rows given their own class.

    Args:
        y_true: True labels, shape (n,).
        y_pred: Predicted labels, shape (n,).
        classes: All classes.

    Returns:
        The names of `SIX`, each in [0, 1]; NaN where undefined for one of the classes.

    Raises:
        TableError: Lengths differ, or a label is empty or not one of the classes.
    """
    same_length(y_true=np.asarray(y_true), y_pred=np.asarray(y_pred))
    true, pred = class_codes(y_true, classes), class_codes(y_pred, classes)
    counts = one_versus_rest(true, pred, len(classes)).T[:, :, None]
    return {name: float(value[0]) for name, value in macro(counts).items()}


def macro_auc(y_true: Values, y_prob: Values, classes: Sequence[Hashable]) -> float:
    """Return the mean over classes of the AUC of each class against the rest, in [0, 1].

    Args:
        y_true: True labels, shape (n,).
        y_prob: Probabilities, shape (n, classes), in the order of `classes`.
        classes: All classes.

    Returns:
        NaN if a class is absent.

    Raises:
        TableError: Lengths differ, or a label or probability is not what it must be.
    """
    prob, true = class_probabilities(y_prob, classes), class_codes(y_true, classes)
    same_length(y_true=true, y_prob=prob)
    ones = np.ones((1, len(true)))
    return float(
        np.mean([Ranking(true == c, prob[:, c]).auc(ones)[0] for c in range(len(classes))])
    )


def evaluate(
    y_true: Values,
    y_prob: Values,
    *,
    threshold: float | None,
    groups: Values | None = None,
    classes: Sequence[Hashable] | None = None,
    positive: Hashable = 1,
    y_pred: Values | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Report:
    """Return the six metrics, their mean and the AUC, with 95 % intervals over groups.

    Intervals are percentiles of a bootstrap that draws whole groups. Above two classes a row is
    given the class of the largest probability, and the figures are means over one-versus-rest.

    Args:
        y_true: True labels, shape (n,).
        y_prob: Probability of the positive class, shape (n,), in [0, 1]; for more than two
            classes shape (n, classes), in the order of `classes`.
        threshold: `y_prob >= threshold` is positive. With `y_pred` it is only reported. None for
            more than two classes.
        groups: Group (patient) of each row, shape (n,); None: each row is its own.
        classes: All classes; needed for more than two, else read off the labels.
        positive: Label of the positive class of two.
        y_pred: Decisions made elsewhere (by nested thresholds): labels, or for two classes bool,
            True for the positive class; shape (n,).
        resamples: Resamples of the bootstrap.
        seed: Seeds the bootstrap.

    Raises:
        SettingsError: There is neither a threshold nor `y_pred`, or the threshold is out of range.
        TableError: Lengths differ, there are no rows, or a label, group or probability is not
            what it must be.
    """
    true = label_array(y_true, "y_true")
    if not len(true):
        raise TableError("no rows to evaluate")
    if np.ndim(y_prob) == 2:
        if threshold is not None:
            raise SettingsError("several classes take no threshold", received=f"{threshold}")
        sample = _many(true, y_prob, y_pred, classes)
    else:
        sample = _binary(true, y_prob, y_pred, classes, positive, threshold)
    group, n_groups = group_codes(groups, len(true))
    values, reasons = sample.values()
    metrics = {name: Metric(value, np.nan, np.nan) for name, value in values.items()}
    if n_groups > 1:
        metrics = _with_intervals(sample, values, reasons, (group, n_groups, resamples, seed))
    return Report(
        metrics=metrics,
        n=len(true),
        n_groups=n_groups,
        threshold=None if threshold is None else float(threshold),
        classes=sample.names,
        confusion=sample.confusion(),
        reasons=reasons,
        warnings=tuple(sample.warnings(group, n_groups)),
    )


def _binary(
    true: np.ndarray,
    y_prob: Values,
    y_pred: Values | None,
    classes: Sequence[Hashable] | None,
    positive: Hashable,
    threshold: float | None,
) -> Sample:
    prob = probabilities(np.asarray(y_prob), name="y_prob")
    same_length(y_true=true, y_prob=prob)
    if threshold is not None:
        fraction("threshold", threshold)
    named = [true]
    if y_pred is not None:
        pred = label_array(y_pred, "y_pred")
        same_length(y_true=true, y_pred=pred)
        if pred.dtype == bool and true.dtype != bool:
            called = pred
        else:
            called = matches(pred, positive)
            named.append(pred)
    elif threshold is not None:
        called = prob >= threshold
    else:
        raise SettingsError("two classes need a threshold, or y_pred")
    names = two_classes(named, classes, positive)
    is_positive = matches(true, positive)
    ranking = Ranking(is_positive, prob)
    return Sample(names, is_positive.astype(np.intp), called.astype(np.intp), (ranking,))


def _many(
    true: np.ndarray,
    y_prob: Values,
    y_pred: Values | None,
    classes: Sequence[Hashable] | None,
) -> Sample:
    if classes is None or len(classes) < 3:
        raise TableError(
            "probabilities of two dimensions are for three classes or more, all named",
            received=f"shape {np.shape(y_prob)}, classes={classes}",
            remedy="for two classes give the positive one's probability, shape (n,)",
        )
    prob = class_probabilities(y_prob, classes)
    same_length(y_true=true, y_prob=prob)
    code = class_codes(true, classes)
    called = prob.argmax(axis=1) if y_pred is None else class_codes(y_pred, classes)
    same_length(y_true=true, y_pred=called)
    rankings = tuple(Ranking(code == c, prob[:, c]) for c in range(len(classes)))
    return Sample(tuple(map(str, classes)), code, called, rankings)


def _with_intervals(
    sample: Sample,
    values: dict[str, float],
    reasons: dict[str, str],
    drawing: tuple[np.ndarray, int, int, int],
) -> dict[str, Metric]:
    """Return the figures with intervals, and add to `reasons` where resamples were left out."""
    group, n_groups, resamples, seed = drawing
    drawn = intervals.bootstrap(
        sample.figures(group, n_groups), n_groups,
        resamples=resamples, seed=seed, width=len(group),
    )  # fmt: skip
    metrics = {}
    for name in FIGURES:
        low, high = np.nan, np.nan
        if not np.isnan(values[name]):
            low, high = intervals.percentile(drawn[name])
            lost = float(np.isnan(drawn[name]).mean())
            if lost > MANY_UNDEFINED:
                reasons[name] = f"undefined in {lost:.0%} of the resamples, which are left out"
        metrics[name] = Metric(values[name], low, high)
    return metrics
