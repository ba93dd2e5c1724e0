"""The figures of intervals, of several models and of single cases; `kit.figures` has them all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from kit._plots import ABOVE, COLOURS, GREY, many, panels, sheet, short, spoken
from kit.checks import columns, first, probabilities, same_length
from kit.errors import TableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NEAR_COPY = 0.999  # rank correlation above which one model is as good as two
DENSE = 2000  # points above which they are counted in cells
ENDS = ["value", "low", "high"]
NAMED = 20  # characters of a name on an axis


def forest(report: pd.DataFrame, *, by: str | None = None) -> Figure:
    """Draw each metric with its 95 % interval; with parts, one panel a metric and one row a part.

    Args:
        report: Columns metric, value, low, high; undefined values are NaN. With a column `part`
            (`all`, `fold 0`, `scanner A`) its parts stand below each other, with their `n` where
            there is one. Intervals with `reliable` False are drawn hollow and dashed.
        by: What the parts are, for the title: `fold`, `scanner`.

    Raises:
        TableError: A column is missing, there are no rows, or a metric stands twice in a part.
    """
    table = _with_ends(report, "metric", *ENDS)
    key = [name for name in ("part", "metric") if name in table]
    twice = table[table.duplicated(key)]
    if len(twice):
        raise TableError("doubled rows", expected=f"each {' and '.join(key)} once",
                         received=first(twice[key].agg(" ".join, axis=1)))  # fmt: skip
    return _forest_of_parts(table, by) if "part" in table else _forest_of_one(table)


def _forest_of_one(table: pd.DataFrame) -> Figure:
    mean = table[table["metric"].eq("mean_of_six") & table["value"].notna()]
    said = "Metrics with their 95 % intervals"
    if len(mean):
        value, low, high = mean[ENDS].iloc[0]
        said = f"Mean of six {value:.3f}, 95 % interval {low:.3f} to {high:.3f}"
    figure, (axis,) = panels(1.1 + 0.34 * len(table), title=said)
    _intervals(axis, table)
    names = [spoken(str(name)) for name in table["metric"]]
    axis.set_yticks(range(len(table)), names)
    for place, text in enumerate(_interval_texts(table, "{:.3f}")):
        axis.text(1.03, place, text, va="center", transform=axis.get_yaxis_transform())
    axis.set(xlabel=_scale(axis, table))
    _note_unreliable(figure, table)
    return figure


def _forest_of_parts(table: pd.DataFrame, by: str | None) -> Figure:
    metrics, parts = list(table["metric"].unique()), list(table["part"].unique())
    across = min(4, len(metrics))
    down = -(-len(metrics) // across)
    height = 0.8 + down * (0.75 + 0.24 * len(parts))
    figure, axes = panels(height, across, down, title=_extremes(table, metrics, by))
    for number, axis in enumerate(axes):
        if number >= len(metrics):
            axis.set_axis_off()
            continue
        rows = table[table["metric"] == metrics[number]].set_index("part").reindex(parts)
        rows = rows.reset_index()
        _intervals(axis, rows, "all")
        axis.set_title(spoken(str(metrics[number])), fontsize=10)
        axis.set_yticks(range(len(parts)), _part_names(rows) if number % across == 0 else [])
        for place, value in enumerate(rows["value"]):
            if np.isnan(value):
                axis.text(0.5, place, "undefined", color=GREY, fontsize=8, ha="center", va="center",
                          transform=axis.get_yaxis_transform())  # fmt: skip
        label = _scale(axis, rows)
        axis.set_xlabel(label if number + across >= len(metrics) else "")
    _note_unreliable(figure, table)
    return figure


def _part_names(rows: pd.DataFrame) -> list[str]:
    names = [short(part, NAMED) for part in rows["part"]]
    if "n" not in rows:
        return names
    return [f"{name} (n = {n:,.0f})" for name, n in zip(names, rows["n"], strict=True)]


def _extremes(table: pd.DataFrame, metrics: Sequence[Any], by: str | None) -> str:
    """Return which part is lowest and which highest in the mean of six, or in the first metric."""
    name = "mean_of_six" if "mean_of_six" in metrics else metrics[0]
    mine = table[(table["metric"] == name) & (table["part"] != "all") & table["value"].notna()]
    which = f" by {by}" if by else ""
    said = spoken(str(name))[:1].upper() + spoken(str(name))[1:]
    if not len(mine):
        return f"{said}{which}: undefined"
    low, high = mine.loc[mine["value"].idxmin()], mine.loc[mine["value"].idxmax()]
    ends = [f"{one['value']:.3f} ({short(one['part'])})" for one in (low, high)]
    return f"{said}{which}: from {ends[0]} to {ends[1]}; lines are 95 % intervals"


def comparison(
    differences: pd.DataFrame, *, first: str = "first model", second: str = "second model"
) -> Figure:
    """Draw how much a second model's metrics lie above a first one's, with 95 % intervals.

    Args:
        differences: Columns metric, value (second less first), low, high, and p where tested;
            undefined values are NaN.
        first: Name of the first model.
        second: Name of the second model.

    Raises:
        TableError: A column is missing, or there are no rows.
    """
    table = _with_ends(differences, "metric", *ENDS)
    apart = (table["low"] > 0) | (table["high"] < 0)
    unlike = f"{apart.sum()} of {many(len(table), 'metric')}"
    title = f"{short(second)} less {short(first)}: the interval leaves out 0 for {unlike}"
    figure, (axis,) = panels(1.1 + 0.34 * len(table), title=title)
    _intervals(axis, table, hollow=~apart)
    axis.axvline(0, color="black", linewidth=1)
    axis.set_yticks(range(len(table)), [spoken(str(name)) for name in table["metric"]])
    texts = _interval_texts(table, "{:+.3f}")
    for place, text in enumerate(texts):
        p = table["p"].iloc[place] if "p" in table else np.nan
        tested = "" if np.isnan(p) else ("  p < 0.001" if p < 0.001 else f"  p = {p:.3f}")
        axis.text(1.03, place, text + tested, va="center", transform=axis.get_yaxis_transform())
    most = np.nanmax(np.abs(table[ENDS].to_numpy()), initial=0.01) * 1.05
    axis.set(xlim=(-most, most), xlabel="difference of the metric (hollow: the interval holds 0)")
    return figure


def _with_ends(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    columns(table, names)
    if not len(table):
        raise TableError("no rows to draw", expected=", ".join(names))
    numbers = {name: np.float64 for name in names if name in ENDS}
    return table.reset_index(drop=True).astype(numbers)


def _intervals(
    axis: Axes, table: pd.DataFrame, strong: str | None = None, *, hollow: pd.Series | None = None
) -> None:
    """Draw one row after the other from above: a point and its interval.

    Args:
        axis: Drawn on.
        table: value, low, high, and `reliable` where known.
        strong: The part that is drawn black.
        hollow: Rows with a hollow point.
    """
    unsure = _unsure(table)
    hollow = unsure if hollow is None else hollow
    for place, (value, low, high) in enumerate(table[ENDS].to_numpy(dtype=float)):
        bold = strong is not None and table["part"].iloc[place] == strong
        colour = "black" if bold else COLOURS[0]
        style = (0, (2, 2)) if unsure.iloc[place] else "-"
        axis.plot([low, high], [place, place], color=colour, linewidth=2, linestyle=style)
        fill = "white" if hollow.iloc[place] else colour
        axis.plot([value], [place], "o", color=colour, markerfacecolor=fill)
    axis.set_ylim(len(table) - 0.5, -0.5)
    axis.grid(axis="x", color="#dddddd")
    axis.set_axisbelow(True)


def _unsure(table: pd.DataFrame) -> pd.Series:
    if "reliable" not in table:
        return pd.Series(False, index=table.index)
    return table["reliable"].eq(False) & table["value"].notna()


def _note_unreliable(figure: Figure, table: pd.DataFrame) -> None:
    if _unsure(table).any():
        figure.supxlabel(
            "hollow and dashed: too few groups (patients) for the interval to be relied on",
            fontsize=9, color=GREY,
        )  # fmt: skip


def _interval_texts(table: pd.DataFrame, form: str) -> list[str]:
    texts = []
    for value, low, high in table[ENDS].to_numpy(dtype=float):
        ends = f"({form.format(low)} to {form.format(high)})"
        ends = "(no interval)" if np.isnan([low, high]).any() else ends
        texts.append("undefined" if np.isnan(value) else f"{form.format(value)}  {ends}")
    return texts


def _scale(axis: Axes, table: pd.DataFrame) -> str:
    """Set the scale to 0 to 1, or to what holds all values; return what to call it."""
    numbers = table[ENDS].to_numpy(dtype=float)
    low, high = np.nanmin(numbers, initial=0.0), np.nanmax(numbers, initial=1.0)
    axis.set_xlim(low - 0.02 * (high - low), high + 0.02 * (high - low))
    return "value (0 to 1)" if (low, high) == (0, 1) else "value"


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
    figure, (left, right) = panels(
        max(4.0, 1.6 + 0.34 * len(models)), 2, title=_agreement_title(ranks, models)
    )
    _rank_matrix(left, ranks, [short(name, NAMED) for name in models])
    figure.colorbar(left.images[0], ax=left, label="rank correlation (Spearman's rho)", shrink=0.8)
    one, other = _least_alike(ranks)
    _against(right, prob[:, one], prob[:, other])
    right.set(
        xlabel=f"probability by {short(models[one])}",
        ylabel=f"probability by {short(models[other])}",
        title="Each case by the two that agree least" if len(models) > 1 else "The one model",
        xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
    )  # fmt: skip
    return figure


def _agreement_title(ranks: np.ndarray, models: Sequence[str]) -> str:
    one, other = _least_alike(ranks)
    least = f"{short(models[one])} and {short(models[other])} agree least"
    rho = ranks[one, other]
    least += ": undefined" if np.isnan(rho) else f": {rho:.2f}"
    copies = np.argwhere(np.triu(ranks > NEAR_COPY, 1))
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
        if row != column and value > NEAR_COPY:
            axis.add_patch(
                Rectangle((column - 0.45, row - 0.45), 0.9, 0.9, fill=False, lw=2.5,
                          edgecolor=COLOURS[1])
            )  # fmt: skip
    axis.set_xticks(range(len(models)), models, rotation=35, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(models)), models)
    axis.set_title("Rank correlation of the models")


def _against(axis: Axes, x: np.ndarray, y: np.ndarray) -> None:
    if len(x) > DENSE:
        shown = axis.hexbin(x, y, gridsize=50, extent=(0, 1, 0, 1), bins="log", cmap="Blues")
        axis.figure.colorbar(shown, ax=axis, label="cases", shrink=0.8)
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
    rows = _with_ends(table, "n_models", "model", "score").sort_values("n_models", kind="stable")
    places = np.arange(len(rows))
    figure, (axis,) = panels(1.5 + 0.3 * len(rows), title=_gain_title(rows, spoken(metric)))
    if {"low", "high"} <= set(rows):
        axis.hlines(places, rows["low"], rows["high"], color=COLOURS[0], alpha=0.4, linewidth=3,
                    label="95 % interval")  # fmt: skip
    axis.plot(rows["score"], places, "o-", color=COLOURS[0], label="chosen so far")
    if "equal" in rows:
        axis.plot(rows["equal"], places, "s--", color=COLOURS[1], markerfacecolor="white",
                  label="equal weights")  # fmt: skip
    names = zip(rows["n_models"], rows["model"], strict=True)
    axis.set_yticks(places, [f"{n}: + {short(model, 32)}" for n, model in names])
    axis.set(xlabel=f"{spoken(metric)} of the ensemble", ylabel="number of models: the one added",
             ylim=(len(rows) - 0.5, -0.5))  # fmt: skip
    axis.grid(axis="x", color="#dddddd")
    axis.legend(ncols=3, **ABOVE)
    return figure


def _gain_title(rows: pd.DataFrame, metric: str) -> str:
    said = metric[:1].upper() + metric[1:]
    if rows["score"].isna().all():
        return f"{said} is undefined"
    best = rows.loc[rows["score"].idxmax()]
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
        table: case_id; y_true where known; each further column of numbers is said by its name.
        title: What the cases have in common.
        across: Images in a row.

    Raises:
        TableError: `case_id` is missing, lengths differ, or there are no cases.
    """
    columns(table, ["case_id"])
    if not same_length(images=images, table=table):
        raise TableError("no cases to draw")
    numbers = [name for name in table.select_dtypes("number") if name not in ("case_id", "y_true")]
    titles = []
    for _, row in table.iterrows():
        lines = [short(row["case_id"], NAMED)]
        lines += [f"truth: {short(row['y_true'], 16)}"] if "y_true" in table else []
        lines += [_said(name, row[name]) for name in numbers]
        titles.append("\n".join(lines))
    return sheet(images, min(across, len(images)), titles, title)[0]


def _said(name: str, value: float) -> str:
    text = "undefined" if np.isnan(value) else f"{value:.3g}"
    return f"{short(spoken(str(name).removeprefix('prob_')), 16)}: {text}"
