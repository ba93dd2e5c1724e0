"""Two models on the same cases, and one against chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2

from kit import metrics
from kit._ranks import area, spread
from kit.comparison import chance, compare, difference_table
from kit.errors import SettingsError, TableError

# DeLong et al. (1988) by SAS/STAT, PROC LOGISTIC, example "Comparing Receiver Operating
# Characteristic Curves": albumin, total protein, K-G score, and whether surgery helps.
OVARIAN = """
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1
3.8 5.7 5 1 3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0
2.3 4.4 6 1 4.2 7.6 4 0 4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1
3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1 4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0
3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1 2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1
3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1
"""


def drawn(seed: int, patients: int = 60, images: int = 5, apart: float = 0.0):
    """Labels by patient, two models' probabilities, and the patients."""
    rng = np.random.default_rng(seed)
    truth, group = np.repeat(rng.random(patients) < 0.5, images), np.repeat(range(patients), images)
    shared = np.repeat(rng.normal(size=patients), images) + 1.2 * truth
    scores = [shared + rng.normal(size=len(truth)) + extra * truth for extra in (0.0, apart)]
    return truth.astype(int), *(1 / (1 + np.exp(0.6 - s)) for s in scores), group


def test_delongs_test_gives_the_published_differences() -> None:
    table = np.array(OVARIAN.split(), dtype=float).reshape(-1, 4)
    truth = table[:, 3].astype(int)
    kg, albumin, protein = (10 - table[:, 2]) / 10, table[:, 0] / 10, table[:, 1] / 10
    mine = area(truth == 1, kg)
    published = ((albumin, 0.0108, 0.0953, 0.0127), (protein, -0.0780, 0.1046, 0.5554))
    for other, value, error, square in published:
        theirs = area(truth == 1, other)
        apart = theirs.influence - mine.influence
        variance = spread(apart, truth, np.arange(43), 43).variance
        assert theirs.area - mine.area == pytest.approx(value, abs=5e-5)
        assert variance**0.5 == pytest.approx(error, abs=5e-5)
        assert (theirs.area - mine.area) ** 2 / variance == pytest.approx(square, abs=5e-5)
        found = compare(truth, kg, other, threshold=0.5)["auc"]
        assert found.value == pytest.approx(value, abs=5e-5)
        assert found.p == pytest.approx(chi2.sf(square, 1), abs=0.02)  # Student's, theirs is normal


def test_the_difference_is_that_of_the_two_reports() -> None:
    truth, a, b, group = drawn(0, apart=0.5)
    found = compare(truth, a, b, threshold=0.5, groups=group, resamples=200)
    one, two = (metrics.evaluate(truth, p, threshold=0.5, resamples=100) for p in (a, b))
    for name in metrics.FIGURES:
        assert found[name].value == pytest.approx(two[name].value - one[name].value, abs=1e-12)
        assert found[name].low <= found[name].value <= found[name].high
    assert list(difference_table(found)["metric"]) == list(metrics.FIGURES)


def test_exchanging_the_models_changes_signs_alone() -> None:
    truth, a, b, group = drawn(1, apart=0.5)
    one = compare(truth, a, b, threshold=0.5, groups=group, resamples=2000)
    two = compare(truth, b, a, threshold=0.5, groups=group, resamples=2000)
    for name in metrics.FIGURES:
        assert two[name].value == pytest.approx(-one[name].value)
        assert two[name].low == pytest.approx(-one[name].high, abs=0.01)
        assert two[name].p == pytest.approx(one[name].p, abs=0.04)


def test_a_model_is_no_better_than_itself() -> None:
    truth, a, _, group = drawn(2)
    for found in compare(truth, a, a, threshold=0.5, groups=group, resamples=200).values():
        assert found == (0.0, 0.0, 0.0, 1.0)


def test_a_better_model_is_seen_and_an_equal_one_rarely() -> None:
    better = [compare(*drawn(s, apart=1.5)[:3], threshold=0.5, groups=drawn(s)[3], resamples=300)
              for s in range(10)]  # fmt: skip
    assert sum(found["auc"].p < 0.05 for found in better) == 10
    assert sum(found["mean_of_six"].p < 0.05 for found in better) >= 9


