"""From out-of-fold predictions to decisions and figures, each free of the rows it is applied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kit.checks import first
from kit.ensemble import Ensemble
from kit.metrics import evaluate
from kit.thresholds import choose, nested


@dataclass(frozen=True)
class Scored:
    """Joined out-of-fold predictions and the decisions made on them.

    Attributes:
        table: One row a case: `case_id, group, y_true, fold`, `prob_<class>`, and `y_pred`, decided
            by a threshold chosen on the other folds (above two classes: the likeliest class).
        threshold: The frozen threshold of the positive class, for rows that come later; None
            above two classes.
        rule: Where the decisions come from, in words.
        classes: All classes.
        positive: The positive class of two; None above two.
    """

    table: pd.DataFrame
    threshold: float | None
    rule: str
    classes: tuple[str, ...]
    positive: str | None


def score(
    oof: pd.DataFrame,
    folds: pd.DataFrame,
    ensemble: Ensemble,
    *,
    classes: Sequence[str],
    positive: str | None,
    method: float | str,
) -> Scored:
    """Join the networks' out-of-fold predictions and decide on each case.

    Where there is one fold or one class only, nothing can be chosen and the threshold is .5.

    Args:
        oof: Out-of-fold predictions table.
        folds: Folds table.
        ensemble: How a case's predictions are joined.
        classes: All classes.
        positive: The positive class of two; None above two.
        method: See `kit.thresholds.choose`.
    """
    table = ensemble.predict(oof).merge(folds[["case_id", "fold"]], on="case_id", how="left")
    if positive is None:
        each = table[[f"prob_{name}" for name in classes]].to_numpy()
        y_pred = np.asarray(classes, dtype=object)[each.argmax(axis=1)]
        rule = "the likeliest class"
        return Scored(table.assign(y_pred=y_pred), None, rule, tuple(classes), None)
    truth, prob = (table.y_true == positive).to_numpy(), table[f"prob_{positive}"].to_numpy()
    rule = "thresholds nested by fold, each chosen on the other folds"
    if not isinstance(method, str):
        rule = "the threshold given"
    elif table.fold.nunique() < 2 or table.y_true.nunique() < 2:
        method, rule = 0.5, "threshold .5: one fold or one class leaves nothing to choose it on"
    called, _ = nested(truth, prob, table.fold.to_numpy(), method)
    (other,) = [name for name in classes if name != positive]
    table["y_pred"] = np.where(called, positive, other)
    return Scored(table, choose(truth, prob, method), rule, tuple(classes), positive)


def figures(
    scored: Scored, *, n_folds: int, resamples: int, seed: int, caution: str | None = None
) -> dict[str, Any]:
    """Return the six metrics, their mean and the AUC with intervals over groups.

    Args:
        scored: The decisions.
        n_folds: Folds of the whole run; with fewer in the table a warning says so.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        caution: What the data set's entry warns of.

    Returns:
        The keys of `kit run --json` that speak of figures, with the confusion matrix
        (rows: truth) and its classes.
    """
    table, positive, classes = scored.table, scored.positive, scored.classes
    names = [f"prob_{name}" for name in classes]
    report = evaluate(
        table.y_true, table[f"prob_{positive}"] if positive else table[names].to_numpy(),
        threshold=scored.threshold, groups=table.group, classes=classes,
        positive=positive or classes[-1], y_pred=table.y_pred, resamples=resamples, seed=seed,
    )  # fmt: skip
    found = report.to_dict()
    done = sorted(int(fold) for fold in table.fold.unique())
    partial = [f"only folds {first(done)} are in these figures"] if len(done) < n_folds else []
    return {
        **found,
        "warnings": [*([caution] if caution else []), *found["warnings"], *partial],
        "decided_by": scored.rule,
        "confusion": [list(row) for row in report.confusion],
        "confusion_classes": list(report.classes),
    }
