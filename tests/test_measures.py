"""Every metric: agreement with scikit-learn, properties of all, and what a report adds."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as peer

from kit import metrics
from kit.errors import SettingsError, TableError
from kit.metrics import REGISTRY, evaluate


def drawn(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Truth, probabilities (every other time with ties), decisions and weights of some rows."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(20, 400))
    truth = rng.random(n) < rng.uniform(0.1, 0.9)
    truth[:2] = [True, False]
    prob = rng.uniform(0.01, 0.99, n).round(2 if seed % 2 else 12)
    return truth, prob, prob >= rng.uniform(0.3, 0.7), rng.uniform(0, 3, n)


@pytest.mark.parametrize("weighted", [False, True])
def test_two_hundred_random_cases_agree_with_scikit_learn(weighted) -> None:
    two = (False, True)
    for seed in range(200):
        truth, prob, called, weight = drawn(seed)
        mine = {"weights": weight} if weighted else {}
        theirs = {"sample_weight": weight} if weighted else {}
        pairs = {
            "auc": (metrics.auc(truth, prob, positive=True, **mine),
                    peer.roc_auc_score(truth, prob, **theirs)),
            "ap": (metrics.average_precision(truth, prob, positive=True, **mine),
                   peer.average_precision_score(truth, prob, **theirs)),
            "log loss": (metrics.log_loss(truth, prob, classes=two, **mine),
                         peer.log_loss(truth, prob, **theirs)),
            "brier": (metrics.brier(truth, prob, classes=two, **mine),
                      peer.brier_score_loss(truth, prob, **theirs)),
        }  # fmt: skip
        if 0 < called.sum() < len(called):
            pairs |= {
                "mcc": (metrics.mcc(truth, called, classes=two, **mine),
                        peer.matthews_corrcoef(truth, called, **theirs)),
                "kappa": (metrics.quadratic_kappa(truth, called, classes=two, **mine),
                          peer.cohen_kappa_score(truth, called, weights="quadratic", **theirs)),
                "balanced": (metrics.balanced_accuracy(truth, called, classes=two, **mine),
                             peer.balanced_accuracy_score(truth, called, **theirs)),
                "f1": (metrics.six_metrics(truth, called, positive=True, **mine)["f1"],
                       peer.f1_score(truth, called, **theirs)),
            }  # fmt: skip
        for name, (one, other) in pairs.items():
            assert one == pytest.approx(other, abs=1e-12), (name, seed)


def test_grades_and_many_classes_agree_with_scikit_learn() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        truth, called = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
        prob = rng.dirichlet(np.ones(5), 200)
        five = range(5)
        assert metrics.quadratic_kappa(truth, called, classes=five) == pytest.approx(
            peer.cohen_kappa_score(truth, called, weights="quadratic"), abs=1e-12
        )
        assert metrics.mcc(truth, called, classes=five) == pytest.approx(
            peer.matthews_corrcoef(truth, called), abs=1e-12
        )
        assert metrics.log_loss(truth, prob, classes=five) == pytest.approx(
            peer.log_loss(truth, prob), abs=1e-12
        )
        told = ((prob - np.eye(5)[truth]) ** 2).sum(axis=1).mean()
        assert metrics.brier(truth, prob, classes=five) == pytest.approx(told, abs=1e-12)


def scored(name: str, truth: np.ndarray, prob: np.ndarray) -> float:
    measure = REGISTRY[name]
    return measure.function(truth, prob if measure.takes == "y_prob" else prob >= 0.5)


@pytest.mark.parametrize("name", list(REGISTRY))
def test_order_of_rows_does_not_matter(name) -> None:
    truth, prob, _, _ = drawn(4)
    order = np.random.default_rng(0).permutation(len(truth))
    assert scored(name, truth[order], prob[order]) == pytest.approx(
        scored(name, truth, prob), abs=1e-12
    )


@pytest.mark.parametrize("name", list(REGISTRY))
def test_perfect_is_best_and_all_lies_in_its_range(name) -> None:
    measure = REGISTRY[name]
    for seed in range(20):
        truth, prob, _, _ = drawn(seed)
        assert scored(name, truth, truth.astype(float)) == pytest.approx(measure.best, abs=1e-12)
        value = scored(name, truth, prob)
        assert measure.low - 1e-12 <= value <= measure.high + 1e-12
        worse = abs(value - measure.best) >= 0
        assert worse and (value <= measure.best + 1e-12 or measure.best == measure.low)


def test_weights_of_whole_numbers_are_rows_seen_so_often() -> None:
    truth, prob, called, _ = drawn(3)
    times = np.random.default_rng(0).integers(0, 4, len(truth))
    many = np.repeat(np.arange(len(truth)), times)
    for name in ("average_precision", "auc"):
        one = getattr(metrics, name)(truth, prob, positive=True, weights=times)
        assert one == pytest.approx(getattr(metrics, name)(truth[many], prob[many], positive=True))
    report = evaluate(truth, prob, threshold=0.5, positive=True, weights=times, resamples=100)
    seen = evaluate(truth[many], prob[many], threshold=0.5, positive=True, resamples=100)
    for name in metrics.FIGURES:
        assert report[name].value == pytest.approx(seen[name].value)
    for name, value in seen.other.items():
        assert report.other[name] == pytest.approx(value), name
    assert called.shape == truth.shape


def test_calibration_is_that_of_a_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    logit = rng.normal(0, 2, 4000)
    truth = rng.random(4000) < 1 / (1 + np.exp(-(0.5 * logit + 0.3)))
    prob = 1 / (1 + np.exp(-logit))
    fitted = LogisticRegression(C=1e12, tol=1e-10, max_iter=1000, solver="newton-cg").fit(
        logit[:, None], truth
    )
    assert metrics.calibration_slope(truth, prob, positive=True) == pytest.approx(
        fitted.coef_[0, 0], abs=1e-4
    )
    intercept = metrics.calibration_intercept(truth, prob, positive=True)
    moved = 1 / (1 + np.exp(-(logit + intercept)))
    assert moved.mean() == pytest.approx(truth.mean(), abs=1e-10)
    honest = rng.random(4000) < prob
    assert metrics.calibration_slope(honest, prob, positive=True) == pytest.approx(1, abs=0.1)
    assert metrics.calibration_intercept(honest, prob, positive=True) == pytest.approx(0, abs=0.1)


def test_expected_calibration_error_is_worked_by_hand() -> None:
    truth, prob = np.array([1, 0, 1, 1]), np.array([0.25, 0.25, 0.95, 0.85])
    # Bins .2-.3: |.25 - .5| of two rows; .8-.9: |.85 - 1|; .9-1: |.95 - 1|.
    worked = (2 * 0.25 + 0.15 + 0.05) / 4
    found = metrics.expected_calibration_error(truth, prob, classes=(0, 1))
    assert found == pytest.approx(worked)


def test_what_cannot_be_is_nan_or_infinite_and_the_report_says_why() -> None:
    report = evaluate([1, 0, 1, 0], [1.0, 0.0, 0.0, 0.3], threshold=0.5)
    assert math.isinf(report.other["log_loss"])
    assert report.reasons["log_loss"].startswith("infinite")
    assert math.isnan(report.other["calibration_slope"])
    assert report.reasons["calibration_slope"] == "a probability is 0 or 1"
    split = evaluate([1, 0, 1, 0], [0.9, 0.2, 0.8, 0.3], threshold=0.5)
    assert "separate" in split.reasons["calibration_slope"]
    assert math.isnan(evaluate([1, 0], [0.9, 0.8], threshold=0.5).other["mcc"])


def table(n: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, n)
    prob = 1 / (1 + np.exp(-rng.normal(size=n) - 2 * truth + 1))
    return pd.DataFrame({"label": truth, "prob": prob, "patient": np.arange(n) // 3,
                         "scanner": np.where(np.arange(n) < 270, "A", "B")})  # fmt: skip


def test_a_column_gives_the_figures_of_its_parts() -> None:
    rows = table()
    report = evaluate("label", "prob", threshold=0.5, groups="patient", by="scanner", table=rows)
    parts = report.subgroups
    assert parts is not None and set(parts.part) == {"A", "B"}
    alone = evaluate(rows.label[270:], rows.prob[270:], threshold=0.5, groups=rows.patient[270:])
    mine = parts[parts.part == "B"].set_index("metric")
    assert mine.value["f1"] == alone["f1"].value and mine.low["auc"] == alone["auc"].low
    assert set(mine.n) == {30} and set(mine.n_groups) == {10} and not mine.reliable.any()
    assert parts[parts.part == "A"].reliable.all()
    shuffled = rows.sample(frac=1, random_state=1)
    again = evaluate("label", "prob", threshold=0.5, groups="patient", by="scanner", table=shuffled)
    pd.testing.assert_frame_equal(again.subgroups, parts)


def test_a_column_that_is_not_there_or_no_table_is_refused() -> None:
    with pytest.raises(SettingsError, match="no table"):
        evaluate("label", "prob", threshold=0.5)
    with pytest.raises(TableError, match="scaner"):
        evaluate("label", "prob", threshold=0.5, by="scaner", table=table())
    with pytest.raises(TableError, match="empty"):
        evaluate("label", "prob", threshold=0.5, by="scanner",
                 table=table().assign(scanner=None))  # fmt: skip


def test_few_patients_get_an_interval_that_holds() -> None:
    rows = table(60)
    report = evaluate("label", "prob", threshold=0.5, groups="patient", table=rows)
    assert report.unreliable == metrics.FIGURES and set(report.cautious) == set(
        metrics.FIGURES[:-1]
    )
    from kit.intervals import wilson

    positives = rows[rows.label == 1]
    share = (positives.prob >= 0.5).mean()
    n = positives.patient.nunique()
    assert report.cautious["sensitivity"] == pytest.approx(wilson(share * n, n))
    right = report["accuracy"].value
    assert report.cautious["accuracy"] == pytest.approx(wilson(right * 20, 20))
    assert not evaluate("label", "prob", threshold=0.5, groups="patient", table=table()).unreliable


def test_few_patients_of_a_class_make_its_figures_alone_unreliable() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0], [10, 190])
    report = evaluate(truth, rng.uniform(0.1, 0.9, 200), threshold=0.5)
    assert report.unreliable == ("sensitivity", "ppv", "f1", "mean_of_six", "auc")


def test_several_classes_have_figures_each_and_their_means() -> None:
    rng = np.random.default_rng(0)
    truth, prob = rng.integers(0, 3, 200), rng.dirichlet([1, 1, 1], 200)
    report = evaluate(truth, prob, classes=[0, 1, 2], graded=True)
    rows = report.per_class.set_index("class")
    called = prob.argmax(axis=1)
    assert rows.loc["1", "sensitivity"] == pytest.approx(
        peer.recall_score(truth, called, average=None)[1]
    )
    assert rows.loc["macro", "f1"] == pytest.approx(peer.f1_score(truth, called, average="macro"))
    assert rows.loc["weighted", "ppv"] == pytest.approx(
        peer.precision_score(truth, called, average="weighted")
    )
    assert report.other["quadratic_kappa"] == pytest.approx(
        peer.cohen_kappa_score(truth, called, weights="quadratic")
    )


def test_decisions_without_probabilities_have_no_auc() -> None:
    report = evaluate([1, 0, 1, 0] * 10, None, y_pred=[1, 0, 0, 0] * 10)
    assert report["sensitivity"].value == 0.5 and math.isnan(report["auc"].value)
    assert report.reasons["auc"] == "there are no probabilities"
    with pytest.raises(SettingsError, match="nothing to evaluate"):
        evaluate([1, 0])


@pytest.mark.parametrize("weights", [[1, -1], [1, np.nan], [1, 2, 3]])
def test_weights_that_cannot_be_are_refused(weights) -> None:
    with pytest.raises(TableError, match="weights"):
        evaluate([1, 0], [0.6, 0.4], threshold=0.5, weights=weights)
