"""What a run says of its slides beside their figures: the rule, patches inside, lesions found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from kit._ranks import area
from kit.aggregate import Fitted
from kit.draws import UNSURE
from kit.files import read_table
from kit.lesion_scores import Scores
from kit.rules import POOLED

SHOWN = 10  # slides whose own figures are told


def chosen(fitted: Fitted) -> dict[str, str]:
    """Return what was chosen for a rule, by fold and for `all` new slides."""
    rules = fitted.chosen.set_index("fold")["rule"]
    return {str(fold): str(rule) for fold, rule in rules.items()}


def told(
    rule: str, chosen: Mapping[str, str], tied: Mapping[str, int], inside: pd.DataFrame
) -> dict[str, Any]:
    """Return what a run says of its slides' scores beside the figures.

    Args:
        rule: What scores slides, as it was asked for.
        chosen: What was chosen for it, by fold and for `all` new slides.
        tied: `kit.aggregate.ties` of the scores.
        inside: As `inside` returns it.

    Returns:
        `slide_score`: the rule, what was chosen for new slides and for each fold, and ties;
        `patches`: AUC among the labelled patches of a slide, out of fold: the mean over the slides
        that have both kinds, how many these are, and each of the first.
    """
    known = inside.dropna(subset="auc")
    return {
        "slide_score": {"rule": rule, "chosen": dict(chosen), "ties": dict(tied)},
        "patches": {
            "auc": float(known["auc"].mean()) if len(known) else None, "slides": len(known),
            "by_slide": {row.case_id: row.auc for row in known.head(SHOWN).itertuples()},
        },
    }  # fmt: skip


def told_of_lesions(scores: Scores) -> dict[str, Any]:
    """Return Dice and IoU of all slides' areas together, and CAMELYON16's FROC score.

    Returns:
        `threshold`, `slides`, `dice`, `iou`, `froc` and `lesions`; None is undefined.
    """
    together = scores.overlap[scores.overlap["case_id"].isna()].iloc[0]
    found = scores.froc
    return {
        "threshold": scores.threshold, "slides": len(scores.overlap) - 1,
        "dice": float(together["dice"]), "iou": float(together["iou"]),
        "froc": None if found is None else found.score,
        "lesions": None if found is None else found.n_lesions,
    }  # fmt: skip


def beside(metrics: Mapping[str, Any], lesions: Mapping[str, Any] | None) -> list[str]:
    """Return what a reader of a slide's score should see beside it, a line each.

    Args:
        metrics: With what `told` returns.
        lesions: As `told_of_lesions` returns it; None without masks.
    """
    lines = []
    if "slide_score" in metrics:
        one = metrics["slide_score"]
        of = "their vectors" if one["rule"] in POOLED else "the patches"
        lines.append(f"slide score: {one['chosen']['all']} of {of}; {one['ties']['any']} "
                     "slides share their score with another")  # fmt: skip
    inside = metrics.get("patches", {"slides": 0})
    if inside["slides"]:
        lines.append(f"patches inside a slide: AUC {inside['auc']:.4f}, the mean of "
                     f"{inside['slides']} slides, out of fold")  # fmt: skip
    if lesions is not None:
        dice, iou, froc = (
            "undefined" if lesions[name] is None else f"{lesions[name]:.4f}"
            for name in ("dice", "iou", "froc")
        )
        lines.append(f"lesions: Dice {dice}, IoU {iou} from {lesions['threshold']} on; FROC {froc}")
    return lines


def cautions(tied: Mapping[str, int]) -> list[str]:
    """Return what a reader of the figures must know of the scores, a line each."""
    any_, other = tied["any"], tied["other_class"]
    if not any_:
        return []
    return [f"{any_} slides share their score with another, {other} of them with one of the other "
            "class: such ties say nothing of their order"]  # fmt: skip


def inside(
    tables: Mapping[str, Path], plan: pd.DataFrame | None, folds: pd.DataFrame, positive: str
) -> pd.DataFrame:
    """Return how well patches are told apart inside each training slide, out of fold.

    Args:
        tables: Patch predictions of each slide, the training slides' by their fold's networks.
        plan: The patches table, with `label`.
        folds: The folds table.
        positive: The positive class.

    Returns:
        `case_id`, `patches` and `positive` (labelled ones, and those of the class), `auc`, NaN
        where a slide has one kind alone.
    """
    rows = []
    known = None if plan is None else plan[plan["case_id"].isin(folds["case_id"])]
    for case_id, mine in () if known is None else known.groupby("case_id", sort=True):
        if case_id not in tables or mine["label"].nunique() < 2:
            continue
        place = ["x", "y", "footprint"]
        prob = read_table(tables[str(case_id)]).groupby(place)[f"prob_{positive}"].mean()
        found = mine.merge(prob.reset_index(), on=place)
        found = found[found["label"].notna() & (found["label"] != UNSURE)]
        truth = (found["label"] == positive).to_numpy()
        both = 0 < truth.sum() < len(truth)
        auc = area(truth, found[f"prob_{positive}"].to_numpy()).area if both else float("nan")
        rows.append((case_id, len(found), int(truth.sum()), auc))
    return pd.DataFrame(rows, columns=["case_id", "patches", "positive", "auc"])
