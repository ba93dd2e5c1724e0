"""From patches to slides: worked by hand."""

from __future__ import annotations

import logging

import pandas as pd
import pytest

from kit.aggregate import to_cases
from kit.errors import TableError

CLASSES = ["normal", "tumour"]


def patches(case_id: str, tumour: list[float], fold: int = 0, seed: int = 0) -> pd.DataFrame:
    return pd.DataFrame({
        "case_id": case_id, "fold": fold, "seed": seed, "model": "m",
        "prob_tumour": tumour, "prob_normal": [1 - p for p in tumour],
    })  # fmt: skip


def cases(*names: str, split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({
        "case_id": list(names), "group": [f"g{name}" for name in names],
        "label": ["tumour"] * len(names), "split": split,
    })  # fmt: skip


def scores(table: pd.DataFrame) -> list[float]:
    assert list(table.prob_tumour + table.prob_normal) == pytest.approx([1] * len(table))
    return list(table.prob_tumour)


FORTY = [0.9, 0.7] + [0.1] * 38
"""Mean .135."""


def test_a_case_has_the_mean_of_its_patches() -> None:
    table = to_cases(patches("a", FORTY), cases("a"), CLASSES, "tumour")
    assert scores(table) == [pytest.approx(0.135)]
    assert list(table.columns) == [
        "case_id", "group", "fold", "seed", "model", "y_true", "prob_normal", "prob_tumour",
    ]  # fmt: skip
    assert table.iloc[0].to_dict() | {"prob_normal": 0, "prob_tumour": 0} == {
        "case_id": "a", "group": "ga", "fold": 0, "seed": 0, "model": "m", "y_true": "tumour",
        "prob_normal": 0, "prob_tumour": 0,
    }  # fmt: skip


def test_every_network_has_its_own_row_for_each_case() -> None:
    parts = pd.concat([
        patches("b", [0.5, 0.7], fold=0), patches("b", [0.1, 0.3], fold=1),
        patches("a", [0.2], fold=0), patches("a", [0.4], fold=1),
    ])  # fmt: skip
    table = to_cases(parts, cases("b", "a", split="test"), CLASSES, "tumour")
    assert list(zip(table.case_id, table.fold, strict=True)) == [
        ("a", 0), ("a", 1), ("b", 0), ("b", 1),
    ]  # fmt: skip
    assert scores(table) == pytest.approx([0.2, 0.4, 0.6, 0.2])
    assert table.y_true.isna().all()


def test_a_case_of_a_fold_is_scored_by_that_folds_networks_alone() -> None:
    parts = pd.concat([patches("a", [0.2], fold=0), patches("b", [0.8], fold=1)])
    held = cases("a", "b").assign(fold=[0, 1])
    table = to_cases(parts, held, CLASSES, "tumour")
    assert list(zip(table.case_id, table.fold, strict=True)) == [("a", 0), ("b", 1)]


def test_a_slide_without_patches_scores_nothing_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        table = to_cases(patches("a", [0.3]), cases("a", "bare"), CLASSES, "tumour")
    assert scores(table) == pytest.approx([0.3, 0.0])
    assert "bare" in caplog.text
    assert "no patch" in caplog.text


def test_without_a_positive_class_a_bare_case_is_undecided() -> None:
    parts = pd.DataFrame({
        "case_id": "a", "fold": 0, "seed": 0, "model": "m",
        "prob_x": [0.5, 0.1], "prob_y": [0.3, 0.3], "prob_z": [0.2, 0.6],
    })  # fmt: skip
    table = to_cases(parts, cases("a", "bare"), ["x", "y", "z"], None)
    found = table[["prob_x", "prob_y", "prob_z"]].to_numpy()
    assert found[0] == pytest.approx([0.3, 0.3, 0.4])
    assert found[1] == pytest.approx([1 / 3] * 3)


def test_cases_that_no_network_predicted_are_never_dropped_in_silence() -> None:
    held = cases("a", "b").assign(fold=[0, 1])
    with pytest.raises(TableError, match=r"no network predicted anything.*Received: b"):
        to_cases(patches("a", [0.5], fold=0), held, CLASSES, "tumour")
    with pytest.raises(TableError, match="Received: a"):
        to_cases(patches("a", [0.5]).iloc[:0], cases("a"), CLASSES, "tumour")


def test_free_columns_of_the_cases_do_no_harm() -> None:
    free = cases("a").assign(model="scanner", seed=9, prob_tumour=3.0)
    table = to_cases(patches("a", [0.5]), free, CLASSES, "tumour")
    assert (table.model[0], table.seed[0], table.prob_tumour[0]) == ("m", 0, 0.5)


def test_the_order_of_patches_changes_nothing() -> None:
    parts = patches("a", FORTY)
    one = to_cases(parts, cases("a"), CLASSES, "tumour")
    other = to_cases(parts.iloc[::-1], cases("a"), CLASSES, "tumour")
    pd.testing.assert_frame_equal(one, other)
