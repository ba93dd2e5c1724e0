"""Every figure: a function from a table or array to a matplotlib `Figure`.

A title says what is seen, an axis its unit; each function returns one figure and keeps no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._plots import (
    BESIDE,
    COLOURS,
    GREY,
    STYLES,
    panels,
    shares,
    sheet,
    spoken,
    stacked,
    whole,
)
from kit._slide_figures import mosaic as mosaic
from kit._slide_figures import patches_by_class as patches_by_class
from kit._slide_figures import patches_on_thumbnail as patches_on_thumbnail
from kit._slide_figures import stain_by_slide as stain_by_slide
from kit._slide_figures import tissue_overlay as tissue_overlay
from kit.errors import TableError
from kit.intervals import resampled_weights
from kit.metrics import six_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _many(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def class_counts(cases: pd.DataFrame) -> Figure:
    """Draw cases per class, training and test apart, and how many cases each group has."""
    split = cases["split"] if "split" in cases else pd.Series("train", index=cases.index)
    label = cases["label"].astype(object).where(cases["label"].notna(), "(no label)")
    counts = pd.crosstab(label, split).sort_index(axis=1, ascending=False)
    sizes = cases.groupby("group").size()
    title = f"{_many(len(cases), 'case')} of {_many(len(sizes), 'group')}"
    figure, (left, right) = panels(3.4, 2, title=title)
    stacked(left, counts, counts)
    left.set(xlabel="class", ylabel="cases")
    bins = np.arange(0.5, sizes.max() + 1.5).tolist() if sizes.max() <= 30 else 30
    right.hist(sizes, bins=bins, color=GREY, edgecolor="white")
    right.set(xlabel="cases in a group", ylabel="groups")
    for axis in (left.yaxis, right.xaxis, right.yaxis):
        whole(axis)
    return figure


def contact_sheet(
    images: np.ndarray, titles: Sequence[str] = (), *, columns: int = 8, title: str = ""
) -> Figure:
    """Draw images side by side.

    Args:
        images: uint8, shape (n, height, width, 1 or 3), n at least 1.
        titles: One for each image, or none.
        columns: Images in a row.
        title: What the sheet shows.
    """
    return sheet(images, columns, titles, title)[0]


def augmentation_grid(images: np.ndarray, masks: np.ndarray | None = None) -> Figure:
    """Draw each image in a row: first as it is, then its augmentations.

    Args:
        images: 0..255, shape (rows, columns, height, width, 1 or 3); column 0 is the original.
        masks: 0..1, shape (rows, columns, height, width); outlined where given.
    """
    columns = images.shape[1]
    outline = "" if masks is None else "; outline: the mask, moved with its image"
    title = f"Original (left) and {columns - 1} draws of each{outline}"
    figure, axes = sheet(images.reshape(-1, *images.shape[2:]), columns, (), title)
    flat = () if masks is None else masks.reshape(-1, *masks.shape[2:])
    for axis, mask in zip(axes, flat, strict=False):
        if mask.min() < 0.5 < mask.max():
            axis.contour(mask, levels=[0.5], colors=COLOURS[5], linewidths=2)
    return figure


def fold_balance(folds: pd.DataFrame) -> Figure:
    """Draw the share of each class and the number of groups in each fold."""
    counts = pd.crosstab(folds["fold"], folds["label"])
    leaks = int((folds.groupby("group")["fold"].nunique() > 1).sum())
    title = "No group stands in two folds"
    if leaks:
        title = f"LEAK: {_many(leaks, 'group')} in more than one fold"
    figure, (left, right) = panels(3.4, 2, title=title)
    stacked(left, counts, counts.div(counts.sum(axis=1), axis=0) * 100)
    left.set(xlabel="fold", ylabel="share of the fold's cases (%)")
    groups = folds.groupby("fold")["group"].nunique()
    right.bar_label(right.bar([str(fold) for fold in groups.index], groups, color=GREY))
    right.set(xlabel="fold", ylabel="groups")
    right.margins(y=0.1)
    whole(right.yaxis)
    return figure


def history(table: pd.DataFrame) -> Figure:
    """Draw loss and learning rate of each network against the epoch.

    Args:
        table: Columns epoch, loss, rate, and network (or fold) by which the lines are told apart.
    """
    key = "network" if "network" in table else "fold"
    figure, (left, right) = panels(3.4, 2, title=f"Training, one line a {key}")
    for number, (name, rows) in enumerate(table.groupby(key)):
        colour = COLOURS[number % len(COLOURS)]
        for axis, column in ((left, "loss"), (right, "rate")):
            axis.plot(
                rows["epoch"], rows[column], color=colour, linestyle=STYLES[number % len(STYLES)],
                label=str(name), marker="o", markersize=3,
            )  # fmt: skip
    left.set(xlabel="epoch", ylabel="training loss (nats)")
    right.set(xlabel="epoch", ylabel="learning rate")
    whole(left.xaxis)
    whole(right.xaxis)
    right.legend(title=key, **BESIDE)
    return figure


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts, coloured by the share of their row.

    Args:
        counts: int, shape (classes, classes); rows are the truth, columns the prediction.
        classes: Names in that order.
    """
    counts = np.asarray(counts)
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    right = np.trace(counts) / counts.sum() if counts.sum() else np.nan
    figure, (axis,) = panels(1.6 + 0.75 * len(classes))
    shown = axis.imshow(share * 100, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        axis.text(
            column, row, f"{counts[row, column]:,}\n{100 * share[row, column]:.0f} %", ha="center",
            va="center", color="white" if share[row, column] > 0.65 else "black",
        )  # fmt: skip
    ticks = range(len(classes))
    axis.set_xticks(ticks, classes)
    axis.set_yticks(ticks, classes)
    axis.set(
        xlabel="predicted class", ylabel="true class",
        title=f"{100 * right:.0f} % of {_many(int(counts.sum()), 'case')} right",
    )  # fmt: skip
    figure.colorbar(shown, ax=axis, label="share of the true class (%)")
    return figure


def roc(y_true: np.ndarray, y_prob: np.ndarray, groups: np.ndarray | None = None) -> Figure:
    """Draw the ROC curve, with a 95 % band from resampled groups where groups are given.

    Args:
        y_true: bool, shape (n,); True = positive class.
        y_prob: Probability of the positive class, shape (n,).
        groups: Patient of each row, shape (n,).
    """
    from sklearn.metrics import auc, roc_curve

    truth, prob = np.asarray(y_true, bool), np.asarray(y_prob, float)
    positives, n = int(truth.sum()), len(truth)
    if positives in (0, n):
        raise TableError("a ROC curve needs both classes", received=f"{positives} of {n} positive")
    figure, (axis,) = panels(4.6)
    x, y, _ = roc_curve(truth, prob)
    if groups is not None:
        grid = np.linspace(0, 1, 101)
        low, high = _band(truth, prob, np.asarray(groups), grid)
        axis.fill_between(grid, low, high, color=COLOURS[0], alpha=0.2, label="95 % band (groups)")
    axis.plot(x, y, color=COLOURS[0], linewidth=2, label=f"AUC {auc(x, y):.3f}")
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":", label="chance")
    axis.set(
        xlabel="1 - specificity (false positive rate)", ylabel="sensitivity", aspect="equal",
        title=f"AUC {auc(x, y):.3f}: {positives:,} positive and {n - positives:,} negative cases",
    )  # fmt: skip
    axis.legend(**BESIDE)
    return figure


