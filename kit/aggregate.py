"""From the predictions of a case's patches or slices to the case's own."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import pandas as pd

from kit.checks import choice, first
from kit.errors import TableError

log = logging.getLogger(__name__)

NETWORK = ["fold", "seed", "model"]

TOP_SHARE = 0.05
RULES = ("mean", "max", "top")


def to_cases(
    predictions: pd.DataFrame, cases: pd.DataFrame, rule: str, classes: Sequence[str],
    positive: str | None,
) -> pd.DataFrame:  # fmt: skip
    """Return one row for each case and network.

    A case without a patch (a slide without tissue) holds nothing that speaks for the positive
    class: its probability is 0, or equal for all classes where none is positive; it is logged.

    Args:
        predictions: A row for each patch and network: `case_id, fold, seed, model`, `prob_<class>`.
        cases: The cases to score: `case_id, group, label, split` and, where only one fold's
            networks score a case, `fold`.
        rule: mean over patches; max, or mean of the top twentieth, of the positive class's
            probability (the other class is what is left). Above two classes only the mean.
        classes: All classes.
        positive: The positive class; None above two classes.

    Returns:
        The predictions table: `case_id, group, fold, seed, model, y_true`, `prob_<class>`.

    Raises:
        TableError: A case has no network: there are no predictions at all of its fold.
    """
    choice("aggregate", rule, RULES)
    names = [f"prob_{name}" for name in classes]
    by = predictions.groupby(["case_id", *NETWORK], sort=True)
    scores = by[names].mean()
    if rule != "mean" and positive is not None:
        mine = f"prob_{positive}"
        scores[mine] = by[mine].max() if rule == "max" else by[mine].agg(_top)
        (other,) = [name for name in names if name != mine]
        scores[other] = 1 - scores[mine]
    networks = predictions[NETWORK].drop_duplicates()
    asked = cases[["case_id", "group", "label", "split"]]
    if "fold" in cases:
        table = asked.assign(fold=cases.fold).merge(networks, on="fold")
    else:
        table = asked.merge(networks, how="cross")
    unseen = cases.case_id[~cases.case_id.isin(table.case_id)]
    if len(unseen):
        raise TableError(
            "no network predicted anything for these cases", received=first(unseen),
            remedy="none of them, nor of their fold, has a patch: lower min_tissue",
        )  # fmt: skip
    table = table.merge(scores.reset_index(), on=["case_id", *NETWORK], how="left")
    bare = table[names[0]].isna()
    if bare.any():
        log.warning("no patch, so the stated score: %s", first(table.case_id[bare].unique()))
        table.loc[bare, names] = 1 / len(names) if positive is None else 0.0
        if positive is not None:
            (other,) = [name for name in names if name != f"prob_{positive}"]
            table.loc[bare, other] = 1.0
    table["y_true"] = table.label.where(table.split != "test", None)
    table = table[["case_id", "group", *NETWORK, "y_true", *names]]
    return table.sort_values(["case_id", *NETWORK], ignore_index=True)


def _top(prob: pd.Series) -> float:
    values = np.sort(prob.to_numpy())
    return float(values[-max(1, round(TOP_SHARE * len(values))) :].mean())
