"""Which feature or classifier scores slides, chosen on the slides that are given."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit import _learners
from kit._ranks import area
from kit.checks import columns, first
from kit.errors import MissingMppError
from kit.rules import Rule, probability
from kit.slide_features import LEARNT_FROM

log = logging.getLogger(__name__)

EQUAL = 1e-12  # areas that differ by less are equal


@dataclass(frozen=True)
class Choice:
    """What scores slides: a feature, or a classifier of features.

    Attributes:
        name: Of the feature or the classifier.
        learner: The classifier; None where it is a feature.
        auc: AUC of the feature on the slides that it was chosen on; NaN of a classifier.
        slides: How many they were.
    """

    name: str
    learner: _learners.Learner | None = None
    auc: float = float("nan")
    slides: int = 0

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the positive class's probability of each row; 0 without a patch.

        Raises:
            TableError: A feature is missing.
            MissingMppError: It is an area, and a slide has no mpp.
        """
        if self.learner is None:
            return _known(rows, self.name)
        return np.where(rows["no_patch"] == 1, 0.0, self.learner.predict(rows))


def choose(rule: Rule, rows: pd.DataFrame, positive: str, use: str) -> Choice:
    """Return what scores best on these rows.

    Args:
        rule: What is chosen for.
        rows: A row for each slide and network: `case_id`, `y_true` and the features; classifiers
            do not learn from slides without a patch.
        positive: The positive class.
        use: What the choice is for, as the log says it.
    """
    if rule.learnt:
        rows = rows[rows["no_patch"] == 0]
    truth = (rows["y_true"] == positive).to_numpy(bool)
    slides, code = np.unique(rows["case_id"].to_numpy(str), return_inverse=True)
    networks = np.bincount(code)
    if truth.all() or not truth.any():
        if rule.learnt or len(rule.columns) > 1:
            log.warning("rule %s: %s scores %s, for want of other slides of both classes",
                        rule, rule.columns[0], use)  # fmt: skip
        return Choice(rule.columns[0], slides=len(slides))
    if rule.learnt:
        learner = _learners.fit(rule.name, rows, LEARNT_FROM, truth, 1 / networks[code])
        return Choice(rule.name, learner, slides=len(slides))
    is_positive = np.bincount(code, weights=truth) > 0
    best = Choice(rule.columns[0], auc=-1.0)
    for column in _candidates(rule, rows):
        mean = np.bincount(code, weights=_known(rows, column)) / networks
        found = area(is_positive, mean).area
        if found > best.auc + EQUAL:
            best = Choice(column, auc=found, slides=len(slides))
    return best


def ties(table: pd.DataFrame, positive: str) -> dict[str, int]:
    """Return how many cases share their score with another, and with one of the other class.

    Args:
        table: Predictions table; a case's score is the mean over its networks.
        positive: The positive class.
    """
    by = table.groupby("case_id").agg(score=(f"prob_{positive}", "mean"), truth=("y_true", "first"))
    shared = by.groupby("score")["truth"].agg(["size", "nunique"])
    many, mixed = shared["size"] > 1, shared["nunique"] > 1
    return {"any": int(shared["size"][many].sum()), "other_class": int(shared["size"][mixed].sum())}


def _candidates(rule: Rule, rows: pd.DataFrame) -> list[str]:
    """Return the features to choose from; `best` goes without those that a slide lacks."""
    columns(rows, rule.columns)
    if rule.name != "best":
        return list(rule.columns)
    return [column for column in rule.columns if rows[column].notna().all()]


def _known(rows: pd.DataFrame, column: str) -> np.ndarray:
    """Return a feature as probabilities, if each slide has it."""
    score = columns(rows, [column])[column].to_numpy(np.float64)
    if np.isnan(score).any():
        raise MissingMppError(
            f"rule {column} needs the area of a slide's patches, which is not known",
            received=first(rows["case_id"][np.isnan(score)].unique()),
            remedy="give the dataset's mpp and one patch size, or choose a rule without areas",
        )  # fmt: skip
    return probability(column, score)
