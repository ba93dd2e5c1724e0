"""Two models on the same cases, and one model against chance.

Both keep what belongs together: groups (patients) change sides whole, and labels are dealt anew
within their folds only.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from kit import intervals
from kit._certainty import statistic_of
from kit._counts import FIGURES, SIX
from kit._labels import Values, group_codes, label_array, matches
from kit._ranks import spread
from kit._rows import Rows, rows_of
from kit.checks import positive_int, probabilities, same_length
from kit.errors import TableError

CELLS = 2**21  # drawn labels held at a time
Figures = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Difference(NamedTuple):
    """A figure of the second model less that of the first, its 95 % interval, and a p-value."""

    value: float
    low: float
    high: float
    p: float


def compare(
    y_true: Values,
    prob_a: Values | None,
    prob_b: Values | None,
    *,
    pred_a: Values | None = None,
    pred_b: Values | None = None,
    threshold: float | None = None,
    positive: Hashable = 1,
    groups: Values | None = None,
    classes: Sequence[Hashable] | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return the differences, b less a, of two models' figures on the same rows.

    The interval of the six and their mean is the percentile interval of a Bayesian bootstrap of the
    groups with both models' decisions on them; their p-value is that of exchanging the two models
    on whole groups at random. The AUC's are DeLong's, over groups.

    Args:
        y_true: True labels, shape (n,).
        prob_a: First model's probabilities, as in `kit.metrics.evaluate`.
        prob_b: Second model's.
        pred_a: First model's decisions, as `y_pred` there.
        pred_b: Second model's.
        threshold: For both models, where decisions are not given.
        positive: Label of the positive class of two.
        groups: Group (patient) of each row, shape (n,); None: each row is its own.
        classes: All classes; needed for more than two.
        resamples: Of the bootstrap, and exchanges of the test.
        seed: Of both.

    Returns:
        For each name of `kit.metrics.FIGURES`; NaN where a figure is undefined.

    Raises:
        SettingsError: There are neither decisions nor a threshold.
        TableError: As in `kit.metrics.evaluate`.

    Source: DeLong, DeLong and Clarke-Pearson (1988), 10.2307/2531595.
    """
    true = label_array(y_true, "y_true")
    given = [np.asarray(v) for v in (prob_a, prob_b, pred_a, pred_b) if v is not None]
    for values in given:
        same_length(y_true=true, predictions=values)
    a, b = (
        rows_of(true, prob, pred, threshold, groups, classes, positive, None, ordered=False)
        for prob, pred in ((prob_a, pred_a), (prob_b, pred_b))
    )
    found = {**_six_differences(a, b, resamples, seed), "auc": _auc_difference(a, b)}
    return {name: found[name] for name in FIGURES}


def difference_table(found: Mapping[str, Difference]) -> pd.DataFrame:
    """Return one row a figure: `metric`, `value`, `low`, `high`, `p`."""
    rows = [(name, *one) for name, one in found.items()]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "p"])


def _six_differences(a: Rows, b: Rows, resamples: int, seed: int) -> dict[str, Difference]:
    classes, both = len(a.names), _joint(a, b)
    kinds, frequency = np.unique(both, axis=0, return_counts=True)
    half = classes**2

    def figures(drawn: np.ndarray, cells: np.ndarray) -> np.ndarray:
        six = statistic_of(cells, classes)(drawn)
        return np.stack([six[name] for name in (*SIX, "mean_of_six")])

    value = np.diff([figures(frequency[None], part) for part in (kinds[:, :half], kinds[:, half:])],
                    axis=0)[0, :, 0]  # fmt: skip
    drawn = list(intervals.resampled_weights(frequency, resamples=resamples, seed=seed))
    spreads = np.concatenate(
        [figures(one, kinds[:, half:]) - figures(one, kinds[:, :half]) for one in drawn], axis=1
    )
    chance = _exchanged(kinds, frequency, figures, resamples, seed)
    wider, found = _expansion(a.n_groups), {}
    for i, name in enumerate((*SIX, "mean_of_six")):
        if np.isnan(value[i]):
            found[name] = Difference(*[float("nan")] * 4)
            continue
        ends = intervals.percentile(spreads[i])
        low, high = (value[i] + wider * (end - value[i]) for end in ends)
        beyond = np.abs(chance[i]) >= abs(value[i]) - 1e-12
        p = (1 + int(beyond.sum())) / (1 + resamples)
        found[name] = Difference(float(value[i]), float(low), float(high), p)
    return found


def _expansion(n: int) -> float:
    """Return by how much percentiles of few groups are too near: Student's t, and n / (n - 1).

    Source: Hesterberg (2015), 10.1080/00031305.2015.1089789, expanded percentiles.
    """
    from scipy.special import ndtri, stdtrit

    tail, freedom = (1 + intervals.LEVEL) / 2, max(1, n - 1)
    return float(stdtrit(freedom, tail) / ndtri(tail) * ((freedom + 1) / freedom) ** 0.5)


def _joint(a: Rows, b: Rows) -> np.ndarray:
    """Return each group's two confusion matrices side by side, shape (groups, 2 classes^2)."""
    cells = len(a.names) ** 2
    found = [
        np.bincount(
            one.group * cells + one.true * len(one.names) + one.pred,
            minlength=cells * one.n_groups,
        ).reshape(-1, cells)
        for one in (a, b)
    ]
    return np.concatenate(found, axis=1)


