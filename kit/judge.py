"""Truth and predictions from two files, joined by `case_id`, as a run's own scored table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.checks import columns, first, labels, nearest, probabilities, unique_ids
from kit.ensemble import KEY, PREFIX, Ensemble
from kit.errors import SettingsError, TableError
from kit.files import read_table
from kit.scoring import Scored, decided

DECISIONS = ("y_pred", "pred", "label")


def read_truth(path: Path, *, label: str = "label", group: str | None = None) -> pd.DataFrame:
    """Return the truth: `case_id`, `y_true`, `group`, and all other columns of the file.

    Args:
        path: CSV or Parquet with `case_id`.
        label: Column of the true class.
        group: Column of the patient; None: `group` where there is one, else each case is its own.

    Raises:
        KitError: The file is missing or no table.
        TableError: A column is missing, an id is empty or doubled, a label or group is empty.
    """
    table = columns(read_table(path), ["case_id", label, *([group] if group else [])],
                    path=str(path))  # fmt: skip
    table["case_id"] = unique_ids(table["case_id"], path=str(path)).astype(str)
    table["y_true"] = _text(table[label], path)
    named = group or ("group" if "group" in table else "case_id")
    table["group"] = _text(table[named], path)
    return table


def read_predictions(path: Path, classes: Sequence[str], positive: str | None) -> pd.DataFrame:
    """Return the predictions: `case_id`, `prob_<class>`, and `fold` where each case has one.

    Several rows of a case, of the models, folds or seeds of a run, are averaged. A file of decided
    labels alone counts as probabilities of 0 and 1.

    Args:
        path: CSV or Parquet: `case_id`, and `prob` (of the positive class), `prob_<class>` for each
            class, or a column of labels.
        classes: All classes.
        positive: The positive class of two.

    Raises:
        TableError: Ids are empty or doubled, or a probability is none.
    """
    table = columns(read_table(path), ["case_id"], path=str(path))
    names = [PREFIX + name for name in classes]
    if positive is not None:
        table = table.rename(columns={"prob": PREFIX + positive})
    elif "prob" in table:
        raise TableError(
            "one probability a case is for two classes", path=path, received=", ".join(classes),
            expected=", ".join(names), remedy="name each class's column, or mend the labels",
        )  # fmt: skip
    table = _numbers(table, path)
    if not any(str(name).startswith(PREFIX) for name in table):
        table = _votes(table, classes, path)
    given = [name for name in names if name in table]
    if positive is not None and len(given) == 1:
        (other,) = (name for name in names if name not in given)
        table[other] = 1 - probabilities(table[given[0]].to_numpy(), name=given[0])
    _known(table, names, path)
    if set(KEY) <= set(table) and table["case_id"].duplicated().any():
        if "group" not in table:
            table["group"] = table["case_id"]
        once = table.groupby("case_id")["fold"].transform("nunique").eq(1).all()
        fold = table.groupby("case_id")["fold"].first() if once else None
        table = Ensemble("mean").fit(table).predict(table)
        if fold is not None:
            table["fold"] = table["case_id"].map(fold)
    table["case_id"] = unique_ids(table["case_id"], path=str(path)).astype(str)
    table[names] = probabilities(table[names].to_numpy())
    return table[["case_id", *names, *(["fold"] if "fold" in table else [])]]


def classes_of(
    truth: pd.DataFrame, pred: Path, positive: str | None
) -> tuple[tuple[str, ...], str | None]:
    """Return all classes and the positive one of two.

    Classes are those of the predictions' `prob_<class>` columns, or else the labels of the truth.

    Args:
        truth: As `read_truth` gives it.
        pred: File of predictions.
        positive: The positive class, if the user names it.

    Raises:
        SettingsError: There are two classes and none can be taken for the positive one.
    """
    found = sorted(set(truth["y_true"]))
    named = [str(n)[len(PREFIX) :] for n in read_table(pred) if str(n).startswith(PREFIX)]
    known = list(dict.fromkeys([*named, *([] if len(named) > 1 else found)]))
    if positive is not None and positive not in known:
        if len(known) > 1:
            raise SettingsError(
                "the positive class is not among the classes", expected=", ".join(known),
                received=f"--positive {positive}", remedy=nearest(positive, known),
            )  # fmt: skip
        known.append(positive)
    if len(known) == 1:  # the labels are of one class
        known = ["0", "1"] if known[0] in ("0", "1") else [f"not {known[0]}", known[0]]
    if len(known) > 2:
        return tuple(known), None
    guess = named[0] if len(named) == 1 else "1" if "1" in known else None
    chosen = positive or guess
    if chosen is None:
        raise SettingsError(
            "which of two classes is the positive one is not said",
            received=", ".join(known), remedy=f"--positive {known[-1]}",
        )  # fmt: skip
    return tuple(sorted(known, key=lambda name: name == chosen)), chosen


def joined(truth: pd.DataFrame, predictions: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the truth with its predictions; predictions without a truth are left out.

    Raises:
        TableError: A case has no prediction.
    """
    bare = truth["case_id"][~truth["case_id"].isin(predictions["case_id"])]
    if len(bare):
        raise TableError(
            "cases have no prediction", expected="a prediction for each case of the truth",
            received=f"{len(bare)} without one: {first(bare)}", path=path,
        )  # fmt: skip
    kept = [name for name in predictions if name == "case_id" or name not in truth]
    return truth.merge(predictions[kept], on="case_id", how="left", validate="one_to_one")


