"""Folds: groups whole, classes balanced, the same everywhere, and leaks found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.errors import GroupLeakError, SettingsError, TableError
from kit.folds import (
    assign_folds,
    check_no_leak,
    check_one_label,
    hold_out,
    join_groups,
    leave_one_site_out,
    repeated_folds,
    subset,
    with_folds,
)

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


@pytest.mark.parametrize("seed", range(3))
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


@pytest.mark.parametrize("empty", [None, "", float("nan")])
@pytest.mark.parametrize("column", ["patient", "label"])
def test_empty_cells_are_refused(column: str, empty: object) -> None:
    table = patients(0).astype(object)
    table.loc[7, column] = empty
    with pytest.raises(TableError, match=f"column {column} has empty cells.*rows 7"):
        folds_of(table)


@pytest.mark.parametrize("n_splits", [1, 0, 2.5])
def test_a_single_fold_is_refused(n_splits: int) -> None:
    with pytest.raises(SettingsError, match="n_splits"):
        folds_of(patients(0), n_splits)


def hard(seed: int) -> tuple[pd.DataFrame, int]:
    """Groups of heavy-tailed sizes, each with a prevalence of its own, and a number of folds."""
    rng = np.random.default_rng([11, seed])
    while True:
        n_groups, n_splits = int(rng.choice([9, 14, 25, 60, 150])), int(rng.choice([3, 4, 5]))
        sizes = np.minimum(np.ceil(3 * rng.pareto(rng.uniform(0.8, 1.6), n_groups) + 1), 1000)
        mean, strength = rng.choice([0.1, 0.3, 0.6], 2)
        shares = rng.beta(mean * strength, (1 - mean) * strength, n_groups)
        group = np.repeat(np.arange(n_groups), sizes.astype(int))
        table = pd.DataFrame({"patient": group, "label": rng.random(len(group)) < shares[group]})
        holding = table.groupby("label")["patient"].nunique()
        if len(holding) == 2 and holding.min() >= n_splits:
            return table.astype({"label": int}), n_splits


def best_of_random_deals(table: pd.DataFrame, n_splits: int, deals: int = 60_000) -> float:
    counts = pd.crosstab(table["patient"], table["label"]).to_numpy()
    rng, lowest = np.random.default_rng(0), 1.0
    for _ in range(20):
        fold = rng.integers(0, n_splits, (deals // 20, len(counts)))
        held = np.stack([(fold == f).astype(float) @ counts for f in range(n_splits)], axis=1)
        share = held[:, :, 1] / np.maximum(held.sum(axis=2), 1)
        error = np.abs(share - table["label"].mean()).max(axis=1)
        lowest = min(lowest, error[(held > 0).all(axis=(1, 2))].min(initial=1.0))
    return lowest


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The least populated class")
def test_hard_tables_come_near_the_best_of_a_long_search_and_never_behind_scikit_learn() -> None:
    from sklearn.model_selection import StratifiedGroupKFold

    for seed in range(30):
        table, n_splits = hard(seed)
        ours = worst_prevalence_error(table, folds_of(table, n_splits, seed).to_numpy())
        assert ours <= best_of_random_deals(table, n_splits) + 0.02, seed
        theirs = np.empty(len(table), dtype=int)
        splitter = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
        for i, (_, held) in enumerate(splitter.split(table, table["label"], table["patient"])):
            theirs[held] = i
        assert ours <= worst_prevalence_error(table, theirs) + 1e-12, seed


def test_every_deal_of_a_small_table_looked_at_finds_none_better() -> None:
    sizes, positive = [5, 9, 2, 7, 4, 6, 3, 8], [1, 6, 2, 0, 3, 1, 2, 3]
    label = [i < positive[g] for g, n in enumerate(sizes) for i in range(n)]
    table = pd.DataFrame({"patient": np.repeat(range(8), sizes), "label": np.array(label, int)})
    ours = folds_of(table, 2).groupby(table["patient"]).first().to_numpy()

    def cost(deal: np.ndarray) -> float:
        n = np.bincount(deal, sizes, 2)
        if not n.all():
            return 9
        p = sum(positive) / sum(sizes)
        error = np.abs(np.bincount(deal, positive, 2) / n - p).max() / (2 * (p * (1 - p)) ** 0.5)
        return float(error + 0.04 * np.abs(n / 22 - 1).max())

    every = (np.array([(number >> g) & 1 for g in range(8)]) for number in range(256))
    assert cost(ours) == pytest.approx(min(map(cost, every)))


def test_the_folds_are_the_same_on_any_machine() -> None:
    table = pd.DataFrame({"patient": np.arange(60) * 7 % 23, "label": np.arange(60) % 3 % 2})
    by_patient = folds_of(table).groupby(table["patient"]).first()
    assert "".join(map(str, by_patient)) == "32323141334400420142010"


def test_further_columns_are_balanced_without_splitting_a_group() -> None:
    table = patients(5, n_groups=200)
    number = table["patient"].str[1:].astype(int)
    table["scanner"] = np.where(number % 7 < 2, "old", "new")
    table["grade"] = number * 31 % 3
    fold = assign_folds(
        table, 5, label="label", group="patient", seed=0, balance=("scanner", "grade")
    )
    assert (fold.groupby(table["patient"]).nunique() == 1).all()
    for name in ("label", "scanner", "grade"):
        error = worst_prevalence_error(table.assign(label=table[name]), fold.to_numpy())
        assert error < 0.02, name
    assert np.bincount(fold).max() < 1.05 * np.bincount(fold).min()


def test_each_label_of_several_is_balanced() -> None:
    table = patients(6, n_groups=150)
    rng = np.random.default_rng(0)
    names = ["oedema", "nodule", "effusion"]
    for name, share in zip(names, (0.5, 0.2, 0.07), strict=True):
        table[name] = (rng.random(len(table)) < share).astype(int)
    fold = assign_folds(table, 5, label=names, group="patient", seed=0)
    for name in names:
        assert worst_prevalence_error(table.assign(label=table[name]), fold.to_numpy()) < 0.01


def test_a_rare_label_of_several_is_named() -> None:
    table = patients(0).assign(a=lambda t: t.index % 2, b=lambda t: (t.index == 3).astype(int))
    with pytest.raises(TableError, match="b 1 has 1"):
        assign_folds(table, 5, label=["a", "b"], group="patient", seed=0)


def test_grades_are_classes() -> None:
    table = patients(7, n_classes=4).assign(label=lambda t: t["label"].str[-1].astype(int))
    assert worst_prevalence_error(table, folds_of(table).to_numpy()) < 0.01


def test_a_measurement_is_no_column_to_balance() -> None:
    table = patients(0).assign(age=lambda t: t.index)
    with pytest.raises(TableError, match="age has too many values"):
        assign_folds(table, 5, label="label", group="patient", seed=0, balance=["age"])


def test_repeats_are_dealt_anew_and_the_first_is_the_plain_deal() -> None:
    table = patients(1)
    found = repeated_folds(table, 5, 3, label="label", group="patient", seed=4)
    assert len(found) == 3 * len(table)
    assert (found.groupby(["repeat", "patient"])["fold"].nunique() == 1).all()
    wide = found.pivot(index="case_id", columns="repeat", values="fold").loc[table["case_id"]]
    assert (wide[0].to_numpy() == folds_of(table, seed=4).to_numpy()).all()
    assert (pd.crosstab(wide[1], wide[2]).to_numpy() > 0).sum() > 5
    with pytest.raises(SettingsError, match="repeats"):
        repeated_folds(table, 5, 0, label="label", group="patient", seed=4)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.6])
def test_a_held_out_part_has_whole_groups_the_share_asked_for_and_the_classes(share: float) -> None:
    table = patients(8, n_groups=200)
    held = hold_out(table, share, label="label", group="patient", seed=0)
    assert (held.name, held.dtype) == ("held_out", np.dtype(bool))
    assert held.mean() == pytest.approx(share, abs=0.01)
    assert (held.groupby(table["patient"]).nunique() == 1).all()
    assert worst_prevalence_error(table, held.to_numpy()) < 0.02
    shuffled = table.sample(frac=1, random_state=1)
    again = hold_out(shuffled, share, label="label", group="patient", seed=0)
    assert again.sort_index().equals(held)


@pytest.mark.parametrize("share", [0, 1, -0.2, float("nan")])
def test_a_held_out_share_lies_between_nothing_and_all(share: float) -> None:
    with pytest.raises(SettingsError, match="share must be above 0 and below 1"):
        hold_out(patients(0), share, label="label", group="patient", seed=0)


def test_one_fold_a_site_in_the_order_of_their_names() -> None:
    table = pd.DataFrame({"patient": list("aabcd"), "site": ["x", "x", "m", "k", "x"]})
    fold = leave_one_site_out(table, site="site", group="patient")
    assert fold.tolist() == [2, 2, 1, 0, 2]


def test_a_patient_of_two_sites_is_named_and_one_site_is_none_to_leave_out() -> None:
    table = pd.DataFrame({"patient": list("aab"), "site": ["x", "m", "m"]})
    with pytest.raises(GroupLeakError, match=r"a \(sites m and x\)"):
        leave_one_site_out(table, site="site", group="patient")
    with pytest.raises(TableError, match="no site can be left out"):
        leave_one_site_out(table.assign(site="x"), site="site", group="patient")


def test_a_group_of_two_labels_is_named_where_that_cannot_be() -> None:
    table = pd.DataFrame({"patient": list("aab"), "label": ["x", "x", "y"]})
    assert check_one_label(table, label="label", group="patient") is table
    table.loc[1, "label"] = "y"
    with pytest.raises(TableError, match=r"1 groups have more than one label.*a \(x and y\)"):
        check_one_label(table, label="label", group="patient")


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


def alike(*rows: tuple[object, object]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["a", "b"]).assign(how="turned by 90 degrees")


def test_two_copies_in_two_folds_are_named_with_what_they_have_in_common() -> None:
    with pytest.raises(
        GroupLeakError, match=r"1 pairs.*2 \(fold 0\) and 3 \(fold 1\): turned by 90 degrees"
    ):
        check_no_leak(folded(), pairs=alike(("2", "3"), ("1", "4"), ("3", "not here")))
    assert len(check_no_leak(folded(), pairs=alike(("1", "4")))) == 4


def test_numbers_and_texts_name_the_same_case_in_pairs() -> None:
    with pytest.raises(GroupLeakError, match="1 pairs"):
        check_no_leak(folded(), pairs=alike((2, 3)))


def test_a_copy_on_both_sides_of_the_split_is_named() -> None:
    table = folded(split=["train", "train", "train", "test"], fold=[0, 0, 1, None])
    with pytest.raises(GroupLeakError, match=r"1 \(split train\) and 4 \(split test\)"):
        check_no_leak(table, pairs=alike(("1", "4")))


def test_the_first_five_pairs_are_shown_and_the_others_counted() -> None:
    names = [str(n) for n in range(14)]
    table = pd.DataFrame({"case_id": names, "group": names, "fold": [0, 1] * 7})
    pairs = alike(*zip(names[::2], names[1::2], strict=True))
    with pytest.raises(
        GroupLeakError, match=r"^7 pairs.*8 \(fold 0\) and 9 .*; and 2 more"
    ) as told:
        check_no_leak(table, pairs=pairs)
    assert "10 (fold" not in str(told.value)


def test_pairs_join_groups_under_the_smallest_name() -> None:
    table = pd.DataFrame({"case_id": list("abcdef"), "group": ["9", "10", "9", "2", "7", "8"]})
    joined = join_groups(table, alike(("a", "b"), ("b", "d"), ("e", "unknown"), ("f", "f")))
    assert joined.tolist() == ["10", "10", "10", "10", "7", "8"]
    assert joined.name == "group"
    assert join_groups(table, alike()).tolist() == table["group"].tolist()


def test_joined_groups_depend_on_no_order() -> None:
    table = patients(2).rename(columns={"patient": "group"})
    rng = np.random.default_rng(0)
    pairs = alike(*[tuple(rng.choice(table["case_id"], 2)) for _ in range(60)])
    joined = join_groups(table, pairs)
    assert 40 < joined.nunique() < table["group"].nunique()
    shuffled = table.sample(frac=1, random_state=0)
    turned = pairs[::-1].rename(columns={"a": "b", "b": "a"})
    assert join_groups(shuffled, turned).sort_index().equals(joined)
    fold = assign_folds(table.assign(group=joined), 5, label="label", group="group", seed=0)
    check_no_leak(table.assign(group=joined, fold=fold), pairs=pairs)


def test_pairs_need_their_columns() -> None:
    with pytest.raises(TableError, match="column b is missing"):
        join_groups(folded(), alike().drop(columns="b"))
    with pytest.raises(TableError, match="column how is missing"):
        check_no_leak(folded(), pairs=alike().drop(columns="how"))


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
