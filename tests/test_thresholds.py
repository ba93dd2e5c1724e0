"""Thresholds: worked by hand, against a slow search, and honest on noise."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from kit.errors import SettingsError, TableError
from kit.metrics import mean_of_six, six_metrics
from kit.thresholds import METHODS, choose, nested


def score(true: np.ndarray, pred: np.ndarray, method: str) -> float:
    six = six_metrics(true, pred)
    if method == "youden":
        return six["sensitivity"] + six["specificity"]
    return six["f1"] if method == "f1" else float(mean_of_six(six))


def test_separable_rows_are_cut_in_the_middle_of_the_gap() -> None:
    for method in METHODS:
        assert choose(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9]), method) == 0.4


def test_a_plateau_is_cut_in_its_middle() -> None:
    # Sensitivity + specificity is 5/3 for the cut below .5 and for that below .7: from .2 to .7.
    true = np.array([0, 0, 0, 1, 1, 1])
    prob = np.array([0.1, 0.2, 0.5, 0.5, 0.7, 0.9])
    assert choose(true, prob, "youden") == pytest.approx(0.45)


def test_of_equally_good_cuts_the_widest_gap_is_taken_and_then_the_lowest() -> None:
    # The cuts below the first and below the second positive are equally good, apart.
    true = np.array([0, 1, 0, 1])
    assert choose(true, np.array([0.2, 0.3, 0.6, 0.9]), "youden") == pytest.approx(0.75)
    assert choose(true, np.array([0.2, 0.4, 0.6, 0.8]), "youden") == pytest.approx(0.3)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(4))
def test_no_cut_is_better_than_the_chosen_one(method: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, 60)
    prob = np.round(np.clip(rng.normal(0.4 + 0.2 * true, 0.2), 0, 1), 2)
    threshold = choose(true, prob, method)
    distinct = np.unique(prob)
    best = max(score(true, prob >= cut, method) for cut in distinct[1:])
    assert score(true, prob >= threshold, method) == pytest.approx(best, abs=1e-12)
    assert threshold not in distinct


@pytest.mark.parametrize("method", METHODS)
def test_order_of_rows_does_not_matter(method: str) -> None:
    rng = np.random.default_rng(0)
    true, prob = rng.integers(0, 2, 80), rng.random(80)
    order = rng.permutation(80)
    assert choose(true[order], prob[order], method) == choose(true, prob, method)


def test_neighbouring_floats_are_told_apart() -> None:
    low = 0.5
    high = float(np.nextafter(low, 1))
    threshold = choose(np.array([False, True]), np.array([low, high]), "youden")
    assert low < threshold <= high


def test_a_number_is_returned_as_it_is() -> None:
    assert choose(np.array([0, 1]), np.array([0.1, 0.9]), 0.3) == 0.3
    with pytest.raises(SettingsError, match="threshold"):
        choose(np.array([0, 1]), np.array([0.1, 0.9]), 3)


@pytest.mark.parametrize(
    ("true", "prob", "reason"),
    [([1, 1], [0.1, 0.9], "one class"), ([0, 1], [0.3, 0.3], "equal"), ([], [], "one class")],
)
def test_rows_without_a_choice_give_a_half_and_log_why(
    true: list[int], prob: list[float], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert choose(np.array(true, dtype=int), np.array(prob), "f1") == 0.5
    assert reason in caplog.text


def test_a_fold_is_decided_by_the_other_folds() -> None:
    true = np.array([0, 0, 1, 1, 0, 0, 1, 1]).astype(bool)
    prob = np.array([0.1, 0.2, 0.4, 0.5, 0.5, 0.6, 0.8, 0.9])
    pred, thresholds = nested(true, prob, np.repeat([0, 1], 4), "youden")
    assert thresholds == pytest.approx({0: 0.7, 1: 0.3})
    assert pred.tolist() == [False] * 4 + [True] * 4


def test_labels_of_a_fold_do_not_change_its_own_threshold() -> None:
    rng = np.random.default_rng(0)
    true, prob, folds = rng.integers(0, 2, 100), rng.random(100), np.arange(100) % 5
    _, before = nested(true, prob, folds, "mean_of_six")
    _, after = nested(np.where(folds == 2, 1 - true, true), prob, folds, "mean_of_six")
    assert before[2] == after[2]
    assert before != after


def test_nested_choice_is_not_flattered_by_noise() -> None:
    flattered, honest = [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        true, prob = rng.permutation(np.arange(100) % 2), rng.random(100)
        threshold = choose(true, prob, "youden")
        flattered.append(score(true, prob >= threshold, "youden"))
        pred, _ = nested(true, prob, np.arange(100) % 5, "youden")
        honest.append(score(true, pred, "youden"))
    assert np.mean(flattered) > 1.1
    assert np.mean(honest) == pytest.approx(1, abs=0.04)


def test_a_fixed_threshold_needs_no_other_fold() -> None:
    pred, thresholds = nested(np.array([0, 1]), np.array([0.4, 0.6]), np.array([3, 3]), 0.5)
    assert (pred.tolist(), thresholds) == ([False, True], {3: 0.5})
    with pytest.raises(TableError, match="at least 2 folds"):
        nested(np.array([0, 1]), np.array([0.4, 0.6]), np.array([3, 3]), "f1")


def test_bad_input_is_refused() -> None:
    with pytest.raises(SettingsError, match="did you mean youden"):
        choose(np.array([0, 1]), np.array([0.1, 0.9]), "youdem")
    with pytest.raises(TableError, match="bool, or 0 and 1"):
        choose(np.array(["no", "yes"]), np.array([0.1, 0.9]), "f1")
    with pytest.raises(TableError, match="y_prob"):
        choose(np.array([0, 1]), np.array([0.1, np.nan]), "f1")
    with pytest.raises(TableError, match="lengths differ"):
        nested(np.array([0, 1]), np.array([0.1, 0.2]), np.array([0]), "f1")
    with pytest.raises(TableError, match="whole numbers"):
        nested(np.array([0, 1]), np.array([0.1, 0.2]), np.array([0.0, np.nan]), "f1")


def test_a_demanded_sensitivity_is_reached_at_the_least_cost() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random(500) < 0.3
    prob = 1 / (1 + np.exp(-rng.normal(size=500) - 1.5 * truth))
    for least in (0.8, 0.95, 1.0):
        cut = choose(truth, prob, f"sensitivity={least}")
        reached = (prob[truth] >= cut).mean()
        assert reached >= least
        above = np.sort(prob[prob >= cut])[0] + 1e-12  # the next cut gives up too much
        assert (prob[truth] >= above).mean() < least
        cut = choose(truth, prob, f"specificity={least}")
        assert (prob[~truth] < cut).mean() >= least
        below = np.sort(prob[prob < cut])[-1]
        assert (prob[~truth] < below).mean() < least


def test_demands_at_the_ends_call_all_or_none() -> None:
    truth, prob = np.array([True, False, True]), np.array([0.2, 0.5, 0.5])
    assert choose(truth, prob, "sensitivity=1") == pytest.approx(0.1)
    assert choose(truth, prob, "specificity=1") == pytest.approx(0.75)
    assert choose(truth, prob, "sensitivity=.5") == pytest.approx(0.35)
    assert choose(truth, prob, "specificity=0") == pytest.approx(0.1)


def test_a_specificity_out_of_reach_is_said(caplog) -> None:
    cut = choose(np.array([True, False]), np.array([0.5, 1.0]), "specificity=.9")
    assert cut == 1.0
    assert "out of reach" in caplog.text


@pytest.mark.parametrize("method", ["sensitivity", "sensitivity=2", "recall=.9", "sensitivity=.9x"])
def test_a_demand_that_says_nothing_is_refused(method) -> None:
    with pytest.raises(SettingsError, match="threshold"):
        choose(np.array([True, False]), np.array([0.5, 0.6]), method)


def test_a_demand_is_a_setting_of_a_run() -> None:
    from kit.settings import parse, resolve

    values = parse(["threshold=sensitivity=.95"])
    assert resolve("patches", overrides=values).threshold == "sensitivity=.95"
    with pytest.raises(SettingsError, match="threshold"):
        resolve("patches", overrides={"threshold": "sensitivity=95"})
