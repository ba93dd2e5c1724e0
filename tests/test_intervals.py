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


def test_weights_are_on_average_the_number_of_groups_of_each_kind() -> None:
    frequency = np.array([1.0, 3.0, 200.0])
    weights = np.concatenate(list(intervals.resampled_weights(frequency, resamples=20_000, seed=1)))
    assert (weights > 0).all()
    assert weights.mean(axis=0) == pytest.approx(frequency, rel=0.02)
    assert weights.var(axis=0) == pytest.approx(frequency, rel=0.05)  # exponential, summed


def test_what_is_held_at_once_does_not_change_the_draws() -> None:
    ones = np.ones(10)
    wide = intervals.resampled_weights(ones, resamples=9, seed=0, width=intervals.CHUNK // 2)
    chunks = list(wide)
    assert [len(chunk) for chunk in chunks] == [2, 2, 2, 2, 1]
    whole = next(intervals.resampled_weights(ones, resamples=9, seed=0))
    assert np.array_equal(np.concatenate(chunks), whole)


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=200)
    drawn = intervals.bootstrap(mean_under(values), np.ones(200), resamples=4000, seed=0)["mean"]
    assert drawn.std() == pytest.approx(values.std() / np.sqrt(200), rel=0.05)
    low, high = intervals.percentile(drawn)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.06)


def test_equal_seeds_give_equal_resamples() -> None:
    statistic = mean_under(np.arange(30.0))
    one, two, other = (
        intervals.bootstrap(statistic, np.ones(30), resamples=50, seed=s)["mean"] for s in (4, 4, 5)
    )
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_undefined_resamples_are_left_out() -> None:
    values = np.array([np.nan, 0.0, 1.0, np.nan])
    assert intervals.percentile(values) == pytest.approx((0.025, 0.975))
    assert all(math.isnan(end) for end in intervals.percentile(np.full(3, np.nan)))


def test_no_resamples_are_refused() -> None:
    with pytest.raises(SettingsError, match="resamples"):
        intervals.bootstrap(mean_under(np.ones(3)), np.ones(3), resamples=0, seed=0)


def test_delong_gives_the_published_interval_of_hanley_and_mcneils_ratings() -> None:
    # 109 CT images rated 1 to 5 (Hanley and McNeil 1982, table 1); Stata's manual, [R] roctab:
    # area .8932, standard error .0307, 95 % interval .83295 to .95339.
    from kit._ranks import area, spread

    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    rating = np.repeat([1.0, 2, 3, 4, 5, 1, 2, 3, 4, 5], normal + abnormal)
    truth = np.repeat([False, True], [58, 51])
    found = area(truth, rating)
    variance = spread(found.influence, truth.astype(int), np.arange(109), 109).variance
    assert found.area == pytest.approx(0.8932, abs=5e-5)
    assert variance**0.5 == pytest.approx(0.0307, abs=5e-5)
    plain = [found.area + side * 1.959964 * variance**0.5 for side in (-1, 1)]
    assert plain == pytest.approx([0.83295, 0.95339], abs=5e-6)


def test_an_auc_interval_stays_within_its_range_and_has_a_width_at_one() -> None:
    low, high = intervals.auc_interval(1.0, 0.0, 19.0, 20)
    assert 0.8 < low < high <= 1
    low, high = intervals.auc_interval(0.5, 0.01, 200.0, 100)
    assert (low + high) / 2 == pytest.approx(0.5)
    assert high - low == pytest.approx(2 * 1.97 * 0.1, rel=0.05)
    assert (
        intervals.auc_interval(0.9, 0.01, 3.0, 20).low
        < intervals.auc_interval(0.9, 0.01, 100.0, 20).low
    )


def test_twins_of_each_row_are_one_group_and_say_no_more() -> None:
    from kit._ranks import area, spread

    rng = np.random.default_rng(0)
    truth = rng.random(60) < 0.4
    score = rng.normal(size=60) + truth
    once = spread(area(truth, score).influence, truth.astype(int), np.arange(60), 60)
    twice, group = np.repeat(truth, 2), np.repeat(np.arange(60), 2)
    doubled = area(twice, np.repeat(score, 2))
    again = spread(doubled.influence, twice.astype(int), group, 60)
    assert again.variance == pytest.approx(once.variance)
    assert (again.freedom, again.fewer) == (pytest.approx(once.freedom), once.fewer)
