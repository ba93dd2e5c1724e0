"""From out-of-fold predictions to decisions and figures, each free of the rows it is applied to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kit.checks import first
from kit.comparison import chance, compare
from kit.ensemble import Ensemble
from kit.marks import ACTION, DROP, KEEP, RELABEL, REVIEWED
from kit.metrics import Report, evaluate, mean_of_six, six_metrics
from kit.official import Official
from kit.thresholds import choose, nested

NO_SKILL = 0.05  # p-value above which a model cannot be told from chance
FLATTERS = "optimistic where a model's doubts led to the marks"


@dataclass(frozen=True)
class Scored:
    """Joined out-of-fold predictions and the decisions made on them.

    Attributes:
        table: One row a case: `case_id, group, y_true, fold`, `prob_<class>`, and `y_pred`, decided
            by a threshold chosen on the other folds (above two classes: the likeliest class).
        threshold: The frozen threshold of the positive class, for rows that come later; None
            above two classes.
        rule: Where the decisions come from, in words.
        classes: All classes.
        positive: The positive class of two; None above two.
    """

    table: pd.DataFrame
    threshold: float | None
    rule: str
    classes: tuple[str, ...]
    positive: str | None


def score(
    oof: pd.DataFrame,
    folds: pd.DataFrame,
    ensemble: Ensemble,
    *,
    classes: Sequence[str],
    positive: str | None,
    method: float | str,
) -> Scored:
    """Join the networks' out-of-fold predictions and decide on each case.

    Where there is one fold or one class only, nothing can be chosen and the threshold is .5.

    Args:
        oof: Out-of-fold predictions table.
        folds: Folds table.
        ensemble: How a case's predictions are joined.
        classes: All classes.
        positive: The positive class of two; None above two.
        method: See `kit.thresholds.choose`.
    """
    table = ensemble.predict(oof).merge(folds[["case_id", "fold"]], on="case_id", how="left")
    return decided(table, classes=classes, positive=positive, method=method)


def decided(
    table: pd.DataFrame, *, classes: Sequence[str], positive: str | None, method: float | str
) -> Scored:
    """Decide on each case: by a threshold chosen on the other folds, or by the likeliest class.

    Args:
        table: One row a case: `case_id, group, y_true, fold`, `prob_<class>`.
        classes: All classes.
        positive: The positive class of two; None above two.
        method: See `kit.thresholds.choose`.
    """
    if positive is None:
        each = table[[f"prob_{name}" for name in classes]].to_numpy()
        y_pred = np.asarray(classes, dtype=object)[each.argmax(axis=1)]
        rule = "the likeliest class"
        return Scored(table.assign(y_pred=y_pred), None, rule, tuple(classes), None)
    truth, prob = (table.y_true == positive).to_numpy(), table[f"prob_{positive}"].to_numpy()
    rule = "thresholds nested by fold, each chosen on the other folds"
    if not isinstance(method, str):
        rule = "the threshold given"
    elif table.fold.nunique() < 2 or table.y_true.nunique() < 2:
        method, rule = 0.5, "threshold .5: one fold or one class leaves nothing to choose it on"
    called, _ = nested(truth, prob, table.fold.to_numpy(), method)
    (other,) = [name for name in classes if name != positive]
    y_pred = np.where(called, positive, other).astype(object)
    threshold = choose(truth, prob, method)
    return Scored(table.assign(y_pred=y_pred), threshold, rule, tuple(classes), positive)


def figures(
    scored: Scored,
    *,
    n_folds: int,
    resamples: int,
    seed: int,
    method: float | str,
    graded: bool = False,
    official: Official | None = None,
    by: str | None = None,
    cautions: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the six metrics, their mean and the AUC with intervals over groups, and their doubts.

    Args:
        scored: The decisions.
        n_folds: Folds of the whole run; with fewer in the table a warning says so.
        resamples: Of the bootstrap.
        seed: Of the bootstrap and the test.
        method: How the threshold was chosen.
        graded: Whether the classes are grades, in order.
        official: The judge's scorer, to stand beside.
        by: Column of the table whose parts get figures of their own.
        cautions: What the data warn of.

    Returns:
        The keys of `kit run --json` that speak of figures, with the confusion matrix (rows: truth)
        and its classes; of two classes `optimistic`, the six at the threshold chosen on these very
        rows, where one was chosen, and `chance`, the permutation test; `official` with a scorer.
    """
    table, positive = scored.table, scored.positive
    report = _evaluated(scored, by=by, graded=graded, resamples=resamples, seed=seed)
    found = report.to_dict()
    done = sorted(int(fold) for fold in table.fold.unique())
    partial = [f"only folds {first(done)} are in these figures"] if len(done) < n_folds else []
    skill = {} if positive is None else {"chance": _skill(scored, seed)}
    doubts = [] if positive is None else _doubts(skill["chance"])
    return {
        **found, **skill,
        **_optimistic(scored, method),
        **({} if official is None else {"official": _officially(scored, official)}),
        "warnings": [*cautions, *found["warnings"], *doubts, *partial],
        "decided_by": scored.rule,
        "confusion": [list(row) for row in report.confusion],
        "confusion_classes": list(report.classes),
    }  # fmt: skip


def _evaluated(
    scored: Scored, *, by: str | None = None, graded: bool, resamples: int, seed: int
) -> Report:
    table, positive, classes = scored.table, scored.positive, scored.classes
    names = [f"prob_{name}" for name in classes]
    return evaluate(
        table.y_true, table[f"prob_{positive}"] if positive else table[names].to_numpy(),
        threshold=scored.threshold, groups=table.group, classes=classes,
        positive=positive or classes[-1], y_pred=table.y_pred, graded=graded,
        by=None if by is None else table[by], resamples=resamples, seed=seed,
    )  # fmt: skip


