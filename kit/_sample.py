"""The figures of `kit.metrics` on one set of rows, under any number of weightings of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kit.intervals import Statistic

SIX = ("accuracy", "specificity", "sensitivity", "ppv", "npv", "f1")
FIGURES = (*SIX, "mean_of_six", "auc")
FEW_GROUPS = 50  # below, a percentile bootstrap covers too little
FEW_OF_CLASS = 15
MANY_TIES = 0.05  # share of positive-negative pairs with equal probability


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


class Ranking:
    """Where each positive row stands among the negative ones, for AUC under many weightings."""

    def __init__(self, is_positive: np.ndarray, score: np.ndarray) -> None:
        negative = np.flatnonzero(~is_positive)
        self.negative = negative[np.argsort(score[negative], kind="stable")]
        self.positive = np.flatnonzero(is_positive)
        ordered = score[self.negative]
        self.below = np.searchsorted(ordered, score[self.positive], side="left")
        self.not_above = np.searchsorted(ordered, score[self.positive], side="right")

    def ties(self) -> float:
        """Return the share of positive-negative pairs with equal scores."""
        pairs = len(self.positive) * len(self.negative)
        return float((self.not_above - self.below).sum() / pairs) if pairs else 0.0

    def auc(self, weights: np.ndarray, group: np.ndarray | None = None) -> np.ndarray:
        """Return the AUC under each weighting, shape (some,).

        Args:
            weights: shape (some, rows), or (some, groups) where `group` gives each row's group.
            group: int, shape (rows,).
        """
        negative = self.negative if group is None else group[self.negative]
        positive = self.positive if group is None else group[self.positive]
        beaten = np.zeros((len(weights), len(negative) + 1))
        np.cumsum(weights[:, negative], axis=1, out=beaten[:, 1:])
        wins = np.take(beaten, self.below, axis=1)
        wins += np.take(beaten, self.not_above, axis=1)
        won = weights[:, positive]
        total = won.sum(axis=1) * beaten[:, -1]
        won *= wins
        return ratio(won.sum(axis=1) / 2, total)


@dataclass(frozen=True)
class Sample:
    """Rows as codes of their classes; with two classes only the last one is asked about."""

    names: tuple[str, ...]
    true: np.ndarray
    pred: np.ndarray
    rankings: tuple[Ranking, ...]  # one for each class asked about

    @property
    def asked(self) -> range:
        """Return the codes of the classes whose figures are wanted: of two, the last alone."""
        return range(1, 2) if len(self.names) == 2 else range(len(self.names))

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """Return the counts of each true class (outer) given each class (inner)."""
        k = len(self.names)
        cells = np.bincount(self.true * k + self.pred, minlength=k * k).reshape(k, k)
        return tuple(tuple(map(int, row)) for row in cells)

    def values(self) -> tuple[dict[str, float], dict[str, str]]:
        """Return the figures, and why some are undefined."""
        ones = np.ones((1, 1))
        found = self.figures(np.zeros(len(self.true), dtype=np.intp), 1)(ones)
        values = {name: float(value[0]) for name, value in found.items()}
        missing = [name for name in FIGURES if np.isnan(values[name])]
        return values, {name: self._reason(name, missing) for name in missing}

    def figures(self, group: np.ndarray, n_groups: int) -> Statistic:
        """Return the function from group weights, shape (some, groups), to the figures."""
        counts = np.zeros((len(self.asked), 4, n_groups))
        for i, c in enumerate(self.asked):
            cell = cell_of(self.true == c, self.pred == c)
            flat = np.bincount(cell * n_groups + group, minlength=4 * n_groups)
            counts[i] = flat.reshape(4, n_groups)

        def statistic(weights: np.ndarray) -> dict[str, np.ndarray]:
            cells = [[weights @ cell for cell in of_class] for of_class in counts]
            found = macro(np.moveaxis(np.asarray(cells), 1, 0))
            areas = [ranking.auc(weights, group) for ranking in self.rankings]
            return {**found, "mean_of_six": mean_of_six(found), "auc": np.mean(areas, axis=0)}

        return statistic

    def warnings(self, group: np.ndarray, n_groups: int) -> list[str]:
        """Return what makes the figures less sure than they look."""
        found = []
        if n_groups == 1:
            found.append("one group: no interval can be drawn")
        elif n_groups < FEW_GROUPS:
            found.append(
                f"{n_groups} groups: intervals over fewer than {FEW_GROUPS} are too narrow"
            )
        held = [len(np.unique(group[self.true == c])) for c in range(len(self.names))]
        found += [
            f"{n} groups hold class {name}: fewer than {FEW_OF_CLASS} say little"
            for name, n in zip(self.names, held, strict=True)
            if n < FEW_OF_CLASS
        ]
        if sum(n > 0 for n in held) == 1:
            found.append("the rows are of one class")
        ties = max(ranking.ties() for ranking in self.rankings)
        if ties > MANY_TIES:
            found.append(f"{ties:.0%} of the pairs behind the AUC are ties: probabilities are few")
        return found

    def _reason(self, name: str, missing: list[str]) -> str:
        if name == "mean_of_six":
            return f"{', '.join(n for n in missing if n in SIX)} undefined"
        parts = [self._why(name, c) for c in self.asked]
        return "; ".join(part for part in parts if part)

    def _why(self, name: str, c: int) -> str:
        """Return why a figure is undefined for one class, or nothing if it is not."""
        this, rest = self.names[c], "another class" if len(self.names) > 2 else self.names[0]
        has, lacks = bool((self.true == c).any()), bool((self.true != c).any())
        said, unsaid = bool((self.pred == c).any()), bool((self.pred != c).any())
        causes = {
            "sensitivity": (not has, f"no row is {this}"),
            "specificity": (not lacks, f"no row is {rest}"),
            "ppv": (not said, f"no row is called {this}"),
            "npv": (not unsaid, f"no row is called {rest}"),
            "f1": (not has and not said, f"no row is or is called {this}"),
            "auc": (not (has and lacks), f"no row is {rest if has else this}"),
        }
        undefined, cause = causes[name]
        return cause if undefined else ""


def macro(counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the six metrics over classes: their means, and the share of rows given their class.

    The mean of each class's accuracy against the rest would count a row that two classes of five
    get wrong as three fifths right; accuracy stays what it is called.

    Args:
        counts: TP, FP, FN, TN of each class against the rest, shape (4, classes, some); of one
            class alone, the positive of two, its own figures are returned.
    """
    found = {name: np.asarray(v.mean(axis=0)) for name, v in six_from_counts(*counts).items()}
    if counts.shape[1] > 1:
        found["accuracy"] = ratio(counts[0].sum(axis=0), counts[:, 0].sum(axis=0))
    return found


def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    """Return top / bottom, NaN where bottom is 0."""
    out = np.full(np.shape(bottom), np.nan)
    return np.asarray(np.divide(top, bottom, out=out, where=np.asarray(bottom) != 0))


def cell_of(is_positive: np.ndarray, called: np.ndarray) -> np.ndarray:
    """Return 0, 1, 2, 3 for TP, FP, FN, TN."""
    return np.where(called, np.where(is_positive, 0, 1), np.where(is_positive, 2, 3))


def one_versus_rest(true: np.ndarray, pred: np.ndarray, k: int) -> np.ndarray:
    """Return TP, FP, FN, TN of each class, shape (k, 4)."""
    cells = [np.bincount(cell_of(true == c, pred == c), minlength=4) for c in range(k)]
    return np.asarray(cells)
