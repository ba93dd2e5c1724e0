"""Stratified folds that never split a group, and the check that no group leaks.

Groups are sorted by their id before anything is drawn, and sums are taken in a fixed order: the
same groups, labels and seed give the same folds on any machine and in any order of the rows.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from kit.checks import columns, first, unique_ids
from kit.errors import GroupLeakError, SettingsError, TableError

ROUNDS = 30  # sweeps over all pairs of folds; a dozen are rarely used
PAIR_CELLS = 2**18  # swaps weighed at once, times classes: bounds time and memory of one pair
LEAST_GAIN = 1e-15  # below, a gain is rounding
EMPTY = 1e6  # cost of a fold without a class, far above any imbalance


def assign_folds(
    table: pd.DataFrame, n_splits: int, *, label: str, group: str, seed: int
) -> pd.Series:
    """Return the fold of each row: groups stay whole, class counts and sizes are balanced.

    Groups are dealt out greedily, heaviest first and in seeded order among those of like weight;
    then single groups are moved or swapped between folds while that improves the balance.

    Args:
        table: One row a case, with the two columns named.
        n_splits: Number of folds, at least 2.
        label: Column of the class, never empty; need not be constant in a group.
        group: Column of the unit that no fold splits (patient), never empty.
        seed: Chooses among equally good deals, and which fold bears which number.

    Returns:
        int64 in [0, n_splits), named `fold`, with the table's index and order.

    Raises:
        SettingsError: `n_splits` is not a whole number of at least 2.
        TableError: A column is missing or has empty cells, or there are fewer groups than folds,
            in all or in one class.
    """
    if int(n_splits) != n_splits or n_splits < 2:
        raise SettingsError("n_splits must be at least 2", received=f"n_splits={n_splits}")
    columns(table, [label, group])
    group_code, group_names = _codes(table[group])
    class_code, class_names = _codes(table[label])
    counts = np.zeros((len(group_names), len(class_names)), dtype=np.int64)
    np.add.at(counts, (group_code, class_code), 1)
    _enough_groups(counts, class_names, int(n_splits), label, group)

    rng = np.random.default_rng(seed)
    folds = _deal(counts, int(n_splits), rng)
    _refine(folds, counts, int(n_splits), rng)
    folds = rng.permutation(int(n_splits))[folds]
    return pd.Series(folds[group_code].astype(np.int64), index=table.index, name="fold")


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


def check_no_leak(table: pd.DataFrame) -> pd.DataFrame:
    """Return `table` if no group stands in two folds or on both sides of the split.

    Args:
        table: One row a case: `case_id`, `group`, `fold`, and `split` where there is one. Rows
            whose split is `test` need no fold, and theirs is not read.

    Raises:
        GroupLeakError: A group stands in two folds, or in the train and test parts.
        TableError: A column is missing, a case is doubled, or a group or fold is empty.
    """
    columns(table, ["case_id", "group", "fold"])
    unique_ids(table["case_id"])
    group = _text(table["group"])
    if "split" in table.columns:
        split = _text(table["split"])
        _one_side(group, split, "split")
        group, table_rows = group[split != "test"], table[split != "test"]
    else:
        table_rows = table
    _one_side(group, _text(table_rows["fold"]), "fold")
    return table


def _text(values: pd.Series) -> pd.Series:
    """Return a column as text, so that 1 and "1" are one group, or raise on empty cells."""
    empty = values.isna()
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


def _one_side(group: pd.Series, side: pd.Series, name: str) -> None:
    pairs = pd.DataFrame({"group": group, "side": side}).drop_duplicates()
    sides = pairs.sort_values(["group", "side"]).groupby("group")["side"].agg(list)
    leaks = sides[sides.map(len) > 1]
    if len(leaks):
        shown = [f"{key} ({name}s {' and '.join(found)})" for key, found in leaks.items()]
        raise GroupLeakError(
            f"{len(leaks)} groups stand in more than one {name}",
            expected=f"each group in one {name}", received=first(shown),
            remedy=f"give all rows of a group one {name}, as kit.folds.assign_folds does",
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
    return f"fewer folds, with `--set n_splits={groups}`"


def _columns(counts: np.ndarray) -> np.ndarray:
    """Return what shall sum to the same in each fold, shape (groups, classes + 1).

    For each class, how many rows a group has above its due at the class's prevalence, and last the
    group's size; in parts of the class, or of all rows.
    """
    sizes, of_class = counts.sum(axis=1), counts.sum(axis=0)
    above = counts / of_class - (sizes / sizes.sum())[:, None]
    return np.column_stack([above, sizes / sizes.sum()])


def _deal(counts: np.ndarray, n_splits: int, rng: np.random.Generator) -> np.ndarray:
    """Return a fold for each group: heaviest first, each to the fold that it unbalances least."""
    loads = np.column_stack([counts / counts.sum(axis=0), counts.sum(axis=1) / counts.sum()])
    heaviness = np.zeros(len(loads))
    for column in range(loads.shape[1]):
        heaviness += loads[:, column] * loads[:, column]
    octave = np.frexp(heaviness)[1]  # like weights are shuffled, so that the seed matters
    shuffled = rng.permutation(len(loads))
    order = shuffled[np.argsort(-octave[shuffled], kind="stable")]

    folds = np.empty(len(loads), dtype=np.int64)
    state = np.zeros((loads.shape[1], n_splits))
    for row in order:
        load = loads[row][:, None]
        cost = (state * load).sum(axis=0)
        cost -= EMPTY * ((state == 0) & (load > 0))[:-1].sum(axis=0)
        fold = int(cost.argmin())
        folds[row] = fold
        state[:, fold] += loads[row]
    return folds


def _refine(folds: np.ndarray, counts: np.ndarray, n_splits: int, rng: np.random.Generator) -> None:
    """Move or swap groups between pairs of folds, in place, while that improves the balance."""
    loads = np.concatenate([_columns(counts), np.zeros((1, counts.shape[1] + 1))])
    held = np.concatenate([counts, np.zeros((1, counts.shape[1]), dtype=np.int64)])  # -1: no group
    most = max(4, int((PAIR_CELLS / loads.shape[1]) ** 0.5))
    for _ in range(ROUNDS):
        improved = False
        for a, b in combinations(range(n_splits), 2):
            members = tuple(np.flatnonzero(folds == f) for f in (a, b))
            state = [loads[m].sum(axis=0) for m in members]
            rows = [held[m].sum(axis=0) for m in members]
            mine, theirs = (_sample(m, most, rng) for m in members)
            gain = _balance_gain(state[0] - state[1], loads[mine], loads[theirs])
            gain += EMPTY * _emptied(rows[0], rows[1], held[mine], held[theirs])
            i, j = np.unravel_index(int(gain.argmin()), gain.shape)
            if gain[i, j] > -LEAST_GAIN:
                continue
            improved = True
            if mine[i] >= 0:
                folds[mine[i]] = b
            if theirs[j] >= 0:
                folds[theirs[j]] = a
        if not improved:
            return


def _sample(members: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """Return at most `most` of the members, and -1 for none of them."""
    if len(members) > most:
        members = rng.choice(members, most, replace=False)
    return np.append(members, -1)


def _balance_gain(difference: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return the change of the squared imbalance for each exchange, shape (mine, theirs)."""
    gain = np.zeros((len(mine), len(theirs)))
    for column in range(len(difference)):
        moved = mine[:, column][:, None] - theirs[:, column][None, :]
        gain += 2 * moved * (moved - difference[column])
    return gain


def _emptied(
    rows_a: np.ndarray, rows_b: np.ndarray, mine: np.ndarray, theirs: np.ndarray
) -> np.ndarray:
    """Return how many more classes each exchange takes from a fold than it brings to one."""
    more = np.zeros((len(mine), len(theirs)), dtype=np.int64)
    for column in range(len(rows_a)):
        moved = mine[:, column][:, None] - theirs[:, column][None, :]
        more += (rows_a[column] == moved).astype(np.int64) + (rows_b[column] == -moved)
        more -= int(rows_a[column] == 0) + int(rows_b[column] == 0)
    return more
