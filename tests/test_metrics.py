"""The six metrics, AUC and the report: worked by hand, and against scikit-learn."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kit import metrics
from kit.errors import SettingsError, TableError
from kit.files import jsonable

ROOT = Path(__file__).parents[1]


def khd2020() -> tuple[np.ndarray, np.ndarray]:
    """TN 1350, FP 50, FN 30, TP 570."""
    true = np.repeat([0, 0, 1, 1], [1350, 50, 30, 570])
    return true, np.repeat([0, 1, 0, 1], [1350, 50, 30, 570])


def sample(seed: int, n: int = 200, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 2, n)
    prob = np.clip(rng.normal(0.4 + 0.2 * true, 0.2), 0, 1)
    return true, np.round(prob, 1) if ties else prob


def test_the_six_of_a_datathon_are_those_worked_by_hand() -> None:
    six = metrics.six_metrics(*khd2020())
    assert list(six) == list(metrics.SIX)
    assert six["accuracy"] == pytest.approx(1920 / 2000, abs=1e-15)
    assert six["specificity"] == pytest.approx(1350 / 1400, abs=1e-15)
    assert six["sensitivity"] == pytest.approx(570 / 600, abs=1e-15)
    assert six["ppv"] == pytest.approx(570 / 620, abs=1e-15)
    assert six["npv"] == pytest.approx(1350 / 1380, abs=1e-15)
    assert six["f1"] == pytest.approx(1140 / 1220, abs=1e-15)
    assert round(metrics.mean_of_six(six), 3) == 0.951
    assert metrics.confusion_counts(*khd2020()) == (570, 50, 30, 1350)


@pytest.mark.parametrize("seed", range(5))
def test_six_and_auc_agree_with_scikit_learn(seed: int) -> None:
    from sklearn import metrics as peer

    true, prob = sample(seed, ties=seed % 2 == 1)
    pred = (prob >= 0.5).astype(int)
    six = metrics.six_metrics(true, pred)
    theirs = {
        "accuracy": peer.accuracy_score(true, pred),
        "specificity": peer.recall_score(true, pred, pos_label=0),
        "sensitivity": peer.recall_score(true, pred),
        "ppv": peer.precision_score(true, pred),
        "npv": peer.precision_score(true, pred, pos_label=0),
        "f1": peer.f1_score(true, pred),
    }
    assert six == pytest.approx(theirs, abs=1e-12)
    weights = np.random.default_rng(seed).random(len(true))
    assert metrics.auc(true, prob) == pytest.approx(peer.roc_auc_score(true, prob), abs=1e-12)
    assert metrics.auc(true, prob, weights=weights) == pytest.approx(
        peer.roc_auc_score(true, prob, sample_weight=weights), abs=1e-12
    )


@pytest.mark.parametrize("seed", range(3))
def test_macro_figures_agree_with_scikit_learn(seed: int) -> None:
    from sklearn import metrics as peer

    rng = np.random.default_rng(seed)
    classes = ["AMD", "DMR", "NOR", "RVO"]
    prob = rng.dirichlet(np.ones(4), 150)
    true = np.asarray(classes)[[rng.choice(4, p=p) for p in prob]]
    pred = np.asarray(classes)[prob.argmax(axis=1)]
    six = metrics.macro_six(true, pred, classes)
    assert six["sensitivity"] == pytest.approx(peer.recall_score(true, pred, average="macro"))
    assert six["ppv"] == pytest.approx(peer.precision_score(true, pred, average="macro"))
    assert six["f1"] == pytest.approx(peer.f1_score(true, pred, average="macro"))
    cells = peer.multilabel_confusion_matrix(true, pred, labels=classes)
    tn, fp, fn, _ = (cells[:, i, j] for i in (0, 1) for j in (0, 1))
    assert six["specificity"] == pytest.approx(np.mean(tn / (tn + fp)))
    assert six["npv"] == pytest.approx(np.mean(tn / (tn + fn)))
    assert six["accuracy"] == pytest.approx(peer.accuracy_score(true, pred))
    assert metrics.macro_auc(true, prob, classes) == pytest.approx(
        peer.roc_auc_score(true, prob, multi_class="ovr", labels=classes), abs=1e-12
    )
    report = metrics.evaluate(true, prob, threshold=None, classes=classes, resamples=100)
    assert {name: report[name].value for name in metrics.SIX} == pytest.approx(six, abs=1e-12)
    assert report["auc"].value == pytest.approx(metrics.macro_auc(true, prob, classes))
    assert report.threshold is None
    assert np.array_equal(report.confusion, peer.confusion_matrix(true, pred, labels=classes))


# Each metric as a function of labels and decisions, so that all are held to the same properties.
REGISTRY: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    name: lambda true, pred, name=name: metrics.six_metrics(true, pred)[name]  # type: ignore[misc]
    for name in metrics.SIX
}
REGISTRY["mean_of_six"] = lambda t, p: metrics.mean_of_six(metrics.six_metrics(t, p))
REGISTRY["auc"] = metrics.auc


@pytest.mark.parametrize("name", REGISTRY)
def test_order_of_rows_does_not_matter(name: str) -> None:
    true, prob = sample(0)
    pred = (prob >= 0.5).astype(int)
    order = np.random.default_rng(1).permutation(len(true))
    assert REGISTRY[name](true[order], pred[order]) == REGISTRY[name](true, pred)


@pytest.mark.parametrize("name", REGISTRY)
def test_perfect_is_one_and_nothing_is_better(name: str) -> None:
    true, prob = sample(0)
    assert REGISTRY[name](true, true) == 1
    assert REGISTRY[name](true, (prob >= 0.5).astype(int)) < 1


def test_swapping_the_classes_swaps_the_metrics() -> None:
    true, prob = sample(2)
    pred = (prob >= 0.5).astype(int)
    ones, zeros = metrics.six_metrics(true, pred), metrics.six_metrics(true, pred, positive=0)
    assert ones["sensitivity"] == zeros["specificity"] != ones["specificity"]
    assert ones["ppv"] == zeros["npv"] != ones["npv"]
    assert ones["accuracy"] == zeros["accuracy"]
    assert metrics.auc(true, prob) == pytest.approx(1 - metrics.auc(true, prob, positive=0))


def test_auc_of_four_rows_with_a_tie_is_worked_by_hand() -> None:
    assert metrics.auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9]) == 3.5 / 4
    assert metrics.auc([0, 1, 0, 1], [0.5] * 4) == 0.5
    # The tied pair is worth half of its weight 3 x 1, of all (3 + 1) x (1 + 1).
    assert metrics.auc([0, 1, 0, 1], [0.1, 0.4, 0.4, 0.9], weights=[1, 3, 1, 1]) == 6.5 / 8


@pytest.mark.parametrize(
    ("true", "pred", "undefined"),
    [
        ([0, 0], [0, 0], {"sensitivity", "ppv", "f1"}),
        ([1, 1], [1, 1], {"specificity", "npv"}),
        ([0, 1], [0, 0], {"ppv"}),
        ([0, 1], [1, 1], {"npv"}),
        ([0, 0], [0, 1], {"sensitivity"}),
        ([], [], set(metrics.SIX)),
    ],
)
def test_undefined_is_nan(true: list[int], pred: list[int], undefined: set[str]) -> None:
    six = metrics.six_metrics(np.array(true, dtype=int), np.array(pred, dtype=int))
    assert {name for name, value in six.items() if math.isnan(value)} == undefined
    assert math.isnan(metrics.mean_of_six(six)) == bool(undefined)


def test_auc_of_one_class_is_nan() -> None:
    assert math.isnan(metrics.auc([1, 1], [0.2, 0.3]))
    assert math.isnan(metrics.macro_auc(["a", "b"], np.full((2, 3), 1 / 3), ["a", "b", "c"]))


def test_labels_may_be_words() -> None:
    words = np.array(["benign", "malignant"])
    true, pred = khd2020()
    assert metrics.six_metrics(words[true], words[pred], positive="malignant") == (
        metrics.six_metrics(true, pred)
    )


def test_many_confusion_matrices_are_scored_at_once() -> None:
    six = metrics.six_from_counts([570, 0], [50, 0], [30, 3], [1350, 5])
    assert six["ppv"][0] == 570 / 620 and np.isnan(six["ppv"][1])
    assert six["f1"].tolist() == [1140 / 1220, 0]
    assert np.isnan(metrics.mean_of_six(six)).tolist() == [False, True]


@pytest.mark.parametrize(
    ("true", "pred", "positive"),
    [
        (["a", "b"], ["b", "a"], "c"),  # no row could be the positive class
        (["0", "1"], ["0", "1"], 1),  # text is never a number
        ([0, 1], [0, 1], "1"),
        (["a", None], ["a", "b"], "b"),
        (["a", "b"], ["a"], "b"),
    ],
)
def test_labels_that_cannot_be_scored_are_refused(
    true: list[object], pred: list[object], positive: object
) -> None:
    with pytest.raises(TableError):
        metrics.six_metrics(true, pred, positive=positive)  # type: ignore[arg-type]


def test_a_report_holds_each_figure_within_its_interval() -> None:
    true, prob = sample(0, n=300)
    report = metrics.evaluate(true, prob, threshold=0.5, resamples=500)
    assert list(report.metrics) == list(metrics.FIGURES)
    for metric in report.metrics.values():
        assert 0 <= metric.low < metric.value < metric.high <= 1
    assert (report.n, report.n_groups, report.threshold) == (300, 300, 0.5)
    assert set(report.reasons) & set(metrics.FIGURES) == set() and report.warnings == ()
    six = metrics.six_metrics(true, prob >= 0.5)
    assert {name: report[name].value for name in metrics.SIX} == six
    counts = metrics.confusion_counts(true, prob >= 0.5)
    assert report.confusion == ((counts.tn, counts.fp), (counts.fn, counts.tp))
    assert report.classes == ("0", "1")


def test_a_report_turns_into_json_and_into_a_table() -> None:
    true, prob = sample(0)
    report = metrics.evaluate(true, prob, threshold=0.5, resamples=100)
    found = json.loads(json.dumps(jsonable(report.to_dict())))
    assert found["ppv"] == {
        "value": report["ppv"].value, "low": report["ppv"].low, "high": report["ppv"].high,
    }  # fmt: skip
    assert (found["n"], found["n_groups"], found["threshold"]) == (200, 200, 0.5)
    table = report.table().set_index("metric")
    assert list(table.columns) == ["value", "low", "high", "reliable"]
    assert table.loc["auc", "high"] == report["auc"].high


def test_equal_seeds_give_equal_reports_and_others_do_not() -> None:
    true, prob = sample(1)
    reports = [
        metrics.evaluate(true, prob, threshold=0.5, resamples=200, seed=s) for s in (0, 0, 1)
    ]
    assert repr(reports[0]) == repr(reports[1]) != repr(reports[2])
    assert reports[0]["auc"].value == reports[2]["auc"].value


def test_intervals_do_not_depend_on_the_order_of_rows_within_groups() -> None:
    true, prob = sample(1)
    groups = np.arange(len(true)) // 4
    order = np.random.default_rng(0).permutation(len(true))
    one = metrics.evaluate(true, prob, threshold=0.5, groups=groups, resamples=200)
    two = metrics.evaluate(
        true[order], prob[order], threshold=0.5, groups=groups[order], resamples=200
    )
    assert repr(one) == repr(two)


def test_intervals_are_wider_where_rows_of_a_patient_agree() -> None:
    rng = np.random.default_rng(0)
    true, right = np.repeat(rng.integers(0, 2, 80), 10), np.repeat(rng.random(80) < 0.75, 10)
    prob = np.where(right, true, 1 - true) * 0.6 + 0.2 + rng.normal(0, 0.01, 800)
    groups = np.repeat(np.arange(80), 10)
    naive = metrics.evaluate(true, prob, threshold=0.5, resamples=500)
    honest = metrics.evaluate(true, prob, threshold=0.5, groups=groups, resamples=500)
    assert (naive.n_groups, honest.n_groups) == (800, 80)
    for name in metrics.FIGURES:
        width = honest[name].high - honest[name].low
        assert width > 2 * (naive[name].high - naive[name].low)
        assert honest[name].value == naive[name].value


def test_the_interval_of_a_share_is_near_wilsons() -> None:
    from kit.intervals import wilson

    true, pred = khd2020()
    report = metrics.evaluate(true, pred.astype(float), threshold=0.5)
    assert [report["sensitivity"].low, report["sensitivity"].high] == pytest.approx(
        wilson(570, 600), abs=0.005
    )


def test_bootstrapped_figures_are_those_of_the_resampled_rows() -> None:
    from kit._certainty import statistic_of
    from kit._rows import rows_of

    true, prob = sample(3, n=60, ties=True)
    groups, weights = np.arange(60) // 3, np.random.default_rng(0).integers(0, 4, (5, 20))
    pred = (prob >= 0.5).astype(int)
    rows = rows_of(true, prob, None, 0.5, groups, None, 1, None)
    kinds, frequency = rows.kinds()
    assert frequency.sum() == 20
    of_group = np.zeros((20, 4))
    np.add.at(of_group, (groups, 2 * true + pred), 1)
    drawn = [[w[(of_group == kind).all(axis=1)].sum() for kind in kinds] for w in weights]
    found = statistic_of(kinds, 2)(np.asarray(drawn, dtype=float))
    for i, weight in enumerate(weights):
        again = np.repeat(np.arange(60), weight[groups])
        six = metrics.six_metrics(true[again], pred[again])
        assert {name: found[name][i] for name in metrics.SIX} == pytest.approx(six)


def test_a_row_at_the_threshold_is_positive() -> None:
    report = metrics.evaluate([0, 1], [0.4, 0.5], threshold=0.5, resamples=100)
    assert report.confusion == ((1, 0), (0, 1))


def test_decisions_from_elsewhere_override_the_threshold() -> None:
    true, prob = sample(0)
    words = np.array(["no", "yes"])
    decided = prob >= 0.3
    by_bool = metrics.evaluate(
        words[true], prob, threshold=0.5, positive="yes", y_pred=decided, resamples=100
    )
    by_label = metrics.evaluate(
        words[true], prob, threshold=None, positive="yes",
        y_pred=words[decided.astype(int)], resamples=100,
    )  # fmt: skip
    assert by_bool.metrics == by_label.metrics
    assert (by_bool.threshold, by_label.threshold) == (0.5, None)
    assert by_bool["ppv"].value == metrics.six_metrics(true, decided)["ppv"]
    assert by_bool.classes == ("no", "yes")


def test_one_class_leaves_figures_undefined_and_says_why() -> None:
    report = metrics.evaluate(
        ["yes"] * 4, [0.6, 0.7, 0.8, 0.4], threshold=0.5, positive="yes", classes=["no", "yes"]
    )
    undefined = {name for name, metric in report.metrics.items() if math.isnan(metric.value)}
    assert undefined == {"specificity", "mean_of_six", "auc"}
    assert report.reasons["specificity"] == report.reasons["auc"] == "no row is no"
    assert report.reasons["mean_of_six"] == "specificity undefined"
    assert all(math.isnan(report[name].low) for name in undefined)
    assert "the rows are of one class" in report.warnings


def test_an_undefined_class_of_several_is_named() -> None:
    prob = np.array([[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    report = metrics.evaluate(
        ["a", "b", "c"], prob, threshold=None, classes=["a", "b", "c"], resamples=100
    )
    assert report.reasons["ppv"] == "no row is called b"


def test_a_figure_of_one_and_one_of_zero_have_intervals_with_a_width() -> None:
    true = np.repeat([1, 0], [20, 180])
    report = metrics.evaluate(true, true.astype(float), threshold=0.5)
    for metric in report.metrics.values():
        assert metric.value == 1 and 0.8 < metric.low < metric.high <= 1
    assert report["sensitivity"].low == pytest.approx(0.88, abs=0.02)  # Beta(20.5, .5) at 2.5 %
    wrong = metrics.evaluate(true, 1.0 - true, threshold=0.5)
    assert wrong["accuracy"].value == 0 and wrong["accuracy"].high > 0.005


def test_intervals_without_groups_are_those_of_jeffreys() -> None:
    from scipy.stats import beta

    true, called = np.repeat([1, 0], [30, 170]), np.repeat([1, 0, 1, 0], [24, 6, 17, 153])
    found = metrics.evaluate(true, None, y_pred=called, resamples=40_000)["sensitivity"]
    assert [found.low, found.high] == pytest.approx(beta(24.5, 6.5).ppf([0.025, 0.975]), abs=0.004)


def test_few_groups_few_cases_of_a_class_and_ties_are_warned_of() -> None:
    true, prob = sample(0, n=40)
    text = " ".join(
        metrics.evaluate(
            true, np.round(prob), threshold=0.5, groups=np.arange(40) // 2, resamples=100
        ).warnings
    )
    assert "20 groups" in text and "ties" in text
    lone = metrics.evaluate(true, prob, threshold=0.5, groups=["p"] * 40)
    assert "one group" in " ".join(lone.warnings) and math.isnan(lone["auc"].low)
    rare = metrics.evaluate(np.arange(90) < 9, np.linspace(1, 0, 90), threshold=0.9, resamples=100)
    assert any("9 groups hold class True" in warning for warning in rare.warnings)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_prob": [0.1, float("nan")]}, "outside or NaN"),
        ({"y_prob": [0.1, 1.5]}, "outside or NaN: 1.5"),
        ({"y_prob": [0.1]}, "lengths differ"),
        ({"y_true": ["no", "maybe"]}, "unknown labels.*maybe"),
        ({"y_true": ["no", None]}, "empty labels"),
        ({"y_true": [], "y_prob": []}, "no rows"),
        ({"groups": ["a"]}, "lengths differ"),
        ({"groups": ["a", None]}, "groups are empty"),
        ({"positive": "malignant"}, "malignant"),
        ({"classes": ["no", "yes", "other"]}, "more than two classes"),
        ({"y_pred": ["no", "never"]}, "unknown labels.*never"),
        ({"y_prob": [[0.5, 0.5], [0.5, 0.5]], "threshold": None}, "three classes or more"),
    ],
)
def test_bad_input_is_refused_in_one_line(change: dict[str, object], words: str) -> None:
    good: dict[str, object] = {
        "y_true": ["no", "yes"], "y_prob": [0.1, 0.9], "threshold": 0.5,
        "positive": "yes", "classes": ["no", "yes"],
    }  # fmt: skip
    with pytest.raises(TableError, match=words) as caught:
        metrics.evaluate(**(good | change))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_thresholds_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SettingsError, match="need a threshold"):
        metrics.evaluate([0, 1], [0.1, 0.9], threshold=None)
    with pytest.raises(SettingsError, match="threshold"):
        metrics.evaluate([0, 1], [0.1, 0.9], threshold=50)
    with pytest.raises(SettingsError, match="no threshold"):
        metrics.evaluate([0, 1, 2], np.eye(3), threshold=0.5, classes=[0, 1, 2])


def test_floors_of_tables_load_nothing_heavy() -> None:
    code = (
        "import sys, kit.metrics, kit.folds, kit.ensemble, kit.thresholds;"
        "heavy = {'keras', 'tensorflow', 'openslide', 'sklearn', 'matplotlib', 'cv2', 'scipy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
