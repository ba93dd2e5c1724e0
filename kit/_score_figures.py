"""The figures of one model's probabilities; `kit.figures` has them all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit import metrics
from kit._labels import group_codes
from kit._plots import BESIDE, COLOURS, GREY, STYLES, many, panels, shares, spoken
from kit.checks import fraction, positive_int, probabilities, same_length
from kit.errors import TableError
from kit.intervals import LEVEL, resampled_weights, wilson
from kit.thresholds import choose

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RESAMPLES = 200
SEED = 0
GRID = np.linspace(0, 1, 101)
CUTS = np.linspace(0, 1, 1001)
LEAST = 5  # rows in a bin

Curve = tuple[np.ndarray, np.ndarray]  # x and y


def roc(y_true: np.ndarray, y_prob: np.ndarray, groups: np.ndarray | None = None) -> Figure:
    """Draw the ROC curve, with a 95 % band from resampled groups.

    Args:
        y_true: bool, shape (n,); True = positive class.
        y_prob: Probability of the positive class, shape (n,).
        groups: Patient of each row, shape (n,); None: each row is its own.

    Raises:
        TableError: Lengths differ, a value is not what it must be, or a class is absent.
    """
    truth, prob = _both_classes(y_true, y_prob, "a ROC curve")
    positives, area = int(truth.sum()), metrics.auc(truth, prob)
    title = f"AUC {area:.3f}: {positives:,} positive and {len(truth) - positives:,} negative cases"
    figure, (axis,) = panels(4.6, title=title)
    _curve_with_band(axis, truth, prob, groups, _roc_curve, _sensitivity_at)
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance: 0.5")
    axis.set(
        xlabel="1 - specificity (false positive rate)", ylabel="sensitivity", aspect="equal",
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01),
    )  # fmt: skip
    axis.legend(**BESIDE)
    return figure


def precision_recall(
    y_true: np.ndarray, y_prob: np.ndarray, groups: np.ndarray | None = None
) -> Figure:
    """Draw PPV against sensitivity, with a 95 % band from resampled groups and the prevalence.

    Args:
        y_true: bool, shape (n,); True = positive class.
        y_prob: Probability of the positive class, shape (n,).
        groups: Patient of each row, shape (n,); None: each row is its own.

    Raises:
        TableError: Lengths differ, a value is not what it must be, or a class is absent.
    """
    truth, prob = _both_classes(y_true, y_prob, "a precision-recall curve")
    mean, prevalence = metrics.average_precision(truth, prob), truth.mean()
    title = f"Average precision {mean:.3f}; the prevalence, which is chance, is {prevalence:.3f}"
    figure, (axis,) = panels(4.6, title=title)
    _curve_with_band(axis, truth, prob, groups, _precision_curve, _precision_at)
    axis.axhline(
        prevalence, color=GREY, linestyle=":", label=f"chance: prevalence {prevalence:.3f}"
    )
    axis.set(
        xlabel="sensitivity (recall)", ylabel="PPV (precision)", aspect="equal",
        xlim=(-0.01, 1.01), ylim=(-0.01, 1.01),
    )  # fmt: skip
    axis.legend(**BESIDE)
    return figure


def calibration(
    y_true: np.ndarray, y_prob: np.ndarray, groups: np.ndarray | None = None, *, bins: int = 10
) -> Figure:
    """Draw how often what was given a probability came true, and how the probabilities lie.

    Bins hold about as many rows each; rows of equal probability are never parted. Bars are Wilson's
    95 % intervals of as many independent cases as the groups' rows are worth.

    Args:
        y_true: bool, shape (n,); True = positive class.
        y_prob: Probability of the positive class, shape (n,).
        groups: Patient of each row, shape (n,); None: each row is its own.
        bins: Bins at most, at least 1; a bin holds at least five rows where there are as many.

    Raises:
        TableError: Lengths differ, a value is not what it must be, or there are no rows.

    Source: Wilson's interval after the design effect, Franco and others (2019),
    10.1093/jssam/smy019.
    """
    truth, prob = _checked(y_true, y_prob)
    code, _ = group_codes(groups, len(truth))
    table = pd.DataFrame({"truth": truth, "prob": prob, "group": code})
    table["bin"] = _equal_counts(prob, positive_int("bins", bins))
    found = table.groupby("bin").agg(said=("prob", "mean"), came=("truth", "mean"))
    ends = np.array([_share_interval(rows) for _, rows in table.groupby("bin")])
    figure, (top, bottom) = panels(6.4, 1, 2, title=_calibration_title(truth, prob), ratios=(3, 1))
    apart = np.abs(ends.T - found["came"].to_numpy())
    top.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="said and came true alike")
    top.errorbar(
        found["said"], found["came"], yerr=apart, fmt="o-", color=COLOURS[0], capsize=3,
        label=f"rows in {many(len(found), 'bin')},\n95 % intervals by {_unit(groups)}",
    )  # fmt: skip
    top.set(
        xlabel="mean probability of the bin", ylabel="share that is positive",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02),
    )  # fmt: skip
    top.legend(**BESIDE)
    for number, (name, mine) in enumerate((("negative", ~truth), ("positive", truth))):
        shares(bottom, prob[mine], name, number, of=len(prob))
    bottom.set(xlabel="probability of the positive class", xlim=(-0.02, 1.02))
    bottom.legend(title="true class (cases)", **BESIDE)
    return figure


def metrics_against_threshold(y_true: np.ndarray, y_prob: np.ndarray, threshold: float) -> Figure:
    """Draw the six metrics and their mean against the threshold.

    The threshold in use is marked, and beside it the one that is best on these very rows, whose
    mean flatters.

    Args:
        y_true: bool, shape (n,); True = positive class.
        y_prob: Probability of the positive class, shape (n,).
        threshold: The one in use, in [0, 1].

    Raises:
        SettingsError: The threshold is out of range.
        TableError: Lengths differ, a value is not what it must be, or there are no rows.
    """
    truth, prob = _checked(y_true, y_prob)
    six = _six_at(truth, prob, CUTS)
    used = float(metrics.mean_of_six(_six_at(truth, prob, fraction("threshold", threshold))))
    value = "undefined" if np.isnan(used) else f"{used:.3f}"
    title = f"Mean of six {value} at the threshold in use, {threshold:.3f}"
    figure, (axis,) = panels(4.4, title=title)
    for number, (name, values) in enumerate(six.items()):
        axis.plot(CUTS, values, color=COLOURS[number], linestyle=STYLES[number], label=spoken(name))
    axis.plot(CUTS, metrics.mean_of_six(six), color="black", linewidth=2.5, label="mean of six")
    axis.axvline(threshold, color=GREY, linewidth=1.5, label=f"in use: {threshold:.3f}")
    if truth.any() and not truth.all() and np.ptp(prob):
        best = choose(truth, prob, "mean_of_six")
        most = float(metrics.mean_of_six(_six_at(truth, prob, best)))
        axis.plot(
            [best], [most], "D", markerfacecolor="white", markeredgecolor="black", zorder=5,
            label=f"best on these rows: {best:.3f},\nmean {most:.3f} (optimistic)",
        )  # fmt: skip
    axis.set(
        xlabel="threshold on the positive class's probability", ylabel="metric (0 to 1)",
        xlim=(-0.01, 1.01), ylim=(-0.02, 1.02),
    )  # fmt: skip
    axis.legend(**BESIDE)
    return figure


def _checked(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the truth as bool and the probabilities, both checked."""
    truth, prob = np.asarray(y_true), probabilities(np.asarray(y_prob), name="y_prob")
    same_length(y_true=truth, y_prob=prob)
    if not len(truth):
        raise TableError("no rows to draw")
    if prob.ndim != 1 or truth.ndim != 1:
        raise TableError(
            "one class is drawn at a time", expected="shape (n,)",
            received=f"y_true {truth.shape}, y_prob {prob.shape}",
        )  # fmt: skip
    if not np.isin(truth, (0, 1)).all():
        raise TableError(
            "y_true must be bool, or 0 and 1",
            remedy="compare the labels with the positive class first",
        )
    return truth.astype(bool), prob


