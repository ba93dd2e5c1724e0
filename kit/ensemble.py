"""Several models' predictions joined to one for each case, by `case_id` and never by position.

Whatever is fitted is fitted to out-of-fold predictions and frozen: ranks are taken against the
out-of-fold scores and never within the batch that is predicted, so that a case's score does not
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kit import _members
from kit._members import Budget, Objective
from kit._votes import KEY, PREFIX, Votes, votes
from kit.checks import choice, first, labels
from kit.errors import KitError, SettingsError, TableError

__all__ = ["KEY", "METHODS", "PREFIX", "Ensemble", "nested", "path_of_gain"]

METHODS = {
    "mean": "all models weigh the same",
    "weighted": "the mean by given weights",
    "geometric": "the mean of the logarithms, made to sum to 1",
    "rank": "the mean rank among the out-of-fold scores",
    "zscore": "the weighted sum of z-scores, as a normal probability (HeLP 2019)",
    "greedy": "models added one by one while the mean gets better, with replacement",
    "bagged_greedy": "the mean of greedy choices among random halves of the models",
    "stacked": "a logistic regression of the logits, no weight below 0",
}
TWO_CLASSES = ("rank", "zscore", "stacked")
POINTS = 201  # of a frozen reference
EDGE = 1e-6  # nearest to 0 and 1 that a logit is taken of
ALIKE = 0.999  # rank correlation from which two models are near copies


@dataclass(frozen=True)
class Ensemble:
    """A way to join models. `fit` returns a fitted copy; nothing is changed in place.

    Each model's rows of a case (its folds and seeds) are averaged first, then the models are
    joined, so that a model with more seeds has no more votes.

    Args:
        method: A name of `METHODS`; a hyphen is an underscore.
        given: Weights by model, for `weighted` and `zscore`.
        objective: What greedy choices make as good as can be: a name of `kit.metrics.REGISTRY`, or
            a function as `kit._members.Objective`.
        positive: Positive class of two; None: the last one.
        seed: Of `bagged_greedy`.
        max_models: Most models of the ensemble.
        costs: Costs by model, such as `{"a": {"mb": 90, "seconds": 400}}`.
        limits: Limit of the sum of a cost over the ensemble's models, such as `{"mb": 300}`.
        classes: Set by `fit`: the classes, in the order of the `prob_` columns.
        models: Set by `fit`: the models, sorted.
        weights: Set by `fit`: the weight of each model; 0 leaves it out.
        state: Set by `fit`: what `rank`, `zscore` and `stacked` froze, by model.
    """

    method: str = "mean"
    given: Mapping[str, float] | None = None
    objective: str | Objective = "auc"
    positive: str | None = None
    seed: int = 0
    max_models: int | None = None
    costs: Mapping[str, Mapping[str, float]] | None = None
    limits: Mapping[str, float] | None = None
    classes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    state: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", self.method.replace("-", "_"))
        choice("ensemble", self.method, METHODS)

    def fit(self, oof: pd.DataFrame | Sequence[pd.DataFrame]) -> Ensemble:
        """Return an ensemble fitted to out-of-fold predictions.

        Args:
            oof: Predictions table, or several of them.

        Raises:
            SettingsError: Weights, costs or limits do not fit the models, or there is but one model
                to choose from.
            TableError: As in `predict`; or the method needs two classes, or the truth.
        """
        return self._fitted(votes(oof))

    def _fitted(self, found: Votes) -> Ensemble:
        if self.method in TWO_CLASSES and len(found.classes) != 2:
            raise TableError(f"ensemble {self.method} joins two classes",
                             received=", ".join(found.classes),
                             remedy="mean, geometric, greedy or bagged-greedy")  # fmt: skip
        if self.positive is not None and len(found.classes) == 2:
            choice("positive", self.positive, found.classes)
        weights = self._weights(found)
        state = self._state(found, weights)
        if self.method == "stacked":
            weights = np.asarray(state.pop("coefficients")) if state else weights
        return replace(
            self, classes=found.classes, models=found.models,
            weights=tuple(map(float, weights)), state=state or None,
        )  # fmt: skip

    def _weights(self, found: Votes) -> np.ndarray:
        n = len(found.models)
        if self.method in ("weighted", "zscore") and self.given is not None:
            return _given(self.given, found.models)
        if self.method == "weighted":
            raise SettingsError("ensemble weighted needs weights", expected="one for each model",
                                received="none")  # fmt: skip
        budget = self._budget(found.models)
        if self.method in ("greedy", "bagged_greedy"):
            if n < 2:
                raise SettingsError(
                    "an ensemble of one: there is nothing to choose", received=found.models[0],
                    expected="at least 2 models", remedy="give more runs, or --method mean",
                )  # fmt: skip
            codes, score = self._codes(found), self._objective(found.classes)
            if self.method == "greedy":
                return _members.share(_members.greedy(codes, found.probs, score, budget), n)
            return _members.bagged_greedy(codes, found.probs, score, budget, self.seed)
        kept = list(range(n))
        if not budget.holds(kept):
            codes, score = self._codes(found), self._objective(found.classes)
            own = [score(codes, found.probs[:, j]) for j in kept]
            kept = _members.best_first(own, budget)
        return _members.share(kept, n)

    def _budget(self, models: Sequence[str]) -> Budget:
        limits, costs = dict(self.limits or {}), dict(self.costs or {})
        bare = [m for m in models if set(limits) - set(costs.get(m, {}))]
        if bare:
            raise SettingsError("a limit needs the cost of each model", received=first(bare),
                                expected=", ".join(limits))  # fmt: skip
        return Budget([costs.get(m, {}) for m in models], max_models=self.max_models, limits=limits)

    def _objective(self, classes: Sequence[str]) -> Objective:
        if not isinstance(self.objective, str):
            return self.objective
        score = _members.objective(self.objective)
        if len(classes) == 2 and self._place(classes) == 0:
            return lambda codes, probs: score(1 - codes, probs[:, ::-1])
        return score

    def _codes(self, found: Votes) -> np.ndarray:
        """Return codes of the truth; raise where it is not known."""
        if "y_true" not in found.cases or found.cases["y_true"].isna().any():
            raise TableError(f"ensemble {self.method} learns from the truth",
                             expected="y_true for each case")  # fmt: skip
        truth = labels(found.cases["y_true"].astype(str), found.classes)
        return pd.Index(found.classes).get_indexer(pd.Index(truth)).astype(np.intp)

    def _place(self, classes: Sequence[str]) -> int:
        """Return the positive class's place among two."""
        return len(classes) - 1 if self.positive is None else list(classes).index(self.positive)

    def _state(self, found: Votes, weights: np.ndarray) -> dict[str, Any]:
        if self.method not in TWO_CLASSES:
            return {}
        score = found.probs[:, :, self._place(found.classes)]
        if self.method == "rank":
            at = np.linspace(0, 1, min(POINTS, max(2, len(score))))
            return {"quantiles": [np.quantile(one, at).tolist() for one in score.T]}
        if self.method == "zscore":
            spread = score.std(axis=0)
            if not spread.all():
                flat = [m for m, s in zip(found.models, spread, strict=True) if not s]
                raise TableError("a model gives one score to all cases", received=first(flat))
            return {"mean": score.mean(axis=0).tolist(), "spread": spread.tolist()}
        codes, kept = self._codes(found), np.flatnonzero(weights)
        truth = codes == self._place(found.classes)
        if truth.all() or not truth.any():
            raise TableError("ensemble stacked needs both classes", received="one class")
        fitted = _members.stacked(truth, _logit(score[:, kept]))
        coefficients = np.zeros(len(weights))
        coefficients[kept] = fitted[:-1]
        return {"coefficients": coefficients, "intercept": float(fitted[-1])}

    def predict(self, tables: pd.DataFrame | Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return one row a case, sorted by `case_id`.

        Args:
            tables: Predictions table, or several of them: `case_id`, `group`, `fold`, `seed`,
                `model`, `prob_<class>`, and `y_true` where known.

        Returns:
            `case_id`, `group`, `y_true` (if there), `prob_<class>` in [0, 1].

        Raises:
            SettingsError: The ensemble was not fitted.
            TableError: A column is missing, a row is doubled, a case lacks rows of a model, a case
                carries two groups or truths, or classes or models are not those of `fit`.
        """
        if not self.models:
            raise SettingsError("the ensemble is not fitted", remedy="call fit(oof) first")
        return self._joined(votes(tables).of(self.models, self.classes))

    def _joined(self, found: Votes) -> pd.DataFrame:
        weights = np.asarray(self.weights)
        kept = np.flatnonzero(weights)
        share = weights[kept] / weights[kept].sum() if len(kept) else weights[kept]
        if self.method == "geometric":
            with np.errstate(divide="ignore"):
                logs = np.einsum("nmc,m->nc", np.log(found.probs[:, kept]), share)
            if not np.isfinite(logs.max(axis=1)).all():
                bad = found.cases["case_id"][~np.isfinite(logs.max(axis=1))]
                raise TableError("each class has probability 0 by some model: no geometric mean",
                                 received=first(bad))  # fmt: skip
            joined = np.exp(logs - logs.max(axis=1, keepdims=True))
            joined /= joined.sum(axis=1, keepdims=True)
        elif self.method in TWO_CLASSES:
            positive = self._score(found, kept, share)
            joined = np.stack([1 - positive, positive], axis=1)
            if self._place(self.classes) == 0:
                joined = joined[:, ::-1]
        else:
            joined = np.einsum("nmc,m->nc", found.probs[:, kept], share)
        cases = found.cases.copy()
        cases[[PREFIX + name for name in self.classes]] = joined
        return cases

    def _score(self, found: Votes, kept: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Return the positive class's joined score, in [0, 1]."""
        from scipy.special import expit, ndtr

        state, score = dict(self.state or {}), found.probs[:, :, self._place(self.classes)]
        if self.method == "rank":
            ranks = [_rank_in(np.asarray(state["quantiles"][j]), score[:, j]) for j in kept]
            return np.asarray(share @ np.asarray(ranks))
        if self.method == "zscore":
            apart = (score - np.asarray(state["mean"])) / np.asarray(state["spread"])
            return np.asarray(ndtr(apart[:, kept] @ share))
        return np.asarray(expit(_logit(score) @ np.asarray(self.weights) + state["intercept"]))

    def needed(self) -> Ensemble:
        """Return the same ensemble without the models that weigh nothing."""
        kept = [j for j, weight in enumerate(self.weights) if weight > 0]
        state = {
            name: [value[j] for j in kept] if isinstance(value, list) else value
            for name, value in (self.state or {}).items()
        }
        return replace(
            self, models=tuple(self.models[j] for j in kept),
            weights=tuple(self.weights[j] for j in kept), state=state or None,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` rebuilds the ensemble from, in JSON's types."""
        return {
            "method": self.method, "classes": list(self.classes), "models": list(self.models),
            "weights": list(self.weights), "positive": self.positive,
            "state": None if self.state is None else dict(self.state),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ensemble:
        """Return the ensemble that `to_dict` described.

        Raises:
            KitError: A key is missing.
            SettingsError: The method is unknown.
        """
        try:
            method, classes, models = (values[key] for key in ("method", "classes", "models"))
        except KeyError as error:
            raise KitError(
                "not an ensemble", expected="method, classes, models",
                received=", ".join(map(str, values)),
            ) from error  # fmt: skip
        weights = values.get("weights") or [1 / len(models)] * len(models)
        return cls(
            str(method), classes=tuple(map(str, classes)), models=tuple(map(str, models)),
            weights=tuple(map(float, weights)), positive=values.get("positive"),
            state=values.get("state"),
        )  # fmt: skip


def nested(ensemble: Ensemble, oof: pd.DataFrame, folds: pd.DataFrame) -> list[Nested]:
    """Return for each fold the ensemble fitted to the others, and its joined cases on both sides.

    Args:
        ensemble: How models are joined; what it froze is fitted anew.
        oof: Out-of-fold predictions of all models.
        folds: `case_id` and `fold`.

    Raises:
        TableError: A case has no fold, or there is only one.
    """
    found = votes(oof)
    fold = found.cases["case_id"].map(folds.assign(case_id=folds["case_id"].astype(str))
                                      .set_index("case_id")["fold"])  # fmt: skip
    if fold.isna().any():
        raise TableError("cases have no fold", received=first(found.cases["case_id"][fold.isna()]))
    if fold.nunique() < 2:
        raise TableError("a nested choice needs other folds", expected="at least 2 folds",
                         received=f"{fold.nunique()}")  # fmt: skip
    parts = []
    for number in sorted(fold.unique()):
        held = (fold == number).to_numpy()
        fitted = ensemble._fitted(found.part(~held))
        rest, mine = (fitted._joined(found.part(side)) for side in (~held, held))
        parts.append(Nested(int(number), fitted, rest, mine))
    return parts


@dataclass(frozen=True)
class Nested:
    """An ensemble fitted without one fold: its joined cases elsewhere and in that fold."""

    fold: int
    ensemble: Ensemble
    elsewhere: pd.DataFrame
    held: pd.DataFrame


def path_of_gain(ensemble: Ensemble, oof: pd.DataFrame) -> pd.DataFrame:
    """Return how the objective grows as models are added greedily, each once, on all rows.

    Columns: `n_models`, `model`, `score`: optimistic, as all that is chosen on the rows it is
    judged on.
    """
    found = votes(oof)
    codes, score = ensemble._codes(found), ensemble._objective(found.classes)
    left, total = list(range(len(found.models))), np.zeros_like(found.probs[:, 0])
    rows: list[tuple[int, str, float]] = []
    while left:
        step = len(rows) + 1
        scores = [(score(codes, (total + found.probs[:, j]) / step), -j) for j in left]
        value, j = max((np.nan_to_num(v, nan=-np.inf), j) for v, j in scores)
        left.remove(-j)
        total += found.probs[:, -j]
        rows.append((step, found.models[-j], float(value)))
    return pd.DataFrame(rows, columns=["n_models", "model", "score"])


def scores_of_models(ensemble: Ensemble, oof: pd.DataFrame) -> pd.DataFrame:
    """Return each model's own objective, and its near copies: `model`, `score`, `near_copy_of`."""
    found = votes(oof)
    codes, score = ensemble._codes(found), ensemble._objective(found.classes)
    flat = pd.DataFrame(found.probs[:, :, ensemble._place(found.classes)], columns=found.models)
    alike = flat.corr("spearman").to_numpy()
    rows = []
    for j, name in enumerate(found.models):
        copies = [found.models[i] for i in range(j) if alike[i, j] > ALIKE]
        rows.append((name, score(codes, found.probs[:, j]), ", ".join(copies)))
    return pd.DataFrame(rows, columns=["model", "score", "near_copy_of"])


def _given(given: Mapping[str, float], models: Sequence[str]) -> np.ndarray:
    if set(given) != set(models):
        raise SettingsError("weights are not those of the models", expected=", ".join(models),
                            received=", ".join(given))  # fmt: skip
    weights = np.asarray([float(given[name]) for name in models])
    if not np.isfinite(weights).all() or (weights < 0).any() or not weights.any():
        raise SettingsError("weights must be at least 0, and one above it",
                            received=", ".join(f"{k}={v}" for k, v in given.items()))  # fmt: skip
    return np.asarray(weights / weights.sum())


def _rank_in(quantiles: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return where scores stand among frozen quantiles, in [0, 1]; ties stand in their middle."""
    below = np.searchsorted(quantiles, score, side="left")
    above = np.searchsorted(quantiles, score, side="right")
    last = len(quantiles) - 1
    between = np.clip(below - 1, 0, last - 1)
    width = quantiles[between + 1] - quantiles[between]
    part = np.divide(score - quantiles[between], width, out=np.zeros(len(score)), where=width > 0)
    inner = (between + np.clip(part, 0, 1)) / last
    tied = (below + above - 1) / 2 / last
    return np.asarray(np.where(above > below, tied, np.where(below == 0, 0.0, inner)).clip(0, 1))


def _logit(prob: np.ndarray) -> np.ndarray:
    safe = np.clip(prob, EDGE, 1 - EDGE)
    return np.asarray(np.log(safe) - np.log1p(-safe))
