"""Ensembles: joined by id, complete, and the same in any order of rows."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from kit.ensemble import Ensemble
from kit.errors import KitError, SettingsError, TableError

COLUMNS = ["case_id", "group", "fold", "seed", "model", "y_true", "prob_no", "prob_yes"]


def predictions(model: str = "a", n: int = 10, seeds: int = 1, test: bool = False) -> pd.DataFrame:
    """An out-of-fold table of two folds, or a test table on which both folds' networks vote."""
    rng = np.random.default_rng(len(model) + ord(model[0]))
    rows = []
    for i in range(n):
        for fold in (0, 1) if test else (i % 2,):
            for seed in range(seeds):
                yes = rng.random()
                truth = None if test else "yes"
                rows.append((f"c{i}", f"p{i // 2}", fold, seed, model, truth, 1 - yes, yes))
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_mean_of_two_models_is_worked_by_hand() -> None:
    rows = [
        ("c2", "p", 1, 0, "a", "no", 0.5, 0.5),
        ("c1", "p", 0, 0, "a", "yes", 0.8, 0.2),
        ("c1", "p", 0, 0, "b", "yes", 0.4, 0.6),
        ("c2", "p", 1, 0, "b", "no", 0.9, 0.1),
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    found = Ensemble("mean").fit(table).predict(table)
    assert list(found.columns) == ["case_id", "group", "y_true", "prob_no", "prob_yes"]
    assert found["case_id"].tolist() == ["c1", "c2"]
    assert found["y_true"].tolist() == ["yes", "no"]
    assert found["prob_yes"].tolist() == pytest.approx([0.4, 0.3])
    assert found["prob_no"].tolist() == pytest.approx([0.6, 0.7])


def test_folds_and_seeds_of_a_test_case_are_averaged() -> None:
    test = predictions(seeds=3, test=True)
    found = Ensemble().fit(predictions(seeds=3)).predict(test).set_index("case_id")
    assert len(test) == 60 and len(found) == 10
    for case, rows in test.groupby("case_id"):
        assert found.loc[case, "prob_yes"] == pytest.approx(rows["prob_yes"].mean())
    assert found["y_true"].isna().all()


def test_a_model_with_more_seeds_has_no_more_votes() -> None:
    many, one = predictions("a", seeds=3), predictions("b")
    found = Ensemble().fit([many, one]).predict([many, one]).set_index("case_id")
    expected = (
        many.groupby("case_id")["prob_yes"].mean() + one.set_index("case_id")["prob_yes"]
    ) / 2
    assert found["prob_yes"].to_dict() == pytest.approx(expected.to_dict())


def test_order_of_rows_and_tables_changes_no_digit() -> None:
    a, b = predictions("a", seeds=3), predictions("b", seeds=3)
    fitted = Ensemble().fit([a, b])
    one = fitted.predict([a, b])
    columns = [*COLUMNS[:-2], "prob_yes", "prob_no"]
    two = fitted.predict(
        [b.sample(frac=1, random_state=0)[columns], a.sample(frac=1, random_state=1)]
    )
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_truth_is_left_out_where_it_is_not_given() -> None:
    table = predictions().drop(columns="y_true")
    assert "y_true" not in Ensemble().fit(table).predict(table).columns


def test_an_ensemble_comes_back_from_json() -> None:
    fitted = Ensemble().fit([predictions("b"), predictions("a")])
    assert (fitted.models, fitted.classes) == (("a", "b"), ("no", "yes"))
    assert Ensemble.from_dict(json.loads(json.dumps(fitted.to_dict()))) == fitted
    with pytest.raises(KitError, match="not an ensemble"):
        Ensemble.from_dict({"method": "mean"})


def test_fit_leaves_the_ensemble_as_it_was() -> None:
    ensemble = Ensemble()
    ensemble.fit(predictions())
    assert ensemble == Ensemble()
    with pytest.raises(SettingsError, match="not fitted"):
        ensemble.predict(predictions())


def test_a_model_that_lacks_cases_is_named_with_the_first_five() -> None:
    a, b = predictions("a"), predictions("b")
    with pytest.raises(TableError, match=r"model b lacks cases.*6 cases.*c0, c1, c2, c3, c4 and 1"):
        Ensemble().fit([a, b]).predict([a, b[6:]])


def test_a_test_case_without_one_of_its_folds_is_named() -> None:
    test = predictions(test=True)
    with pytest.raises(TableError, match=r"2 rows a case.*c4"):
        Ensemble().fit(predictions()).predict(test.drop(index=9))


def test_doubled_rows_are_named() -> None:
    table = predictions()
    with pytest.raises(TableError, match=r"10 doubled: c0 \(a, fold 0, seed 0\).*and 5 more"):
        Ensemble().fit([table, table])


def test_other_classes_or_models_than_fitted_are_refused() -> None:
    fitted = Ensemble().fit(predictions("a"))
    with pytest.raises(TableError, match=r"models differ.*Received: b"):
        fitted.predict(predictions("b"))
    with pytest.raises(TableError, match="classes differ"):
        fitted.predict(predictions("a").rename(columns={"prob_yes": "prob_maybe"}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prob_yes": 0.9, "prob_no": 0.9}, "sum to 1"),
        ({"prob_yes": float("nan")}, "NaN"),
        ({"group": "other"}, "two groups or two truths.*c3"),
        ({"y_true": "no"}, "two groups or two truths.*c3"),
        ({"case_id": None}, "case_id has empty cells"),
    ],
)
def test_bad_rows_are_refused(change: dict[str, object], words: str) -> None:
    table = predictions(seeds=2).astype({"case_id": object})
    for column, value in change.items():
        table.loc[7, column] = value  # a row of c3
    with pytest.raises(TableError, match=words):
        Ensemble().fit(table).predict(table)


def test_tables_that_are_none_are_refused() -> None:
    with pytest.raises(TableError, match="no predictions"):
        Ensemble().fit([])
    with pytest.raises(TableError, match="no probabilities"):
        Ensemble().fit(predictions().drop(columns=["prob_no", "prob_yes"]))
    with pytest.raises(TableError, match="group is missing"):
        Ensemble().fit(predictions().drop(columns="group"))
    with pytest.raises(SettingsError, match="mean"):
        Ensemble("man")
