"""Intervals of figures: a bootstrap over groups (patients), DeLong's for AUC, Wilson's for a share.

Images of one patient resemble each other. Resampling images as if they were patients makes
intervals collapse, so that whole groups are drawn. Groups with the same counts are
interchangeable: a resample is how often each distinct row of counts was drawn, so that a million
rows without groups, which have as many distinct rows as the confusion matrix has cells, cost no
more than ten. Which interval is used where was chosen by the coverage that
`benchmarks/coverage.py` prints.
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
    n_groups: int, *, resamples: int, seed: int, width: int | None = None
) -> Iterator[np.ndarray]:
    """Yield how often each group was drawn, for some resamples at a time.

    Args:
        n_groups: Groups drawn from, and drawn, with replacement.
        resamples: Resamples in all.
        seed: Seeds the draws.
        width: Cells that the caller needs for one resample, where more than `n_groups`.

    Yields:
        float64 whole numbers, shape (some, n_groups); each row sums to `n_groups`.
    """
    yield from drawn_counts(np.ones(n_groups), resamples=resamples, seed=seed, width=width)


def drawn_counts(
    frequency: np.ndarray, *, resamples: int, seed: int, width: int | None = None
) -> Iterator[np.ndarray]:
    """Yield how often each kind of group was drawn, for some resamples at a time.

    Args:
        frequency: How many groups there are of each kind, shape (kinds,); as many are drawn.
        resamples: Resamples in all.
        seed: Seeds the draws.
        width: Cells that the caller needs for one resample, where more than there are kinds.

    Yields:
        float64 whole numbers, shape (some, kinds).
    """
    positive_int("resamples", resamples)
    rng = np.random.default_rng(seed)
    total, kinds = int(frequency.sum()), len(frequency)
    step = max(1, CHUNK // max(1, kinds, width or 0))
    ends = np.cumsum(frequency)
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        if kinds * 8 < total:  # few kinds of many groups: their numbers are drawn at once
            yield rng.multinomial(total, frequency / total, size=some).astype(np.float64)
            continue
        drawn = rng.integers(0, total, size=(some, total))
        kind = drawn if kinds == total else np.searchsorted(ends, drawn, side="right")
        kind += np.arange(some)[:, None] * kinds
        counted = np.bincount(kind.ravel(), minlength=some * kinds)
        yield counted.reshape(some, kinds).astype(np.float64)


def bootstrap(
    statistic: Statistic, frequency: np.ndarray, *, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Return the values of each figure over resamples of whole groups.

    Args:
        statistic: Takes how often each kind of group counts, shape (some, kinds), and returns for
            each figure its values, shape (some,), NaN where undefined.
        frequency: How many groups there are of each kind, shape (kinds,).
        resamples: Resamples in all.
        seed: Equal seeds give equal values.

    Returns:
        For each figure its values, shape (resamples,).

    Source: cluster bootstrap, Davison and Hinkley (1997), section 3.8.
    """
    parts = [statistic(drawn) for drawn in drawn_counts(frequency, resamples=resamples, seed=seed)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def jackknife(statistic: Statistic, frequency: np.ndarray) -> dict[str, np.ndarray]:
    """Return the values of each figure when one group of each kind is left out, shape (kinds,)."""
    kinds = len(frequency)
    step = max(1, CHUNK // max(1, kinds))
    parts = []
    for start in range(0, kinds, step):
        left = np.repeat(frequency[None].astype(np.float64), min(step, kinds - start), axis=0)
        left[np.arange(len(left)), np.arange(start, start + len(left))] -= 1
        parts.append(statistic(left))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bca(
    values: np.ndarray,
    estimate: float,
    left_out: np.ndarray,
    frequency: np.ndarray,
    *,
    level: float = LEVEL,
) -> Interval:
    """Return the bias-corrected and accelerated interval of bootstrap values.

    Args:
        values: Figure over resamples, shape (resamples,); NaN, where it was undefined, is left out.
        estimate: The figure itself.
        left_out: Figure with one group of each kind left out, shape (kinds,), NaN where undefined.
        frequency: Groups of each kind, shape (kinds,).
        level: Share that the interval covers.

    Returns:
        Both ends; NaN where the figure, or each of its resamples, is undefined.

    Source: Efron (1987), 10.1080/01621459.1987.10478410.
    """
    drawn = values[~np.isnan(values)]
    if np.isnan(estimate) or not len(drawn):
        return UNKNOWN
    normal = NormalDist()
    near = 1e-12 * max(1.0, abs(estimate))  # a resample equal to the estimate but for rounding
    below = ((drawn < estimate - near).mean() + (drawn <= estimate + near).mean()) / 2
    edge = 0.5 / len(drawn)
    bias = normal.inv_cdf(float(np.clip(below, edge, 1 - edge)))
    known = ~np.isnan(left_out)
    count, pulled = frequency[known], left_out[known]
    pull = (count @ pulled) / max(1, count.sum()) - pulled
    spread = float(count @ pull**2)
    acceleration = float(count @ pull**3) / (6 * spread**1.5) if spread > 0 else 0.0
    tail = normal.inv_cdf((1 + level) / 2)
    ends = []
    for z in (bias - tail, bias + tail):
        ends.append(normal.cdf(bias + z / max(1e-6, 1 - acceleration * z)))
    low, high = np.quantile(drawn, ends)
    return Interval(float(low), float(high))


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
    return variance, variance**2 / weight if weight > 0 else 1.0


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
