"""The cases to look at: those most wrong, and those that models disagree on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.errors import SettingsError, TableError
from kit.hard_cases import disagreeing, most_wrong


def predictions() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "case_id": ["a", "b", "c", "d"],
            "y_true": ["tumour", "normal", "normal", "tumour"],
            "prob_normal": [0.1, 0.2, 0.9, 0.8],
            "prob_tumour": [0.9, 0.8, 0.1, 0.2],
        }
    )


def models() -> pd.DataFrame:
    prob = {"m0": [0.5, 0.1, 0.9], "m1": [0.5, 0.3, 0.1]}
    return pd.DataFrame(prob, index=pd.Index(["a", "b", "c"], name="case_id"))


def test_the_least_probable_truth_comes_first_and_ties_go_by_id() -> None:
    found = most_wrong(predictions(), "tumour", 3)
    assert found.case_id.tolist() == ["b", "d", "a"]
    assert found.columns.tolist() == ["case_id", "y_true", "prob_tumour"]
    assert found.prob_tumour.tolist() == [0.8, 0.2, 0.9]


def test_without_a_positive_class_the_truth_has_its_own_probability() -> None:
    found = most_wrong(predictions(), None, 2)
    assert found.prob_of_truth.tolist() == [0.2, 0.2]


def test_the_order_of_rows_and_models_has_no_say() -> None:
    for order in ([3, 1, 0, 2], [2, 3, 1, 0]):
        shuffled = predictions().iloc[order]
        pd.testing.assert_frame_equal(
            most_wrong(shuffled, "tumour", 4), most_wrong(predictions(), "tumour", 4)
        )
    pd.testing.assert_frame_equal(
        disagreeing(models().iloc[::-1, ::-1], 3), disagreeing(models(), 3)
    )


def test_the_widest_spread_comes_first() -> None:
    found = disagreeing(models(), 2)
    assert found.case_id.tolist() == ["c", "b"]
    assert found.lowest.tolist() == [0.1, 0.1] and found.highest.tolist() == [0.9, 0.3]
    assert found.spread.to_numpy() == pytest.approx([0.4, 0.1])


def test_more_cases_than_there_are_give_all() -> None:
    assert len(most_wrong(predictions(), "tumour", 99)) == 4 and len(disagreeing(models(), 99)) == 3


@pytest.mark.parametrize(
    ("change", "positive", "message"),
    [
        ({"case_id": ["a", "a", "c", "d"]}, "tumour", "doubled ids.*1 doubled: a"),
        ({"y_true": ["tumour", None, "normal", "tumour"]}, "tumour", "empty labels"),
        ({"y_true": ["cyst", "normal", "normal", "tumour"]}, None, "unknown labels.*cyst"),
        ({"prob_tumour": [0.9, 1.8, 0.1, 0.2]}, "tumour", r"must be in \[0, 1\].*1.8"),
        ({"prob_tumour": [0.9, np.nan, 0.1, 0.2]}, None, "1 outside or NaN"),
        ({}, "cyst", "column prob_cyst is missing"),
    ],
)
def test_a_wrong_table_is_refused(
    change: dict[str, object], positive: str | None, message: str
) -> None:
    with pytest.raises(TableError, match=message):
        most_wrong(predictions().assign(**change), positive, 2)


def test_models_that_cannot_be_compared_are_refused() -> None:
    with pytest.raises(TableError, match=r"one model cannot disagree.*at least 2"):
        disagreeing(models()[["m0"]], 2)
    with pytest.raises(TableError, match="1 outside or NaN"):
        disagreeing(models().replace(0.3, np.nan), 2)
    with pytest.raises(TableError, match="doubled ids"):
        disagreeing(pd.concat([models(), models().head(1)]), 2)


def test_no_cases_asked_for_is_an_error() -> None:
    with pytest.raises(SettingsError, match="n must be a whole number of at least 1"):
        most_wrong(predictions(), "tumour", 0)
    with pytest.raises(SettingsError, match="n must be a whole number of at least 1"):
        disagreeing(models(), 0)
