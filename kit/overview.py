"""The figures of a run's report, drawn from its tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit import figures

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(
    cases: pd.DataFrame, folds: pd.DataFrame, history: pd.DataFrame, scored: pd.DataFrame,
    metrics: Mapping[str, Any], *, classes: Sequence[str], positive: str | None,
    final: pd.DataFrame | None,
) -> dict[str, Figure]:  # fmt: skip
    """Return the figures by name.

    Args:
        cases: The cases table.
        folds: The folds table.
        history: Loss and rate of each network's epochs.
        scored: One row a case: out-of-fold `prob_<class>`, `y_true`, nested `y_pred`.
        metrics: What `kit run --json` prints.
        classes: All classes.
        positive: The positive class of two; None above two.
        final: The joined predictions of the test cases, if there are any.
    """
    drawn = {
        "class_counts": figures.class_counts(cases),
        "fold_balance": figures.fold_balance(folds),
    }
    if len(history):
        drawn["history"] = figures.history(history)
    names = metrics["confusion_classes"]
    drawn["confusion_matrix"] = figures.confusion_matrix(np.asarray(metrics["confusion"]), names)
    drawn["forest"] = figures.forest(figure_table(metrics))
    drawn["probability_by_class"] = figures.probability_by_class(scored, positive=positive)
    if positive is not None:
        truth, prob = (scored.y_true == positive).to_numpy(), scored[f"prob_{positive}"].to_numpy()
        if 0 < truth.sum() < len(truth):
            drawn["roc"] = figures.roc(truth, prob, scored.group.to_numpy())
            drawn["metrics_against_threshold"] = figures.metrics_against_threshold(
                truth, prob, metrics["threshold"]
            )
        if final is not None:
            drawn["submission_distribution"] = figures.submission_distribution(
                prob, final[f"prob_{positive}"].to_numpy()
            )
    return drawn


def figure_table(metrics: Mapping[str, Any]) -> pd.DataFrame:
    """Return `metric, value, low, high` of the figures in a run's metrics; undefined is NaN."""
    rows = [
        {"metric": name, **{part: np.nan if v is None else v for part, v in found.items()}}
        for name, found in metrics.items()
        if isinstance(found, Mapping) and set(found) == {"value", "low", "high"}
    ]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])
