"""The judges' own scorers, to the last digit."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kit.challenges import find, help2019, khd2019, khd2020, rsna2021
from kit.manifest import load_manifest
from kit.metrics import auc, six_metrics


@pytest.mark.parametrize(
    ("tn", "fp", "fn", "tp", "published"),
    [(1400, 0, 600, 0, 0.4), (0, 1400, 0, 600, 0.3435), (1400, 0, 0, 600, 0.9999),
     (1350, 50, 30, 570, 0.951)],
)  # fmt: skip
def test_khd2020_gives_the_published_scores(tn, fp, fn, tp, published) -> None:
    true = np.repeat([0, 0, 1, 1], [tn, fp, fn, tp])
    called = np.repeat([0, 1, 0, 1], [tn, fp, fn, tp])
    assert khd2020.OFFICIAL(true, called, called) == published


def test_khd2020_counts_an_undefined_figure_as_nothing_and_the_kit_does_not() -> None:
    true, called = np.array([0, 0, 1]), np.zeros(3, int)
    assert khd2020.mean_of_six_official(true, called) > 0
    assert math.isnan(six_metrics(true, called)["ppv"])


def test_khd2020s_exchanged_names_leave_its_mean() -> None:
    # With FN and FP exchanged precision is recall and specificity NPV: the mean is the same.
    true, called = np.repeat([0, 0, 1, 1], [50, 9, 4, 37]), np.repeat([0, 1, 0, 1], [50, 9, 4, 37])
    assert khd2020.mean_of_six_official(true, called) == khd2020.mean_of_six_official(called, true)


def test_khd2019_packs_accuracy_sensitivity_and_specificity() -> None:
    true = np.repeat([0, 1, 2, 3], [111, 75, 167, 48])
    assert khd2019.packed_score(true, true) == pytest.approx(100.010001, abs=1e-9)
    called = true.copy()
    called[:10] = 1  # ten of 111 normal eyes are called the second class
    accuracy, sensitivity = 391 / 401, (101 / 111 + 3) / 4
    specificity = (1 + (326 - 10) / 326 + 1 + 1) / 4
    worked = round(accuracy, 4) * 100 + round(sensitivity, 4) / 100 + round(specificity, 4) / 1e6
    assert khd2019.OFFICIAL(true, called, called) == worked


def test_khd2019_is_undefined_without_rows_of_a_class() -> None:
    assert math.isnan(khd2019.packed_score(np.array([0, 1, 2]), np.array([0, 1, 2])))


@pytest.mark.parametrize("challenge", [help2019, rsna2021])
def test_auc_is_the_judges_where_they_ask_for_it(challenge) -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    true, prob = rng.integers(0, 2, 140), rng.random(140).round(1)
    assert challenge.OFFICIAL(true, prob >= 0.5, prob) == pytest.approx(
        roc_auc_score(true, prob), abs=1e-15
    )
    assert challenge.OFFICIAL(true, prob >= 0.5, prob) == auc(true, prob)


def test_each_challenge_has_its_scorer_and_a_plain_dataset_has_none() -> None:
    manifest = load_manifest()
    for name, module in (("khd2020", khd2020), ("help2019", help2019)):
        assert find(name, manifest).official is module.OFFICIAL
    assert find("synthetic_patches", manifest).official is None
