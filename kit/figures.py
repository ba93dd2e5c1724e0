"""Every figure: a function from a table or array to a matplotlib `Figure`.

A title says what is seen, an axis its unit; each function returns one figure and keeps no state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._augment_figures import augmentations as augmentations
from kit._embedding_figures import embedding_map as embedding_map
from kit._heatmap_figures import slide_attention as slide_attention
from kit._heatmap_figures import slide_heatmap as slide_heatmap
from kit._interval_figures import comparison as comparison
from kit._interval_figures import forest as forest
from kit._ledger_figures import ledger as ledger
from kit._lesion_figures import froc as froc
from kit._model_figures import agreement as agreement
from kit._model_figures import cases_sheet as cases_sheet
from kit._model_figures import gain_of_models as gain_of_models
from kit._plots import (
    ABOVE,
    BESIDE,
    COLOURS,
    GREY,
    STYLES,
    many,
    panels,
    shares,
    sheet,
    short,
    stacked,
    whole,
)
from kit._score_figures import calibration as calibration
from kit._score_figures import metrics_against_threshold as metrics_against_threshold
from kit._score_figures import precision_recall as precision_recall
from kit._score_figures import roc as roc
from kit._slide_figures import mosaic as mosaic
from kit._slide_figures import patches_by_class as patches_by_class
from kit._slide_figures import patches_on_thumbnail as patches_on_thumbnail
from kit._slide_figures import stain_by_slide as stain_by_slide
from kit._slide_figures import tissue_overlay as tissue_overlay
from kit._training_figures import history as history
from kit._training_figures import schedule as schedule
from kit.checks import columns
from kit.errors import TableError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EMPTY = "#e8e8e8"  # of a class without cases


def class_counts(cases: pd.DataFrame) -> Figure:
    """Draw cases per class, training and test apart, and how many cases each group has."""
    split = cases["split"] if "split" in cases else pd.Series("train", index=cases.index)
    label = cases["label"].astype(object).where(cases["label"].notna(), "(no label)")
    counts = pd.crosstab(label, split).sort_index(axis=1, ascending=False)
    sizes = cases.groupby("group").size()
    title = f"{many(len(cases), 'case')} of {many(len(sizes), 'group')}"
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
        images: uint8, shape (n, height, width, channels), n at least 1; channels that are
            neither grey nor colour stand beside each other.
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


def fold_balance(folds: pd.DataFrame, *, by: Sequence[str] = ()) -> Figure:
    """Draw the share of each class and the number of groups in each fold.

    Args:
        folds: Columns fold, group, label.
        by: Further columns (scanner, site) whose shares are drawn in the same way.

    Raises:
        TableError: A column is missing, or there are no rows.
    """
    columns(folds, ["fold", "group", "label", *by])
    if not len(folds):
        raise TableError("no cases in the folds", received="0 rows")
    tables = [pd.crosstab(folds["fold"], folds[name]) for name in ("label", *by)]
    leaks = int((folds.groupby("group")["fold"].nunique() > 1).sum())
    title = f"No group stands in two folds; {_worst_fold(tables[0])}"
    if leaks:
        title = f"LEAK: {many(leaks, 'group')} in more than one fold"
    down = -(-(len(by) + 2) // 2)
    figure, axes = panels(0.4 + 3.2 * down, 2, down, title=title)
    groups = folds.groupby("fold")["group"].nunique()
    names = [str(fold) for fold in groups.index]
    size = 8 if len(names) <= 6 else 6
    axes[1].bar_label(axes[1].bar(names, groups, color=GREY), fmt="{:,.0f}", fontsize=size)
    axes[1].set(xlabel="fold", ylabel="groups")
    axes[1].margins(y=0.1)
    whole(axes[1].yaxis)
    for axis, name, counts in zip([axes[0], *axes[2:]], ("class", *by), tables, strict=False):
        stacked(axis, counts, counts.div(counts.sum(axis=1), axis=0) * 100)
        axis.set(xlabel="fold", ylabel=f"share of the fold's cases\nby {short(name)} (%)")
    for axis in axes[len(by) + 2 :]:
        axis.set_axis_off()
    return figure


def _worst_fold(counts: pd.DataFrame) -> str:
    """Return by how much, and where, a class's share lies farthest from that in all cases."""
    if counts.shape[1] < 2 or len(counts) < 2:
        return "nothing to balance"
    apart = counts.div(counts.sum(axis=1), axis=0) - counts.sum() / counts.to_numpy().sum()
    fold, name = divmod(int(np.argmax(np.abs(apart.to_numpy()))), counts.shape[1])
    worst = 100 * apart.iloc[fold, name]
    where = f"{short(counts.columns[name])} in fold {counts.index[fold]}"
    return f"worst share: {where}, {worst:+.1f} points"


