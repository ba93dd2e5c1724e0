"""The six metrics of the positive class, their mean, and every other figure of the kit.

All six come from one confusion matrix: TP, FP, FN and TN of the named positive class. A figure
whose denominator is zero is NaN: no epsilon turns it into a number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from kit._counts import FIGURES, SIX, mean_of_six, six_from_counts
from kit._measures import (
    Counts,
    auc,
    average_precision,
    balanced_accuracy,
    confusion_counts,
    macro_auc,
    macro_six,
    mcc,
    quadratic_kappa,
    six_metrics,
)
from kit._probable import (
    brier,
    calibration_intercept,
    calibration_slope,
    expected_calibration_error,
    log_loss,
)
from kit._report import OTHERS, Metric, Report, evaluate

__all__ = [
    "FIGURES", "OTHERS", "REGISTRY", "SIX", "Counts", "Measure", "Metric", "Report", "auc",
    "average_precision", "balanced_accuracy", "brier", "calibration_intercept",
    "calibration_slope", "confusion_counts", "evaluate", "expected_calibration_error", "log_loss",
    "macro_auc", "macro_six", "mcc", "mean_of_six", "quadratic_kappa", "six_from_counts",
    "six_metrics",
]  # fmt: skip


@dataclass(frozen=True)
class Measure:
    """A figure of two classes, as `REGISTRY` lists it.

    Args:
        function: From which rows are positive, bool, shape (n,), and `takes`, to the figure.
        takes: Decisions, bool, or probabilities of the positive class; shape (n,).
        low: Least value.
        high: Greatest value.
        best: The value of a perfect prediction.
    """

    function: Callable[[np.ndarray, np.ndarray], float]
    takes: Literal["y_pred", "y_prob"]
    low: float
    high: float
    best: float


def _six(name: str, y_true: np.ndarray, y_pred: np.ndarray) -> float:
    six = six_metrics(y_true, y_pred, positive=True)
    return float(mean_of_six(six)) if name == "mean_of_six" else six[name]


_TWO = {"classes": (False, True)}
_POSITIVE = {"positive": True}
REGISTRY: dict[str, Measure] = {
    **{n: Measure(partial(_six, n), "y_pred", 0, 1, 1) for n in (*SIX, "mean_of_six")},
    "balanced_accuracy": Measure(partial(balanced_accuracy, **_TWO), "y_pred", 0, 1, 1),
    "mcc": Measure(partial(mcc, **_TWO), "y_pred", -1, 1, 1),
    "quadratic_kappa": Measure(partial(quadratic_kappa, **_TWO), "y_pred", -1, 1, 1),
    "auc": Measure(partial(auc, **_POSITIVE), "y_prob", 0, 1, 1),
    "average_precision": Measure(partial(average_precision, **_POSITIVE), "y_prob", 0, 1, 1),
    "log_loss": Measure(partial(log_loss, **_TWO), "y_prob", 0, float("inf"), 0),
    "brier": Measure(partial(brier, **_TWO), "y_prob", 0, 1, 0),
    "expected_calibration_error": Measure(
        partial(expected_calibration_error, **_TWO), "y_prob", 0, 1, 0
    ),
}
"""Every figure that ranks models, by name."""
