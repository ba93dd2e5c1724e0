"""Stratified folds that never split a group, and the check that nothing leaks between them.

Groups are sorted by their id before anything is drawn: the same groups, labels and seed give the
same folds on any machine and in any order of the rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit._balance import Load, deal
from kit.checks import columns, first, positive_int, unique_ids
from kit.errors import GroupLeakError, SettingsError, TableError
from kit.shift import train_test_shift as train_test_shift

BALANCED = 0.5  # weight of a further column's prevalence beside the label's
VALUES = 50  # of a further column; one with more is a measurement, not a class

Names = str | Sequence[str]


def assign_folds(
    table: pd.DataFrame, n_splits: int, *, label: Names, group: str, seed: int,
    balance: Sequence[str] = (),
) -> pd.Series:  # fmt: skip
    """Return the fold of each row: groups stay whole, classes and sizes are balanced.

    What counts is the fold whose prevalence of a class is farthest from the whole's. A fold a
    quarter larger or smaller than due weighs as one per cent of prevalence, and a further column
    half as much as the label.

    Args:
        table: One row a case, with the columns named.
        n_splits: Number of folds, at least 2.
        label: Column of the class (grades are classes), or several columns of 0 and 1, each
            balanced by itself; never empty; need not be constant in a group.
        group: Column of the unit that no fold splits (patient), never empty.
        seed: Chooses among equally good deals, and which fold bears which number.
        balance: Further columns of classes (scanner, site, grade), at most 50 values each.

    Returns:
        int64 in [0, n_splits), named `fold`, with the table's index and order.

    Raises:
        SettingsError: `n_splits` is not a whole number of at least 2.
        TableError: A column is missing or has empty cells, or there are fewer groups than folds,
            in all or in one class.
    """
    n_splits = positive_int("n_splits", n_splits, least=2)
    parts = np.full(n_splits, 1 / n_splits)
    return _dealt(table, parts, np.random.default_rng(seed), label, group, balance).rename("fold")


def repeated_folds(
    table: pd.DataFrame, n_splits: int, repeats: int, *, label: Names, group: str, seed: int,
    balance: Sequence[str] = (),
) -> pd.DataFrame:  # fmt: skip
    """Return the table once for each repeat, with the columns `repeat` and `fold`.

    The first repeat is what `assign_folds` gives; the others are dealt anew.

    Args:
        table: One row a case, with the columns named.
        n_splits: Number of folds, at least 2.
        repeats: How often the folds are dealt, at least 1.
        label: As `assign_folds` takes it.
        group: As `assign_folds` takes it.
        seed: As `assign_folds` takes it.
        balance: As `assign_folds` takes it.

    Raises:
        SettingsError: `n_splits` or `repeats` is no such number.
        TableError: As `assign_folds` raises it.
    """
    n_splits = positive_int("n_splits", n_splits, least=2)
    parts = np.full(n_splits, 1 / n_splits)
    found = []
    for repeat in range(positive_int("repeats", repeats)):
        rng = np.random.default_rng([seed, repeat] if repeat else seed)
        fold = _dealt(table, parts, rng, label, group, balance)
        found.append(table.assign(repeat=repeat, fold=fold))
    return pd.concat(found, ignore_index=True)


def hold_out(
    table: pd.DataFrame, share: float, *, label: Names, group: str, seed: int,
    balance: Sequence[str] = (),
) -> pd.Series:  # fmt: skip
    """Return which rows are held out: whole groups, about `share` of the rows and of each class.

    Args:
        table: One row a case, with the columns named.
        share: Share of the rows to hold out, above 0 and below 1.
        label: As `assign_folds` takes it.
        group: As `assign_folds` takes it.
        seed: As `assign_folds` takes it.
        balance: As `assign_folds` takes it.

    Returns:
        bool, named `held_out`, with the table's index and order.

    Raises:
        SettingsError: `share` is not between 0 and 1.
        TableError: A column is missing or has empty cells, or a class has fewer than two groups.
    """
    if not 0 < share < 1:
        raise SettingsError("share must be above 0 and below 1", received=f"share={share}")
    rng = np.random.default_rng(seed)
    parts = np.array([1 - share, share])
    return _dealt(table, parts, rng, label, group, balance).eq(1).rename("held_out")


def leave_one_site_out(table: pd.DataFrame, *, site: str, group: str) -> pd.Series:
    """Return the fold of each row: one fold a site, numbered in the order of their names.

    Args:
        table: One row a case, with the columns named.
        site: Column of the site (hospital, scanner), never empty.
        group: Column of the unit that no fold splits, never empty.

    Returns:
        int64, named `fold`, with the table's index and order.

    Raises:
        GroupLeakError: A group stands in two sites.
        TableError: A column is missing or has empty cells, or there is only one site.
    """
    columns(table, [site, group])
    where = _text(table[site])
    _one_side(_text(table[group]), where, site)
    code, names = _codes(where)
    if len(names) < 2:
        raise TableError(
            f"no site can be left out: column {site} has one value", expected="at least 2 sites",
            received=first(names) or "no rows",
        )  # fmt: skip
    return pd.Series(code.astype(np.int64), index=table.index, name="fold")


def check_one_label(table: pd.DataFrame, *, label: str, group: str) -> pd.DataFrame:
    """Return `table` if each group has one label: for a diagnosis that a patient has or has not.

    Raises:
        TableError: A group has several labels, or a column is missing or has empty cells.
    """
    columns(table, [label, group])
    found = _sides(_text(table[group]), _text(table[label]))
    if len(found):
        shown = [f"{key} ({' and '.join(names)})" for key, names in found.items()]
        raise TableError(
            f"{len(found)} groups have more than one {label}", received=first(shown),
            expected=f"one {label} in each {group}", remedy="mend the labels, or the groups",
        )  # fmt: skip
    return table


def join_groups(
    table: pd.DataFrame, pairs: pd.DataFrame, *, case: str = "case_id", group: str = "group"
) -> pd.Series:
    """Return the group of each row, groups that a pair of cases connects being one.

    Args:
        table: One row a case, with the two columns named.
        pairs: `a` and `b`, ids of cases that must stand together, as `kit.duplicates` and
            `kit.overlaps` find them; pairs with a case that the table lacks are passed over.
        case: Column of the case's id.
        group: Column of the group.

    Returns:
        Text, named as the group column: joined groups bear the smallest of their names, in the
        order of text; others keep theirs.

    Raises:
        TableError: A column is missing, an id is doubled or empty, or a group is empty.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    columns(table, [case, group])
    columns(pairs, ["a", "b"])
    unique_ids(table[case])
    code, names = _codes(table[group])
    of_case = pd.Series(code, index=table[case].astype(str))
    ends = [of_case.reindex(pairs[end].astype(str)).to_numpy(np.float64) for end in ("a", "b")]
    known = ~(np.isnan(ends[0]) | np.isnan(ends[1]))
    a, b = (end[known].astype(np.int64) for end in ends)
    links = coo_array((np.ones(len(a)), (a, b)), shape=(len(names), len(names)))
    _, part = connected_components(links, directed=False)
    _, smallest = np.unique(part, return_index=True)  # names are sorted: the first is the smallest
    joined = np.asarray(names, dtype=object)[smallest[part]]
    return pd.Series(joined[code], index=table.index, name=group)