def _both_classes(
    y_true: np.ndarray, y_prob: np.ndarray, what: str
) -> tuple[np.ndarray, np.ndarray]:
    truth, prob = _checked(y_true, y_prob)
    if truth.all() or not truth.any():
        raise TableError(
            f"{what} needs both classes", received=f"{truth.sum()} of {len(truth)} positive"
        )
    return truth, prob


def _unit(groups: np.ndarray | None) -> str:
    return "cases" if groups is None else "groups"


def _curve_with_band(
    axis: Axes, truth: np.ndarray, prob: np.ndarray, groups: np.ndarray | None,
    curve: Callable[[np.ndarray, np.ndarray], Curve],
    heights: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> None:  # fmt: skip
    """Draw a curve over the thresholds, and where those of resampled groups lie.

    Args:
        axis: Drawn on.
        truth: bool, shape (n,).
        prob: shape (n,).
        groups: shape (n,), or None.
        curve: From true and false positives at each threshold, shape (k,), to x and y.
        heights: From the same to the heights on `GRID`.
    """
    own, n_groups = group_codes(groups, len(truth))
    alone = groups is None  # rows are then numbered along the curve, whatever their order
    order = np.lexsort((truth, -prob) if alone else (own, truth, -prob))
    code, truth = own if alone else own[order], truth[order]
    ends = np.flatnonzero(np.append(np.diff(prob[order]) != 0, True))
    drawn = [
        heights(tp, fp)
        for tps, fps in _resampled(truth, code, n_groups, ends)
        for tp, fp in zip(tps, fps, strict=True)
    ]
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0)
    axis.fill_between(GRID, low, high, color=COLOURS[0], alpha=0.2,
                      label=f"95 % band by {_unit(groups)}")  # fmt: skip
    x, y = curve(np.cumsum(truth)[ends], np.cumsum(~truth)[ends])
    axis.plot(x, y, color=COLOURS[0], linewidth=1.5, label="this model")


