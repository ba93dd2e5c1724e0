"""The validators: each returns what it checked, and names what is wrong."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit import checks
from kit.errors import SettingsError, TableError


def test_the_first_few_are_listed_and_the_rest_counted() -> None:
    assert checks.first("abc") == "a, b, c"
    assert checks.first(range(8)) == "0, 1, 2, 3, 4 and 3 more"
    assert checks.first([]) == ""


def test_a_near_name_is_suggested_and_else_all_are_listed() -> None:
    assert checks.nearest("epoch", ["epochs", "ema"]) == "did you mean epochs?"
    assert checks.nearest("zzz", ["b", "a"]) == "known: a, b"


def test_a_choice_is_returned_and_any_other_is_refused_with_its_neighbour() -> None:
    assert checks.choice("rule", "max", ("mean", "max")) == "max"
    with pytest.raises(SettingsError, match=r"one of max, top.*rule=maxim.*did you mean max\?"):
        checks.choice("rule", "maxim", ("top", "max"))


@pytest.mark.parametrize("value", [0, 0.5, 1])
def test_a_fraction_may_be_either_end(value: float) -> None:
    assert checks.fraction("f", value) == value


@pytest.mark.parametrize("value", [-1e-9, 1.001, 80, float("nan")])
def test_a_number_outside_0_and_1_is_no_fraction(value: float) -> None:
    with pytest.raises(SettingsError, match=r"f must be in \[0, 1\]\. Received: f="):
        checks.fraction("f", value)


def test_a_whole_number_of_at_least_one_passes() -> None:
    assert [checks.positive_int("n", v) for v in (1, np.int64(7), 3.0)] == [1, 7, 3]  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, float("nan"), float("inf"), "two", None])
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(SettingsError, match="n must be a whole number of at least 1"):
        checks.positive_int("n", value)  # type: ignore[arg-type]


def test_a_missing_column_is_named_with_the_file() -> None:
    table = pd.DataFrame({"a": [1], "b": [2]})
    assert checks.columns(table, ["b"]) is table
    with pytest.raises(TableError, match=r"column c is missing.*Received: a, b.*File: t\.csv"):
        checks.columns(table, ["a", "c"], path="t.csv")


def test_doubled_ids_are_counted_and_named() -> None:
    ids = pd.Series(["a", "b", "a", "c", "b", "a"], name="case_id")
    with pytest.raises(TableError, match=r"2 doubled: a, b\. File: t\.csv"):
        checks.unique_ids(ids, path="t.csv")
    single = ids.drop_duplicates()
    assert checks.unique_ids(single) is single


@pytest.mark.parametrize("empty", [None, float("nan"), "", "  "])
def test_an_empty_id_is_refused(empty: object) -> None:
    with pytest.raises(TableError, match="1 empty cells in column case_id"):
        checks.unique_ids(pd.Series(["a", empty], name="case_id", dtype=object))


def test_equal_lengths_give_the_length_and_others_are_told_apart() -> None:
    assert checks.same_length(truth=[1, 2], prob=np.zeros(2)) == 2
    with pytest.raises(TableError, match="truth has 2, prob has 3"):
        checks.same_length(truth=[1, 2], prob=np.zeros(3))


def test_known_labels_pass() -> None:
    values = pd.Series(["a", "b", "a"])
    assert checks.labels(values, ["a", "b"]) is values


def test_empty_labels_are_counted_with_their_rows() -> None:
    with pytest.raises(TableError, match="2 empty cells, first in rows 1, 3"):
        checks.labels(pd.Series(["a", None, "a", None]), ["a"])


def test_an_unknown_label_names_its_neighbour() -> None:
    with pytest.raises(TableError, match=r"Received: tumor\. .*did you mean tumour\?"):
        checks.labels(pd.Series(["normal", "tumor"]), ["normal", "tumour"])


def test_a_number_is_no_label_because_classes_are_text() -> None:
    with pytest.raises(TableError, match="unknown labels"):
        checks.labels(pd.Series([0, 1]), ["0", "1"])


def test_probabilities_come_back_as_float64() -> None:
    values = checks.probabilities(np.array([[0.25, 0.75], [1, 0]], np.float32))
    assert values.dtype == np.float64
    assert checks.probabilities(np.zeros((0, 2))).shape == (0, 2)


@pytest.mark.parametrize("bad", [-0.01, 1.01, float("nan"), float("inf")])
def test_a_value_that_is_no_probability_is_shown(bad: float) -> None:
    with pytest.raises(TableError, match=r"score must be in \[0, 1\].*1 outside or NaN"):
        checks.probabilities(np.array([0.5, bad]), name="score")


def test_rows_that_do_not_sum_to_one_are_counted() -> None:
    with pytest.raises(TableError, match=r"1 rows do not: 1\.5"):
        checks.probabilities(np.array([[0.5, 0.5], [0.75, 0.75]]))