def subset(cases: pd.DataFrame, limit: int, n_splits: int, seed: int) -> pd.DataFrame:
    """Return about `limit` training cases, whole groups in the shares of the labels; all tests.

    Args:
        cases: The cases table.
        limit: Most training cases, about.
        n_splits: Folds that must still be possible: each class keeps so many groups.
        seed: Which groups are kept.
    """
    train = cases[cases["split"] != "test"]
    groups = int(train.groupby("label")["group"].nunique().min())
    parts = min(len(train) // limit, groups // n_splits)
    if parts < 2:
        return cases
    part = assign_folds(train, parts, label="label", group="group", seed=seed)
    kept = (cases["split"] == "test") | cases.index.isin(train.index[part == 0])
    return cases[kept].reset_index(drop=True)


def with_folds(cases: pd.DataFrame, given: pd.DataFrame, *, path: str) -> pd.DataFrame:
    """Return `cases` with the fold that a table of the user's gives to each.

    Args:
        cases: Training cases with `case_id`.
        given: `case_id` and `fold`, whole numbers; further rows are ignored.
        path: The table's file, for errors.

    Raises:
        TableError: A case is missing or doubled, or a fold is no whole number.
    """
    unique_ids(given["case_id"], path=path)
    table = cases.merge(given[["case_id", "fold"]], on="case_id", how="left")
    number = pd.to_numeric(table["fold"], errors="coerce")
    bad = table["case_id"][number.isna() | (number % 1 != 0)]
    if len(bad):
        raise TableError(
            "the fold table does not give each training case a fold", expected="whole numbers",
            received=f"{len(bad)} cases without one: {first(bad)}", path=path,
        )  # fmt: skip
    return table.assign(fold=number.astype(int))


def check_no_leak(table: pd.DataFrame, *, pairs: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return `table` if no group and no pair stands in two folds or on both sides of the split.

    Args:
        table: One row a case: `case_id`, `group`, `fold`, and `split` where there is one. Rows
            whose split is `test` need no fold, and theirs is not read.
        pairs: `a`, `b` and `how`: cases that are alike, as `kit.duplicates.near_duplicates` and
            `kit.overlaps.overlapping` give them; pairs with a case that the table lacks are
            passed over.

    Raises:
        GroupLeakError: A group, or two cases of a pair, stand in two folds, or in the train and
            test parts; the first five are named.
        TableError: A column is missing, a case is doubled, or a group or fold is empty.
    """
    columns(table, ["case_id", "group", "fold"])
    unique_ids(table["case_id"])
    group, rows = _text(table["group"]), table
    if "split" in table.columns:
        split = _text(table["split"])
        _one_side(group, split, "split")
        _same_side(table["case_id"], split, "split", pairs)
        group, rows = group[split != "test"], table[split != "test"]
    fold = _text(rows["fold"])
    _one_side(group, fold, "fold")
    _same_side(rows["case_id"], fold, "fold", pairs)
    return table


def _dealt(
    table: pd.DataFrame, parts: np.ndarray, rng: np.random.Generator, label: Names, group: str,
    balance: Sequence[str],
) -> pd.Series:  # fmt: skip
    """Return which of the parts each row falls to; `parts` are their shares of the rows."""
    labels = [label] if isinstance(label, str) else list(label)
    balance = [balance] if isinstance(balance, str) else list(balance)
    columns(table, [*labels, group, *balance])
    code, groups = _codes(table[group])
    counts, weights, needed = [], [], []
    for name in [*labels, *balance]:
        value, names = _codes(table[name])
        if name in balance and len(names) > VALUES:
            raise TableError(
                f"column {name} has too many values to be balanced", expected=f"at most {VALUES}",
                received=f"{len(names)}", remedy="put them in a few classes first",
            )  # fmt: skip
        found = np.zeros((len(groups), len(names)))
        np.add.at(found, (code, value), 1)
        if name in labels:
            _enough_groups(found, names, len(parts), name, group)
        counts.append(found)
        weights += [1.0 if name in labels else BALANCED] * len(names)
        needed += [name in labels] * len(names)
    sizes = counts[0].sum(axis=1)
    load = Load(np.hstack(counts), sizes, np.array(weights), np.array(needed), parts * len(table))
    return pd.Series(deal(load, rng)[code], index=table.index)


def _text(values: pd.Series) -> pd.Series:
    """Return a column as text, so that 1 and "1" are one group, or raise on empty cells."""
    empty = values.isna() | values.eq("")
    if empty.any():
        raise TableError(
            f"column {values.name} has empty cells", expected="a value in each row",
            received=f"{int(empty.sum())} empty, first in rows {first(values.index[empty])}",
        )  # fmt: skip
    return values.astype(str)


def _codes(values: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Return the rank of each value among the sorted distinct ones, and these."""
    names, codes = np.unique(_text(values).to_numpy(dtype=object), return_inverse=True)
    return codes, [str(name) for name in names]


def _sides(group: pd.Series, side: pd.Series) -> pd.Series:
    """Return the sides of each group that has several, sorted."""
    pairs = pd.DataFrame({"group": group, "side": side}).drop_duplicates()
    pairs = pairs[pairs["group"].duplicated(keep=False)]
    return pairs.sort_values(["group", "side"]).groupby("group")["side"].agg(list)


def _one_side(group: pd.Series, side: pd.Series, name: str) -> None:
    leaks = _sides(group, side)
    if len(leaks):
        shown = [f"{key} ({name}s {' and '.join(found)})" for key, found in leaks.items()]
        raise GroupLeakError(
            f"{len(leaks)} groups stand in more than one {name}",
            expected=f"each group in one {name}", received=first(shown),
            remedy=f"give all rows of a group one {name}, as kit.folds.assign_folds does",
        )  # fmt: skip


def _same_side(case: pd.Series, side: pd.Series, name: str, pairs: pd.DataFrame | None) -> None:
    if pairs is None:
        return
    columns(pairs, ["a", "b", "how"])
    where = pd.Series(side.to_numpy(), index=case.astype(str).to_numpy())
    a, b = (where.reindex(pairs[end].astype(str)).to_numpy(dtype=object) for end in ("a", "b"))
    leaks = pairs.assign(one=a, other=b)[~pd.isna(a) & ~pd.isna(b) & (a != b)]
    if len(leaks):
        shown = [f"{row.a} ({name} {row.one}) and {row.b} ({name} {row.other}): {row.how}"
                 for row in leaks.head(5).itertuples()]  # fmt: skip
        more = f"; and {len(leaks) - 5} more" if len(leaks) > 5 else ""
        raise GroupLeakError(
            f"{len(leaks)} pairs of cases that are alike stand in more than one {name}",
            expected=f"both in one {name}", received="; ".join(shown) + more,
            remedy="join their groups (kit.folds.join_groups), then make the folds again",
        )  # fmt: skip


def _enough_groups(
    counts: np.ndarray, names: list[str], n_splits: int, label: str, group: str
) -> None:
    if len(counts) < n_splits:
        raise TableError(
            f"fewer groups than folds in column {group}", expected=f"at least {n_splits} groups",
            received=f"{len(counts)} groups", remedy=_fewer(len(counts)),
        )  # fmt: skip
    holding = (counts > 0).sum(axis=0)
    scarce = [i for i in range(len(names)) if holding[i] < n_splits]
    if scarce:
        found = [f"{label} {names[i]} has {holding[i]}" for i in scarce]
        raise TableError(
            f"a class has fewer groups than folds (groups: column {group})",
            expected=f"at least {n_splits} groups of each class", received=first(found),
            remedy=_fewer(int(holding.min())),
        )  # fmt: skip


def _fewer(groups: int) -> str:
    if groups < 2:
        return "add cases of other groups, or leave that class out"
    return f"at most {groups} folds: `--n-splits {groups}`, or `--set n_splits={groups}` of a run"