def reviewed(
    scored: Scored, cases: pd.DataFrame, *, resamples: int, seed: int, graded: bool = False
) -> dict[str, Any]:
    """Return the figures by the labels after a person's review, dropped cases left out.

    The decisions are those of the main figures; only the truth differs.

    Args:
        scored: The decisions, by the labels as given.
        cases: The cases table with the review's marks (`kit.marks`).
        resamples: Of the bootstrap.
        seed: Of the bootstrap.
        graded: Whether the classes are grades, in order.

    Returns:
        Under `reviewed` each figure with its interval, `n`, `n_groups`, `unreliable`, how many of
        the cases scored are dropped, relabelled and kept, and `why` they flatter; {} where no case
        is marked.
    """
    if ACTION not in cases:
        return {}
    marks, table = cases.set_index("case_id"), scored.table
    action, truth = (table.case_id.map(marks[name]) for name in (ACTION, REVIEWED))
    count = {name: int((action == name).sum()) for name in (DROP, RELABEL, KEEP)}
    left = replace(scored, table=table.assign(y_true=truth)[action != DROP])
    found = _evaluated(left, graded=graded, resamples=resamples, seed=seed).to_dict()
    shown = {k: v for k, v in found.items() if isinstance(v, Mapping) and "low" in v}
    return {"reviewed": {
        **shown, "n": found["n"], "n_groups": found["n_groups"],
        "unreliable": found["unreliable"], "dropped": count[DROP], "relabelled": count[RELABEL],
        "kept": count[KEEP], "why": FLATTERS,
    }}  # fmt: skip


def beside(found: Mapping[str, Any]) -> list[str]:
    """Return what a reader must see beside the figures, a line each.

    The judge's number, the optimistic one, what was reviewed, what holds for few groups, the test
    against chance, and why a figure is undefined.

    Args:
        found: As `figures` returns it, with None for what is undefined.
    """
    lines = []
    if "official" in found:
        one = found["official"]
        lines.append(f"official: {_number(one['value'])} ({one['name']}), beside {one['beside']}: "
                     f"{one['differs']}")  # fmt: skip
    if "optimistic" in found:
        one = found["optimistic"]
        lines.append(f"optimistic: mean of six {_number(one['mean_of_six'])}: {one['why']}")
    if "reviewed" in found:
        one = found["reviewed"]
        marks = ", ".join(f"{one[name]} {name}" for name in ("dropped", "relabelled", "kept"))
        lines.append(f"reviewed: labels after the review ({marks}), {one['n']} cases: {one['why']}")
    held = [
        f"{name} {_number(ends['low'])} to {_number(ends['high'])}"
        for name, ends in found["cautious"].items()
        if name in found["unreliable"]
    ]
    lines += [f"what holds, each group one case: {', '.join(held)}"] if held else []
    if found.get("chance", {}).get("p") is not None:
        lines.append(f"against chance: p = {found['chance']['p']:.4f}, labels dealt within folds")
    return [*lines, *(f"{name}: {reason}" for name, reason in found["reasons"].items())]


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"


def _skill(scored: Scored, seed: int) -> dict[str, float]:
    table = scored.table
    found = chance(
        table.y_true, table[f"prob_{scored.positive}"], folds=table.fold, groups=table.group,
        positive=str(scored.positive), seed=seed,
    )  # fmt: skip
    return found._asdict()


def _doubts(skill: Mapping[str, float]) -> list[str]:
    if not skill["p"] > NO_SKILL:
        return []
    said = f"AUC within folds {skill['auc']:.3f}, p = {skill['p']:.2f} by permutation"
    return [f"the model cannot be told from chance: {said}"]


def _optimistic(scored: Scored, method: float | str) -> dict[str, Any]:
    """Return the six at the threshold that is best on the rows reported: named as it is."""
    if scored.positive is None or not isinstance(method, str) or scored.threshold is None:
        return {}
    truth = (scored.table.y_true == scored.positive).to_numpy()
    called = (scored.table[f"prob_{scored.positive}"] >= scored.threshold).to_numpy()
    six = six_metrics(truth, called, positive=True)
    return {"optimistic": {
        **six, "mean_of_six": mean_of_six(six), "threshold": scored.threshold,
        "why": "the threshold was chosen on these very rows",
    }}  # fmt: skip


def _officially(scored: Scored, official: Official) -> dict[str, Any]:
    """Return the judge's number on the same rows and decisions."""
    table = scored.table
    order = list(scored.classes)
    if scored.positive is not None:
        order = [name for name in order if name != scored.positive] + [scored.positive]
    true, pred = (
        table[name].map({label: code for code, label in enumerate(order)}).to_numpy()
        for name in ("y_true", "y_pred")
    )
    value = official(true, pred, table[f"prob_{order[-1]}"].to_numpy())
    return official.beside_ours(value)


def difference(
    one: Scored, other: Scored, *, resamples: int, seed: int
) -> dict[str, dict[str, float]]:
    """Return what the other has more of each figure on the same cases: see `comparison.compare`.

    Args:
        one: The first, its table's cases in the order of the other's.
        other: The second.
        resamples: Of the bootstrap and of the exchanges.
        seed: Of both.
    """
    names = [f"prob_{name}" for name in one.classes]
    probs = [
        t[f"prob_{one.positive}"] if one.positive else t[names].to_numpy()
        for t in (one.table, other.table)
    ]
    found = compare(
        one.table.y_true, *probs, pred_a=one.table.y_pred, pred_b=other.table.y_pred,
        positive=one.positive or one.classes[-1], groups=one.table.group, classes=one.classes,
        resamples=resamples, seed=seed,
    )  # fmt: skip
    return {name: value._asdict() for name, value in found.items()}