def _band(truth: np.ndarray, prob: np.ndarray, groups: np.ndarray, grid: np.ndarray) -> np.ndarray:
    from sklearn.metrics import roc_curve

    code, names = pd.factorize(groups)
    curves = []
    for weights in resampled_weights(len(names), resamples=200, seed=0):
        for weight in weights[:, code]:
            if weight[truth].any() and weight[~truth].any():
                x, y, _ = roc_curve(truth, prob, sample_weight=weight)
                curves.append(np.interp(grid, x, y))
    band: np.ndarray = np.quantile(curves, [0.025, 0.975], axis=0)
    return band


def metrics_against_threshold(y_true: np.ndarray, y_prob: np.ndarray, threshold: float) -> Figure:
    """Draw the six metrics and their mean against the threshold; the one in use is marked."""
    truth, prob = np.asarray(y_true, bool), np.asarray(y_prob, float)
    grid = np.linspace(0, 1, 101)
    rows = [six_metrics(truth, prob >= cut, positive=True) for cut in grid]
    table = pd.DataFrame(rows, index=grid)
    figure, (axis,) = panels(4.2)
    for number, name in enumerate(table.columns):
        axis.plot(
            grid, table[name], color=COLOURS[number], linestyle=STYLES[number], label=spoken(name)
        )
    mean = table.mean(axis=1, skipna=False)
    axis.plot(grid, mean, color="black", linewidth=2.5, label="mean of six")
    axis.axvline(threshold, color=GREY, linewidth=1)
    axis.set(
        xlabel="threshold on the positive class's probability", ylabel="metric (0 to 1)",
        xlim=(0, 1), ylim=(-0.02, 1.02),
        title=f"Six metrics against the threshold; in use (line): {threshold:.3f}",
    )  # fmt: skip
    axis.legend(**BESIDE)
    return figure


