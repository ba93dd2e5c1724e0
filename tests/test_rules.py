"""From the features of slides to their scores: chosen on other slides than those they score."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from kit.aggregate import Fitted, fit
from kit.ensemble import Ensemble
from kit.errors import KitError, MissingMppError, SettingsError, TableError
from kit.rules import COLUMNS, NAMES, Rule, probability
from kit.slide_features import KEY, LEARNT_FROM, SHAPES, features

CLASSES = ["normal", "tumour"]
NONE = features([], np.empty((0, 2)), 1.0, mpp=None)


def slides(n: int = 40, n_folds: int = 4, seeds: int = 2, **given: object) -> tuple:
    """Features of noise, slides in turn of each class and fold, and the cases; columns as given."""
    random = np.random.default_rng(1)
    cases = pd.DataFrame({"case_id": [f"c{i:03}" for i in range(n)], "fold": np.arange(n) % n_folds,
                          "label": [CLASSES[i // n_folds % 2] for i in range(n)]})  # fmt: skip
    cases["group"] = cases.case_id
    rows = pd.concat([cases[["case_id", "fold"]].assign(seed=s) for s in range(seeds)])
    rows = rows.assign(model="m", no_patch=0.0, **dict.fromkeys(SHAPES, 1.0))
    for name in COLUMNS:
        rows[name] = random.random(len(rows))
    for name, score in given.items():
        rows[name] = np.tile(np.asarray(score), seeds)
    return rows.reset_index(drop=True), cases


def later(rows: pd.DataFrame, cases: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The same slides as if they were new, scored by the networks of one fold."""
    return rows.assign(fold=0), cases.drop(columns="fold").assign(split="test")


def fitted(text: str, rows: pd.DataFrame, cases: pd.DataFrame) -> Fitted:
    return fit(Rule.parse(text), rows, cases, CLASSES, "tumour")


def score_of(table: pd.DataFrame) -> pd.Series:
    return table.groupby("case_id").prob_tumour.mean()


def auc(table: pd.DataFrame) -> float:
    from sklearn.metrics import roc_auc_score

    by = table.groupby("case_id").agg(p=("prob_tumour", "mean"), y=("y_true", "first"))
    return float(roc_auc_score(by.y == "tumour", by.p))


# What a text means.


@pytest.mark.parametrize("text", [*NAMES, *COLUMNS, "top=7", "top=0.03", "percentile=99.5",
                                  "noisy_or=1", "share=1", "region=0.33"])  # fmt: skip
def test_a_rule_is_written_as_it_was_read(text: str) -> None:
    assert str(Rule.parse(text)) == text


def test_one_rule_has_one_text() -> None:
    assert str(Rule.parse("top=.05")) == str(Rule.parse("top=5e-2")) == "top=0.05"
    assert str(Rule.parse("top=5.0")) == "top=5"
    assert Rule.parse("top=.05") == Rule.parse("top=0.050")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tpo", "did you mean top"),
        ("", "one of attention_mil, best, boosting"),
        ("top=", "whole number of patches from 1 on, or a share"),
        ("top=0", "whole number"),
        ("top=1.5", "whole number"),
        ("top=-1", "whole number"),
        ("top=nan", "whole number"),
        ("top=inf", "whole number"),
        ("noisy_or=0.5", "whole number"),
        ("percentile=101", "in \\[0, 100\\]"),
        ("share=0", "in \\(0, 1\\]"),
        ("region=1.1", "in \\(0, 1\\]"),
        ("mean=3", "takes no number"),
        ("logistic=1", "takes no number"),
        ("best=top", "takes no number"),
    ],
)
def test_a_text_that_is_no_rule_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Rule.parse(text)


def test_above_two_classes_there_is_only_the_mean() -> None:
    assert Rule.parse("mean", 3).name == "mean"
    with pytest.raises(SettingsError, match="mean, attention_mil or chowder, of 3 classes"):
        Rule.parse("max", 3)