@pytest.mark.slow
def test_equal_models_differ_at_the_level_of_the_test_and_intervals_cover_nothing_else() -> None:
    false = {name: 0 for name in metrics.FIGURES}
    covered = dict(false)
    for seed in range(400):
        truth, a, b, group = drawn(seed)
        found = compare(truth, a, b, threshold=0.5, groups=group, resamples=400)
        for name, one in found.items():
            false[name] += one.p < 0.05
            covered[name] += one.low <= 0 <= one.high
    for name in metrics.FIGURES:  # .05 +- 3 standard errors of 400
        assert 0.015 <= false[name] / 400 <= 0.085, name
        assert 0.915 <= covered[name] / 400 <= 0.985, name


def test_an_undefined_figure_has_an_undefined_difference() -> None:
    found = compare([1, 1, 1], [0.9, 0.8, 0.7], [0.2, 0.8, 0.9], threshold=0.5, resamples=100)
    assert math.isnan(found["specificity"].value) and math.isnan(found["auc"].p)
    assert not math.isnan(found["sensitivity"].value)


def test_several_classes_are_compared_by_their_means() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 200)
    a, b = rng.dirichlet([1, 1, 1], 200), rng.dirichlet([1, 1, 1], 200)
    b[np.arange(200), truth] += 0.5
    b /= b.sum(axis=1, keepdims=True)
    found = compare(truth, a, b, classes=[0, 1, 2], resamples=300)
    assert found["accuracy"].value > 0.1 and found["accuracy"].p < 0.01
    assert found["auc"].value == pytest.approx(
        metrics.macro_auc(truth, b, [0, 1, 2]) - metrics.macro_auc(truth, a, [0, 1, 2])
    )


def test_models_of_other_rows_are_refused() -> None:
    with pytest.raises(TableError, match="lengths differ"):
        compare([0, 1], [0.1, 0.9], [0.1, 0.9, 0.5], threshold=0.5)
    with pytest.raises(SettingsError, match="threshold"):
        compare([0, 1], [0.1, 0.9], [0.1, 0.9])


def test_a_model_by_chance_is_told_from_none_and_a_good_one_is() -> None:
    rng = np.random.default_rng(0)
    truth, folds = rng.integers(0, 2, 200), np.arange(200) % 5
    assert chance(truth, rng.random(200), folds=folds).p > 0.05
    found = chance(truth, (rng.random(200) + truth) / 2, folds=folds)
    assert found.p == pytest.approx(1 / 2001) and found.auc > 0.9


def test_chance_without_folds_or_groups_is_mann_whitneys_test() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(5)
    truth, prob = rng.integers(0, 2, 80), rng.random(80).round(2)
    peer = mannwhitneyu(prob[truth == 1], prob[truth == 0], alternative="greater")
    found = chance(truth, prob, permutations=5000)
    assert found.p == pytest.approx(peer.pvalue, abs=0.02)
    assert found.auc == pytest.approx(metrics.auc(truth, prob))


def test_folds_of_other_levels_alone_are_no_skill() -> None:
    # Each fold's network has its own level, and folds differ in prevalence: the pooled AUC sees it.
    rng = np.random.default_rng(0)
    folds = np.repeat([0, 1], 100)
    truth = (rng.random(200) < np.where(folds == 0, 0.2, 0.8)).astype(int)
    prob = np.where(folds == 0, 0.2, 0.6) + 0.2 * rng.random(200)
    assert metrics.auc(truth, prob) > 0.7
    assert chance(truth, prob, folds=folds).p > 0.05


@pytest.mark.slow
def test_chance_is_called_skill_in_five_of_a_hundred_with_many_images_a_patient() -> None:
    said = 0
    for seed in range(400):
        rng = np.random.default_rng(seed)
        truth, group = np.repeat(rng.integers(0, 2, 40), 10), np.repeat(np.arange(40), 10)
        prob = 1 / (1 + np.exp(-np.repeat(rng.normal(size=40), 10) - 0.5 * rng.normal(size=400)))
        said += chance(truth, prob, groups=group, folds=group % 4, permutations=300).p < 0.05
    assert 0.02 <= said / 400 <= 0.085


def test_one_class_leaves_nothing_to_test() -> None:
    found = chance([1, 1], [0.2, 0.4])
    assert math.isnan(found.auc) and math.isnan(found.p)
