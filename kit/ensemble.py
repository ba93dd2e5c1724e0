"""Several models' predictions joined to one for each case, by `case_id` and never by position."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kit.checks import choice, columns, first, probabilities
from kit.errors import KitError, SettingsError, TableError

PREFIX = "prob_"
KEY = ["case_id", "model", "fold", "seed"]

Strategy = Callable[[np.ndarray], np.ndarray]


def _mean(probs: np.ndarray) -> np.ndarray:
    """Return the mean over models: (cases, models, classes) to (cases, classes)."""
    return np.asarray(probs.mean(axis=1))


STRATEGIES: dict[str, Strategy] = {"mean": _mean}


@dataclass(frozen=True)
class Ensemble:
    """A way to join models. `fit` returns a fitted copy; nothing is changed in place.

    Each model's rows of a case (its folds and seeds) are averaged first, then the models are
    joined, so that a model with more seeds has no more votes.

    Args:
        method: `mean`: all models weigh the same.
        classes: Set by `fit`: the classes, in the order of the `prob_` columns.
        models: Set by `fit`: the models, sorted.
    """

    method: str = "mean"
    classes: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        choice("ensemble", self.method, STRATEGIES)

    def fit(self, oof: pd.DataFrame | Sequence[pd.DataFrame]) -> Ensemble:
        """Return an ensemble fitted to out-of-fold predictions.

        Args:
            oof: Predictions table, or several of them.

        Raises:
            TableError: As in `predict`.
        """
        rows, classes = _joined(oof)
        return Ensemble(self.method, classes, tuple(sorted(rows["model"].unique())))

    def predict(self, tables: pd.DataFrame | Sequence[pd.DataFrame]) -> pd.DataFrame:
        """Return one row a case, sorted by `case_id`.

        Args:
            tables: Predictions table, or several of them: `case_id`, `group`, `fold`, `seed`,
                `model`, `prob_<class>`, and `y_true` where known.

        Returns:
            `case_id`, `group`, `y_true` (if there), `prob_<class>` in [0, 1].

        Raises:
            SettingsError: The ensemble was not fitted.
            TableError: A column is missing, a row is doubled, a case lacks rows of a model, a case
                carries two groups or truths, or classes or models are not those of `fit`.
        """
        if not self.models:
            raise SettingsError("the ensemble is not fitted", remedy="call fit(oof) first")
        rows, classes = _joined(tables)
        if set(classes) != set(self.classes):
            raise _mismatch("classes", self.classes, classes)
        found = tuple(sorted(rows["model"].unique()))
        if found != self.models:
            raise _mismatch("models", self.models, found)
        names = [PREFIX + name for name in self.classes]
        means = rows.groupby(["case_id", "model"], sort=True)[names].mean()
        probs = means.to_numpy().reshape(-1, len(self.models), len(names))
        cases = _cases(rows)
        cases[names] = STRATEGIES[self.method](probs)
        return cases

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` rebuilds the ensemble from, in JSON's types."""
        return {
            "method": self.method,
            "classes": list(self.classes),
            "models": list(self.models),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Ensemble:
        """Return the ensemble that `to_dict` described.

        Raises:
            KitError: A key is missing.
            SettingsError: The method is unknown.
        """
        try:
            method, classes, models = (values[key] for key in ("method", "classes", "models"))
        except KeyError as error:
            raise KitError(
                "not an ensemble", expected="method, classes, models",
                received=", ".join(map(str, values)),
            ) from error  # fmt: skip
        return cls(str(method), tuple(map(str, classes)), tuple(map(str, models)))


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
            raise _mismatch("probability columns", names, _prob_columns(part))
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


def _mismatch(what: str, fitted: Sequence[str], found: Sequence[str]) -> TableError:
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