def test_the_features_are_the_candidates_of_every_rule_each_once() -> None:
    assert len(set(COLUMNS)) == len(COLUMNS) == 29
    assert {c for name in NAMES for c in Rule(name).columns} == set(COLUMNS)
    assert Rule("best").columns[0] == Rule("top").columns[0] == "top=0.05"
    assert set(LEARNT_FROM) <= set(NONE)


def test_an_area_becomes_a_probability_without_a_tie() -> None:
    areas = np.arange(1, 200_000) * 0.000256
    found = probability("region=0.5", areas)
    assert (np.diff(found) > 0).all() and found[-1] < 1
    assert probability("region=0.5", np.array([0.0, 1.0, 3.0])).tolist() == [0, 0.5, 0.75]
    assert probability("top=5", areas) is areas


# What is chosen.


def test_a_fixed_rule_is_its_feature_and_nothing_is_chosen() -> None:
    rows, cases = slides()
    found = fitted("max", rows, cases)
    table = found.oof()
    assert list(table.columns) == [
        "case_id", "group", "fold", "seed", "model", "y_true", "prob_normal", "prob_tumour",
    ]  # fmt: skip
    assert table.prob_tumour.tolist() == rows.sort_values(KEY)["max"].tolist()
    assert (table.prob_normal == 1 - table.prob_tumour).all()
    assert table.y_true.tolist() == table.case_id.map(cases.set_index("case_id").label).tolist()
    assert set(found.chosen.rule) == {"max"}
    assert found.chosen.auc.iloc[-1] == pytest.approx(auc(table))
    assert found.chosen.fold.tolist() == ["0", "1", "2", "3", "all"]
    assert found.chosen.slides.tolist() == [30, 30, 30, 30, 40]


def test_a_rule_with_an_uncommon_number_uses_its_own_column() -> None:
    rows, cases = slides()
    with pytest.raises(TableError, match="top=7 is missing"):
        fitted("top=7", rows, cases)
    rows["top=7"] = 0.25
    assert set(fitted("top=7", rows, cases).oof().prob_tumour) == {0.25}


def test_the_best_parameter_is_the_one_of_the_highest_auc() -> None:
    truth = np.arange(40) // 4 % 2
    rows, cases = slides(**{"percentile=90": 0.2 + 0.6 * truth})
    found = fitted("percentile", rows, cases)
    assert set(found.chosen.rule) == {"percentile=90"} and set(found.chosen.auc) == {1.0}
    assert set(fitted("best", rows, cases).chosen.rule) == {"percentile=90"}
    assert auc(found.oof()) == 1.0


def test_of_equal_parameters_the_default_is_taken() -> None:
    truth = np.arange(40) // 4 % 2
    equal = {name: 0.1 + 0.5 * truth for name in Rule("top").columns}
    rows, cases = slides(**equal)
    assert set(fitted("top", rows, cases).chosen.rule) == {"top=0.05"}
    rows["top=0.05"] = 0.5
    assert set(fitted("top", rows, cases).chosen.rule) == {"top=0.02"}


def test_the_auc_is_that_of_the_mean_over_seeds() -> None:
    """Each seed of a feature is wrong of half the slides, their mean of none."""
    rows, cases = slides(**{name: np.full(40, 0.5) for name in Rule("share").columns})
    truth = (rows.case_id.map(cases.set_index("case_id").label) == "tumour").to_numpy()
    hit = (np.arange(len(rows)) % 2 == rows.seed).to_numpy()
    rows["share=0.9"] = np.where(truth, np.where(hit, 1.0, 0.2), np.where(hit, 0.0, 0.6))
    found = fitted("share", rows, cases)
    assert set(found.chosen.rule) == {"share=0.9"} and set(found.chosen.auc) == {1.0}


