"""From the predictions of a case's patches or slices to the case's own.

A choice that is made on the slides that it is judged on flatters the figures: for the slides of a
fold, a rule's parameter or classifier is chosen on those of the other folds alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kit._choices import Choice, choose, ties
from kit._learners import Learner
from kit.checks import choice, columns, first, labels
from kit.errors import KitError, SettingsError, TableError
from kit.rules import Rule
from kit.slide_features import KEY

__all__ = ["Fitted", "Rule", "fit", "ties", "to_cases"]

log = logging.getLogger(__name__)

NETWORK = ["fold", "seed", "model"]

ALL = "all"


@dataclass(frozen=True, eq=False)
class Fitted:
    """A rule with what was chosen for it.

    Attributes:
        rule: The rule that was asked for.
        classes: Both classes, in the order of the `prob_` columns.
        positive: The positive one.
        choice: What scores new slides.
        chosen: A row for each fold, and `all` for new slides: `fold`, `rule` (what was chosen),
            `auc` and `slides` (on those it was chosen on; optimistic).
        ties: Slides of the out-of-fold table whose score is another's too: `any`, and
            `other_class`, where one of those is of the other class.
    """

    rule: Rule
    classes: tuple[str, ...]
    positive: str
    choice: Choice
    chosen: pd.DataFrame
    ties: Mapping[str, int]
    _oof: pd.DataFrame | None = field(default=None, repr=False)

    def oof(self) -> pd.DataFrame:
        """Return the out-of-fold predictions table, a row for each case and network.

        Raises:
            KitError: The rule was read from a file, which keeps no rows.
        """
        if self._oof is None:
            raise KitError("a rule that was read has no out-of-fold rows", remedy="fit it again")
        return self._oof.copy()

    def predict(self, features: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions table of new slides, a row for each case and network.

        Args:
            features: As in `fit`, of all networks.
            cases: `case_id, group`, and `label` and `split` where the truth is known.

        Raises:
            TableError: A case has no network or lacks one, or a feature is missing.
            MissingMppError: The rule needs an area, and a slide has no mpp.
        """
        rows = _rows(features, cases)
        return _table(rows, self.choice.scores(rows), self.classes, self.positive)

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` rebuilds the rule from, in JSON's types."""
        learner = self.choice.learner
        return {
            "rule": str(self.rule), "classes": list(self.classes), "positive": self.positive,
            "choice": self.choice.name, "learner": None if learner is None else learner.to_dict(),
            "chosen": self.chosen.astype(object).where(self.chosen.notna(), None).to_dict("list"),
            "ties": dict(self.ties),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fitted:
        """Return the rule that `to_dict` described.

        Raises:
            KitError: A key is missing.
        """
        try:
            kept, chosen = values["learner"], pd.DataFrame(values["chosen"])
            chosen["auc"] = chosen["auc"].astype(np.float64)
            learner = None if kept is None else Learner.from_dict(kept)
            return cls(
                Rule.parse(values["rule"]), tuple(values["classes"]), values["positive"],
                Choice(values["choice"], learner), chosen, values["ties"],
            )  # fmt: skip
        except KeyError as error:
            raise KitError(
                "not a fitted rule", expected=f"key {error}", received=", ".join(map(str, values)),
            ) from error  # fmt: skip


def fit(
    rule: Rule, features: pd.DataFrame, cases: pd.DataFrame, classes: Sequence[str], positive: str
) -> Fitted:
    """Choose a rule's parameter, or fit its classifier: for each fold on the others, then on all.

    A parameter is the one of the highest AUC over slides, each scored by the mean over its
    networks, as it is submitted; of equal ones the first of `rule.columns`. A classifier learns
    from a row for each slide and network, a slide's rows weighing 1 together. Where the slides to
    choose on are of one class, the default is taken and the log says so.

    Args:
        rule: What scores a slide.
        features: `kit.slide_features.table` of the out-of-fold patches: `case_id, fold, seed,
            model` and the features; of a network, only the cases of its own fold count.
        cases: `case_id, group, fold, label` of the slides. One that has no row scores 0.
        classes: Both classes.
        positive: The positive one.

    Raises:
        SettingsError: The rule is a network of bags.
        TableError: A label is unknown, a row is doubled, a feature is missing, a case has no
            network or lacks one of its fold's.
        MissingMppError: The rule needs an area, and a slide has no mpp.
    """
    choice("positive", positive, classes)
    if rule.pooled:
        raise SettingsError("a network of bags is no rule of patch predictions",
                            received=f"rule {rule}", remedy="kit.mil.cross_validate")  # fmt: skip
    columns(cases, ["case_id", "group", "fold", "label"])
    labels(cases["label"], classes)
    rows = _rows(features, cases.assign(split="train"))
    folds = sorted(rows["fold"].unique())
    choices = {
        str(fold): choose(rule, rows[rows["fold"] != fold], positive, f"fold {fold}")
        for fold in folds
    }
    score = np.zeros(len(rows))
    for fold in folds:
        mine = (rows["fold"] == fold).to_numpy()
        score[mine] = choices[str(fold)].scores(rows[mine])
    choices[ALL] = choose(rule, rows, positive, "new slides")
    chosen = pd.DataFrame(
        [(name, one.name, one.auc, one.slides) for name, one in choices.items()],
        columns=["fold", "rule", "auc", "slides"],
    )
    found = _table(rows, score, classes, positive)
    return Fitted(rule, tuple(classes), positive, choices[ALL], chosen,
                  ties(found, positive), found)  # fmt: skip


def _rows(features: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Return the features of each case and network, and its truth; without a patch they are 0."""
    found = columns(features, [*KEY, "no_patch"])
    doubled = found[found.duplicated(KEY)]
    if len(doubled):
        raise TableError("doubled features", expected="one row for each case and network",
                         received=first(doubled["case_id"].unique()))  # fmt: skip
    asked = _asked(found, cases)
    values = [name for name in found.columns if name not in asked]
    rows = _merged(asked, found[[*KEY, *values]], "no_patch")
    bare = rows["no_patch"].isna()
    rows.loc[bare, values], rows.loc[bare, "no_patch"] = 0.0, 1.0
    none = rows["case_id"][rows["no_patch"] == 1].unique()
    if len(none):
        log.warning("no patch, so the stated score: %s", first(none))
    return rows


def _table(
    rows: pd.DataFrame, score: np.ndarray, classes: Sequence[str], positive: str
) -> pd.DataFrame:
    """Return the predictions table of scored rows."""
    table = rows[["case_id", "group", *NETWORK, "y_true"]].copy()
    for name in classes:
        table[f"prob_{name}"] = score if name == positive else 1 - score
    return table.sort_values(KEY, ignore_index=True)


def to_cases(
    predictions: pd.DataFrame, cases: pd.DataFrame, classes: Sequence[str], positive: str | None,
    *, votes: bool = False,
) -> pd.DataFrame:  # fmt: skip
    """Return one row for each case and network: the mean over its patches, slices or one image.

    A case without a patch (a slide without tissue) holds nothing that speaks for the positive
    class: its probability is 0, or equal for all classes where none is positive; it is logged.

    Args:
        predictions: A row for each patch and network: `case_id, fold, seed, model`, `prob_<class>`.
        cases: The cases to score: `case_id, group, label, split` and, where only one fold's
            networks score a case, `fold`.
        classes: All classes.
        positive: The positive class; None above two classes.
        votes: Each patch or slice votes for its likeliest class, and the share of the votes is
            rounded to tenths: of eleven values, most are another case's too.

    Returns:
        The predictions table: `case_id, group, fold, seed, model, y_true`, `prob_<class>`.

    Raises:
        TableError: A case has no network: there are no predictions at all of its fold; or it has
            predictions by some of its networks only.
    """
    names = [f"prob_{name}" for name in classes]
    if votes:
        likeliest = predictions[names].to_numpy().argmax(axis=1)
        predictions = predictions.assign(
            **dict(zip(names, np.eye(len(names))[likeliest].T, strict=True))
        )
    scores = predictions.groupby(KEY, sort=True)[names].mean()
    scores = scores.round(1) if votes else scores
    table = _merged(_asked(predictions, cases), scores.reset_index(), names[0])
    bare = table[names[0]].isna()
    if bare.any():
        log.warning("no patch, so the stated score: %s", first(table.case_id[bare].unique()))
        for name in names:
            stated = 1 / len(names) if positive is None else float(name != f"prob_{positive}")
            table.loc[bare, name] = stated
    table = table[["case_id", "group", *NETWORK, "y_true", *names]]
    return table.sort_values(KEY, ignore_index=True)


def _asked(predictions: pd.DataFrame, cases: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each case and network that is to score it, with the truth where known."""
    asked = cases[["case_id", "group"]].assign(y_true=None)
    if "label" in cases and "split" in cases:
        asked["y_true"] = cases["label"].where(cases["split"] != "test", None)
    networks = predictions[NETWORK].drop_duplicates()
    if "fold" in cases:
        table = asked.assign(fold=cases["fold"]).merge(networks, on="fold")
    else:
        table = asked.merge(networks, how="cross")
    unseen = cases["case_id"][~cases["case_id"].isin(table["case_id"])]
    if len(unseen):
        raise TableError(
            "no network predicted anything for these cases", received=first(unseen),
            remedy="none of them, nor of their fold, has a patch: lower min_tissue",
        )  # fmt: skip
    return table


def _merged(asked: pd.DataFrame, found: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return what was found of each case and network, nothing of a case without a patch.

    Raises:
        TableError: A network has nothing of a case that another network has something of.
    """
    table = asked.merge(found, on=KEY, how="left")
    seen = table[name].notna().groupby(table["case_id"])
    partly = table["case_id"][seen.transform("any") & ~seen.transform("all")].unique()
    if len(partly):
        raise TableError(
            "cases lack predictions of some networks", expected="a row of each network",
            received=first(partly),
        )  # fmt: skip
    return table