def judged(
    truth: pd.DataFrame, path: Path, classes: Sequence[str], positive: str | None,
    method: float | str,
) -> Scored:  # fmt: skip
    """Return the scored table of one file of predictions.

    Args:
        truth: As `read_truth` gives it.
        path: File of predictions.
        classes: All classes.
        positive: The positive class of two.
        method: A threshold, or how it is chosen on the other folds: then a column `fold` is needed.

    Raises:
        SettingsError: A threshold is to be chosen and no fold is known.
        TableError: As in `read_truth`, `read_predictions` and `joined`.
    """
    labels(truth["y_true"], classes)
    table = joined(truth, read_predictions(path, classes, positive), path)
    if "fold" not in table:
        if isinstance(method, str) and positive is not None:
            raise SettingsError(
                "a threshold chosen on the rows that it is judged on flatters", path=path,
                expected="a column fold, to choose it on the other folds, or a number",
                received=f"--threshold {method}",
            )  # fmt: skip
        table["fold"] = 0
    table["fold"] = pd.factorize(table["fold"], sort=True)[0]
    return decided(table, classes=classes, positive=positive, method=method)


def _text(values: pd.Series, path: Path) -> pd.Series:
    """Return a column as text; whole numbers lose their fraction."""
    empty = values.isna()
    if empty.any():
        raise TableError(
            f"column {values.name} has empty cells", expected="a value in each row",
            received=f"{int(empty.sum())} empty, first in rows {first(values.index[empty])}",
            path=path,
        )  # fmt: skip
    if values.dtype.kind == "f" and (values % 1 == 0).all():
        values = values.astype(np.int64)
    return values.astype(str)


def _numbers(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the table with its probabilities as float64."""
    names = [name for name in table if str(name).startswith(PREFIX)]
    try:
        return table.astype(dict.fromkeys(names, np.float64))
    except ValueError as error:
        raise TableError("probabilities must be numbers", received=str(error), path=path) from error


def _votes(table: pd.DataFrame, classes: Sequence[str], path: Path) -> pd.DataFrame:
    named = [name for name in DECISIONS if name in table]
    if not named:
        raise TableError(
            "no predictions", expected=f"a column prob, {PREFIX}<class> or {DECISIONS[0]}",
            received=", ".join(map(str, table.columns)), path=path,
        )  # fmt: skip
    votes = labels(_text(table[named[0]], path), classes, path=str(path))
    return table.assign(**{PREFIX + name: (votes == name).astype(float) for name in classes})


def _known(table: pd.DataFrame, names: Sequence[str], path: Path) -> None:
    found = {str(name) for name in table if str(name).startswith(PREFIX)}
    if found != set(names):
        raise TableError(
            "probability columns are not those of the classes", expected=", ".join(names),
            received=", ".join(sorted(found)), path=path,
        )  # fmt: skip