@pytest.mark.parametrize("text", ["top", "best", "region", "logistic", "boosting"])
def test_the_label_of_a_slide_does_not_change_its_own_score(text: str) -> None:
    rows, cases = slides()
    before = fitted(text, rows, cases)
    for case_id in cases.case_id[:2]:
        held = cases.case_id == case_id
        other = "normal" if cases.label[held].item() == "tumour" else "tumour"
        changed = cases.assign(label=cases.label.where(~held, other))
        after = fitted(text, rows, changed)
        fold = str(cases.fold[held].item())
        mine = before.oof().fold == int(fold)
        columns = ["case_id", "seed", "prob_tumour"]
        pd.testing.assert_frame_equal(before.oof()[mine][columns], after.oof()[mine][columns])
        one, two = (f.chosen.set_index("fold").rule[fold] for f in (before, after))
        assert one == two


def test_a_choice_on_the_slides_that_it_is_judged_on_flatters() -> None:
    """Of noise the best of many features looks good on its own slides, and is not."""
    naive, nested = [], []
    for seed in range(8):
        rows, cases = slides(n=40, seeds=1)
        random = np.random.default_rng(seed)
        rows[list(COLUMNS)] = random.random((len(rows), len(COLUMNS)))
        found = fitted("best", rows, cases)
        naive.append(found.chosen.auc.iloc[-1])
        nested.append(auc(found.oof()))
    assert np.mean(naive) > 0.65
    assert np.mean(nested) < 0.55


def test_slides_of_one_class_choose_nothing_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, cases = slides(n=8, n_folds=2)
    cases["label"] = np.where(cases.fold == 0, "tumour", "normal")
    for text, stands_in in (("percentile", "percentile=95"), ("logistic", "top=0.05")):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            found = fitted(text, rows, cases)
        assert found.chosen.rule.tolist()[:2] == [stands_in] * 2
        assert f"{stands_in} scores fold 0, for want of other slides" in caplog.text
    assert np.isnan(found.chosen.auc[0])


def test_one_fold_alone_has_the_default() -> None:
    rows, cases = slides(n=8, n_folds=1)
    found = fitted("best", rows, cases.assign(label=CLASSES * 4))
    assert found.chosen.rule[0] == "top=0.05" and found.chosen.slides.tolist() == [0, 8]


# What is learnt.


@pytest.mark.parametrize("text", ["logistic", "boosting"])
def test_a_classifier_joins_features_that_alone_do_not_suffice(text: str) -> None:
    random = np.random.default_rng(0)
    truth = np.arange(120) // 4 % 2
    shift = random.normal(size=120)
    rows, cases = slides(n=120, **{
        "max": 0.5 + 0.05 * (truth + shift), "mean": 0.5 + 0.05 * shift
    })  # fmt: skip
    found = fitted(text, rows, cases)
    assert auc(found.oof()) > max(auc(fitted(one, rows, cases).oof()) for one in ("max", "mean"))
    assert auc(found.oof()) > 0.8
    assert set(found.chosen.rule) == {text} and found.chosen.auc.isna().all()


def test_the_logistic_rule_is_scikit_learns_on_standardised_features() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, cases = slides(seeds=1)
    found = fitted("logistic", rows, cases).choice.learner
    design = np.stack([probability(c, rows[c].to_numpy()) for c in LEARNT_FROM], axis=1)
    peer = make_pipeline(StandardScaler(), LogisticRegression(tol=1e-8, max_iter=1000))
    peer.fit(design, cases.label == "tumour")
    assert found.predict(rows) == pytest.approx(peer.predict_proba(design)[:, 1], abs=1e-6)


def test_without_mpp_a_classifier_learns_from_what_there_is() -> None:
    rows, cases = slides()
    rows[["region=0.5", "region=0.9", "log_second", "log_tissue"]] = np.nan
    found = fitted("logistic", rows, cases)
    assert len(found.choice.learner.columns) == len(LEARNT_FROM) - 4
    assert np.isfinite(found.oof().prob_tumour).all()


def test_a_classifier_that_learnt_from_areas_needs_them() -> None:
    rows, cases = slides()
    found = fitted("logistic", rows, cases)
    with pytest.raises(TableError, match=r"no region=0\.5"):
        found.predict(*later(rows.assign(**{"region=0.5": np.nan}), cases))


