"""Predictions of several models as one array: joined by `case_id`, checked, never by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from kit.checks import columns, first, probabilities
from kit.errors import TableError

PREFIX = "prob_"
KEY = ["case_id", "model", "fold", "seed"]


@dataclass(frozen=True)
class Votes:
    """Each model's probabilities of each case; its folds and seeds are averaged.

    Args:
        cases: One row a case, sorted: `case_id`, `group`, `y_true` where known.
        probs: float64, shape (cases, models, classes).
        models: Names, sorted.
        classes: Names, in the order of the `prob_` columns.
    """

    cases: pd.DataFrame
    probs: np.ndarray
    models: tuple[str, ...]
    classes: tuple[str, ...]

    def part(self, mask: np.ndarray) -> Votes:
        """Return the cases of a mask."""
        cases = self.cases[mask].reset_index(drop=True)
        return Votes(cases, self.probs[mask], self.models, self.classes)

    def of(self, models: Sequence[str], classes: Sequence[str]) -> Votes:
        """Return these models and classes, in this order.

        Raises:
            TableError: They are not those that there are.
        """
        if set(classes) != set(self.classes):
            raise mismatch("classes", classes, self.classes)
        if tuple(sorted(models)) != self.models:
            raise mismatch("models", models, self.models)
        rows, columns_ = ([mine.index(name) for name in theirs] for mine, theirs in
                          ((self.models, models), (self.classes, classes)))  # fmt: skip
        return Votes(self.cases, self.probs[:, rows][:, :, columns_], tuple(models), tuple(classes))


def votes(tables: pd.DataFrame | Sequence[pd.DataFrame]) -> Votes:
    """Return the votes of predictions tables.

    Args:
        tables: Predictions table, or several of them: `case_id`, `group`, `fold`, `seed`, `model`,
            `prob_<class>`, and `y_true` where known.

    Raises:
        TableError: A column is missing, a row is doubled, a case lacks rows of a model, a case
            carries two groups or truths, or a probability is none.
    """
    rows, classes = _joined(tables)
    models = tuple(sorted(rows["model"].unique()))
    names = [PREFIX + name for name in classes]
    means = rows.groupby(["case_id", "model"], sort=True)[names].mean()
    probs = means.to_numpy().reshape(-1, len(models), len(names))
    return Votes(_cases(rows), probs, models, classes)


def _joined(
    tables: pd.DataFrame | Sequence[pd.DataFrame],
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return all rows sorted by their key, checked, and the classes."""
    parts = [tables] if isinstance(tables, pd.DataFrame) else list(tables)
    if not parts or not any(len(part) for part in parts):
        raise TableError("no predictions to join", expected="at least one row")
    names = _prob_columns(parts[0])
    for part in parts:
        columns(part, [*KEY, "group", *names])
        if set(_prob_columns(part)) != set(names):
            raise mismatch("probability columns", names, _prob_columns(part))
    truth = ["y_true"] if all("y_true" in part.columns for part in parts) else []
    kinds = dict.fromkeys(truth, object)  # an all-empty truth has another type than a known one
    rows = pd.concat(
        [part[[*KEY, "group", *truth, *names]].astype(kinds) for part in parts], ignore_index=True
    )
    _no_empty_key(rows)
    rows = rows.astype({"case_id": str, "model": str, "group": str})
    doubled = rows[rows.duplicated(KEY)]
    if len(doubled):
        raise TableError(
            "doubled predictions", expected="one row for each case_id, model, fold and seed",
            received=f"{len(doubled)} doubled: {first(_keys(doubled))}",
            remedy="give each run's model its own name, and score patches of a case together first",
        )  # fmt: skip
    probabilities(rows[list(names)].to_numpy(dtype=np.float64), name="prob")
    _complete(rows)
    return rows.sort_values(KEY, ignore_index=True), tuple(n.removeprefix(PREFIX) for n in names)


def _prob_columns(table: pd.DataFrame) -> tuple[str, ...]:
    names = tuple(str(name) for name in table.columns if str(name).startswith(PREFIX))
    if not names:
        raise TableError(
            "no probabilities", expected=f"columns {PREFIX}<class>",
            received=", ".join(map(str, table.columns)),
        )  # fmt: skip
    return names


def _no_empty_key(rows: pd.DataFrame) -> None:
    for name in [*KEY, "group"]:
        if rows[name].isna().any():
            raise TableError(
                f"column {name} has empty cells", expected="a value in each row",
                received=f"{int(rows[name].isna().sum())} empty",
            )  # fmt: skip


def _keys(rows: pd.DataFrame) -> list[str]:
    found = zip(*(rows[name] for name in KEY), strict=True)
    return [f"{case} ({model}, fold {fold}, seed {seed})" for case, model, fold, seed in found]


def mismatch(what: str, fitted: Sequence[str], found: Sequence[str]) -> TableError:
    """Return the error that names what was expected and what came."""
    return TableError(
        f"{what} differ from those expected", expected=", ".join(fitted), received=", ".join(found)
    )


def _complete(rows: pd.DataFrame) -> None:
    """Raise unless each model gives as many rows for one case as for any other."""
    given = rows.groupby(["case_id", "model"], sort=True).size().unstack(fill_value=0)
    for model in given.columns:
        most = int(given[model].max())
        lacking = given.index[given[model] < most]
        if len(lacking):
            raise TableError(
                f"model {model} lacks cases", expected=f"{most} rows a case",
                received=f"{len(lacking)} cases with fewer: {first(lacking)}",
                remedy="finish that model's folds and seeds, or leave it out",
            )  # fmt: skip


def _cases(rows: pd.DataFrame) -> pd.DataFrame:
    """Return `case_id`, `group` and `y_true`, one row a case, if each case carries one of them."""
    kept = [name for name in ("case_id", "group", "y_true") if name in rows.columns]
    cases = rows[kept].drop_duplicates()
    twice = cases[cases["case_id"].duplicated()]
    if len(twice):
        raise TableError(
            "cases carry two groups or two truths", expected="the same in all rows of a case",
            received=f"{len(twice)}: {first(twice['case_id'])}",
        )  # fmt: skip
    return cases.reset_index(drop=True)
