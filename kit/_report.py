"""The report of `kit.metrics.evaluate`: figures, their intervals, and what to doubt in them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from kit import _measures, _probable, _ranks
from kit._certainty import FEW_GROUPS, FEW_OF_CLASS, all_intervals, cautious, doubtful
from kit._counts import FIGURES, SIX, macro, one_versus_rest
from kit._labels import Values
from kit._rows import Rows, rows_of
from kit.checks import columns, same_length
from kit.errors import SettingsError, TableError
from kit.intervals import Interval

OTHERS = (
    "balanced_accuracy", "mcc", "average_precision", "log_loss", "brier", "calibration_slope",
    "calibration_intercept", "expected_calibration_error",
)  # fmt: skip
MANY_TIES = 0.05  # share of positive-negative pairs with equal probability


@dataclass(frozen=True)
class Metric:
    """A figure and its 95 % interval; NaN where undefined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Args:
        metrics: The figures named in `FIGURES`, in that order.
        n: Rows.
        n_groups: Groups (patients) that the intervals were drawn over; rows where none were given.
        threshold: Probability from which a row was called positive; None where decisions were
            given without one, or for more than two classes.
        classes: Names of the confusion matrix's rows and columns; the positive one is the last.
        confusion: Rows of each true class (outer) given each class (inner).
        reasons: For a figure, why it or its interval is undefined, or is drawn otherwise.
        warnings: What makes the figures less sure than they look.
        unreliable: Figures whose interval is drawn over too few groups to be believed.
        cautious: For those, the widest interval that the groups allow: Wilson's, as if a group were
            one case.
        other: The figures named in `OTHERS`, and `quadratic_kappa` of graded labels.
        per_class: Of more than two classes a row for each, for their mean ("macro") and their mean
            weighted by rows ("weighted"): `class`, `n`, the six, `auc`.
        subgroups: With `by`, a row for each part and figure: `part`, `n`, `n_groups`, `metric`,
            `value`, `low`, `high`, `reliable`.
    """

    metrics: dict[str, Metric]
    n: int
    n_groups: int
    threshold: float | None
    classes: tuple[str, ...]
    confusion: tuple[tuple[float, ...], ...]
    reasons: dict[str, str]
    warnings: tuple[str, ...]
    unreliable: tuple[str, ...] = ()
    cautious: dict[str, Interval] = field(default_factory=dict)
    other: dict[str, float] = field(default_factory=dict)
    per_class: pd.DataFrame | None = field(default=None, compare=False)
    subgroups: pd.DataFrame | None = field(default=None, compare=False)

    def __getitem__(self, name: str) -> Metric:
        """Return one figure by its name."""
        return self.metrics[name]

    def to_dict(self) -> dict[str, Any]:
        """Return the figures, each `{"value", "low", "high"}`, and all else, under their names."""
        found: dict[str, Any] = {
            name: {"value": metric.value, "low": metric.low, "high": metric.high}
            for name, metric in self.metrics.items()
        }
        found |= {
            "n": self.n, "n_groups": self.n_groups, "threshold": self.threshold,
            "classes": list(self.classes), "confusion": [list(row) for row in self.confusion],
            "reasons": dict(self.reasons), "warnings": list(self.warnings),
            "unreliable": list(self.unreliable), "other": dict(self.other),
            "cautious": {k: {"low": v.low, "high": v.high} for k, v in self.cautious.items()},
        }  # fmt: skip
        for name in ("per_class", "subgroups"):
            table = getattr(self, name)
            found |= {} if table is None else {name: table.to_dict(orient="records")}
        return found

    def table(self) -> pd.DataFrame:
        """Return one row a figure: `metric`, `value`, `low`, `high`, `reliable`."""
        rows = [
            (name, m.value, m.low, m.high, name not in self.unreliable)
            for name, m in self.metrics.items()
        ]
        return pd.DataFrame(rows, columns=["metric", "value", "low", "high", "reliable"])


def evaluate(
    y_true: Values,
    y_prob: Values | None = None,
    *,
    threshold: float | None = None,
    groups: Values | None = None,
    classes: Sequence[Hashable] | None = None,
    positive: Hashable = 1,
    y_pred: Values | None = None,
    weights: Values | None = None,
    by: Values | str | None = None,
    graded: bool = False,
    table: pd.DataFrame | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> Report:
    """Return the six metrics, their mean and the AUC, with 95 % intervals over groups.

    Intervals of the six and their mean are percentiles of a Bayesian bootstrap of whole groups
    (without groups, of the confusion matrix) to which one patient for each true class is added,
    spread over what it may be called (Jeffreys' prior of two classes); AUC's is DeLong's over
    groups. Above two classes a row is given the class of the largest probability, and the figures
    are means over one-versus-rest.

    Args:
        y_true: True labels, shape (n,).
        y_prob: Probability of the positive class, shape (n,), in [0, 1]; for more than two
            classes shape (n, classes), in the order of `classes`. None: AUC is undefined.
        threshold: `y_prob >= threshold` is positive. With `y_pred` it is only reported. None for
            more than two classes.
        groups: Group (patient) of each row, shape (n,); None: each row is its own.
        classes: All classes; needed for more than two, else read off the labels.
        positive: Label of the positive class of two.
        y_pred: Decisions made elsewhere (by nested thresholds): labels, or for two classes bool,
            True for the positive class; shape (n,).
        weights: Weight of each row, not negative, shape (n,); None: one each.
        by: Part of each row (scanner, site), shape (n,): each part's figures stand in `subgroups`.
        graded: Whether `classes` are grades, in order: the quadratic kappa is given too.
        table: Where given, arguments that are text name its columns.
        resamples: Resamples of the bootstrap.
        seed: Seeds the bootstrap.

    Raises:
        SettingsError: There is neither a threshold nor `y_pred`, or the threshold is out of range.
        TableError: Lengths differ, there are no rows, or a label, group, weight or probability is
            not what it must be.
    """
    given = (y_true, y_prob, y_pred, groups, weights, by)
    y_true, y_prob, y_pred, groups, weights, by = (_column(table, value) for value in given)
    rows = rows_of(y_true, y_prob, y_pred, threshold, groups, classes, positive, weights)
    report = _report(rows, threshold, graded, resamples, seed)
    if by is None:
        return report
    parts = np.asarray(by)
    same_length(y_true=rows.true, by=parts)
    found = _subgroups(rows, parts[rows.order], threshold, resamples, seed)
    return replace(report, subgroups=found)


def _column(table: pd.DataFrame | None, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if table is None:
        raise SettingsError("a column is named, and no table is given", received=value,
                            remedy="give `table=`, or the values themselves")  # fmt: skip
    return columns(table, [value])[value]


def _report(rows: Rows, threshold: float | None, graded: bool, resamples: int, seed: int) -> Report:
    values = _values(rows)
    reasons = {name: _reason(rows, name, values) for name in FIGURES if np.isnan(values[name])}
    held = rows.held()
    metrics = {name: Metric(value, np.nan, np.nan) for name, value in values.items()}
    if rows.n_groups > 1:
        found = all_intervals(rows, values, resamples, seed)
        metrics = {name: Metric(values[name], *found[name]) for name in FIGURES}
    other = _others(rows, graded, reasons)
    unreliable = doubtful(rows.n_groups, held)
    return Report(
        metrics=metrics, n=len(rows.true), n_groups=rows.n_groups,
        threshold=None if threshold is None else float(threshold), classes=rows.names,
        confusion=tuple(tuple(row) for row in rows.confusion.tolist()), reasons=reasons,
        warnings=tuple(_warnings(rows, held)), unreliable=unreliable,
        cautious=cautious(rows, held) if unreliable else {}, other=other,
        per_class=_per_class(rows) if len(rows.names) > 2 else None,
    )  # fmt: skip


def _values(rows: Rows) -> dict[str, float]:
    six = macro(one_versus_rest(rows.confusion[..., None]))
    areas = [found.area for found in rows.areas] or [np.nan]
    return {**{name: float(value[0]) for name, value in six.items()}, "auc": float(np.mean(areas))}


def _warnings(rows: Rows, held: np.ndarray) -> list[str]:
    """Return what makes the figures less sure than they look."""
    found = []
    if rows.n_groups == 1:
        found.append("one group: no interval can be drawn")
    elif rows.n_groups < FEW_GROUPS:
        found.append(
            f"{rows.n_groups} groups: intervals over fewer than {FEW_GROUPS} are unreliable"
        )
    counts = held[:, 0] if len(held) > 1 else held[0, 1::-1]
    found += [
        f"{n} groups hold class {name}: intervals over fewer than {FEW_OF_CLASS} are unreliable"
        for name, n in zip(rows.names, counts.tolist(), strict=True)
        if n < FEW_OF_CLASS
    ]
    if sum(n > 0 for n in counts) == 1:
        found.append("the rows are of one class")
    ties = max((one.ties for one in rows.areas), default=0.0)
    if ties > MANY_TIES:
        found.append(f"{ties:.0%} of the pairs behind the AUC are ties: probabilities are few")
    return found


def _reason(rows: Rows, name: str, values: Mapping[str, float]) -> str:
    if name == "mean_of_six":
        return f"{', '.join(n for n in SIX if np.isnan(values[n]))} undefined"
    parts = [_why(rows, name, c) for c in rows.asked]
    return "; ".join(part for part in parts if part)


def _why(rows: Rows, name: str, c: int) -> str:
    """Return why a figure is undefined for one class, or nothing if it is not."""
    if name == "auc" and rows.prob is None:
        return "there are no probabilities" if c == rows.asked[0] else ""
    this, rest = rows.names[c], "another class" if len(rows.names) > 2 else rows.names[0]
    true, called, n = rows.confusion[c].sum(), rows.confusion[:, c].sum(), rows.confusion.sum()
    causes = {
        "accuracy": (not n, "no row weighs anything"),
        "sensitivity": (not true, f"no row is {this}"),
        "specificity": (true == n, f"no row is {rest}"),
        "ppv": (not called, f"no row is called {this}"),
        "npv": (called == n, f"no row is called {rest}"),
        "f1": (not true and not called, f"no row is or is called {this}"),
        "auc": (true in (0, n), f"no row is {rest if true else this}"),
    }
    undefined, cause = causes[name]
    return cause if undefined else ""


def _others(rows: Rows, graded: bool, reasons: dict[str, str]) -> dict[str, float]:
    """Return the further figures; `reasons` gains why some are undefined."""
    found = {
        "balanced_accuracy": _measures.balanced_accuracy_of(rows.confusion),
        "mcc": _measures.mcc_of(rows.confusion),
    }
    if graded:
        found["quadratic_kappa"] = _measures.quadratic_kappa_of(rows.confusion)
    if rows.prob is not None:
        scored: dict[str, Any] = {"classes": range(len(rows.names)), "weights": rows.weight}
        if len(rows.names) == 2:
            prob, truth = rows.prob[:, 1], rows.true == 1
            found["average_precision"] = _ranks.average_precision(truth, prob, rows.weight)
            for name in ("calibration_slope", "calibration_intercept"):
                found[name] = getattr(_probable, name)(
                    truth, prob, positive=True, weights=rows.weight
                )
        for name in ("log_loss", "brier", "expected_calibration_error"):
            found[name] = getattr(_probable, name)(rows.true, rows.prob, **scored)
    for name, value in found.items():
        if not np.isfinite(value):
            reasons[name] = _why_other(rows, name)
    return {name: found[name] for name in (*OTHERS, "quadratic_kappa") if name in found}


def _why_other(rows: Rows, name: str) -> str:
    true = rows.confusion.sum(axis=1)
    if (true == 0).any() and name != "expected_calibration_error":
        absent = [n for n, count in zip(rows.names, true, strict=True) if not count]
        return f"no row is {', '.join(absent)}"
    if name == "log_loss":
        return "infinite: a true class was given probability 0"
    if rows.prob is not None and name.startswith("calibration"):
        if ((rows.prob == 0) | (rows.prob == 1)).any():
            return "a probability is 0 or 1"
        return "probabilities separate the classes, or are all equal"
    return "all rows are called one class"


def _per_class(rows: Rows) -> pd.DataFrame:
    areas = [one.area for one in rows.areas] or [np.nan] * len(rows.names)
    table = _measures.table_of_classes(rows.confusion, rows.names, areas)
    figures = [*SIX, "auc"]
    share = table["n"].to_numpy() / max(1e-300, table["n"].sum())
    values = table[figures].to_numpy(dtype=np.float64)
    means = pd.DataFrame(np.stack([values.mean(axis=0), share @ values]), columns=figures)
    means["class"], means["n"] = ["macro", "weighted"], table["n"].sum()
    return pd.concat([table, means[table.columns]], ignore_index=True)


def _subgroups(
    rows: Rows, parts: np.ndarray, threshold: float | None, resamples: int, seed: int
) -> pd.DataFrame:
    if pd.isna(parts).any():
        raise TableError("`by` has empty cells", received=f"{int(pd.isna(parts).sum())} rows")
    found = []
    for part in sorted({str(value) for value in parts.tolist()}):
        mine = rows.part(np.asarray([str(value) == part for value in parts.tolist()]))
        report = _report(mine, threshold, False, resamples, seed)
        found.append(report.table().assign(part=part, n=report.n, n_groups=report.n_groups))
    table = pd.concat(found, ignore_index=True)
    return table[["part", "n", "n_groups", "metric", "value", "low", "high", "reliable"]]
