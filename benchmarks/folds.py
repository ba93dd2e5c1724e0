"""How well and how fast groups are dealt to folds, beside scikit-learn and beside long searches.

Thirty hard tables: sizes of groups from a Pareto law, the prevalence of each from a beta
distribution. What counts is the fold whose prevalence is farthest from the whole's. The best that
is possible is found by trying every deal where there are at most two million, else by 300,000
random ones; no limit is set to the sizes of their folds.
"""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pandas as pd
from bench import Row, arguments, measure, tell
from sklearn.model_selection import StratifiedGroupKFold

from kit.folds import assign_folds

DEALS, EVERY, STEP = 300_000, 2_000_000, 2_000_000


def hard(seed: int) -> tuple[np.ndarray, int]:
    """Return the rows of both classes in each group, shape (groups, 2), and a number of folds."""
    random = np.random.default_rng([7, seed])
    while True:
        groups = int(random.choice([9, 12, 16, 25, 40, 80, 150, 300]))
        folds = int(random.choice([3, 4, 5, 10]))
        law, mean, strength = random.uniform(0.8, 1.6), *random.choice([0.1, 0.3, 0.6], 2)
        sizes = np.minimum(np.ceil(random.pareto(law, groups) * 3 + 1), 2000).astype(np.int64)
        shares = random.beta(mean * strength, (1 - mean) * strength, groups)
        positive = random.binomial(sizes, shares)
        counts = np.stack([sizes - positive, positive], axis=1)
        if ((counts > 0).sum(axis=0) >= folds).all():
            return counts, folds


def rows_of(counts: np.ndarray) -> pd.DataFrame:
    """Return the table, a row a case."""
    group = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    label = np.concatenate([np.repeat([0, 1], pair) for pair in counts])
    return pd.DataFrame({"group": group, "label": label})


def errors(counts: np.ndarray, deals: np.ndarray, folds: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the worst prevalence error of each deal (2: a class is missing), and largest fold.

    Args:
        counts: shape (groups, 2).
        deals: shape (deals, groups), folds.
        folds: Their number.
    """
    held = np.stack([(deals == f).astype(float) @ counts for f in range(folds)], axis=1)
    sizes = held.sum(axis=2)
    share = held[:, :, 1] / np.maximum(sizes, 1)
    worst = np.abs(share - counts[:, 1].sum() / counts.sum()).max(axis=1)
    worst[(held == 0).any(axis=(1, 2))] = 2
    return worst, sizes.max(axis=1) / (counts.sum() / folds)


def best(counts: np.ndarray, folds: int) -> float:
    """Return the smallest worst error over every deal, or over many random ones."""
    groups = len(counts)
    step = STEP // (groups * folds)
    lowest = 2.0
    if folds ** (groups - 1) <= EVERY:  # the first group may stay where it is
        every = itertools.product([0], *[range(folds)] * (groups - 1))
        while chunk := list(itertools.islice(every, step)):
            lowest = min(lowest, float(errors(counts, np.array(chunk), folds)[0].min()))
        return lowest
    random = np.random.default_rng(0)
    for _ in range(-(-DEALS // step)):
        deals = random.integers(0, folds, (step, groups))
        lowest = min(lowest, float(errors(counts, deals, folds)[0].min()))
    return lowest


def of_scikit_learn(table: pd.DataFrame, folds: int) -> np.ndarray:
    """Return the fold of each row by StratifiedGroupKFold."""
    fold = np.empty(len(table), np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    for number, (_, held) in enumerate(splitter.split(table, table["label"], table["group"])):
        fold[held] = number
    return fold


def of_kit(table: pd.DataFrame, folds: int, balance: tuple[str, ...] = ()) -> np.ndarray:
    """Return the fold of each row by the kit."""
    return assign_folds(
        table, folds, label="label", group="group", seed=0, balance=balance
    ).to_numpy()


def quality(tables: int) -> list[Row]:
    """Return how even the folds of the hard tables are."""
    found = []
    for seed in range(tables):
        counts, folds = hard(seed)
        table, line = rows_of(counts), []
        start = np.unique(table["group"], return_index=True)[1]
        for deal in (of_kit(table, folds), of_scikit_learn(table, folds)):
            worst, largest = errors(counts, deal[start][None], folds)
            line += [float(np.minimum(worst[0], 1)), float(largest[0])]
        found.append([*line, best(counts, folds)])
    mine, large, theirs, large_theirs, reached = np.array(found).T
    above, above_theirs = mine - reached, theirs - reached
    return [
        Row(f"{tables} hard tables: worst fold's prevalence above the best found, worst table",
            f"{above.max():+.4f}", f"scikit-learn {above_theirs.max():+.4f}", goal="<= .02"),
        Row("the same, median table", f"{np.median(above):+.4f}",
            f"scikit-learn {np.median(above_theirs):+.4f}"),
        Row("worst fold's prevalence error, median table", f"{np.median(mine):.4f}",
            f"scikit-learn {np.median(theirs):.4f}"),
        Row("tables on which it is larger than scikit-learn's",
            f"{int((mine > theirs + 1e-12).sum())} of {tables}", goal="0"),
        Row("largest fold, times its due, median table", f"{np.median(large):.2f}",
            f"scikit-learn {np.median(large_theirs):.2f}"),
    ]  # fmt: skip


def large(tails: bool) -> pd.DataFrame:
    """Return 100,000 rows in 10,000 groups of like or heavy-tailed sizes, with a scanner."""
    random = np.random.default_rng(0)
    weight = random.pareto(1.2, 10_000) + 0.05 if tails else np.ones(10_000)
    group = np.concatenate([
        np.arange(10_000), random.choice(10_000, 90_000, p=weight / weight.sum()),
    ])  # fmt: skip
    share = random.beta(0.3, 0.7, 10_000)
    label = (random.random(100_000) < share[group]).astype(np.int64)
    scanner = random.choice(list("abcde"), 10_000)[group]
    return pd.DataFrame({"group": group, "label": label, "scanner": scanner})


def speed() -> list[Row]:
    """Return the seconds that a large table takes."""
    rows = []
    for tails in (False, True):
        table = large(tails)
        took = measure({"kit": lambda t=table: of_kit(t, 5),
                        "scikit-learn": lambda t=table: of_scikit_learn(t, 5),
                        "balanced": lambda t=table: of_kit(t, 10, ("scanner",))},
                       repeats=3)  # fmt: skip
        what = f"100,000 rows in 10,000 groups of {'heavy-tailed' if tails else 'like'} sizes"
        mine, theirs = took["kit"].cpu, took["scikit-learn"].cpu
        rows += [
            Row(f"{what}, 5 folds, CPU", f"{mine:.2f} s", f"scikit-learn {theirs:.2f} s",
                theirs / mine, "<= 2 s"),
            Row("the same, 10 folds, scanners balanced too", f"{took['balanced'].cpu:.2f} s"),
        ]  # fmt: skip
    return rows


def main() -> None:
    """Deal, search, print the table."""
    asked = arguments(__doc__ or "", tables=30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer rows than folds
        rows = quality(asked.tables) + speed()
    notes = (
        "A fold that lacks a class counts as an error of 1. The best found is over deals whose "
        "folds may be of any size;\nthe kit also weighs sizes: a fold a quarter larger or smaller "
        "than due counts as one per cent of prevalence."
    )
    tell("folds", "Folds that split no group", rows, notes=notes, save=asked.save)


if __name__ == "__main__":
    main()
