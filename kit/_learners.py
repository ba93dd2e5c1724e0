"""Classifiers of slides on few features: fitted alike anywhere, kept as JSON, without pickle."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from kit.checks import columns, first
from kit.errors import TableError
from kit.rules import probability

log = logging.getLogger(__name__)

RIDGE = 1.0  # of the standardised coefficients
TREES, LEAVES, RATE, LEAST = 60, 4, 0.1, 5  # LEAST: slides of a leaf
SAME = 1e-6  # predictions that differ by less are equal


@dataclass(frozen=True, eq=False)
class Learner:
    """A fitted classifier of slides.

    scikit-learn has no way to write boosted trees but pickle, so that boosting keeps the rows that
    it was fitted to, and is fitted to them again where it is read.

    Attributes:
        name: `logistic` or `boosting`.
        columns: The features that it takes.
        state: `mean`, `scale`, `weights` and `intercept` of the standardised features; or `rows`,
            `truth` and `weight` of boosting, and `said`, its probabilities of these rows.
    """

    name: str
    columns: tuple[str, ...]
    state: Mapping[str, Any]

    def predict(self, table: pd.DataFrame) -> np.ndarray:
        """Return the positive class's probability of each row.

        Raises:
            TableError: A feature is missing that was there to learn from.
        """
        design = _design(table, self.columns)
        bare = np.isnan(design).any(axis=0)
        if bare.any():
            missing = [name for name, no in zip(self.columns, bare, strict=True) if no]
            raise TableError(
                f"rule {self.name} lacks what it learnt from", received=f"no {first(missing)}",
                remedy="areas need the slide's mpp, regions one patch size",
            )  # fmt: skip
        if self.name == "logistic":
            from scipy.special import expit

            apart = (design - np.asarray(self.state["mean"])) / np.asarray(self.state["scale"])
            weights = np.asarray(self.state["weights"])
            return np.asarray(expit(apart @ weights + self.state["intercept"]))
        return _said(self._trees, design)

    @cached_property
    def _trees(self) -> Any:
        rows, truth, weight = (np.asarray(self.state[k]) for k in ("rows", "truth", "weight"))
        found = _boosted(rows, truth, weight)
        off = float(np.abs(_said(found, rows) - np.asarray(self.state["said"])).max())
        if off > SAME:
            log.warning("boosting differs by up to %.2g from what it said when it was fitted: "
                        "this is another version of scikit-learn", off)  # fmt: skip
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` rebuilds the classifier from, in JSON's types."""
        return {"name": self.name, "columns": list(self.columns), "state": dict(self.state)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Learner:
        """Return the classifier that `to_dict` described."""
        return cls(values["name"], tuple(values["columns"]), values["state"])


def fit(
    name: str, table: pd.DataFrame, features: Sequence[str], truth: np.ndarray, weight: np.ndarray
) -> Learner:
    """Return a classifier; a feature that is not known of each row is left out.

    Args:
        name: `logistic` or `boosting`.
        table: A row for each slide and network, with the features.
        features: Their names.
        truth: bool, shape (rows,), both classes.
        weight: Of each row, shape (rows,); a slide's rows weigh 1 together.
    """
    design = _design(table, features)
    known = ~np.isnan(design).any(axis=0)
    kept, design = tuple(np.asarray(features)[known].tolist()), design[:, known]
    if name == "boosting":
        said = _said(_boosted(design, truth, weight), design)
        state = {"rows": design, "truth": truth, "weight": weight, "said": said}
        return Learner(name, kept, {key: value.tolist() for key, value in state.items()})
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    mean, spread = design.mean(axis=0), design.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    found = LogisticRegression(C=1 / RIDGE, max_iter=1000, tol=1e-8)
    with threadpool_limits(1):  # ten times as fast on so few rows where cores are busy
        found.fit((design - mean) / scale, truth, sample_weight=weight)
    return Learner(name, kept, {
        "mean": mean.tolist(), "scale": scale.tolist(), "weights": found.coef_[0].tolist(),
        "intercept": float(found.intercept_[0]),
    })  # fmt: skip


def _design(table: pd.DataFrame, features: Sequence[str]) -> np.ndarray:
    columns(table, features)
    parts = [probability(name, table[name].to_numpy(np.float64)) for name in features]
    return np.stack(parts, axis=1)


def _boosted(design: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    found = HistGradientBoostingClassifier(
        max_iter=TREES, max_leaf_nodes=LEAVES, learning_rate=RATE, l2_regularization=1.0,
        min_samples_leaf=max(1, round(LEAST * len(design) / weight.sum())),
        early_stopping=False, random_state=0,
    )  # fmt: skip
    with threadpool_limits(1):
        return found.fit(design, truth, sample_weight=weight)


def _said(trees: Any, design: np.ndarray) -> np.ndarray:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return np.asarray(trees.predict_proba(design)[:, 1])
