"""Whether a submission's values can be what a network said: constant, tied, voted, or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit._submission_rows import Finding, Format
from kit.checks import first

NARROW = 1e-3
"""Probabilities that lie closer together than this are one value with noise."""
ALONE, OF = 0.99, 100
"""A value that as many of at least so many cases share is all that a column says."""
FEW = 20  # fewer cases may well all have one label, or all but one the same value
GRID = 0.1  # what votes were rounded to, in the challenges that the kit knows
KINDS, MANY = 11, 30  # no more different values in at least so many cases are votes too
TIED, SOME, LEAST = 0.5, 0.05, 10
"""Share of the cases that share their score: refused, told, and from how many cases on."""
APART, CHANCE = 0.2, 1e-3
"""Kolmogorov and Smirnov's distance, or a class's share, that is told; and its p-value."""


def of_column(rows: pd.DataFrame, style: Format, classes: Sequence[str]) -> list[Finding]:
    """Return what is odd about each column as a whole; every cell is right by itself.

    Args:
        rows: The submission's rows, as text.
        style: The platform's format.
        classes: All classes.
    """
    for name in style.numbers(classes):
        found = _of_numbers(rows[name].astype(float), str(name))
        if found:
            return found
    return [] if style.value == "probability" else _of_labels(rows[style.value_column])


def _of_numbers(values: pd.Series, name: str) -> list[Finding]:
    n, kinds = len(values), values.nunique()
    if n < 2:
        return []
    if kinds == 1:
        return [Finding("constant", f"column {name} is constant", "a value for each case",
                        values.iloc[0],
                        remedy="look at the network: it says the same of all")]  # fmt: skip
    most = values.value_counts(normalize=True).iloc[0]
    alone = n >= FEW and (1 - most) * n <= max(1, (1 - ALONE) * n) + 1e-9  # all but one, or 1 %
    if values.max() - values.min() < NARROW or alone:
        return [Finding("almost_constant", f"column {name} is almost constant",
                        received=f"{values.min():.6g} to {values.max():.6g}, "
                        f"{most:.0%} of the cases share one value",
                        remedy="look at the network: it says the same of all")]  # fmt: skip
    votes = values.isin([0, 1]).all() or (n >= MANY and kinds <= KINDS)
    tenths = values / GRID
    if votes or (n >= LEAST and np.abs(tenths - tenths.round()).max() < 1e-9):
        return [Finding("hard_votes", f"column {name} holds votes, not probabilities",
                        "a probability with all its digits",
                        f"{kinds} different values: {first(sorted(values.unique()))}",
                        remedy="submit the mean of the networks' probabilities: votes are ties, "
                        "and an AUC loses by them")]  # fmt: skip
    return _ties(values, name)


def _ties(values: pd.Series, name: str) -> list[Finding]:
    share = float(values.duplicated(keep=False).mean())
    if len(values) < LEAST or share <= SOME:
        return []
    common = values.value_counts()
    return [Finding(
        "ties", f"column {name} has ties", "a value of its own for each case",
        f"{share:.0%} of the cases share theirs, {common.iloc[0]} that of {common.index[0]:.6g}",
        remedy="a maximum saturates: rank by a percentile or a mean, and round no digits off",
        level="error" if share > TIED else "warning",
    )]  # fmt: skip


def _of_labels(labels: pd.Series) -> list[Finding]:
    n, counts = len(labels), labels.value_counts()
    if n < 2 or (len(counts) > 1 and (n < OF or counts.iloc[0] / n < ALONE)):
        return []
    rule = "constant" if len(counts) == 1 else "almost_constant"
    return [Finding(
        rule, f"{'all' if rule == 'constant' else 'almost all'} cases have one label",
        received=f"{counts.index[0]} for {counts.iloc[0]} of {n} cases",
        remedy="look at the threshold and the order of the classes",
        level="error" if n >= FEW else "warning",
    )]  # fmt: skip


def elsewhere(values: np.ndarray, oof: np.ndarray) -> list[Finding]:
    """Return whether probabilities lie elsewhere than those out of fold.

    Args:
        values: The submitted ones, shape (n,).
        oof: Those out of fold, shape (m,).

    Source: the two-sample test of Kolmogorov (1933) and Smirnov (1948).
    """
    from scipy.stats import ks_2samp

    test = ks_2samp(values, oof)
    if not (test.statistic > APART and test.pvalue < CHANCE):
        return []
    return [_moved(f"median {np.median(oof):.3g} of {len(oof)}",
                   f"median {np.median(values):.3g} of {len(values)}")]  # fmt: skip


def other_shares(labels: Sequence[str], oof: Sequence[str]) -> list[Finding]:
    """Return whether a label is as frequent among the submitted as among the out-of-fold cases."""
    mine, theirs = pd.Series(labels), pd.Series(oof)
    for name in sorted(set(mine) | set(theirs)):
        p, q = float((mine == name).mean()), float((theirs == name).mean())
        both = (p * len(mine) + q * len(theirs)) / (len(mine) + len(theirs))
        spread = np.sqrt(both * (1 - both) * (1 / len(mine) + 1 / len(theirs)))
        if abs(p - q) > APART and abs(p - q) > 3.3 * spread:  # two-sided, p about CHANCE
            return [_moved(f"{q:.0%} labelled {name}", f"{p:.0%}")]
    return []


def _moved(expected: str, received: str) -> Finding:
    return Finding(
        "distribution", "the values lie elsewhere than out of fold", expected, received,
        remedy="look at the images: other patients, or another preparation than in training",
        level="warning",
    )  # fmt: skip