def _exchanged(
    kinds: np.ndarray, frequency: np.ndarray, figures: Figures, resamples: int, seed: int
) -> np.ndarray:
    """Return the differences when each group's two models are exchanged or not by a coin."""
    rng = np.random.default_rng([seed, 1])
    half = kinds.shape[1] // 2
    swapped = rng.binomial(frequency, 0.5, size=(resamples, len(frequency))).astype(np.float64)
    parts = []
    for cells, other in ((kinds[:, half:], kinds[:, :half]), (kinds[:, :half], kinds[:, half:])):
        stacked = np.concatenate([cells, other])
        drawn = np.concatenate([frequency - swapped, swapped], axis=1)
        parts.append(figures(drawn, stacked))
    return np.asarray(parts[0] - parts[1])


def _auc_difference(a: Rows, b: Rows) -> Difference:
    if not a.areas or not b.areas:
        return Difference(*[float("nan")] * 4)
    areas = [float(np.mean([one.area for one in rows.areas])) for rows in (a, b)]
    influence = [np.mean([one.influence for one in rows.areas], axis=0) for rows in (a, b)]
    value = areas[1] - areas[0]
    if np.isnan(value):
        return Difference(*[float("nan")] * 4)
    variance, freedom, _ = spread(influence[1] - influence[0], a.true, a.group, a.n_groups)
    return _studied(value, variance, freedom)


def _studied(value: float, variance: float, freedom: float) -> Difference:
    """Return Student's interval and test of a difference."""
    from scipy.special import stdtr, stdtrit

    if variance <= 0:
        return Difference(value, value, value, 1.0 if value == 0 else 0.0)
    scale = variance**0.5
    half = float(stdtrit(freedom, (1 + intervals.LEVEL) / 2)) * scale
    p = 2 * float(stdtr(freedom, -abs(value) / scale))
    return Difference(value, value - half, value + half, p)


class Chance(NamedTuple):
    """The AUC within folds, and how often labels dealt at random do as well."""

    auc: float
    p: float


def chance(
    y_true: Values, y_prob: Values, *, folds: Values | None = None, groups: Values | None = None,
    positive: Hashable = 1, permutations: int = 2000, seed: int = 0,
) -> Chance:  # fmt: skip
    """Return whether a model can be told from chance: a permutation test within the folds.

    The statistic is the AUC of pairs within one fold. A patient's rows of one class are one unit,
    with their mean rank; labels are dealt anew among the units of each fold.

    Args:
        y_true: True labels, shape (n,).
        y_prob: Out-of-fold probability of the positive class, shape (n,).
        folds: Fold of each row, shape (n,); None: one fold.
        groups: Group (patient) of each row, shape (n,); None: each row is its own.
        positive: Label of the positive class.
        permutations: Deals of the labels.
        seed: Of the deals.

    Returns:
        Both NaN where no fold holds both classes.

    Raises:
        TableError: Lengths differ, or a value is not what it must be.

    Source: Ojala and Garriga (2010), 10.5555/1756006.1859913.
    """
    positive_int("permutations", permutations)
    truth = matches(label_array(y_true, "y_true"), positive)
    prob = probabilities(np.asarray(y_prob), name="y_prob")
    fold = np.zeros(len(truth), np.intp) if folds is None else np.asarray(folds)
    same_length(y_true=truth, y_prob=prob, folds=fold)
    if pd.isna(fold).any():
        raise TableError("folds have empty cells", received=f"{int(pd.isna(fold).sum())} rows")
    group, _ = group_codes(groups, len(truth))
    table = pd.DataFrame({"fold": fold, "group": group, "truth": truth, "prob": prob})
    table["rank"] = table.groupby("fold")["prob"].rank()
    units = table.groupby(["fold", "group", "truth"])["rank"].mean().reset_index()
    rng, won, pairs = np.random.default_rng(seed), 0.0, 0
    drawn = np.zeros(permutations)
    for _, part in units.groupby("fold"):
        rank, mine = part["rank"].rank().to_numpy(), part["truth"].to_numpy()
        n, k = len(mine), int(mine.sum())
        if k in (0, n):
            continue
        least = k * (k + 1) / 2
        won, pairs = won + float(rank[mine].sum()) - least, pairs + k * (n - k)
        drawn += _dealt(rank, k, permutations, rng) - least
    if not pairs:
        return Chance(float("nan"), float("nan"))
    p = (1 + int((drawn >= won - 1e-9).sum())) / (1 + permutations)
    return Chance(won / pairs, p)


def _dealt(rank: np.ndarray, k: int, times: int, rng: np.random.Generator) -> np.ndarray:
    """Return the sum of `k` of the ranks drawn at random, `times` over."""
    step = max(1, CELLS // len(rank))
    parts = []
    for start in range(0, times, step):
        shuffled = np.repeat(rank[None], min(step, times - start), axis=0)
        parts.append(rng.permuted(shuffled, axis=1)[:, :k].sum(axis=1))
    return np.concatenate(parts)