SCRIPT = """
import sys
import pandas as pd
from kit.aggregate import Rule, fit
rows, cases = pd.read_parquet(sys.argv[1]), pd.read_parquet(sys.argv[2])
found = fit(Rule.parse(sys.argv[3]), rows, cases, ["normal", "tumour"], "tumour")
found.oof().to_parquet(sys.argv[4])
"""


def test_another_process_with_other_threads_gives_the_same_bits(tmp_path: Path) -> None:
    rows, cases = slides(n=80)
    rows.to_parquet(tmp_path / "rows.parquet")
    cases.to_parquet(tmp_path / "cases.parquet")
    here = fitted("boosting", rows, cases).oof()
    names = [str(tmp_path / name) for name in ("rows.parquet", "cases.parquet")]
    subprocess.run(
        [sys.executable, "-c", SCRIPT, *names, "boosting", str(tmp_path / "out.parquet")],
        check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"},
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    there = pd.read_parquet(tmp_path / "out.parquet")
    assert there.prob_tumour.tolist() == here.prob_tumour.tolist()


@pytest.mark.parametrize("text", ["mean", "best", "region", "logistic", "boosting"])
def test_a_rule_that_was_written_as_json_scores_new_slides_alike(text: str) -> None:
    rows, cases = slides()
    found = fitted(text, rows, cases)
    read = Fitted.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    one, other = (some.predict(*later(rows, cases)) for some in (found, read))
    pd.testing.assert_frame_equal(one, other)
    pd.testing.assert_frame_equal(found.chosen, read.chosen)
    assert (read.rule, read.ties) == (found.rule, found.ties)
    with pytest.raises(KitError, match="no out-of-fold rows"):
        read.oof()


def test_what_is_no_rule_is_refused() -> None:
    with pytest.raises(KitError, match=r"not a fitted rule.*'learner'"):
        Fitted.from_dict({"rule": "mean"})


def test_trees_that_come_out_otherwise_are_told(caplog: pytest.LogCaptureFixture) -> None:
    rows, cases = slides()
    said = fitted("boosting", rows, cases).to_dict()
    said["learner"]["state"]["said"][0] += 0.01
    with caplog.at_level(logging.WARNING):
        Fitted.from_dict(said).predict(*later(rows, cases))
    assert "differs by up to 0.01" in caplog.text


# What comes in and out.


def test_every_network_scores_new_slides_by_the_choice_on_all() -> None:
    truth = np.arange(40) // 4 % 2
    rows, cases = slides(**{"share=0.1": 0.2 + 0.6 * truth})
    found = fitted("share", rows, cases)
    new = rows[rows.case_id.isin(["c000", "c001"])].assign(fold=0)
    new = pd.concat([new, new.assign(fold=-1)])
    table = found.predict(new, pd.DataFrame({"case_id": ["c001", "c000"], "group": ["g", "h"]}))
    assert list(zip(table.case_id, table.fold, table.seed, strict=True)) == [
        (c, f, s) for c in ("c000", "c001") for f in (-1, 0) for s in (0, 1)
    ]
    assert table.prob_tumour.tolist() == [0.2] * 8 and table.y_true.isna().all()
    assert table.group.tolist() == ["h"] * 4 + ["g"] * 4


def test_a_slide_without_tissue_scores_0_by_all_its_networks(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows, cases = slides()
    kept = rows[rows.case_id != "c003"]
    flagged = rows.copy()
    flagged.loc[flagged.case_id == "c003", list(NONE)] = list(NONE.values())
    for text in ("max", "region=0.5", "boosting"):
        with caplog.at_level(logging.WARNING):
            tables = [fitted(text, one, cases).oof() for one in (kept, flagged)]
        pd.testing.assert_frame_equal(*tables)
        mine = tables[0][tables[0].case_id == "c003"]
        assert mine.prob_tumour.tolist() == [0.0, 0.0]
    assert "no patch, so the stated score: c003" in caplog.text


def test_what_a_case_lacks_is_never_taken_for_nothing() -> None:
    rows, cases = slides()
    with pytest.raises(TableError, match=r"lack predictions of some networks.*Received: c003"):
        fitted("max", rows[(rows.case_id != "c003") | (rows.seed == 0)], cases)
    with pytest.raises(TableError, match=r"no network predicted anything.*c001"):
        fitted("max", rows[rows.fold != 1], cases)
    with pytest.raises(TableError, match=r"doubled features.*c000"):
        fitted("max", pd.concat([rows, rows[:1]]), cases)
    with pytest.raises(TableError, match="unknown labels"):
        fitted("max", rows, cases.assign(label="other"))


def test_of_a_network_only_the_cases_of_its_fold_count() -> None:
    rows, cases = slides()
    more = pd.concat([rows, rows.assign(fold=(rows.fold + 1) % 4, max=0.99)])
    pd.testing.assert_frame_equal(
        fitted("max", more, cases).oof(), fitted("max", rows, cases).oof()
    )


def test_a_rule_of_areas_needs_them_and_the_best_goes_without() -> None:
    rows, cases = slides()
    rows.loc[rows.case_id == "c005", [c for c in COLUMNS if c.startswith("region")]] = np.nan
    for text in ("region", "region=0.5"):
        with pytest.raises(MissingMppError, match=r"not known.*c005.*mpp"):
            fitted(text, rows, cases)
    assert not fitted("best", rows, cases).chosen.rule.str.startswith("region").any()


def test_scores_that_are_shared_are_counted() -> None:
    """Of eight slides two of one class share .5, two of both classes 1, and three 0."""
    rows, cases = slides(n=8, n_folds=2, max=[0.5, 1.0, 0.1, 0.0, 1.0, 0.5, 0.0, 0.0])
    cases["label"] = [CLASSES[i] for i in (0, 0, 0, 0, 1, 0, 0, 0)]
    found = fitted("max", rows, cases)
    assert found.ties == {"any": 7, "other_class": 2}
    assert fitted("mean", rows, cases).ties == {"any": 0, "other_class": 0}


def test_the_order_of_rows_changes_nothing() -> None:
    rows, cases = slides()
    for text in ("best", "logistic", "boosting"):
        one = fitted(text, rows, cases)
        other = fitted(text, rows.sample(frac=1, random_state=0), cases[::-1])
        pd.testing.assert_frame_equal(one.oof(), other.oof())
        pd.testing.assert_frame_equal(one.chosen, other.chosen)


def test_the_positive_class_may_stand_first() -> None:
    rows, cases = slides()
    swapped = cases.assign(label=np.where(cases.label == "tumour", "normal", "tumour"))
    one = fit(Rule("best"), rows, cases, CLASSES, "tumour").oof()
    other = fit(Rule("best"), rows, swapped, CLASSES, "normal").oof()
    assert one.prob_tumour.tolist() == other.prob_normal.tolist()


def test_two_rules_join_by_z_scores_as_help_2019_joined_them() -> None:
    """Slides of 0, .5 and 1 by one rule, and 0, 1/4 and 3/4 (0, 1/3 and 3 mm²) by another."""
    rows, cases = slides(n=3, n_folds=3, seeds=1,
                         **{"max": [0.0, 0.5, 1.0], "region=0.5": [0.0, 1 / 3, 3.0]})  # fmt: skip
    tables = [
        fitted("max", rows, cases).oof().assign(model="a"),
        fitted("region=0.5", rows, cases).oof().assign(model="b"),
    ]
    joined = Ensemble("zscore", given={"a": 3, "b": 1}).fit(tables).predict(tables)
    spread_a, spread_b = np.sqrt(1 / 6), np.sqrt((1 / 9 + 1 / 144 + 25 / 144) / 3)
    z_a = np.array([-0.5, 0, 0.5]) / spread_a
    z_b = np.array([-1 / 3, -1 / 12, 5 / 12]) / spread_b
    assert joined.prob_tumour.tolist() == pytest.approx(norm.cdf(0.75 * z_a + 0.25 * z_b).tolist())