def confusion_matrix(counts: np.ndarray, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix: counts, coloured by the share of their row.

    Args:
        counts: At least 0, shape (classes, classes); rows are the truth, columns the prediction.
        classes: Names in that order.

    Raises:
        TableError: The counts are no such matrix.
    """
    counts, n = np.asarray(counts), len(classes)
    if counts.shape != (n, n) or not (counts >= 0).all():
        raise TableError(
            "counts are no confusion matrix of these classes",
            expected=f"shape {(n, n)}, no count below 0",
            received=f"shape {counts.shape}, least {counts.min() if counts.size else 'none'}",
        )  # fmt: skip
    totals = counts.sum(axis=1, keepdims=True)
    share = np.divide(100 * counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    total, right = counts.sum(), np.trace(counts)
    found = f"{100 * right / total:.0f} % of {many(total, 'case')} right" if total else "No cases"
    figure, (axis,) = panels(min(9.0, 1.8 + 0.62 * n), title=found)
    axis.set_facecolor(EMPTY)
    shown = axis.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        part = share[row, column]
        axis.text(
            column, row, f"{counts[row, column]:,}\n" + ("" if np.isnan(part) else f"{part:.0f} %"),
            ha="center", va="center", fontsize=10 if n <= 6 else 7,
            color="white" if part > 65 else "black",
        )  # fmt: skip
    names = [short(name, 28 if n <= 3 else 16) for name in classes]
    axis.set_xticks(range(n), names)
    if n * max(map(len, names)) > 60:
        axis.tick_params("x", rotation=30)
        for label in axis.get_xticklabels():
            label.set(ha="right", rotation_mode="anchor")
    axis.set_yticks(range(n), names)
    axis.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(shown, ax=axis, label="share of the true class (%)")
    return figure


def probability_by_class(predictions: pd.DataFrame, *, positive: str | None = None) -> Figure:
    """Draw a class's probability for cases of that class and for all others.

    Args:
        predictions: Predictions table with y_true and prob_<class>.
        positive: The class to draw; None draws each.

    Raises:
        TableError: A column is missing.
    """
    names = [str(c)[5:] for c in predictions if str(c).startswith("prob_")]
    names = names if positive is None else [positive]
    columns(predictions, ["y_true", *(f"prob_{name}" for name in names or ["<class>"])])
    across = min(3, len(names))
    down = -(-len(names) // across)
    title = "Probability of a class: its own cases and the others"
    size = 24 if across < 3 else 16
    figure, axes = panels(3.2 * down, across, down, title=title)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    for axis, name in zip(axes, names, strict=False):
        mine, prob = predictions["y_true"].astype(str) == name, predictions[f"prob_{name}"]
        shares(axis, prob[~mine], "others", 0)
        shares(axis, prob[mine], short(name, size), 1)
        axis.set(xlabel=f"probability of {short(name, size)}", xlim=(-0.01, 1.01))
        axis.legend(title="true class (cases)", fontsize=9 if across < 3 else 8, **ABOVE)
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
