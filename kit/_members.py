"""Which models an ensemble is made of: fast objectives, and greedy selection within a budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kit._counts import mean_of_six, six_from_counts
from kit.checks import nearest
from kit.errors import SettingsError
from kit.metrics import REGISTRY

Objective = Callable[[np.ndarray, np.ndarray], float]
"""From codes of the truth, shape (cases,), and probabilities, shape (cases, classes), to a score;
higher is better, NaN is worst."""

STEPS = 30  # models taken by one greedy selection, with replacement
BAGS = 20
CUTS = 512  # thresholds that are tried for a figure of decisions


def objective(name: str) -> Objective:
    """Return an objective by the name of a figure; one that is better low changes its sign.

    Figures of decisions are those at the best threshold, of several classes those of the likeliest
    one; AUC and average precision of several classes are means of each against the rest.

    Raises:
        SettingsError: The name is unknown.
    """
    if name not in REGISTRY:
        raise SettingsError("objective is unknown", expected=", ".join(REGISTRY), received=name,
                            remedy=nearest(name, REGISTRY))  # fmt: skip
    measure = REGISTRY[name]
    sign = 1.0 if measure.best == measure.high else -1.0

    def score(codes: np.ndarray, probs: np.ndarray) -> float:
        if probs.shape[1] > 2:
            return _of_many(name, sign, codes, probs)
        if name == "auc" or (measure.takes == "y_pred" and name in DECIDED):
            return _sorted_score(name, codes == 1, probs[:, 1])
        if measure.takes == "y_pred":
            return measure.function(codes == 1, probs[:, 1] >= 0.5)
        return sign * measure.function(codes == 1, probs[:, 1])

    return score


def _of_many(name: str, sign: float, codes: np.ndarray, probs: np.ndarray) -> float:
    from kit import metrics

    classes = range(probs.shape[1])
    if name == "auc":
        return metrics.macro_auc(codes, probs, classes)
    if name in (*metrics.SIX, "mean_of_six"):
        six = metrics.macro_six(codes, probs.argmax(axis=1), classes)
        return float(mean_of_six(six)) if name == "mean_of_six" else six[name]
    if name == "average_precision":
        parts = [metrics.average_precision(codes == c, probs[:, c], positive=True) for c in classes]
        return float(np.mean(parts))
    function = getattr(metrics, name)
    given = probs.argmax(axis=1) if REGISTRY[name].takes == "y_pred" else probs
    return sign * float(function(codes, given, classes=classes))


DECIDED = ("accuracy", "f1", "mean_of_six", "balanced_accuracy")


def _sorted_score(name: str, truth: np.ndarray, prob: np.ndarray) -> float:
    """Return AUC, or a figure at its best threshold, from one sort of the probabilities.

    The truth rides in the lowest bit of the probability, so that one sort of whole numbers orders
    both: probabilities that differ by their last bit alone count as equal.
    """
    key = (np.ascontiguousarray(prob).view(np.int64) & ~np.int64(1)) | truth
    key.sort()
    value = key >> 1
    ends = np.append(np.flatnonzero(value[1:] != value[:-1]), len(value) - 1)
    fn = np.cumsum(key & 1)[ends]  # positive rows at or below each distinct probability
    tn = ends + 1 - fn
    positives, negatives = int(fn[-1]), int(tn[-1])
    if not positives or not negatives:
        return float("nan")
    if name == "auc":
        gained, below = np.diff(fn, prepend=0), np.concatenate([[0], tn[:-1]])
        return float(gained @ (below + tn) / (2 * positives * negatives))
    if len(fn) > CUTS:
        chosen = np.linspace(0, len(fn) - 2, CUTS).astype(np.intp)
        fn, tn = fn[chosen], tn[chosen]
    else:
        fn, tn = (np.concatenate([[0], part[:-1]]) for part in (fn, tn))
    six = six_from_counts(positives - fn, negatives - tn, fn, tn)
    if name == "balanced_accuracy":
        found = (six["sensitivity"] + six["specificity"]) / 2
    else:
        found = mean_of_six(six) if name == "mean_of_six" else six[name]
    return float("nan") if np.isnan(found).all() else float(np.nanmax(found))


class Budget:
    """What an ensemble may cost: models in all, and a limit of each cost."""

    def __init__(
        self, costs: Sequence[Mapping[str, float]], *, max_models: int | None = None,
        limits: Mapping[str, float] | None = None,
    ) -> None:  # fmt: skip
        self.costs, self.max_models = costs, max_models
        self.limits = dict(limits or {})

    def holds(self, members: Sequence[int]) -> bool:
        """Return whether these models together stay within."""
        chosen = set(members)
        if self.max_models is not None and len(chosen) > self.max_models:
            return False
        return all(
            sum(self.costs[j][name] for j in chosen) <= limit for name, limit in self.limits.items()
        )


def best_first(scores: Sequence[float], budget: Budget) -> list[int]:
    """Return the models that fit the budget, taken by their own score, the best first.

    Raises:
        SettingsError: Not one model fits.
    """
    kept: list[int] = []
    for j in sorted(range(len(scores)), key=lambda j: (-np.nan_to_num(scores[j], nan=-1e9), j)):
        if budget.holds([*kept, j]):
            kept.append(j)
    if not kept:
        raise SettingsError("no model fits the budget", expected=f"within {budget.limits}",
                            remedy="raise the limits")  # fmt: skip
    return sorted(kept)


def greedy(
    codes: np.ndarray, probs: np.ndarray, score: Objective, budget: Budget,
    among: Sequence[int] | None = None,
) -> list[int]:  # fmt: skip
    """Return the models whose mean scores best, added one by one, with replacement.

    Args:
        codes: Codes of the truth, shape (cases,).
        probs: shape (cases, models, classes).
        score: What is to be as high as can be.
        budget: What they may cost.
        among: Models to choose from; None: all.

    Returns:
        Models in the order of their choice, up to the best step of `STEPS`; a model may come again.

    Source: Caruana et al. (2004), 10.1145/1015330.1015432.
    """
    chosen: list[int] = []
    total = np.zeros_like(probs[:, 0])
    best, length = -np.inf, 0
    for step in range(1, STEPS + 1):
        scores = [
            (score(codes, (total + probs[:, j]) / step), -j)
            for j in (range(probs.shape[1]) if among is None else among)
            if budget.holds([*chosen, j])
        ]
        if not scores:
            break
        top, j = max((np.nan_to_num(value, nan=-np.inf), j) for value, j in scores)
        chosen.append(-j)
        total += probs[:, -j]
        if top > best + 1e-12:
            best, length = top, step
    return chosen[:length] or best_first([0.0] * probs.shape[1], budget)[:1]


def bagged_greedy(
    codes: np.ndarray, probs: np.ndarray, score: Objective, budget: Budget, seed: int
) -> np.ndarray:
    """Return the mean weights of greedy selections, each among a random half of the models.

    Args:
        codes: Codes of the truth, shape (cases,).
        probs: shape (cases, models, classes).
        score: What is to be as high as can be.
        budget: What they may cost together.
        seed: Of the halves.

    Returns:
        shape (models,), summing to 1.
    """
    models = probs.shape[1]
    free = Budget([{}] * models)
    pool = list(range(models))
    if not budget.holds(pool):
        pool = sorted(set(greedy(codes, probs, score, budget)))
    rng, weights = np.random.default_rng(seed), np.zeros(models)
    for _ in range(BAGS):
        half = sorted(rng.choice(pool, max(1, -(-len(pool) // 2)), replace=False).tolist())
        weights += share(greedy(codes, probs, score, free, half), models)
    return weights / BAGS


def share(chosen: Sequence[int], models: int) -> np.ndarray:
    """Return how often each model was chosen, in parts of all, shape (models,)."""
    return np.bincount(np.asarray(chosen), minlength=models) / len(chosen)


def stacked(truth: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Return a logistic regression's weights, none below 0, and its intercept last.

    A ridge of one case a model keeps alike models apart from infinite weights.

    Args:
        truth: bool, shape (cases,).
        logits: shape (cases, models).

    Returns:
        shape (models + 1,).
    """
    from scipy.optimize import minimize

    design = np.column_stack([logits, np.ones(len(logits))])
    sign = np.where(truth, 1.0, -1.0)

    def loss(weight: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (design @ weight)
        wrong = 1 / (1 + np.exp(np.clip(margin, -500, 500)))
        ridge = weight[:-1] - 1 / (len(weight) - 1)  # towards equal weights
        value = np.logaddexp(0, -margin).sum() + 0.5 * float(ridge @ ridge)
        slope = -(design.T @ (sign * wrong))
        slope[:-1] += ridge
        return float(value), slope

    start = np.append(np.full(logits.shape[1], 1 / logits.shape[1]), 0.0)
    bounds = [(0, None)] * logits.shape[1] + [(None, None)]
    return np.asarray(minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B").x)
