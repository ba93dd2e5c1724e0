"""Intervals of figures: a bootstrap over groups (patients), DeLong's for AUC, Wilson's for a share.

Images of one patient resemble each other. Resampling images as if they were patients makes
intervals collapse, so that whole groups are weighted anew. The weights are those of the Bayesian
bootstrap: a group counts not 0, 1, 2 times but as an exponential number, so that no resample loses
a class. Groups with the same counts are interchangeable, and their weights together a gamma number:
a million rows without groups, which have as many distinct kinds as the confusion matrix has cells,
cost no more than ten. This bootstrap, and not a multinomial one with percentiles or BCa, was chosen
by the coverage that `benchmarks/coverage.py` prints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from kit.checks import positive_int

LEVEL = 0.95
CHUNK = 2**21  # float64 cells of one array held at a time: 16 MiB
PSEUDO = 0.25  # of a patient at chance, added to the fewer class before AUC's logit

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


class Interval(NamedTuple):
    """Both ends; NaN where there is none."""

    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"))


def resampled_weights(
    frequency: np.ndarray, *, resamples: int, seed: int, width: int | None = None
) -> Iterator[np.ndarray]:
    """Yield the weight of each kind of group, for some resamples at a time.

    Args:
        frequency: How many groups there are of each kind, > 0, shape (kinds,); one each where no
            two groups are alike.
        resamples: Resamples in all.
        seed: Seeds the weights.
        width: Cells that the caller needs for one resample, where more than there are kinds.

    Yields:
        float64 above 0, shape (some, kinds), on average `frequency`.

    Source: Rubin (1981), 10.1214/aos/1176345338.
    """
    positive_int("resamples", resamples)
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, len(frequency), width or 0))
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        yield rng.gamma(frequency, size=(some, len(frequency)))


def bootstrap(
    statistic: Statistic, frequency: np.ndarray, *, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the values of each figure over resamples of whole groups.

    Args:
        statistic: Takes the weight of each kind of group, shape (some, kinds), and returns for
            each figure its values, shape (some,), NaN where undefined.
        frequency: How many groups there are of each kind, shape (kinds,).
        resamples: Resamples in all.
        seed: Equal seeds give equal values.

    Returns:
        For each figure its values, shape (resamples,).
    """
    parts = [
        statistic(weights)
        for weights in resampled_weights(frequency, resamples=resamples, seed=seed)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile(values: np.ndarray, *, level: float = LEVEL) -> Interval:
    """Return the percentile interval of bootstrap values, leaving out the undefined.

    Args:
        values: shape (resamples,), NaN where the figure was undefined.
        level: Share that the interval covers.

    Returns:
        Both ends; NaN if every value is undefined.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return UNKNOWN
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson(k: float, n: float, *, level: float = LEVEL) -> Interval:
    """Return Wilson's score interval of a share `k` of `n` independent cases.

    Args:
        k: Cases counted, 0 to n; need not be whole where the cases are patients and the share is of
            their images.
        n: Cases in all; NaN comes back where it is 0.
        level: Share that the interval covers.

    Source: Wilson (1927), 10.1080/01621459.1927.10502953.
    """
    if n == 0:
        return UNKNOWN
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, scale = k / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return Interval(low, high)


def clustered(influence: np.ndarray, stratum: np.ndarray) -> tuple[float, float]:
    """Return the variance of a figure from each group's influence on it, and its freedom.

    Args:
        influence: How much each group moves the figure, shape (groups,), summing to 0.
        stratum: Which classes a group holds, as a code, shape (groups,): groups are counted among
            their like, so that few positive patients are few although negative ones are many.

    Returns:
        The variance, and Satterthwaite's degrees of freedom, at least 1.

    Source: DeLong, DeLong and Clarke-Pearson (1988), 10.2307/2531595, where each group is one row;
    Obuchowski (1997), 10.2307/2533958, for groups.
    """
    held = np.bincount(stratum)
    squares = np.bincount(stratum, weights=influence**2, minlength=len(held))
    freedom = np.maximum(held - 1, 1)
    parts = squares * (freedom + 1) / freedom
    variance = float(parts.sum())
    weight = float((parts**2 / freedom).sum())
    return variance, variance**2 / weight if weight > 0 else float(freedom.sum())


def auc_interval(
    area: float, variance: float, freedom: float, fewer: int, *, level: float = LEVEL
) -> Interval:
    """Return the interval of an AUC from DeLong's variance, within [0, 1].

    It is taken on the logit scale with Student's t, after a quarter of a patient of the fewer
    class is added at chance (as Agresti and Coull add cases to a share): without it intervals of
    high areas cover 91 % at twenty positive patients, and one of area 1 has no width.

    Args:
        area: AUC in [0, 1].
        variance: As `clustered` gives it.
        freedom: As `clustered` gives it.
        fewer: Groups that hold the class that the fewest groups hold, at least 1.
        level: Share that the interval covers.
    """
    from scipy.special import expit, stdtrit

    moved = (area * fewer + 0.5 * PSEUDO) / (fewer + PSEUDO)
    added = PSEUDO * (area - 0.5) ** 2 / (2 * (fewer + PSEUDO) ** 2)
    scale = (variance + added) ** 0.5 / (moved * (1 - moved))
    half = float(stdtrit(freedom, (1 + level) / 2)) * scale
    centre = np.log(moved / (1 - moved))
    return Interval(float(expit(centre - half)), float(expit(centre + half)))
