"""Intervals: Wilson's against published numbers, the bootstrap against theory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kit import intervals
from kit.errors import SettingsError


def mean_under(values: np.ndarray) -> intervals.Statistic:
    return lambda weights: {"mean": weights @ values / weights.sum(axis=1)}


def test_wilson_gives_the_published_intervals() -> None:
    # Newcombe (1998), table I, method 3: 81/263, 15/148, 0/20, 1/29.
    for k, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        assert intervals.wilson(k, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_is_symmetric_and_nan_of_nothing() -> None:
    low, high = intervals.wilson(20, 20)
    assert (1 - high, 1 - low) == pytest.approx(intervals.wilson(0, 20))
    assert all(math.isnan(end) for end in intervals.wilson(0, 0))


def test_each_resample_draws_as_many_groups_as_there_are() -> None:
    chunks = list(intervals.resampled_weights(7, resamples=50, seed=0))
    weights = np.concatenate(chunks)
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.var(axis=0).min() > 0


def test_every_group_is_drawn_equally_often() -> None:
    weights = np.concatenate(list(intervals.resampled_weights(5, resamples=20_000, seed=1)))
    assert weights.mean(axis=0) == pytest.approx(np.ones(5), abs=0.03)
    assert weights.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.03)  # 5 x 1/5 x 4/5


def test_what_is_held_at_once_does_not_change_the_draws() -> None:
    wide = intervals.resampled_weights(10, resamples=9, seed=0, width=intervals.CHUNK // 2)
    chunks = list(wide)
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 1]
    whole = next(intervals.resampled_weights(10, resamples=9, seed=0))
    assert np.array_equal(np.concatenate(chunks), whole)


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=200)
    drawn = intervals.bootstrap(mean_under(values), 200, resamples=4000, seed=0)["mean"]
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.05)
    low, high = intervals.percentile(drawn)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.06)


def test_equal_seeds_give_equal_resamples() -> None:
    statistic = mean_under(np.arange(30.0))
    one, two, other = (
        intervals.bootstrap(statistic, 30, resamples=50, seed=s)["mean"] for s in (4, 4, 5)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_undefined_resamples_are_left_out() -> None:
    values = np.array([np.nan, 0.0, 1.0, np.nan])
    assert intervals.percentile(values) == pytest.approx((0.025, 0.975))
    assert all(math.isnan(end) for end in intervals.percentile(np.full(3, np.nan)))


def test_no_resamples_are_refused() -> None:
    with pytest.raises(SettingsError, match="resamples"):
        intervals.bootstrap(mean_under(np.ones(3)), 3, resamples=0, seed=0)
