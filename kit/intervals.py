"""Intervals of figures: a bootstrap over groups (patients), and Wilson's for a share.

Images of one patient resemble each other. Resampling images as if they were patients makes
intervals collapse, so that whole groups are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np

from kit.checks import positive_int

LEVEL = 0.95
CHUNK = 2**21  # float64 cells of one array held at a time: 16 MiB

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]


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
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK // max(1, n_groups, width or 0))
    for start in range(0, resamples, step):
        some = min(step, resamples - start)
        drawn = rng.integers(0, n_groups, size=(some, n_groups))
        drawn += np.arange(some)[:, None] * n_groups
        counted = np.bincount(drawn.ravel(), minlength=some * n_groups)
        yield counted.reshape(some, n_groups).astype(np.float64)


def bootstrap(
    statistic: Statistic,
    n_groups: int,
    *,
    resamples: int,
    seed: int,
    width: int | None = None,
) -> dict[str, np.ndarray]:
    """Return the values of each figure over resamples of whole groups.

    Args:
        statistic: Takes group weights, shape (some, n_groups), and returns for each figure its
            values, shape (some,), NaN where undefined.
        n_groups: Groups (patients).
        resamples: Resamples in all.
        seed: Equal seeds give equal values.
        width: Cells that the statistic needs for one resample, where more than `n_groups`.

    Returns:
        For each figure its values, shape (resamples,).

    Source: cluster bootstrap, Davison and Hinkley (1997), section 3.8.
    """
    positive_int("resamples", resamples)
    positive_int("n_groups", n_groups)
    parts = [
        statistic(weights)
        for weights in resampled_weights(n_groups, resamples=resamples, seed=seed, width=width)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def percentile(values: np.ndarray, *, level: float = LEVEL) -> tuple[float, float]:
    """Return the percentile interval of bootstrap values, leaving out the undefined.

    Args:
        values: shape (resamples,), NaN where the figure was undefined.
        level: Share that the interval covers.

    Returns:
        Low and high; NaN if every value is undefined.
    """
    defined = values[~np.isnan(values)]
    if not len(defined):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def wilson(k: int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Return Wilson's score interval of a share `k` of `n` independent cases.

    Args:
        k: Cases counted, 0 to n.
        n: Cases in all; NaN comes back where it is 0.
        level: Share that the interval covers.

    Source: Wilson (1927), 10.1080/01621459.1927.10502953.
    """
    if n == 0:
        return float("nan"), float("nan")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, scale = k / n, 1 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z / scale * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    low = 0.0 if k == 0 else max(0.0, centre - half)
    high = 1.0 if k == n else min(1.0, centre + half)
    return low, high
