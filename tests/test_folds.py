"""Folds: groups whole, classes balanced, the same everywhere, and leaks found."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.errors import GroupLeakError, SettingsError, TableError
from kit.folds import assign_folds, check_no_leak, subset, with_folds

ROOT = Path(__file__).parents[1]


def patients(seed: int, n_groups: int = 120, n_classes: int = 3) -> pd.DataFrame:
    """Patients of skewed sizes, each with his own mixture of classes."""
    rng = np.random.default_rng(seed)
    sizes = rng.geometric(0.15, n_groups)
    mixes = rng.dirichlet(np.full(n_classes, 0.5), n_groups)
    group = np.repeat(np.arange(n_groups), sizes)
    label = [f"class{rng.choice(n_classes, p=mixes[g])}" for g in group]
    ids = [f"case{i}" for i in range(len(group))]
    return pd.DataFrame({"case_id": ids, "patient": [f"p{g}" for g in group], "label": label})


def folds_of(table: pd.DataFrame, n_splits: int = 5, seed: int = 0) -> pd.Series:
    return assign_folds(table, n_splits, label="label", group="patient", seed=seed)


def worst_prevalence_error(table: pd.DataFrame, fold: np.ndarray) -> float:
    shares = pd.crosstab(fold, table["label"].to_numpy(), normalize="index")
    overall = table["label"].value_counts(normalize=True)
    return float((shares - overall).abs().max().max())


def test_no_patient_appears_in_two_folds() -> None:
    table = patients(0)
    assert (folds_of(table).groupby(table["patient"]).nunique() == 1).all()


def test_the_folds_keep_the_index_and_are_whole_numbers() -> None:
    table = patients(0).set_index("case_id", drop=False)[::-1]
    fold = folds_of(table)
    assert fold.index.equals(table.index)
    assert (fold.name, fold.dtype) == ("fold", np.dtype(np.int64))
    assert set(fold) == {0, 1, 2, 3, 4}


def test_six_single_patients_of_two_classes_fall_two_by_two() -> None:
    table = pd.DataFrame({"patient": list("abcdef"), "label": ["x", "x", "x", "y", "y", "y"]})
    fold = folds_of(table, 3)
    assert pd.crosstab(fold, table["label"]).to_numpy().tolist() == [[1, 1], [1, 1], [1, 1]]


@pytest.mark.parametrize("seed", range(6))
def test_folds_are_better_stratified_than_scikit_learns(seed: int) -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    table = patients(seed, n_groups=60 + 30 * seed, n_classes=2 + seed % 3)
    theirs = np.empty(len(table), dtype=int)
    splitter = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    for i, (_, held) in enumerate(splitter.split(table, table["label"], table["patient"])):
        theirs[held] = i
    ours = folds_of(table, seed=seed).to_numpy()
    assert worst_prevalence_error(table, ours) <= worst_prevalence_error(table, theirs)
    assert worst_prevalence_error(table, ours) < 0.02
    sizes = np.bincount(ours)
    assert sizes.max() < 1.1 * sizes.min()


@pytest.mark.parametrize("seed", range(5))
def test_each_fold_holds_a_class_of_which_one_patient_has_nearly_all(seed: int) -> None:
    holders = pd.DataFrame({"patient": ["p3", "p4", "p50", "p51", *["p52"] * 400], "label": "rare"})
    table = pd.concat([patients(seed), holders], ignore_index=True)
    assert folds_of(table, seed=seed)[table["label"] == "rare"].nunique() == 5


def test_row_order_does_not_matter() -> None:
    table = patients(1)
    shuffled = table.sample(frac=1, random_state=0)
    assert folds_of(shuffled).sort_index().equals(folds_of(table))


def test_seeds_give_different_folds() -> None:
    table = patients(1)
    first, second = (folds_of(table, seed=s) for s in (0, 1))
    together = pd.crosstab(first, second).to_numpy()
    assert (together > 0).sum() > 5  # another partition, not the same one renumbered


def test_another_process_gives_the_same_folds() -> None:
    code = (
        "from tests.test_folds import folds_of, patients;"
        "print(''.join(map(str, folds_of(patients(2)))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "".join(map(str, folds_of(patients(2))))


def test_numbered_and_named_patients_are_dealt_alike() -> None:
    table = patients(3).assign(patient=lambda t: t["patient"].str[1:])
    assert folds_of(table.astype({"patient": int})).equals(folds_of(table))


def test_a_class_that_is_declared_and_absent_does_no_harm() -> None:
    table = patients(0)
    kind = pd.CategoricalDtype([*sorted(table["label"].unique()), "never seen"])
    assert folds_of(table.astype({"label": kind})).equals(folds_of(table))


def test_a_hundred_thousand_rows_take_two_seconds_at_most() -> None:
    rng = np.random.default_rng(0)
    group, label = rng.integers(0, 10_000, 100_000), rng.integers(0, 4, 100_000)
    table = pd.DataFrame({"patient": group, "label": label.astype(str)})
    start = time.process_time()
    folds_of(table)
    assert time.process_time() - start < 2


def test_a_class_with_fewer_groups_than_folds_is_named_with_the_remedy() -> None:
    table = patients(0)
    table.loc[table["patient"].isin(["p1", "p2", "p3"]), "label"] = "rare"
    with pytest.raises(TableError, match=r"label rare has 3\b.*--set n_splits=3"):
        folds_of(table)


def test_fewer_groups_than_folds_are_refused() -> None:
    table = pd.DataFrame({"patient": ["a", "b"] * 9, "label": ["x", "y", "y"] * 6})
    with pytest.raises(TableError, match=r"2 groups.*n_splits=2"):
        folds_of(table)
    with pytest.raises(TableError, match="0 groups"):
        folds_of(table[:0])


@pytest.mark.parametrize("column", ["patient", "label"])
def test_empty_cells_are_refused(column: str) -> None:
    table = patients(0).astype(object)
    table.loc[7, column] = None
    with pytest.raises(TableError, match=f"column {column} has empty cells.*rows 7"):
        folds_of(table)


@pytest.mark.parametrize("n_splits", [1, 0, 2.5])
def test_a_single_fold_is_refused(n_splits: int) -> None:
    with pytest.raises(SettingsError, match="n_splits"):
        folds_of(patients(0), n_splits)


def folded(**changes: list[object]) -> pd.DataFrame:
    columns: dict[str, list[object]] = {
        "case_id": ["1", "2", "3", "4"],
        "group": ["a", "a", "b", "c"],
        "fold": [0, 0, 1, 0],
    }
    return pd.DataFrame(columns | changes)


def test_clean_folds_pass_the_leak_check_unchanged() -> None:
    table = folded()
    assert check_no_leak(table) is table


def test_assigned_folds_pass_the_leak_check() -> None:
    table = patients(4).rename(columns={"patient": "group"})
    fold = assign_folds(table, 5, label="label", group="group", seed=0)
    checked = check_no_leak(table.assign(fold=fold))
    assert checked.groupby("group").fold.nunique().max() == 1


def test_a_group_in_two_folds_is_named_with_its_folds() -> None:
    with pytest.raises(GroupLeakError, match=r"1 groups.*a \(folds 0 and 2\)"):
        check_no_leak(folded(fold=[0, 2, 1, 0]))


def test_a_group_in_train_and_test_is_named() -> None:
    with pytest.raises(GroupLeakError, match=r"a \(splits test and train\)"):
        check_no_leak(folded(split=["train", "test", "train", "test"], fold=[0, None, 1, None]))


def test_test_rows_need_no_fold_and_train_rows_do() -> None:
    check_no_leak(folded(split=["test", "test", "train", "train"], fold=[None, 3, 1, 0]))
    with pytest.raises(TableError, match="fold has empty cells"):
        check_no_leak(folded(split=["train"] * 4, fold=[0, None, 1, 0]))


def test_doubled_cases_and_missing_columns_are_refused() -> None:
    with pytest.raises(TableError, match=r"doubled.*2"):
        check_no_leak(folded(case_id=["1", "2", "2", "4"]))
    with pytest.raises(TableError, match="group is missing"):
        check_no_leak(folded().drop(columns="group"))


def cases_of(groups: int, each: int) -> pd.DataFrame:
    rows = [
        (f"c{g}_{i}", f"g{g}", "a" if g % 2 else "b", "test" if g >= groups - 2 else "train")
        for g in range(groups)
        for i in range(each)
    ]
    return pd.DataFrame(rows, columns=["case_id", "group", "label", "split"])


def test_a_subset_keeps_whole_groups_the_shares_of_labels_and_all_tests() -> None:
    cases = cases_of(42, 5)
    kept = subset(cases, 50, 2, seed=0)
    train = kept[kept.split == "train"]
    assert 40 <= len(train) <= 60
    assert (train.groupby("group").size() == 5).all()
    assert train.label.value_counts(normalize=True).between(0.4, 0.6).all()
    assert (kept.split == "test").sum() == 10


def test_a_subset_leaves_each_class_enough_groups_for_the_folds() -> None:
    kept = subset(cases_of(22, 5), 5, 5, seed=0)
    train = kept[kept.split == "train"]
    assert train.groupby("label").group.nunique().min() >= 5


def test_a_given_fold_table_must_have_every_case_once_with_a_whole_number() -> None:
    cases = cases_of(6, 1)[["case_id"]]
    given = cases.assign(fold=[0, 1, 0, 1, 0, 1])
    assert list(with_folds(cases, given[::-1], path="t.csv").fold) == [0, 1, 0, 1, 0, 1]
    for wrong in (given[1:], given.assign(fold=[0.5, 1, 0, 1, 0, 1]), pd.concat([given, given])):
        with pytest.raises(TableError, match=r"t\.csv"):
            with_folds(cases, wrong, path="t.csv")
