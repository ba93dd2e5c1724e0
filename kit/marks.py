"""A person's marks on doubtful labels: drop a case, relabel it, or keep its label.

The marks are a CSV that the manifest names (`review: FILE`); `kit review` writes it for a person to
fill. A row without an action says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kit.checks import close, columns, first, nearest
from kit.errors import MissingDataError, TableError
from kit.files import digest, read_text_table

DROP, RELABEL, KEEP = "drop", "relabel", "keep"
ACTIONS = {
    DROP: "leaves training, and is predicted and scored as before",
    RELABEL: "is learnt with new_label",
    KEEP: "its label was looked at and is right",
}
ACTION, REVIEWED = "review_action", "reviewed_label"
"""Columns of the cases table, there only where a case is marked: the action ("" for none), and the
class after the review (as given where it was not relabelled; None for test rows)."""


def read(path: Path) -> pd.DataFrame:
    """Return a review's rows as text: `case_id, action, new_label` and what else it holds.

    Raises:
        MissingDataError: There is no such file.
        TableError: It is no such table.
    """
    wanted = ["case_id", "action", "new_label"]
    if not path.is_file():
        raise MissingDataError(
            "no such review of labels", expected=f"a CSV of {', '.join(wanted)}", path=path,
            remedy=f"write it with kit review RUN --out {path.name}, or take the key review out of "
            "the manifest",
        )  # fmt: skip
    try:
        return columns(read_text_table(path), wanted, path=str(path))
    except TableError as error:
        raise TableError(
            "not a review of labels", expected=f"CSV with commas, UTF-8: {', '.join(wanted)}",
            received=error.received, path=path, remedy="save it so; kit review writes such a file",
        ) from error  # fmt: skip


def marked(
    cases: pd.DataFrame, path: Path, classes: Sequence[str], *, by_mask: bool = False
) -> pd.DataFrame:
    """Return the cases table with a review's marks; as it is where nothing is marked.

    Args:
        cases: The cases table.
        path: The review: `case_id`, `action` (one of `ACTIONS`, or empty), `new_label`.
        classes: All classes.
        by_mask: Whether masks label the patches of a case, which a new label cannot undo.

    Returns:
        The table with the columns `ACTION` and `REVIEWED`; `label` stays as given.

    Raises:
        MissingDataError: There is no such file.
        TableError: An action, case or class is unknown, a case is marked twice or is a test case,
            `new_label` and action do not fit, or a case labelled by its mask is relabelled.
    """
    rows = read(path)
    rows = rows[rows["action"].ne("") | rows["new_label"].ne("")]
    if not len(rows):
        return cases
    _check_actions(rows, path)
    _check_cases(rows, cases, path)
    _check_classes(rows, classes, path)
    if by_mask and (rows["action"] == RELABEL).any():
        raise TableError(
            "slides whose patches are labelled by masks cannot be relabelled",
            received=first(rows["case_id"][rows["action"] == RELABEL]), path=path,
            remedy="correct mask and label in the data, or mark them drop",
        )  # fmt: skip
    found = rows.set_index("case_id")
    new = cases["case_id"].map(found["new_label"][found["action"] == RELABEL])
    return cases.assign(**{
        ACTION: cases["case_id"].map(found["action"]).fillna("").astype(object),
        REVIEWED: cases["label"].where(new.isna(), new),
    })  # fmt: skip


def key(cases: pd.DataFrame) -> list[Any]:
    """Return what a stage that reads the marks adds to its inputs; nothing where there are none."""
    return [digest(cases[["case_id", ACTION, REVIEWED]])] if ACTION in cases else []


def unmarked(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases without a review's columns, for a stage that no label changes."""
    return cases.drop(columns=[ACTION, REVIEWED], errors="ignore")


def taught(cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases with `label` as it is learnt, and `train`: whether a case is learnt from."""
    train = cases["split"] == "train"
    if ACTION not in cases:
        return cases.assign(train=train)
    return cases.assign(label=cases[REVIEWED], train=train & (cases[ACTION] != DROP))


def _check_actions(rows: pd.DataFrame, path: Path) -> None:
    bare = rows[rows["action"].eq("")]
    if len(bare):
        raise TableError(
            "a new label without an action", expected=f"action {RELABEL}",
            received=_of(bare, "new_label"), path=path,
            remedy=f"write {RELABEL}, or empty new_label",
        )  # fmt: skip
    unknown = rows[~rows["action"].isin(list(ACTIONS))]
    if len(unknown):
        raise TableError(
            "unknown action", expected=f"one of {', '.join(ACTIONS)}, or empty",
            received=_of(unknown, "action"), path=path,
            remedy=nearest(str(unknown["action"].iloc[0]), ACTIONS),
        )  # fmt: skip


def _check_cases(rows: pd.DataFrame, cases: pd.DataFrame, path: Path) -> None:
    twice = rows["case_id"][rows["case_id"].duplicated()].unique()
    if len(twice):
        raise TableError("cases are marked twice", expected="one row with an action for each case",
                         received=first(twice), path=path, remedy="keep one of them")  # fmt: skip
    unknown = rows["case_id"][~rows["case_id"].isin(cases["case_id"])]
    if len(unknown):
        raise TableError(
            "marked cases are not in the data", expected="a case_id of the cases table",
            received=first(unknown), path=path,
            remedy=close(str(unknown.iloc[0]), cases["case_id"]) or "take their rows out",
        )  # fmt: skip
    tests = rows["case_id"].isin(cases["case_id"][cases["split"] == "test"])
    if tests.any():
        raise TableError(
            "test cases are marked", expected="training cases: labels of test cases are not read",
            received=first(rows["case_id"][tests]), path=path, remedy="take their rows out",
        )  # fmt: skip


def _check_classes(rows: pd.DataFrame, classes: Sequence[str], path: Path) -> None:
    extra = rows[rows["new_label"].ne("") & rows["action"].ne(RELABEL)]
    if len(extra):
        raise TableError(
            f"a new label belongs to action {RELABEL} alone", expected="new_label empty",
            received=_of(extra, "action", "new_label"), path=path,
            remedy=f"write {RELABEL}, or empty new_label",
        )  # fmt: skip
    bad = rows[rows["action"].eq(RELABEL) & ~rows["new_label"].isin(list(classes))]
    if len(bad):
        name = str(bad["new_label"].iloc[0])
        raise TableError(
            f"{RELABEL} needs the class in new_label", expected=f"one of {', '.join(classes)}",
            received=_of(bad, "new_label"), path=path, remedy=nearest(name, classes),
        )  # fmt: skip


def _of(rows: pd.DataFrame, *names: str) -> str:
    """Return the first rows' cells with the case that each stands at."""
    cells = rows[list(names)].replace("", "nothing").agg(" ".join, axis=1)
    return first([f"{cell} at {case}" for cell, case in zip(cells, rows["case_id"], strict=True)])
