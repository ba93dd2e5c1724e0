"""The figures of several models and of single cases; `kit.figures` has them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from kit._plots import ABOVE, COLOURS, GREY, many, panels, sheet, short, spoken
from kit.checks import columns, first, probabilities, same_length
from kit.ensemble import ALIKE
from kit.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DENSE = 2000  # points above which they are counted in cells
NAMED = 20  # characters of a name on an axis


def agreement(pivot: pd.DataFrame) -> Figure:
    """Draw how alike the models rank the cases, and the two that agree least.

    Near copies, whose ranks correlate by more than .999, are framed: they vote twice.

    Args:
        pivot: One row a case, one column a model; the positive class's probability.

    Raises:
        TableError: There are no cases or models, or a model lacks a case.
    """
    models = [str(name) for name in pivot.columns]
    prob = probabilities(pivot.to_numpy(dtype=float).ravel(), name="the models' probabilities")
    if not len(prob):
        raise TableError("no predictions to compare", received=f"shape {pivot.shape}")
    prob = prob.reshape(len(pivot), len(models))
    ranks = pivot.rank().corr().to_numpy(dtype=float)
    figure, (left, right) = panels(3.9, 2, title=_agreement_title(ranks, models))
    _rank_matrix(left, ranks, [short(name, NAMED) for name in models])
    figure.colorbar(left.images[0], cax=left.inset_axes((1.04, 0, 0.04, 1)), label="Spearman's rho")
    one, other = _least_alike(ranks)
    _against(right, prob[:, one], prob[:, other])
    right.set(
        xlabel=f"probability by {short(models[one])}",
        ylabel=f"probability by {short(models[other])}",
        title="Cases by the two least alike" if len(models) > 1 else "Cases by the one model",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
    )  # fmt: skip
    return figure


def _agreement_title(ranks: np.ndarray, models: Sequence[str]) -> str:
    one, other = _least_alike(ranks)
    least = f"{short(models[one])} and {short(models[other])} agree least"
    rho = ranks[one, other]
    least += ": undefined" if np.isnan(rho) else f": {rho:.2f}"
    copies = np.argwhere(np.triu(ranks > ALIKE, 1))
    if len(models) == 1:
        return "One model: nothing to compare"
    if not len(copies):
        return f"{least}; no near copies"
    pairs = [f"{short(models[a])} = {short(models[b])}" for a, b in copies]
    return f"{least}; near copies (framed): {first(pairs, 2)}"


def _least_alike(ranks: np.ndarray) -> tuple[int, int]:
    """Return the two models of the lowest defined correlation; the first two if none is."""
    if len(ranks) == 1:
        return 0, 0
    apart = np.where(np.triu(np.ones(ranks.shape, bool), 1) & ~np.isnan(ranks), ranks, np.inf)
    one, other = divmod(int(np.argmin(apart)), len(ranks))
    return (one, other) if one != other else (0, 1)


def _rank_matrix(axis: Axes, ranks: np.ndarray, models: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    low = min(0.0, float(np.nanmin(ranks, initial=0.0)))
    axis.imshow(ranks, cmap="cividis", vmin=low, vmax=1)
    size = 10 if len(models) <= 5 else 8 if len(models) <= 8 else 5.5
    for row, column in np.ndindex(ranks.shape):
        value = ranks[row, column]
        text = "n/a" if np.isnan(value) else f"{value:.2f}"
        dark = not np.isnan(value) and value < (low + 1) / 2
        axis.text(column, row, text, ha="center", va="center", fontsize=size,
                  color="white" if dark else "black")  # fmt: skip
        if row != column and value > ALIKE:
            axis.add_patch(
                Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, fill=False, lw=2.5,
                          edgecolor=COLOURS[1])
            )  # fmt: skip
    numbers = range(1, len(models) + 1)
    axis.set_xticks(range(len(models)), map(str, numbers))
    names = [f"{model}: {number}" for number, model in zip(numbers, models, strict=True)]
    axis.set_yticks(range(len(models)), names)
    axis.set_title("Rank correlation of the models")


def _against(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) > DENSE:
        shown = axis.hexbin(x, y, gridsize=50, extent=(0, 1, 0, 1), bins="log", cmap="Blues")
        axis.figure.colorbar(shown, cax=axis.inset_axes((1.04, 0, 0.04, 1)), label="cases")
    else:
        axis.plot(x, y, "o", alpha=0.4, color=COLOURS[0], markersize=5 if len(x) < 300 else 3)
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=":")


def gain_of_models(table: pd.DataFrame, *, metric: str = "score") -> Figure:
    """Draw the score of an ensemble as models are added one by one.

    Args:
        table: Columns n_models, model (the one added) and score; low and high (its 95 % interval)
            and equal (equal weights of all models, or of those so far) where known; NaN is
            undefined.
        metric: What the score is.

    Raises:
        TableError: A column is missing, or there are no rows.
    """
    rows = columns(table, ["n_models", "model", "score"]).sort_values("n_models", kind="stable")
    if not len(rows):
        raise TableError("no models to draw", received="0 rows")
    places = np.arange(len(rows))
    each = 0.3 if len(rows) <= 15 else 0.2
    figure, (axis,) = panels(1.6 + each * len(rows), title=_gain_title(rows, spoken(metric)))
    if {"low", "high"} <= set(rows):
        axis.hlines(places, rows["low"], rows["high"], color=COLOURS[0], alpha=0.4, linewidth=3,
                    label="95 % interval")  # fmt: skip
    axis.plot(rows["score"], places, "o-", color=COLOURS[0], label="chosen so far")
    if "equal" in rows:
        axis.plot(rows["equal"], places, "s--", color=COLOURS[1], markerfacecolor="white",
                  label="equal weights")  # fmt: skip
    names = zip(rows["n_models"], rows["model"], strict=True)
    axis.set_yticks(places, [f"{n}: + {short(model, 32)}" for n, model in names])
    axis.set(xlabel=f"{spoken(metric)} of the ensemble", ylabel="model added",
             ylim=(len(rows) - 0.5, -0.5))  # fmt: skip
    axis.grid(axis="x", color="#dddddd")
    axis.legend(ncols=3, **ABOVE)
    return figure


def _gain_title(rows: pd.DataFrame, metric: str) -> str:
    said = metric[:1].upper() + metric[1:]
    if rows["score"].isna().all():
        return f"{said} is undefined"
    best = rows.iloc[int(np.nanargmax(rows["score"]))]
    title = f"{said} is highest with {many(int(best['n_models']), 'model')}: {best['score']:.3f}"
    if len(rows) > 1 and not np.isnan(rows["score"].iloc[0]):
        title += f", with the first alone {rows['score'].iloc[0]:.3f}"
    if "equal" in rows and not np.isnan(rows["equal"].iloc[-1]):
        title += f"; equal weights {rows['equal'].iloc[-1]:.3f}"
    return title


def cases_sheet(
    images: np.ndarray, table: pd.DataFrame, title: str = "", *, across: int = 5
) -> Figure:
    """Draw cases side by side with what is known of them.

    Args:
        images: uint8, shape (n, height, width, 1 or 3), n at least 1, one for each row.
        table: case_id; y_true where known; label, suggested and marked as text; each further
            column of numbers is said by its name.
        title: What the cases have in common.
        across: Images in a row.

    Raises:
        TableError: `case_id` is missing, lengths differ, or there are no cases.
    """
    columns(table, ["case_id"])
    if not same_length(images=images, table=table["case_id"]):
        raise TableError("no cases to draw")
    numbers = [str(name) for name in table.select_dtypes("number")]
    numbers = [name for name in numbers if name not in ("case_id", "y_true")]
    lines = [[_whole_id(name, 110 // across) for name in table["case_id"]]]
    if "y_true" in table:
        lines.append([f"truth: {short(name, 16)}" for name in table["y_true"]])
    for name in ("label", "suggested", "marked"):
        if name in table:
            room = 120 // across - len(name) - 2
            lines.append([f"{name}: {short(text, room)}" if text else "" for text in table[name]])
    lines += [[_said(name, value) for value in table[name]] for name in numbers]
    titles = ["\n".join(said) for said in zip(*lines, strict=True)]
    return sheet(images, across, titles, title)[0]


def _whole_id(name: object, width: int) -> str:
    """Return an id broken into lines: ids often differ in the middle, and are looked up."""
    text = str(name)
    return "\n".join(text[at : at + width] for at in range(0, len(text), width))


def _said(name: str, value: float) -> str:
    text = "undefined" if np.isnan(value) else f"{value:.3f}"
    return f"{short(spoken(name.removeprefix('prob_')), 16)}: {text}"
