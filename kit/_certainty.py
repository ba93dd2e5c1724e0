"""How sure the figures of some rows are: their intervals, which to doubt, and what then holds."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kit import intervals
from kit._counts import FIGURES, SIX, macro, one_versus_rest, six_from_counts
from kit._ranks import spread
from kit._rows import Rows
from kit.intervals import UNKNOWN, Interval, Statistic

FEW_GROUPS = 50  # below, a bootstrap over groups covers too little
FEW_OF_CLASS = 15


def statistic_of(kinds: np.ndarray, classes: int) -> Statistic:
    """Return the function from how often each kind of group counts to the six and their mean.

    Args:
        kinds: Confusion matrix of a group of each kind, shape (kinds, classes * classes).
        classes: Classes.
    """

    def statistic(drawn: np.ndarray) -> dict[str, np.ndarray]:
        return macro(one_versus_rest((drawn @ kinds).T.reshape(classes, classes, -1)))

    return statistic


def all_intervals(
    rows: Rows, values: Mapping[str, float], resamples: int, seed: int
) -> dict[str, Interval]:
    """Return the 95 % interval of each figure over groups; NaN where the figure is undefined.

    Args:
        rows: What is judged.
        values: The figures.
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
    """
    kinds, frequency = with_prior(*rows.kinds(), len(rows.names))
    drawn = intervals.bootstrap(
        statistic_of(kinds, len(rows.names)), frequency, resamples=resamples, seed=seed
    )
    found = {"auc": _auc_interval(rows, values["auc"])}
    for name in (*SIX, "mean_of_six"):
        defined = not np.isnan(values[name])
        found[name] = intervals.percentile(drawn[name]) if defined else UNKNOWN
    return found


def with_prior(
    kinds: np.ndarray, frequency: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kinds of groups with a patient of mean size added for each true class.

    It is spread evenly over the classes that it may be called: for two, half a patient in each cell
    of the confusion matrix, Jeffreys' prior of a share.

    Args:
        kinds: Confusion matrix of a group of each kind, shape (kinds, classes * classes).
        frequency: Groups of each kind, shape (kinds,).
        classes: Classes.
    """
    size = float(frequency @ kinds.sum(axis=1)) / float(frequency.sum())
    cells = classes**2
    added = np.concatenate([kinds, size * np.eye(cells)])
    return added, np.concatenate([frequency, np.full(cells, 1 / classes)])


def _auc_interval(rows: Rows, value: float) -> Interval:
    if np.isnan(value):
        return UNKNOWN
    influence = np.mean([found.influence for found in rows.areas], axis=0)
    variance, freedom, fewer = spread(influence, rows.true, rows.group, rows.n_groups)
    return intervals.auc_interval(value, variance, freedom, fewer)


def doubtful(n_groups: int, held: np.ndarray) -> tuple[str, ...]:
    """Return the figures whose interval rests on too few groups.

    Args:
        n_groups: Groups in all.
        held: As `Rows.held` gives them.
    """
    mine, others = held[:, 0].min(), held[:, 1].min()
    if n_groups < FEW_GROUPS:
        return FIGURES
    found = set()
    if mine < FEW_OF_CLASS:
        found |= {"sensitivity", "ppv", "f1", "mean_of_six", "auc"}
    if others < FEW_OF_CLASS:
        found |= {"specificity", "npv", "mean_of_six", "auc"}
    return tuple(name for name in FIGURES if name in found)


def cautious(rows: Rows, held: np.ndarray) -> dict[str, Interval]:
    """Return Wilson's intervals as if each group were one case, means over classes.

    F1 is the harmonic mean of sensitivity and PPV, and its ends are those of theirs; the mean of
    six has the means of all ends.

    Args:
        rows: What is judged.
        held: As `Rows.held` gives them.
    """
    six = six_from_counts(*one_versus_rest(rows.confusion[..., None])[..., 0])
    behind = zip(("sensitivity", "specificity", "ppv", "npv"), held.T, strict=True)
    ends = {name: np.asarray([intervals.wilson(share * n, n)
                              for share, n in zip(np.atleast_1d(six[name]), groups, strict=True)])
            for name, groups in behind}  # fmt: skip
    with np.errstate(invalid="ignore", divide="ignore"):
        ends["f1"] = 2 / (1 / ends["sensitivity"] + 1 / ends["ppv"])
    right = np.trace(rows.confusion) / rows.confusion.sum() if rows.confusion.any() else np.nan
    ends["accuracy"] = np.asarray([intervals.wilson(right * rows.n_groups, rows.n_groups)])
    means = {name: ends[name].mean(axis=0) for name in SIX}
    means["mean_of_six"] = np.mean(list(means.values()), axis=0)
    return {name: Interval(float(low), float(high)) for name, (low, high) in means.items()}