def _resampled(
    truth: np.ndarray, code: np.ndarray, n_groups: int, ends: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield true and false positives at each threshold, shape (some, thresholds)."""
    for weights in resampled_weights(
        np.ones(n_groups), resamples=RESAMPLES, seed=SEED, width=len(truth)
    ):
        rows = weights[:, code]
        found, wrong = (np.cumsum(rows * mine, axis=1)[:, ends] for mine in (truth, ~truth))
        yield found, wrong


def _roc_curve(tp: np.ndarray, fp: np.ndarray) -> Curve:
    return np.append(0, fp / fp[-1]), np.append(0, tp / tp[-1])


def _sensitivity_at(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Return the sensitivity at each false positive rate of the grid, between points linear."""
    return np.asarray(np.interp(GRID, *_roc_curve(tp, fp)))


def _precision_curve(tp: np.ndarray, fp: np.ndarray) -> Curve:
    """Return steps: a sensitivity is reached with the PPV of the threshold that reaches it."""
    recall, precision = tp / tp[-1], tp / (tp + fp)
    return np.append(0, np.repeat(recall, 2)[:-1]), np.repeat(precision, 2)


def _precision_at(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Return the PPV at each sensitivity of the grid, that above 0 being the first."""
    reached = np.searchsorted(tp, np.maximum(GRID - 1e-9, 1e-9) * tp[-1])
    return np.asarray(tp[reached] / (tp + fp)[reached])


def _six_at(truth: np.ndarray, prob: np.ndarray, cuts: np.ndarray | float) -> dict[str, np.ndarray]:
    """Return the six metrics at each threshold; `prob >= cut` is positive."""
    fn, tn = (np.searchsorted(np.sort(prob[mine]), cuts) for mine in (truth, ~truth))
    return metrics.six_from_counts(truth.sum() - fn, (~truth).sum() - tn, fn, tn)


def _equal_counts(prob: np.ndarray, bins: int) -> np.ndarray:
    """Return the bin of each row: about as many rows in each, equal values in one."""
    bins = max(1, min(bins, len(prob) // LEAST))
    ordered = np.sort(prob)
    starts = np.unique(ordered[np.arange(1, bins) * len(prob) // bins])
    return np.searchsorted(starts, prob, side="right")


def _share_interval(rows: pd.DataFrame) -> tuple[float, float]:
    """Return Wilson's interval of the share of positive rows, for what the groups are worth."""
    share, n = float(rows["truth"].mean()), len(rows)
    sums = (rows["truth"] - share).groupby(rows["group"]).sum().to_numpy()
    held = len(sums)
    worth = float(held)
    if held > 1 and 0 < share < 1:
        variance = float(sums @ sums) / n**2 * held / (held - 1)
        worth = min(float(n), share * (1 - share) / variance) if variance > 0 else float(n)
    return wilson(share * worth, worth)


def _calibration_title(truth: np.ndarray, prob: np.ndarray) -> str:
    found = {
        "slope": metrics.calibration_slope(truth, prob),
        "intercept": metrics.calibration_intercept(truth, prob),
        "ECE": metrics.expected_calibration_error(truth, prob, classes=[False, True]),
    }
    numbers = [f"{k} {'undefined' if np.isnan(v) else f'{v:.2f}'}" for k, v in found.items()]
    said, came = 100 * prob.mean(), 100 * truth.mean()
    return f"Said on average {said:.0f} %, came true {came:.0f} %; {', '.join(numbers)}"