def forest(report: pd.DataFrame) -> Figure:
    """Draw each metric with its 95 % interval.

    Args:
        report: Columns metric, value, low, high; undefined values are NaN.
    """
    table = report.iloc[::-1].reset_index(drop=True)
    figure, (axis,) = panels(0.9 + 0.34 * len(table))
    axis.hlines(table.index, table["low"], table["high"], color=COLOURS[0], linewidth=2)
    axis.plot(table["value"], table.index, "o", color=COLOURS[0])
    axis.set_yticks(table.index, [spoken(str(name)) for name in table["metric"]])
    numbers = table[["value", "low", "high"]].to_numpy(dtype=float)
    for place, (value, low, high) in enumerate(numbers):
        text = "undefined" if np.isnan(value) else f"{value:.3f}  ({low:.3f} to {high:.3f})"
        axis.text(1.03, place, text, va="center", transform=axis.get_yaxis_transform())
    axis.set(xlim=(0, 1), xlabel="value (0 to 1)", title="Metrics with their 95 % intervals")
    axis.grid(axis="x", color="#dddddd")
    return figure


def probability_by_class(predictions: pd.DataFrame, *, positive: str | None = None) -> Figure:
    """Draw a class's probability for cases of that class and for all others.

    Args:
        predictions: Predictions table with y_true and prob_<class>.
        positive: The class to draw; None draws each.
    """
    columns = {str(c)[5:]: str(c) for c in predictions if str(c).startswith("prob_")}
    names = list(columns) if positive is None else [positive]
    across = min(3, len(names))
    title = "Probability of a class: its own cases and the others"
    figure, axes = panels(
        3.2 * -(-len(names) // across), across, -(-len(names) // across), title=title
    )
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        mine = predictions["y_true"].astype(str) == name
        shares(axis, predictions.loc[~mine, columns[name]], "others", 0)
        shares(axis, predictions.loc[mine, columns[name]], name, 1)
        axis.set(xlabel=f"probability of {name}")
        axis.legend(frameon=False, title="true class (cases)")
    return figure


def agreement(pivot: pd.DataFrame) -> Figure:
    """Draw how alike the models rank the cases, and the two that agree least.

    Args:
        pivot: One row a case, one column a model; the positive class's probability.
    """
    ranks = pivot.rank().corr().to_numpy(dtype=float)
    models = [str(name) for name in pivot.columns]
    figure, (left, right) = panels(max(3.8, 1.2 + 0.5 * len(models)), 2)
    shown = left.imshow(ranks, cmap="cividis", vmin=min(0.0, float(ranks.min())), vmax=1)
    for row, column in np.ndindex(ranks.shape):
        value = ranks[row, column]
        left.text(
            column, row, f"{value:.2f}", ha="center", va="center",
            color="black" if value > 0.6 else "white",
        )  # fmt: skip
    left.set_xticks(range(len(models)), models, rotation=30, ha="right")
    left.set_yticks(range(len(models)), models)
    left.set_title("Rank correlation of the models")
    figure.colorbar(shown, ax=left, label="Spearman's rho", shrink=0.8)
    first, second = divmod(int(np.argmin(ranks)), len(models))
    right.plot(*pivot.to_numpy(dtype=float)[:, [first, second]].T, "o", alpha=0.4, color=COLOURS[0])
    right.plot([0, 1], [0, 1], color=GREY, linestyle=":")
    right.set(
        xlabel=f"probability by {models[first]}", ylabel=f"probability by {models[second]}",
        title="Each case by the two that agree least", xlim=(0, 1), ylim=(0, 1), aspect="equal",
    )  # fmt: skip
    return figure


def submission_distribution(oof: np.ndarray, test: np.ndarray) -> Figure:
    """Draw the probabilities of the out-of-fold and of the submitted cases over each other.

    Args:
        oof: Probability of the positive class out of fold, shape (n,).
        test: The same for the cases submitted, shape (m,).
    """
    figure, (axis,) = panels(3.4)
    for number, (name, values) in enumerate((("out-of-fold", oof), ("submitted", test))):
        shares(axis, np.asarray(values), name, number)
        axis.axvline(float(np.median(values)), color=COLOURS[number], linestyle=STYLES[number])
    axis.set(
        xlabel="probability of the positive class",
        title=f"Medians (lines): {np.median(oof):.2f} out of fold, {np.median(test):.2f} submitted",
    )  # fmt: skip
    axis.legend(title="cases", **BESIDE)
    return figure
