"""The cases that a model gets most wrong, and those that models disagree on most.

Wrong labels, bad images and the kind of case that the training lacks are found by looking at them.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit.checks import columns, labels, positive_int, probabilities, unique_ids
from kit.errors import TableError


def most_wrong(table: pd.DataFrame, positive: str | None, n: int) -> pd.DataFrame:
    """Return the cases whose true class is given the least probability.

    Args:
        table: One row a case: case_id, y_true, prob_<class>.
        positive: Of two classes the positive one, of which `prob_<positive>` is enough; None:
            there is a probability of each class.
        n: Cases at most, at least 1.

    Returns:
        `case_id`, `y_true`, `prob_<positive>`, or without a positive class `prob_of_truth`; the
        most wrong first, of equal ones by case_id.

    Raises:
        TableError: A column is missing, an id is doubled, a truth is empty or has no probability,
            or a probability is out of range.
    """
    positive_int("n", n)
    names = [str(c)[5:] for c in table if str(c).startswith("prob_")]
    wanted = names if positive is None else [positive]
    columns(table, ["case_id", "y_true", *(f"prob_{name}" for name in wanted or ["<class>"])])
    unique_ids(table["case_id"])
    found = table[["case_id", "y_true"]].reset_index(drop=True)
    truth = found["y_true"].astype(object)
    if positive is None:
        prob = probabilities(table[[f"prob_{name}" for name in names]].to_numpy(dtype=float))
        place = pd.Index(names).get_indexer(pd.Index(labels(truth, names)))
        own = prob[np.arange(len(prob)), place]
        found["prob_of_truth"] = own
    else:
        labels(truth, [*truth.dropna().unique()])
        mine = (truth == positive).to_numpy()
        prob = probabilities(table[f"prob_{positive}"].to_numpy(dtype=float))
        own = np.where(mine, prob, 1 - prob)
        found[f"prob_{positive}"] = prob
    return _first(found, own, n)


def disagreeing(pivot: pd.DataFrame, n: int) -> pd.DataFrame:
    """Return the cases on which the models' probabilities are spread most.

    Args:
        pivot: One row a case, its id the index, one column a model; the positive class's
            probability.
        n: Cases at most, at least 1.

    Returns:
        `case_id`, `lowest`, `highest`, `spread` (standard deviation over the models); the widest
        first, of equal ones by case_id.

    Raises:
        TableError: There are fewer than two models, an id is doubled, or a model lacks a case.
    """
    positive_int("n", n)
    if pivot.shape[1] < 2:
        raise TableError("one model cannot disagree", expected="at least 2 models",
                         received=pivot.shape[1])  # fmt: skip
    ids = unique_ids(pd.Series(pivot.index, name="case_id"))
    prob = probabilities(pivot.to_numpy(dtype=float).ravel()).reshape(pivot.shape)
    prob = np.sort(prob, axis=1)  # the order of the models has no say in the last digit
    spread = prob.std(axis=1)
    found = pd.DataFrame({"case_id": ids, "lowest": prob[:, 0], "highest": prob[:, -1]})
    return _first(found.assign(spread=spread), -spread, n)


def _first(found: pd.DataFrame, key: np.ndarray, n: int) -> pd.DataFrame:
    """Return the `n` rows of the smallest keys, equal ones by case_id."""
    order = np.lexsort((found["case_id"].astype(str).to_numpy(), key))
    return found.iloc[order[:n]].reset_index(drop=True)
